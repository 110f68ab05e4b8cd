"""Federated Q-learning with an uplink, agent-steps per second, against one without."""

from __future__ import annotations

from cases import SMALL_LOOPS, Case

# Least rate at N = 16, K = 10, as a part of that without an uplink.
LIMITS = {"partial": 0.9, "event_triggered": 0.9, "scaled_sign": 0.9, "top_k": 0.5}

NOTE = """A message has 12 numbers, each in an array of all agents. At K = 10 ten local steps and
an exchange without an uplink take 58 ns of an agent, and one masked pass over its numbers, measured
in a loop of its own, 4.7 ns: 0.9 of the rate has room for one such pass and a third of another."""


def _name(federations: int, agents: int, period: int) -> str:
    return f"F={federations} N={agents} K={period}"


def _rows(arguments) -> dict:
    import harness
    import uplinks_fedjax

    def calls():
        for case in uplinks_fedjax.CASES:
            wanted = arguments.wanted(dict.fromkeys(uplinks_fedjax.UPLINKS))
            yield (
                _name(*case),
                {row: uplinks_fedjax.call(row, *case, arguments.scale) for row in wanted},
            )

    return {"rows": harness.table(calls(), CASE.units, arguments), "scale": arguments.scale}


def _limits(content) -> list[dict]:
    from harness import target

    found = {row["name"]: row["cases"][_name(256, 16, 10)]["ratio"] for row in content["rows"]}
    return [target(f"{row}, K=10", found[row]["none"], limit) for row, limit in LIMITS.items()]


CASE = Case(_rows, "agent-steps", _limits, 7, "none", SMALL_LOOPS, note=NOTE)
