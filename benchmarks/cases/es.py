"""Evolution strategies on CartPole, environment steps per second, against other packages."""

from __future__ import annotations

import functools
import sys

from cases import Case

# (id, row, other row, at least); rates of environment steps of episodes under way.
LIMITS = (
    ("Gymnasium, one vector environment per federation", "fedjax_rl", "gymnasium", 100.0),
    ("Gymnasium, all copies in one vector environment", "fedjax_rl", "gymnasium_joined", 15.0),
    ("evosax, per environment step", "fedjax_rl", "evosax", 5.0),
)

PART = 3000, 500  # agents and steps of which the parts are timed
NOTE = """One environment for every federation waits for Python at every step of 50 copies; all
copies in one environment are NumPy's own speed. evosax shares its random numbers among the agents
of an update, which none of the others does; with numbers of its own it is the row beside it.
`parts`: where episodes are long, the policies alone take more than half of a step, and half of that
is reading their parameters, 520 bytes an agent and step, which no other agent has. With raw returns
little is learned, episodes are short, and an update waits for the last of 3,000: hundreds of steps
of a few agents, each as long as its forty kernels take to start."""


def _rows(arguments) -> dict:
    import es_fedjax
    import es_peers as peers
    import harness

    makers = arguments.wanted(
        {
            "fedjax_rl": es_fedjax.fedjax_rl,
            "gymnasium": functools.partial(peers.gymnasium_numpy, trials_per_env=1),
            "gymnasium_joined": peers.gymnasium_numpy,
            **{n: m for n, m in peers.ROWS.items() if n != "gymnasium_numpy"},
        }
    )
    checks, counts = [], {}

    def calls():
        for shaping in arguments.shapings:
            workloads = {
                row: peers.Workload(
                    trials=max(2, round(arguments.scale * es_fedjax.TRIALS.get(row, 60))),
                    shaping=shaping,
                )
                for row in makers
            }
            programs = {row: make(workloads[row]) for row, make in makers.items()}
            outcomes: dict = {}

            def call(row, programs=programs, outcomes=outcomes):
                outcomes[row] = programs[row].run(0)
                print(f"{row}: {outcomes[row].seconds:.1f} s", file=sys.stderr, flush=True)
                return outcomes[row].returns

            # The same seed does the same steps every time; how many is known after the first call.
            yield (
                shaping,
                {
                    row: harness.Call(
                        functools.partial(call, row),
                        lambda row=row, outcomes=outcomes: outcomes[row].env_steps,
                        program.compile_seconds,
                    )
                    for row, program in programs.items()
                },
            )
            for row, outcome in outcomes.items():
                work = workloads[row]
                learned = peers.agreement(work, outcome)
                checks.append(
                    {"case": shaping, "row": row, **learned._asdict(), "holds": bool(learned.holds)}
                )
                counts.setdefault(shaping, {})[row] = {
                    "trials": work.trials,
                    "episodes": work.trials * work.agents * work.episodes,
                    "env_steps": int(outcome.env_steps),
                    "scanned_steps": int(outcome.scanned_steps),
                }

    rows = harness.table(calls(), CASE.units, arguments)
    variants = (
        {}
        if arguments.only
        else _all_variants(es_fedjax, peers, 60 if arguments.scale >= 0.5 else 2)
    )
    found = {"rows": rows, "counts": counts, "learned": checks, "all_variants": variants}
    return found if arguments.only else found | {"parts": _parts(arguments)}


def _parts(arguments) -> list[dict]:
    """What a step consists of where episodes are long."""
    import es_fedjax
    import harness

    agents, steps = PART

    def make():
        (whole,) = es_fedjax.episode_loops("long", agents, ("compact",)).values()
        return {"whole": whole, **es_fedjax.parts(agents, steps)}

    def calls():
        made = harness.alternatives(make, agents * steps)
        whole = made["whole"]
        # Its episodes do not all last to the end.
        yield "long episodes", made | {"whole": whole._replace(units=int(whole.run().sum()))}

    return harness.table(calls(), "steps", arguments, at_least=7)


def _all_variants(es_fedjax, peers, trials: int) -> dict:
    """Every variant of Fig. 4.5 in one call, in seconds of wall time on all cores."""
    workload = peers.Workload(trials=trials)
    program = es_fedjax.all_variants(workload)
    outcome = program.run(0)
    agents = sum(n for n, _ in es_fedjax.VARIANTS.values())
    episodes = agents * workload.trials * workload.episodes
    return {
        "variants": list(es_fedjax.VARIANTS),
        "trials": trials,
        "compile_seconds": program.compile_seconds,
        "run_seconds": outcome.seconds,
        "episodes_per_second": float(episodes / outcome.seconds),
        "env_steps_per_second": float(outcome.env_steps / outcome.seconds),
    }


def _limits(content) -> list[dict]:
    from harness import target

    found = {row["name"]: row for row in content["rows"]}
    return [target(name, found[row]["ratio"][other], limit) for name, row, other, limit in LIMITS]


CASE = Case(
    _rows, "environment steps", _limits, 2, "fedjax_rl", note=NOTE, peers=("gymnasium", "evosax")
)
