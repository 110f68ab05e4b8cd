"""The loops over episodes that end at different times, environment steps per second."""

from __future__ import annotations

import time

import numpy as np

from cases import ONE_THREAD, Case

NOTE = """Agents whose episodes have ended make room for the others in `compact`: it pays where
many agents have short episodes, and costs a tenth where few have long ones."""


def _rows(arguments) -> dict:
    import es_fedjax
    import harness

    def calls():
        for lengths in ("short", "long"):
            for agents in (50, 3000):
                case = f"{lengths} episodes, {agents} agents"
                start = time.perf_counter()
                loops = es_fedjax.episode_loops(lengths, agents)
                seconds = (time.perf_counter() - start) / len(loops)
                lived = {row: np.asarray(call()) for row, call in loops.items()}
                first = next(iter(lived.values()))
                if any((other != first).any() for other in lived.values()):
                    raise SystemExit(
                        f"{case}: the loops do not compute the same; nothing is reported"
                    )
                steps = int(first.sum())
                yield case, {row: harness.Call(call, steps, seconds) for row, call in loops.items()}

    return {"rows": harness.table(calls(), CASE.units, arguments)}


CASE = Case(_rows, "environment steps", lambda content: [], 7, "compact", ONE_THREAD, note=NOTE)
