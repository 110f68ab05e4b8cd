"""Federated Q-learning, agent-steps per second, against numba, NumPy and plain JAX."""

from __future__ import annotations

from cases import SMALL_LOOPS, Case

# (id, row, other row, over the cases, at least)
LIMITS = (
    ("numba, median", "fedjax_rl", "numba", "median", 1.3),
    ("numba, worst case", "fedjax_rl", "numba", "worst", 1.0),
    ("numpy, median", "fedjax_rl", "numpy", "median", 10.0),
    ("naive_jax, median", "fedjax_rl", "naive_jax", "median", 15.0),
    # The engine adds less than a tenth of the bare kernel's time.
    ("kernel, median", "fedjax_rl", "kernel", "median", 1 / 1.1),
    ("kernel, worst case", "fedjax_rl", "kernel", "worst", 1 / 1.1),
)

NOTE = """A step of one agent takes 2.4 ns, 1 ns of it random numbers. NumPy's row gains where
arrays are long and the learner has little to do. With K = 1 and N = 16 every step has an exchange,
and the mean over the agents is the larger part."""


def _rows(arguments) -> dict:
    import fedq_peers as peers
    import harness

    checks: list = []

    def calls():
        for case in peers.CASES:
            makers = arguments.wanted(peers.ROWS)
            programs = {row: make(case) for row, make in makers.items()}
            if len(programs) == len(peers.ROWS):
                checks.extend(_check(peers, case, programs))
            steps = {row: peers.steps(row, case, arguments.scale) for row in programs}
            yield (
                case.name,
                {
                    row: harness.Call(
                        lambda p=p, n=steps[row]: p.run(n),
                        case.num_agents * steps[row],
                        p.compile_seconds,
                    )
                    for row, p in programs.items()
                },
            )

    rows = harness.table(calls(), CASE.units, arguments)
    return {"rows": rows, "scale": arguments.scale, "agreement": checks}


def _check(peers, case, programs) -> list[dict]:
    """Refuses to time programs that do not compute the same thing."""
    learned = {row: p.tables(p.run(peers.CHECK_STEPS)) for row, p in programs.items()}
    expected, out = learned.pop("fedjax_rl"), []
    for row, found in learned.items():
        for one in peers.agreements(case, expected, found):
            if not one.holds:
                raise SystemExit(
                    f"{case.name}: {row} does not compute what fedjax_rl does: mean D^2 "
                    f"({one.what}) is {one.found:.4g} against {one.expected:.4g}, "
                    f"{one.standard_errors:.1f} standard errors apart; nothing is reported"
                )
            out.append({"case": case.name, "row": row, **one._asdict()})
    return out


def _limits(content) -> list[dict]:
    from harness import target

    found = {row["name"]: row for row in content["rows"]}
    out = []
    for name, row, other, over, limit in LIMITS:
        cases = [case["ratio"][other] for case in found[row]["cases"].values()]
        measured = found[row]["ratio"][other] if over == "median" else min(cases)
        out.append(target(name, measured, limit))
    return out


CASE = Case(_rows, "agent-steps", _limits, 7, "fedjax_rl", SMALL_LOOPS, note=NOTE, peers=("numba",))
