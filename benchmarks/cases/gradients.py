"""Policy gradients with local steps on tables, trajectories per second, against NumPy."""

from __future__ import annotations

import functools
import math
import statistics

from cases import Case

# Rounds and seeds of a turn; federations of so many agents, their rounds and local steps.
ROUNDS, SEEDS = 16, 8
FEDERATION_OF, FEDERATION_ROUNDS, FEDERATION_STEPS = 64, 40, 5
# Most that these may cost, in gradients on the same episodes.
ESTIMATE_LIMITS = {"weighted": 2.5, "hessian_vector": 3.0}
# One federation of many against as many of one: a tenth more at most.
FEDERATION_LIMIT = 1.1
# NumPy with all federations in one array.
NUMPY_LIMIT = 4.0
# Agents, local steps and rounds of which the parts are timed.
PARTS = (512, 5, 8)
# In double precision on the same episodes, as a share of how far the parameters went.
SAME = 1e-9


def _rows(arguments) -> dict:
    checks: list = []
    return {
        "rows": _against_numpy(arguments, checks),
        "scale": arguments.scale,
        "agreement": checks,
        "parts": _parts(arguments),
        "federations": _federations(arguments),
        "estimates": _estimates(arguments),
    }


def _against_numpy(arguments, checks: list) -> list[dict]:
    """Trajectories of agents per second; whatever learns something else is not timed."""
    import gradient_fedjax
    import gradient_peers as peers
    import harness

    rounds = max(2, round(arguments.scale * ROUNDS))
    work = peers.Workload(rounds, SEEDS)
    works = {"fedjax_rl": work, "numpy": work._replace(seeds=1), "numpy_joined": work}
    works = arguments.wanted(works)

    def calls():
        for name, algorithm in gradient_fedjax.ALGORITHMS.items():
            apart = gradient_fedjax.difference(algorithm)
            if not apart <= SAME:
                raise SystemExit(
                    f"{name}: numpy does not compute what fedjax_rl does: on the same episodes the "
                    f"parameters are {apart:.3g} of their size apart; nothing is reported"
                )
            checks.append({"case": name, "row": "numpy", "what": "same episodes", "found": apart})
            seconds = gradient_fedjax.sweep(algorithm, work._replace(rounds=1))[1]
            learned: dict = {}

            def call(row, algorithm=algorithm, learned=learned):
                if row == "fedjax_rl":
                    learned[row] = gradient_fedjax.sweep(algorithm, work)[0]
                else:
                    joined = row == "numpy_joined"
                    learned[row] = peers.numpy_loop(algorithm, works[row], joined)

            yield (
                name,
                {
                    row: harness.Call(
                        functools.partial(call, row),
                        peers.trajectories(algorithm, own),
                        seconds if row == "fedjax_rl" else 0.0,
                    )
                    for row, own in works.items()
                },
            )
            if "numpy_joined" in learned:
                found = learned["fedjax_rl"], learned["numpy_joined"]
                checks.extend(_check_objectives(peers, name, *found))

    return harness.table(calls(), CASE.units, arguments)


def _parts(arguments) -> list[dict]:
    """Of what the time of FedPG consists: what bounds its rate."""
    import gradient_fedjax
    import gradient_peers as peers
    import harness

    agents, local_steps, rounds = PARTS
    sizes = agents, local_steps, max(1, round(arguments.scale * rounds))

    def calls():
        units = math.prod(sizes) * peers.EPISODES
        yield "fedpg", harness.alternatives(functools.partial(gradient_fedjax.parts, *sizes), units)

    return harness.table(calls(), CASE.units, arguments, at_least=7)


def _federations(arguments) -> list[dict]:
    """One federation of many agents against as many of one."""
    import gradient_fedjax
    import harness

    rounds = max(1, round(arguments.scale * FEDERATION_ROUNDS))

    def calls():
        for name in gradient_fedjax.DISTINCT:
            algorithm = gradient_fedjax.ALGORITHMS[name]
            make = functools.partial(
                gradient_fedjax.federations, algorithm, FEDERATION_OF, FEDERATION_STEPS, rounds
            )
            yield name, harness.alternatives(make, FEDERATION_OF * rounds)

    return harness.table(calls(), "agent-rounds", arguments, at_least=7)


def _estimates(arguments) -> list[dict]:
    """Estimators on the same episodes."""
    import gradient_fedjax
    import harness

    def calls():
        for name, setting in gradient_fedjax.SETTINGS.items():
            make = functools.partial(gradient_fedjax.estimates, setting)
            yield name, harness.alternatives(make, setting.calls * gradient_fedjax.ESTIMATES)

    return harness.table(calls(), "estimates", arguments, at_least=7)


def _check_objectives(peers, name, learned, drawn) -> list[dict]:
    """Refuses to report programs that do not learn the same from episodes of their own."""
    out = []
    for one in peers.agreements(learned, drawn):
        if not one.holds:
            raise SystemExit(
                f"{name}: numpy does not learn what fedjax_rl does: J ({one.what}) is "
                f"{one.found:.4g} against {one.expected:.4g}, {one.standard_errors:.1f} standard "
                "errors apart; nothing is reported"
            )
        out.append({"case": name, "row": "numpy_joined", **one._asdict()})
    return out


def _limits(content) -> list[dict]:
    """Costs as multiples, of which the limits are the most that is allowed."""
    from harness import target

    one = next(row for row in content["federations"] if row["name"] == "one")
    costs = [1 / case["ratio"]["many"] for case in one["cases"].values()]
    measured = {
        f"one federation of {FEDERATION_OF}, median": (statistics.median(costs), FEDERATION_LIMIT),
        f"one federation of {FEDERATION_OF}, worst case": (max(costs), FEDERATION_LIMIT),
    }
    for row in content["estimates"]:
        if (limit := ESTIMATE_LIMITS.get(row["name"])) is not None:
            for case, found in row["cases"].items():
                measured[f"{row['name']}, {case}"] = 1 / found["ratio"]["gradient"], limit
    ours = next(row for row in content["rows"] if row["name"] == "fedjax_rl")
    return [
        target("NumPy in one array, median", ours["ratio"]["numpy_joined"], NUMPY_LIMIT),
        *(target(name, cost, limit, most=True) for name, (cost, limit) in measured.items()),
    ]


def _show(content: dict) -> None:
    import gradient_peers

    gradient_peers.show(content)


NOTE = """A step of an agent takes 12 ns, of which its episode takes 8: two random words, seven
look-ups and four numbers written. As many random words alone, drawn by `jax.random.bits`, take 12
ns. Four times NumPy in one array, with its own generator, would be 8 ns a step, which the episode
takes alone."""

CASE = Case(_rows, "agent-trajectories", _limits, 3, show=_show, note=NOTE)
