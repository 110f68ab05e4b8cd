"""BigFish and CoinRun, steps per second, against the original with 64 copies."""

from __future__ import annotations

from cases import ONE_THREAD, Case

# Least rates in multiples of the original's with pictures and 64 copies, by game and row.
LIMITS = {
    ("BigFish", "pixels, 64 copies"): 1.2,
    ("BigFish", "rules, 1024 copies"): 12.0,
    ("CoinRun", "pixels, 64 copies"): 1.0,
}


def _rows(arguments) -> dict:
    import harness
    import procgen_fedjax as ours

    original = None if arguments.original is None else ours.Original(arguments.original)

    def calls():
        for game in ours.GAMES:
            made = {
                f"{what}, {copies} copies": ours.ours(game, what, copies, arguments.scale)
                for what in ours.STEPS
                for copies in ours.COPIES
            }
            if original is not None:
                made["original"] = original.row(game, arguments.scale)
            yield game, made

    rows = harness.table(calls(), CASE.units, arguments, measure=ours.measure)
    if original is not None:
        original.close()
    return {"rows": rows, "scale": arguments.scale}


def _limits(content) -> list[dict]:
    from harness import target

    found = {row["name"]: row["cases"] for row in content["rows"]}
    if "original" not in found:
        return []
    return [
        target(f"{game}, {name}", found[name][game]["ratio"]["original"], limit)
        for (game, name), limit in LIMITS.items()
    ]


CASE = Case(_rows, "steps", _limits, 7, "pixels, 64 copies", ONE_THREAD)
