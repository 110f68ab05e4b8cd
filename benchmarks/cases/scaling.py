"""From one agent to a million, over one device and several, and what that takes of memory."""

from __future__ import annotations

import json

from cases import ONE_THREAD, Case

# How much dearer an agent of a large federation may be than one of 4096; the part of its time that
# a federation may lose over devices; peak bytes in those of the arrays; the part of a run in which
# it writes checkpoints.
FLAT, OVERHEAD, BYTES, SAVING = 1.25, 0.1, 2.0, 0.05

ENVIRONMENT = {
    **ONE_THREAD,
    "XLA_FLAGS": "--xla_cpu_enable_concurrency_optimized_scheduler=false",
}


# What is measured by itself, and merged into what a file has of the others.
PARTS = ("agents", "devices", "processes", "memory", "saving")


def _rows(arguments) -> dict:
    import harness
    import scaling_fedjax as ours
    import scaling_processes

    scale = arguments.scale

    def agents():
        for n in ours.sizes(scale):
            yield f"{n} agents", {"one device": ours.call(n, scale)}

    measures = {
        "agents": lambda: harness.table(agents(), CASE.units, arguments),
        **{
            part: lambda part=part: list(scaling_processes.rows(part, scale, arguments.repeats))
            for part in scaling_processes.COUNTS
        },
        "memory": lambda: list(ours.bytes_of_agents(scale)),
        "saving": lambda: list(ours.saving(scale)),
    }
    parts = getattr(arguments, "parts", PARTS)
    found = {name: measure() for name, measure in measures.items() if name in parts}
    there = _there(getattr(arguments, "json", None), scale)
    found = {name: found.get(name, there.get(name, [])) for name in PARTS}
    return {"rows": found.pop("agents"), "scale": scale, **found}


def _there(file, scale: float) -> dict:
    """What a file has of the parts, if that is of this machine, these versions and this scale."""
    import harness

    if file is None or not file.is_file():
        return {}
    content, own = json.loads(file.read_text()), harness.report("scaling", [], scale=scale)
    same = ("case", "device", "versions", "scale")
    if any(content.get(name) != own[name] for name in same):
        return {}
    return {**content, "agents": content["rows"]}


def _limits(content) -> list[dict]:
    from harness import target

    found = []
    for row in content["rows"]:
        rates = {name: case["median"] for name, case in row["cases"].items()}
        base = rates.pop("4096 agents")
        large = {name: x for name, x in rates.items() if int(name.split()[0]) > 4096}
        found += [
            target(f"cost of one of {n}", base / x, FLAT, most=True) for n, x in large.items()
        ]
    for rows in (content["devices"], content["processes"]):
        for row in rows[1:]:
            lost = rows[0]["median"] / row["median"] - 1
            found.append(target(row["name"], lost, OVERHEAD, most=True))
    return [
        *found,
        *(
            target(f"peak in arrays, {own['agents']} agents", own["ratio"], BYTES, most=True)
            for own in content["memory"]
        ),
        *(
            target(f"writing checkpoints, {own['agents']} agents", own["share"], SAVING, most=True)
            for own in content["saving"]
        ),
    ]


def _show(content) -> None:
    import harness

    if content["rows"]:
        harness.show({**content, "targets": []}, "one device")
    for own in (*content["devices"], *content["processes"]):
        print(
            "{name}, {agents} agents: {median:.4g} agent-steps a core-second, {wall:.4g} a second "
            "of wall time, {round_seconds:.3g} s a round, {exchange_seconds:.3g} s where it only "
            "exchanges".format(**own)
        )
    for own in content["memory"]:
        print("{agents} agents: {arrays:.0f} bytes each, {peak:.0f} at the peak".format(**own))
    for own in content["targets"]:
        verdict = "met" if own["met"] else "NOT met"
        print(f"{own['id']}: {own['measured']:.3f}, limit {own['limit']}: {verdict}")


CASE = Case(_rows, "agent-steps", _limits, 5, "one device", ENVIRONMENT, _show)
