"""What a derivative costs in runs, and the memory that reverse mode takes."""

from __future__ import annotations

from cases import ONE_THREAD, Case

# Most that a derivative may cost in runs forward: in reverse mode by any number of properties, in
# forward mode for each; and bytes of reverse mode over those of the state before every round.
REVERSE_LIMIT, FORWARD_LIMIT, MEMORY_LIMIT = 6.0, 2.5, 2.0
SEEDS = 8

NOTE = """Reverse mode is told in runs without a derivative, and its memory in states of all
rounds; a derivative in forward mode of a sampler without seeds of its own is one run for all
seeds."""


def _rows(arguments) -> dict:
    import harness

    memory: list = []
    cases = {name: made(arguments.scale) for name, made in WORK.items()}

    def calls():
        for name, work in cases.items():
            yield name, _calls(work, name, memory)

    return {
        "rows": harness.table(calls(), CASE.units, arguments),
        "scale": arguments.scale,
        "memory": memory,
    }


def _fedq(scale: float) -> dict:
    import fedjax_rl as frl

    steps = max(2, round(300 * scale)) * 10
    algorithm = frl.fedq(
        frl.envs.paper_mdp(), epsilon=1.0, learning_rate=0.05, sync_period=10, initial_q=0.1
    )
    return {
        "algorithm": algorithm,
        "outcome": "error_server",
        "by": ["learning_rate", "initial_q"],
        "num_agents": 16,
        "num_steps": steps,
    }


def _fedpg(scale: float) -> dict:
    import fedjax_rl as frl

    rounds = max(2, round(100 * scale))
    algorithm = frl.fedpg(
        frl.envs.dirichlet_mdps(16), gradient="exact", local_steps=5, learning_rate=0.5
    )
    return {
        "algorithm": algorithm,
        "outcome": "gap",
        "by": ["learning_rate", "server_learning_rate"],
        "num_agents": 16,
        "num_steps": rounds,
    }


WORK = {"fedq, N = 16, K = 10": _fedq, "fedpg on tables, N = 16, H = 5": _fedpg}


def _calls(work: dict, name: str, memory: list) -> dict:
    """The run forward, its derivatives in both modes, and as differences of runs."""
    import harness
    import jax
    import jax.numpy as jnp

    import fedjax_rl as frl
    from fedjax_rl.memory import size

    algorithm, outcome, by = (work[n] for n in ("algorithm", "outcome", "by"))
    sizes = {n: work[n] for n in ("num_agents", "num_steps")}
    properties = {each.name: each.value for each in algorithm.config.resolved().properties()}
    values = {n: jnp.float32(properties[n]) for n in by}
    seeds = jnp.arange(SEEDS, dtype=jnp.uint32)

    def forward(values, seeds):
        # Properties of every seed, as a derivative has them: of exact gradients nothing else tells
        # seeds apart, and they would be one run.
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (SEEDS,)), values)

        def one(values, seed):
            own = algorithm.replace(**values)
            return frl.simulate(own, seed=seed, **sizes).metrics[outcome][-1]

        return jnp.mean(jax.vmap(one)(copies, seeds))

    def derivatives(mode, names):
        def of(values, seeds):
            own, wanted = algorithm.replace(**values), {n: values[n] for n in names}
            found = frl.differentiate(
                own, outcome, tuple(wanted), mode=mode, seeds=range(SEEDS), **sizes
            )
            return found.derivatives

        return of

    def differences(values, seeds, step=1e-3):
        found = {}
        for n in by:
            ends = [{**values, n: values[n] * (1 + s)} for s in (step, -step)]
            up, down = (forward(end, seeds) for end in ends)
            found[n] = (up - down) / (2 * step * values[n])
        return found

    ways = {
        "forward": forward,
        "reverse mode": derivatives("reverse", by),
        "forward mode, one": derivatives("forward", by[:1]),
        "differences": differences,
    }
    made = {row: harness.compiled(way, values, seeds) for row, way in ways.items()}
    found = {row: program.memory_analysis() for row, (program, _) in made.items()}
    rounds = sizes["num_steps"] // (algorithm.config.sync_period if algorithm.periodic else 1)
    state = frl.init(algorithm, sizes["num_agents"]).state
    least = rounds * SEEDS * size(state)
    memory.extend(
        {"case": name, "row": row, "bytes": each.temp_size_in_bytes, "states": least}
        for row, each in found.items()
        if each is not None
    )
    units = SEEDS * sizes["num_agents"] * sizes["num_steps"]
    return {
        row: harness.Call(lambda program=program: program(values, seeds), units, seconds)
        for row, (program, seconds) in made.items()
    }


def _limits(content) -> list[dict]:
    """Costs as multiples of the run forward, and of the least memory."""
    from harness import target

    limits = {"reverse mode": REVERSE_LIMIT, "forward mode, one": FORWARD_LIMIT}
    targets = []
    for row in content["rows"]:
        for case, found in row["cases"].items():
            if row["name"] in limits:
                cost = 1 / found["ratio"]["forward"]
                name = f"{row['name']}, {case}"
                targets.append(target(name, cost, limits[row["name"]], most=True))
    for each in content["memory"]:
        if each["row"] == "reverse mode":
            name = f"memory of reverse mode, {each['case']}"
            targets.append(target(name, each["bytes"] / each["states"], MEMORY_LIMIT, most=True))
    return targets


CASE = Case(_rows, "agent-steps", _limits, 5, "reverse mode", ONE_THREAD, note=NOTE)
