"""Arrivals per second, the clock's share of a run, and brax within a federation."""

from __future__ import annotations

from cases import ONE_THREAD, Case

# Most of the time of a run on a table that its clock may take; least rate of brax within a
# federation, as a part of its own.
CLOCK_LIMIT, PHYSICS_LIMIT = 0.2, 0.9
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
    shares = {case: 1 / found["ratio"]["whole"] for case, found in alone["cases"].items()}
    return [
        *(target(f"clock's share, {c}", x, CLOCK_LIMIT, most=True) for c, x in shares.items()),
        target("brax within a federation", federated["ratio"]["brax"], PHYSICS_LIMIT),
    ]


CASE = Case(_rows, "arrivals", _limits, 5, "fedjax_rl", ONE_THREAD)
