"""Arrivals per second, the clock's share of a run, and brax within a federation."""

from __future__ import annotations

import statistics

from cases import ONE_THREAD, Case

# Most of the time of a run on a table that its clock may take; least rate of brax within a
# federation, as a part of its own.
CLOCK_LIMIT, PHYSICS_LIMIT = 0.2, 0.9
# Least rate of arrivals among 1,000 agents in that of a heap, and among 100,000 in a core-second.
HEAP_LIMIT, MANY_LIMIT = 2.0, 1e6
# Federations of so many agents on a table; copies of an environment, steps of an episode, episodes.
LEARNERS = ((8, 1), (8, 64), (1000, 1), (1000, 16))
PHYSICS = ("halfcheetah", 32, 100, 4)


def _rows(arguments) -> dict:
    import clock_fedjax
    import harness

    checks: list = []

    def arrivals():
        for agents in clock_fedjax.AGENTS:
            for federations in clock_fedjax.FEDERATIONS:
                case = f"{agents} agents, {federations} federations"
                calls = clock_fedjax.arrivals(agents, federations, arguments.scale)
                if agents == min(clock_fedjax.AGENTS):
                    age = clock_fedjax.mean_age(calls["fedjax_rl"], agents)
                    checks.append({"case": case, "what": "mean age over N - 1", "found": age})
                yield case, calls

    def learners():
        for agents, federations in LEARNERS:
            steps = max(64, round(arguments.scale * 64_000 / (federations + 15)) // 64 * 64)
            case = f"{agents} agents, {federations} federations"
            yield case, clock_fedjax.learner(agents, federations, steps)

    def physics():
        name, copies, length, episodes = PHYSICS
        yield f"{name}, {copies} copies", clock_fedjax.physics(name, copies, length, episodes)

    return {
        "rows": harness.table(arrivals(), CASE.units, arguments),
        "scale": arguments.scale,
        "agreement": checks,
        "learners": harness.table(learners(), "steps of servers", arguments),
        "physics": harness.table(physics(), "environment steps", arguments),
    }


def _limits(content) -> list[dict]:
    from harness import target

    alone = next(row for row in content["learners"] if row["name"] == "clock")
    federated = next(row for row in content["physics"] if row["name"] == "federated")
    planned = next(row for row in content["rows"] if row["name"] == "fedjax_rl")["cases"]
    of = {
        n: [own for case, own in planned.items() if case.startswith(f"{n} ")]
        for n in (1000, 100_000)
    }
    heap = statistics.median(own["ratio"]["heapq"] for own in of[1000])
    many = statistics.median(own["median"] for own in of[100_000])
    shares = {case: 1 / found["ratio"]["whole"] for case, found in alone["cases"].items()}
    return [
        target("arrivals among 1000 agents, heapq, median", heap, HEAP_LIMIT),
        target("arrivals among 100000 agents per core-second, median", many, MANY_LIMIT),
        *(target(f"clock's share, {c}", x, CLOCK_LIMIT, most=True) for c, x in shares.items()),
        target("brax within a federation", federated["ratio"]["brax"], PHYSICS_LIMIT),
    ]


NOTE = """Two thirds to three quarters of the time of a clock of 1,000 or of 100,000 agents is XLA's
`top_k` (by a sampling profiler, 65 to 77 %), once for who may be next and once for their order.
Blocks of 128 arrivals among 1,000 agents are as fast as of 64 and longer ones slower, and so it is
with 8,192 and 4,096 among 100,000."""

CASE = Case(_rows, "arrivals", _limits, 5, "fedjax_rl", ONE_THREAD, note=NOTE)
