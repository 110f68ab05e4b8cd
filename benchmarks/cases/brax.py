"""Physics of brax: its steps in lanes against brax's own, and what is left of them in learning."""

from __future__ import annotations

from cases import ONE_THREAD, Case

BODIES = ("hopper", "walker2d", "halfcheetah", "ant", "humanoid")
LEARNED = "halfcheetah"
# Least rates: of steps, in brax's own under vmap; of ES and PPO, in a scan of brax's own steps; of
# sixteen agents, in one agent's with as many environments.
LANES_LIMIT, ES_LIMIT, PPO_LIMIT, AGENTS_LIMIT = 1.0, 0.9, 0.6, 0.9
TURNS = 4

NOTE = """128 copies on one thread. Here they lie along the last axis of every array, where vector
instructions reach them; `vmap` puts them in front of axes of three and four, along which a CPU
computes number by number."""


def _rows(arguments) -> dict:
    import brax_fedjax as ours
    import harness

    turns = max(1, round(arguments.scale * TURNS))
    steps = ((name, ours.bodies(name, turns)) for name in BODIES)
    # Compiled when they are asked for.
    learners = ((name, ours.learners(name, turns)) for name in (LEARNED,))
    agents = ((name, ours.agents(name, turns)) for name in (LEARNED,))
    return {
        "rows": harness.table(steps, CASE.units, arguments),
        "scale": arguments.scale,
        "learners": harness.table(learners, CASE.units, arguments),
        "agents": harness.table(agents, CASE.units, arguments),
    }


def _limits(content) -> list[dict]:
    from harness import target

    def row(part, name):
        return next(own for own in content[part] if own["name"] == name)

    ours = row("rows", "fedjax_rl")["cases"]
    learners = {name: row("learners", name)["ratio"]["scan, brax"] for name in ("es", "ppo")}
    return [
        *(target(f"brax, {c}", own["ratio"]["brax"], LANES_LIMIT) for c, own in ours.items()),
        target(f"es, {LEARNED}", learners["es"], ES_LIMIT),
        target(f"ppo, {LEARNED}", learners["ppo"], PPO_LIMIT),
        target(
            f"16 agents, {LEARNED}", row("agents", "16 agents")["ratio"]["one agent"], AGENTS_LIMIT
        ),
    ]


CASE = Case(_rows, "environment steps", _limits, 5, "fedjax_rl", ONE_THREAD, note=NOTE)
