"""BigFish and CoinRun, steps per second, against the original with 64 copies."""

from __future__ import annotations

from cases import ONE_THREAD, Case

# Least rates in multiples of the original's with pictures and 64 copies, by game and row.
LIMITS = {
    ("BigFish", "pixels, 64 copies"): 1.2,
    ("BigFish", "rules, 1024 copies"): 12.0,
    ("CoinRun", "pixels, 64 copies"): 1.0,
    ("CoinRun", "rules, 1024 copies"): 25.0,
}
MANY = 0.9  # of the rate of 64 pictures, what thousands of copies make at least
NOTE = """A rate is of one core and one thread, ours as the original's. What is drawn takes turns
of 64 copies, which stay in the cache; what 4,096 copies lack is the way of their pictures, 50 MB a
step, to memory, where they are written twice, as a part of a turn and of the run. `cores`: 64
copies by wall time. XLA divides every kernel of a step between its threads and waits for all of
them before the next one; the original gives every thread copies of its own."""


def _rows(arguments) -> dict:
    import harness
    import procgen_fedjax as ours

    original = None if arguments.original is None else ours.original(arguments.original)

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
    found = {"rows": rows, "scale": arguments.scale}
    return found if arguments.only else found | {"cores": _cores(arguments)}


def _cores(arguments) -> list[dict]:
    """Wall time where 64 pictures are all there is, with a thread for every core."""
    import harness
    import procgen_fedjax as ours

    threads = {"one thread": 1, "a thread a core": harness.cores()}
    made = {name: ours.with_threads(count) for name, count in threads.items()}
    if arguments.original is not None:
        made |= {
            f"original, {name}": ours.original(arguments.original, count)
            for name, count in threads.items()
        }
    timings = {
        game: ours.measure(
            {name: one.row(game, arguments.scale) for name, one in made.items()}, arguments.repeats
        )
        for game in ours.GAMES
    }
    for one in made.values():
        one.close()
    compiled = {game: dict.fromkeys(made, 0.0) for game in timings}
    return harness.rows(timings, compiled, "steps per second of wall time", "wall")


def _limits(content) -> list[dict]:
    from harness import target

    found = {row["name"]: row["cases"] for row in content["rows"]}
    first = "pixels, 64 copies"
    many = [
        target(f"{game}, {name} against 64", 1 / of["ratio"][name], MANY)
        for game, of in found[first].items()
        for name in of["ratio"]
        if name.startswith("pixels")
    ]
    if "original" not in found:
        return many
    return [
        target(
            f"{game}, {name} against the original", found[name][game]["ratio"]["original"], limit
        )
        for (game, name), limit in LIMITS.items()
    ] + many


CASE = Case(_rows, "steps", _limits, 7, "pixels, 64 copies", ONE_THREAD, note=NOTE)
