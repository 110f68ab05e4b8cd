"""What PPO of one agent has learned in bodies of brax, beside rejax's, after as many steps."""

from __future__ import annotations

import functools
import statistics
import sys
import time

from cases import ONE_THREAD, Case

BODIES = ("hopper", "halfcheetah")
OWN, RATE = "fedjax_rl", 3e-4  # the rate that rejax has by default
FIRST_SEED = 100  # none by which the settings were chosen
NOTE = """The settings were chosen for this package, on these bodies, with other seeds; rejax has
them as far as it can, once with the rate that falls here, and once with its own."""


def _rows(arguments) -> dict:
    import returns_peers as peers

    rows = {
        OWN: peers.ours,
        "rejax": peers.rejax,
        f"rejax, rate {RATE:g}": functools.partial(peers.rejax, rate=RATE),
    }
    rows = arguments.wanted(rows)
    found: dict[str, dict] = {name: {} for name in rows}
    for body in BODIES:
        rollouts = peers.rollouts_of(body, arguments.scale)
        steps = peers.steps_of(body, rollouts)
        case = f"{body}, {steps / 1e6:.1f} M steps"
        curves: dict[str, list] = {name: [] for name in rows}
        seconds: dict[str, list] = {name: [] for name in rows}
        # One after the other for every seed: what the machine does meets all of them.
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.repeats):
            for name, run in rows.items():
                start = time.perf_counter()
                curves[name].append(run(body, rollouts, seed))
                seconds[name].append(time.perf_counter() - start)
                told = f"{body}, seed {seed}, {name}: {curves[name][-1][-1]:.0f}"
                print(told, file=sys.stderr, flush=True)
        for name in rows:
            last = [curve[-1] for curve in curves[name]]
            found[name][case] = {
                "median": statistics.median(last),
                "low": min(last),
                "high": max(last),
                "last": last,
                "curves": curves[name],
                "seconds": statistics.median(seconds[name]),
            }
    return {
        "rows": [
            {"name": name, "unit": "mean return at the end", **_all(cases), "cases": cases}
            for name, cases in found.items()
        ],
        "scale": arguments.scale,
    }


def _all(cases: dict) -> dict:
    """Over the cases, whose returns have not the same size: the first one's."""
    first = next(iter(cases.values()))
    return {key: first[key] for key in ("median", "low", "high")}


def _limits(content) -> list[dict]:
    from harness import target
    from scipy import stats

    rows = {row["name"]: row["cases"] for row in content["rows"]}
    own, made = rows.pop(OWN), []
    for case, ours in own.items():
        best = max(
            (cases[case] for cases in rows.values()), key=lambda c: statistics.mean(c["last"])
        )
        test = stats.ttest_ind(ours["last"], best["last"], equal_var=False)
        high = float(test.confidence_interval(0.95).high)
        made.append(target(f"{case}: less rejax's, upper end of the interval", high, 0.0))
    return made


def _show(content) -> None:
    for row in content["rows"]:
        for case, own in row["cases"].items():
            print(f"{row['name']}, {case}: {', '.join(f'{value:.0f}' for value in own['last'])}")
    for one in content.get("targets", ()):
        print(f"{one['id']}: {one['measured']:.1f}, limit {one['limit']}: {one['met']}")


CASE = Case(_rows, None, _limits, 5, OWN, ONE_THREAD, _show, NOTE, peers=("rejax",))
