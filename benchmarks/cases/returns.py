"""What PPO of one agent has learned in bodies of brax, beside rejax's, after as many steps."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

from cases import ONE_THREAD, Case, here

BODIES = ("hopper", "halfcheetah")
OWN, RATE = "fedjax_rl", 3e-4  # the rate that rejax has by default
FIRST_SEED = 100  # none by which the settings were chosen
NOTE = """The settings were chosen for this package, on these bodies, with other seeds; rejax has
them as far as it can, once with the rate that falls here, and once with its own."""


class _Runs:
    """Runs one after the other, kept beside the file of `--json`, as all take hours.

    Args:
      file: of `--json`, or None, with which nothing is kept.
      scale: factor on the steps. What was kept counts if it is of this scale, this machine, these
        versions and this very code.
    """

    def __init__(self, file: pathlib.Path | None, scale: float) -> None:
        import harness

        own = harness.report("returns", [], scale=scale)
        self.same = {name: own[name] for name in ("device", "versions", "scale")}
        self.same["code"] = _code()
        self.file = None if file is None else file.with_name(f"{file.name}.runs")
        there = self.file is not None and self.file.is_file()
        self.kept = json.loads(self.file.read_text()) if there else []
        self.made = {tuple(one["run"]): one for one in self.kept if one["of"] == self.same}

    def __call__(self, body: str, seed: int, name: str, run: Callable) -> tuple[list, float]:
        """The curve of `run()`, and the seconds that it took."""
        from fedjax_rl.saving import directory

        run_of = body, seed, name
        if run_of not in self.made:
            start = time.perf_counter()
            curve = run()
            one = {"curve": curve, "seconds": time.perf_counter() - start}
            self.made[run_of] = {"run": run_of, "of": self.same, **one}
            self.kept.append(self.made[run_of])
            if self.file is not None:
                directory.write(self.file, json.dumps(self.kept))  # returns may be NaN
        one = self.made[run_of]
        print(f"{body}, seed {seed}, {name}: {one['curve'][-1]:.0f}", file=sys.stderr, flush=True)
        return one["curve"], one["seconds"]


def _code() -> str:
    """A digest of all that decides what a run comes to, of this package and of the benchmarks."""
    import fedjax_rl

    folders = pathlib.Path(fedjax_rl.__file__).parent, here()
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _rows(arguments) -> dict:
    import returns_peers as peers

    rows = {
        OWN: peers.ours,
        "rejax": peers.rejax,
        f"rejax, rate {RATE:g}": functools.partial(peers.rejax, rate=RATE),
    }
    rows = arguments.wanted(rows)
    runs = _Runs(arguments.json, arguments.scale)
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
                own = functools.partial(run, body, rollouts, seed)
                for kept, value in zip((curves, seconds), runs(body, seed, name, own), strict=True):
                    kept[name].append(value)
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
