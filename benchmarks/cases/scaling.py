"""From one agent to a million, over one device and several, and what that takes of memory."""

from __future__ import annotations

from cases import ONE_THREAD, Case

# How much dearer an agent of a large federation may be than one of 4096; the part of its time that
# a federation may lose over devices; peak bytes in those of the arrays; the part of a run in which
# it writes checkpoints.
FLAT, OVERHEAD, BYTES, SAVING = 1.25, 0.1, 2.0, 0.05

ENVIRONMENT = {
    **ONE_THREAD,
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
}


def _rows(arguments) -> dict:
    import harness
    import scaling_fedjax as ours

    scale = arguments.scale

    def agents():
        for n in ours.sizes(scale):
            yield f"{n} agents", {"one device": ours.call(n, scale)}

    def devices():
        n = min(ours.SPREAD, max(ours.sizes(scale)))
        names = {f"{count} devices": count for count in ours.DEVICES}
        makers = {name: lambda d=d: ours.call(n, scale, d) for name, d in names.items()}
        yield f"{n} agents", {name: make() for name, make in arguments.wanted(makers).items()}

    rows = harness.table(agents(), CASE.units, arguments)
    rate = max(case["wall"] for case in rows[0]["cases"].values())
    return {
        "rows": rows,
        "scale": scale,
        "devices": harness.table(devices(), CASE.units, arguments),
        "memory": list(ours.bytes_of_agents(scale)),
        "saving": list(ours.saving(scale, rate)),
    }


def _limits(content) -> list[dict]:
    from harness import target

    (row,) = content["rows"]
    rates = {name: case["median"] for name, case in row["cases"].items()}
    base = rates.pop("4096 agents")
    large = {name: x for name, x in rates.items() if int(name.split()[0]) > 4096}
    first, *more = content["devices"]
    return [
        *(target(f"cost of one of {n}", base / x, FLAT, most=True) for n, x in large.items()),
        *(
            target(row["name"], 1 / row["ratio"][first["name"]] - 1, OVERHEAD, most=True)
            for row in more
        ),
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

    harness.show(content, "one device")
    harness.show({**content, "rows": content["devices"], "targets": []}, "1 devices")
    for own in content["memory"]:
        print("{agents} agents: {arrays:.0f} bytes each, {peak:.0f} at the peak".format(**own))


CASE = Case(_rows, "agent-steps", _limits, 5, "one device", ENVIRONMENT, _show)
