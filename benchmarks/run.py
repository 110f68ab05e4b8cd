"""Speed of fedjax_rl against its peers: `python benchmarks/run.py CASE [--json FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# (id, row, other row, over the cases, at least)
FEDQ_LIMITS = (
    ("numba, median", "fedjax_rl", "numba", "median", 1.3),
    ("numba, worst case", "fedjax_rl", "numba", "worst", 1.0),
    ("numpy, median", "fedjax_rl", "numpy", "median", 10.0),
    ("naive_jax, median", "fedjax_rl", "naive_jax", "median", 15.0),
    # The engine adds less than a tenth of the bare kernel's time.
    ("kernel, median", "fedjax_rl", "kernel", "median", 1 / 1.1),
    ("kernel, worst case", "fedjax_rl", "kernel", "worst", 1 / 1.1),
)


def fedq(arguments) -> dict:
    """Federated Q-learning, agent-steps per second, against numba, NumPy and plain JAX."""
    # One XLA thread a core, and the scheduler that does not hang on many small loops; both are
    # read when JAX starts.
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")
    import fedq_peers as peers
    import harness
    import jax

    clock = "cpu" if jax.default_backend() == "cpu" else "wall"
    timings, compiled, checks = {}, {}, []
    for case in peers.CASES:
        steps = {row: peers.steps(row, case, arguments.scale) for row in peers.ROWS}
        programs = {row: make(case) for row, make in peers.ROWS.items()}
        compiled[case.name] = {row: program.compile_seconds for row, program in programs.items()}
        checks += _check(peers, case, programs)
        timings[case.name] = harness.measure(
            {row: lambda p=p, n=steps[row]: p.run(n) for row, p in programs.items()},
            {row: case.num_agents * n for row, n in steps.items()},
            arguments.repeats,
        )
        print(f"{case.name}: rows agree, timed", file=sys.stderr, flush=True)
    unit = "agent-steps per " + ("core-second" if clock == "cpu" else "second")
    rows = harness.rows(timings, compiled, unit, clock)
    return harness.report(
        "fedq",
        rows,
        repeats=arguments.repeats,
        scale=arguments.scale,
        agreement=checks,
        targets=_targets(rows),
    )


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


def _targets(rows) -> list[dict]:
    found = {row["name"]: row for row in rows}
    out = []
    for name, row, other, over, limit in FEDQ_LIMITS:
        cases = [case["ratio"][other] for case in found[row]["cases"].values()]
        measured = found[row]["ratio"][other] if over == "median" else min(cases)
        out.append({"id": name, "measured": measured, "limit": limit, "met": measured >= limit})
    return out


GRIDS = ("smoke", "quick", "paper")
SHAPINGS = ("raw", "center")


def grids(arguments) -> dict:
    """The study `linear-speedup` from a cold start, seconds of wall time per scale."""
    import harness

    command = shutil.which("fedjax-rl")
    command = [command] if command else [sys.executable, "-m", "fedjax_rl"]
    rows = []
    for scale in arguments.grids:
        runs = [
            _reproduce([*command, "reproduce", "linear-speedup", "--scale", scale])
            for _ in range(arguments.repeats)
        ]
        walls = sorted(run["wall"] for run in runs)
        middle = sorted(runs, key=lambda run: run["wall"])[len(runs) // 2]
        rows.append(
            {
                "name": scale,
                "unit": "seconds of wall time, start of the process to its end",
                "median": middle["wall"],
                "low": walls[0],
                "high": walls[-1],
                "compile_seconds": middle["summary"]["seconds"]["compile"],
                "run_seconds": middle["summary"]["seconds"]["run"],
                "cpu_seconds": middle["cpu"],
                "peak_bytes": max(run["peak_bytes"] for run in runs),
                "ratio": {},
                "verdicts": middle["verdicts"],
            }
        )
        print(f"{scale}: {middle['wall']:.1f} s", file=sys.stderr, flush=True)
    for row in rows:
        row["ratio"] = {
            other["name"]: row["median"] / other["median"] for other in rows if other is not row
        }
    return harness.report("grids", rows, repeats=arguments.repeats)


def _reproduce(command) -> dict:
    """One run of a study in a process and a directory of its own, with nothing compiled before."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": scratch + "/cache",
            "JAX_COMPILATION_CACHE_DIR": scratch + "/compiled",
        }
        work, log = pathlib.Path(scratch, "work"), pathlib.Path(scratch, "log")
        work.mkdir()
        start = time.perf_counter()
        with log.open("wb") as file:
            child = subprocess.Popen(command, cwd=work, env=environment, stdout=file, stderr=file)
            try:
                _, status, usage = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                raise
        wall = time.perf_counter() - start
        found = sorted(work.rglob("summary.json"))
        code = os.waitstatus_to_exitcode(status)
        child.returncode = code
        if code or not found:
            tail = log.read_text(errors="replace")[-2000:]
            why = f"ended with {code}" if code else "left no summary.json"
            raise SystemExit(f"{' '.join(command)} {why}:\n{tail}")
        summary = json.loads(found[0].read_text())
    verdicts = [target["verdict"] for target in summary["targets"]]
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "summary": summary,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
    }


# (id, row, other row, at least); rates of environment steps of episodes under way.
ES_LIMITS = (
    ("Gymnasium, one vector environment per federation", "fedjax_rl", "gymnasium", 100.0),
    ("evosax, per environment step", "fedjax_rl", "evosax", 1.0),
)


def es(arguments) -> dict:
    """Evolution strategies on CartPole, environment steps per second, against other packages."""
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import functools

    import es_fedjax
    import es_peers as peers
    import harness
    import jax

    clock = "cpu" if jax.default_backend() == "cpu" else "wall"
    makers = {
        "fedjax_rl": es_fedjax.fedjax_rl,
        "gymnasium": functools.partial(peers.gymnasium_numpy, trials_per_env=1),
        "gymnasium_joined": peers.gymnasium_numpy,
        **{n: m for n, m in peers.ROWS.items() if n != "gymnasium_numpy"},
    }
    timings, compiled, checks, counts = {}, {}, [], {}
    for shaping in arguments.shapings:
        workloads = {
            row: peers.Workload(
                trials=max(2, round(arguments.scale * es_fedjax.TRIALS.get(row, 60))),
                shaping=shaping,
            )
            for row in makers
        }
        programs = {row: make(workloads[row]) for row, make in makers.items()}
        compiled[shaping] = {row: program.compile_seconds for row, program in programs.items()}
        outcomes: dict = {}

        def call(row, programs=programs, outcomes=outcomes):
            outcomes[row] = programs[row].run(0)
            print(f"{row}: {outcomes[row].seconds:.1f} s", file=sys.stderr, flush=True)
            return outcomes[row].returns

        # The same seed does the same steps every time; how many is known after the first call.
        timed = harness.measure(
            {row: functools.partial(call, row) for row in programs},
            dict.fromkeys(programs, 1),
            arguments.repeats,
        )
        timings[shaping] = {
            row: dataclasses.replace(
                timing,
                cpu=tuple(rate * outcomes[row].env_steps for rate in timing.cpu),
                wall=tuple(rate * outcomes[row].env_steps for rate in timing.wall),
            )
            for row, timing in timed.items()
        }
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
    unit = "environment steps per " + ("core-second" if clock == "cpu" else "second")
    rows = harness.rows(timings, compiled, unit, clock)
    found = {row["name"]: row for row in rows}
    targets = [
        {
            "id": name,
            "measured": found[row]["ratio"][other],
            "limit": limit,
            "met": bool(found[row]["ratio"][other] >= limit),
        }
        for name, row, other, limit in ES_LIMITS
    ]
    return harness.report(
        "es",
        rows,
        repeats=arguments.repeats,
        counts=counts,
        learned=checks,
        all_variants=_all_variants(es_fedjax, peers, 60 if arguments.scale >= 0.5 else 2),
        targets=targets,
    )


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


def episodes(arguments) -> dict:
    """The loops over episodes that end at different times, environment steps per second."""
    os.environ.setdefault("NPROC", "1")
    import es_fedjax
    import harness
    import jax
    import numpy as np

    clock = "cpu" if jax.default_backend() == "cpu" else "wall"
    timings, compiled = {}, {}
    for lengths in ("short", "long"):
        for agents in (50, 3000):
            case = f"{lengths} episodes, {agents} agents"
            start = time.perf_counter()
            loops = es_fedjax.episode_loops(lengths, agents)
            compiled[case] = dict.fromkeys(loops, (time.perf_counter() - start) / len(loops))
            lived = {row: np.asarray(call()) for row, call in loops.items()}
            first = next(iter(lived.values()))
            if any((other != first).any() for other in lived.values()):
                raise SystemExit(f"{case}: the loops do not compute the same; nothing is reported")
            units = dict.fromkeys(loops, int(first.sum()))
            timings[case] = harness.measure(loops, units, arguments.repeats)
    unit = "environment steps per " + ("core-second" if clock == "cpu" else "second")
    rows = harness.rows(timings, compiled, unit, clock)
    return harness.report("episodes", rows, repeats=arguments.repeats)


# Rounds and seeds of a turn; federations of so many agents, their rounds and local steps.
GRADIENT_ROUNDS, GRADIENT_SEEDS = 16, 8
FEDERATION_OF, FEDERATION_ROUNDS, FEDERATION_STEPS = 64, 40, 5
# Most that these may cost, in gradients on the same episodes.
ESTIMATE_LIMITS = {"weighted": 2.5, "hessian_vector": 3.0}
# One federation of many against as many of one: a tenth more at most.
FEDERATION_LIMIT = 1.1
# In double precision on the same episodes, as a share of how far the parameters went.
SAME = 1e-9


def gradients(arguments) -> dict:
    """Policy gradients with local steps on tables, trajectories per second, against NumPy."""
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import functools

    import gradient_fedjax
    import gradient_peers as peers
    import harness
    import jax

    clock = "cpu" if jax.default_backend() == "cpu" else "wall"
    second = "core-second" if clock == "cpu" else "second"
    rounds = max(2, round(arguments.scale * GRADIENT_ROUNDS))
    work = peers.Workload(rounds, GRADIENT_SEEDS)
    works = {"fedjax_rl": work, "numpy": work._replace(seeds=1), "numpy_joined": work}
    timings, compiled, checks = {}, {}, []
    for name, algorithm in gradient_fedjax.ALGORITHMS.items():
        apart = gradient_fedjax.difference(algorithm)
        if not apart <= SAME:
            raise SystemExit(
                f"{name}: numpy does not compute what fedjax_rl does: on the same episodes the "
                f"parameters are {apart:.3g} of their size apart; nothing is reported"
            )
        checks.append({"case": name, "row": "numpy", "what": "same episodes", "found": apart})
        seconds = gradient_fedjax.sweep(algorithm, work._replace(rounds=1))[1]
        compiled[name] = {row: seconds if row == "fedjax_rl" else 0.0 for row in works}
        learned: dict = {}

        def call(row, algorithm=algorithm, learned=learned):
            if row == "fedjax_rl":
                learned[row] = gradient_fedjax.sweep(algorithm, work)[0]
            else:
                joined = row == "numpy_joined"
                learned[row] = peers.numpy_loop(algorithm, works[row], joined)

        calls = {row: functools.partial(call, row) for row in works}
        units = {row: peers.trajectories(algorithm, works[row]) for row in works}
        timings[name] = harness.measure(calls, units, arguments.repeats)
        checks += _check_objectives(peers, name, learned["fedjax_rl"], learned["numpy_joined"])
        print(f"{name}: rows agree, timed", file=sys.stderr, flush=True)
    rows = harness.rows(timings, compiled, f"agent-trajectories per {second}", clock)

    timings, compiled = {}, {}
    for name in gradient_fedjax.DISTINCT:
        algorithm = gradient_fedjax.ALGORITHMS[name]
        rounds = max(1, round(arguments.scale * FEDERATION_ROUNDS))
        start = time.perf_counter()
        calls = gradient_fedjax.federations(algorithm, FEDERATION_OF, FEDERATION_STEPS, rounds)
        compiled[name] = dict.fromkeys(calls, (time.perf_counter() - start) / len(calls))
        units = dict.fromkeys(calls, FEDERATION_OF * rounds)
        timings[name] = harness.measure(calls, units, max(7, arguments.repeats))
    federations = harness.rows(timings, compiled, f"agent-rounds per {second}", clock)

    timings, compiled = {}, {}
    for name, setting in gradient_fedjax.SETTINGS.items():
        start = time.perf_counter()
        calls = gradient_fedjax.estimates(setting)
        compiled[name] = dict.fromkeys(calls, (time.perf_counter() - start) / len(calls))
        units = dict.fromkeys(calls, setting.calls * gradient_fedjax.ESTIMATES)
        timings[name] = harness.measure(calls, units, max(7, arguments.repeats))
    estimates = harness.rows(timings, compiled, f"estimates per {second}", clock)
    return harness.report(
        "gradients",
        rows,
        repeats=arguments.repeats,
        scale=arguments.scale,
        agreement=checks,
        federations=federations,
        estimates=estimates,
        targets=_gradient_targets(federations, estimates),
    )


def _check_objectives(peers, name, learned, drawn) -> list[dict]:
    """Refuses to report programs that do not learn the same from episodes of their own."""
    out = []
    for one in peers.agreements(learned, drawn):
        if not one.holds:
            raise SystemExit(
                f"{name}: numpy does not learn what fedjax_rl does: J ({one.what}) is "
                f"{one.found:.4g} against {one.expected:.4g}, {one.standard_errors:.1f} standard "
                "errors apart; nothing is reported"
            )
        out.append({"case": name, "row": "numpy_joined", **one._asdict()})
    return out


def _gradient_targets(federations, estimates) -> list[dict]:
    """Costs as multiples, of which the limits are the most that is allowed."""
    one = next(row for row in federations if row["name"] == "one")
    costs = [1 / case["ratio"]["many"] for case in one["cases"].values()]
    measured = {
        f"one federation of {FEDERATION_OF}, median": (statistics.median(costs), FEDERATION_LIMIT),
        f"one federation of {FEDERATION_OF}, worst case": (max(costs), FEDERATION_LIMIT),
    }
    for row in estimates:
        if (limit := ESTIMATE_LIMITS.get(row["name"])) is not None:
            for case, found in row["cases"].items():
                measured[f"{row['name']}, {case}"] = 1 / found["ratio"]["gradient"], limit
    return [
        {"id": name, "measured": cost, "limit": limit, "met": bool(cost <= limit)}
        for name, (cost, limit) in measured.items()
    ]


# Most of the time of a run on a table that its clock may take; least rate of brax within a
# federation, as a part of its own.
CLOCK_LIMIT, PHYSICS_LIMIT = 0.2, 0.9
# Federations of so many agents on a table; copies of an environment, steps of an episode, episodes.
LEARNERS = ((8, 1), (8, 64), (1000, 1), (1000, 16))
PHYSICS = ("halfcheetah", 32, 100, 4)


def clock(arguments) -> dict:
    """Arrivals per second, the clock's share of a run, and brax within a federation."""
    os.environ.setdefault("NPROC", "1")
    import clock_fedjax
    import harness
    import jax

    kind = "cpu" if jax.default_backend() == "cpu" else "wall"
    second = "core-second" if kind == "cpu" else "second"

    timings, compiled, checks = {}, {}, []
    for agents in clock_fedjax.AGENTS:
        for federations in clock_fedjax.FEDERATIONS:
            case = f"{agents} agents, {federations} federations"
            calls = clock_fedjax.arrivals(agents, federations, arguments.scale)
            if agents == min(clock_fedjax.AGENTS):
                age = clock_fedjax.mean_age(calls["fedjax_rl"], agents)
                checks.append({"case": case, "what": "mean age over N - 1", "found": age})
            compiled[case] = {row: call.compile_seconds for row, call in calls.items()}
            timings[case] = harness.measure_calls(calls, arguments.repeats)
            print(f"{case}: timed", file=sys.stderr, flush=True)
    rows = harness.rows(timings, compiled, f"arrivals per {second}", kind)

    timings, compiled = {}, {}
    for agents, federations in LEARNERS:
        case = f"{agents} agents, {federations} federations"
        steps = max(64, round(arguments.scale * 64_000 / (federations + 15)) // 64 * 64)
        calls = clock_fedjax.learner(agents, federations, steps)
        compiled[case] = {row: call.compile_seconds for row, call in calls.items()}
        timings[case] = harness.measure_calls(calls, arguments.repeats)
    learners = harness.rows(timings, compiled, f"steps of servers per {second}", kind)

    name, copies, length, episodes = PHYSICS
    calls = clock_fedjax.physics(name, copies, length, episodes)
    case = f"{name}, {copies} copies"
    compiled = {case: {row: call.compile_seconds for row, call in calls.items()}}
    timed_physics = {case: harness.measure_calls(calls, arguments.repeats)}
    physics = harness.rows(timed_physics, compiled, f"environment steps per {second}", kind)
    shares = {
        case: 1 / found["ratio"]["whole"]
        for row in learners
        if row["name"] == "clock"
        for case, found in row["cases"].items()
    }
    of_brax = next(row for row in physics if row["name"] == "federated")["ratio"]["brax"]
    targets = [
        {
            "id": f"clock's share, {case}",
            "measured": share,
            "limit": CLOCK_LIMIT,
            "met": bool(share <= CLOCK_LIMIT),
        }
        for case, share in shares.items()
    ]
    targets.append(
        {
            "id": "brax within a federation",
            "measured": of_brax,
            "limit": PHYSICS_LIMIT,
            "met": bool(of_brax >= PHYSICS_LIMIT),
        }
    )
    return harness.report(
        "clock",
        rows,
        repeats=arguments.repeats,
        scale=arguments.scale,
        agreement=checks,
        learners=learners,
        physics=physics,
        targets=targets,
    )


# Least rates in multiples of the original's with pictures and 64 copies, by game and row.
PROCGEN_LIMITS = {
    ("BigFish", "pixels, 64 copies"): 1.2,
    ("BigFish", "rules, 1024 copies"): 12.0,
    ("CoinRun", "pixels, 64 copies"): 1.0,
}


def procgen(arguments) -> dict:
    """BigFish and CoinRun, steps per second, against the original with 64 copies."""
    os.environ.setdefault("NPROC", "1")
    import harness
    import jax
    import procgen_fedjax as ours

    kind = "cpu" if jax.default_backend() == "cpu" else "wall"
    original = None if arguments.original is None else ours.Original(arguments.original)
    timings, compiled = {}, {}
    for game in ours.GAMES:
        made = {
            f"{what}, {copies} copies": ours.ours(game, what, copies, arguments.scale)
            for what in ours.STEPS
            for copies in ours.COPIES
        }
        if original is not None:
            made["original"] = original.row(game, arguments.scale)
        compiled[game] = {name: row.compile_seconds for name, row in made.items()}
        timings[game] = ours.measure(made, arguments.repeats)
        print(f"{game}: timed", file=sys.stderr, flush=True)
    if original is not None:
        original.close()
    unit = "steps per " + ("core-second" if kind == "cpu" else "second")
    rows = harness.rows(timings, compiled, unit, kind)
    found = {row["name"]: row["cases"] for row in rows}
    targets = [
        {
            "id": f"{game}, {name}",
            "measured": found[name][game]["ratio"]["original"],
            "limit": limit,
            "met": bool(found[name][game]["ratio"]["original"] >= limit),
        }
        for (game, name), limit in PROCGEN_LIMITS.items()
        if original is not None
    ]
    return harness.report(
        "procgen", rows, repeats=arguments.repeats, scale=arguments.scale, targets=targets
    )


# Least rates: of rejax's, and of sixteen agents in one agent's with as many environments.
PEER_LIMIT, AGENTS_LIMIT = 1.0, 0.9
# Rollouts of a call; those before agents are compared with the peer, and with how many seeds.
ROLLOUTS, LEARNED_ROLLOUTS, LEARNED_SEEDS = 4, 12, 3


def ppo(arguments) -> dict:
    """PPO on CartPole against rejax, sixteen agents against one, and where IMPALA's time goes."""
    os.environ.setdefault("NPROC", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")
    import harness
    import jax
    import ppo_fedjax as ours
    import ppo_peers as peers

    kind = "cpu" if jax.default_backend() == "cpu" else "wall"
    second = "core-second" if kind == "cpu" else "second"

    rollouts = max(1, round(arguments.scale * ROLLOUTS))
    timings, compiled, checks = {}, {}, []
    for num_envs in (16, peers.ENVS):
        case = f"{num_envs} environments"
        peer, learned = peers.rejax_ppo("CartPole-v1", num_envs, rollouts)
        calls = {"fedjax_rl": ours.cartpole(1, num_envs, rollouts), "rejax": peer}
        compiled[case] = {row: call.compile_seconds for row, call in calls.items()}
        timings[case] = harness.measure_calls(calls, arguments.repeats)
        print(f"{case}: timed", file=sys.stderr, flush=True)
    seeds = range(LEARNED_SEEDS)
    _, learned = peers.rejax_ppo("CartPole-v1", 64, LEARNED_ROLLOUTS)
    checks.append(
        {
            "what": f"mean return after {LEARNED_ROLLOUTS} rollouts of 64 environments, by seed",
            "rejax": [learned(seed) for seed in seeds],
            "fedjax_rl": [ours.learned(1, 64, LEARNED_ROLLOUTS, seed) for seed in seeds],
            "fedjax_rl, 16 agents": [ours.learned(16, 4, LEARNED_ROLLOUTS, seed) for seed in seeds],
        }
    )
    rows = harness.rows(timings, compiled, f"environment steps per {second}", kind)

    case = f"{peers.ENVS} environments in all"
    calls = {
        "one agent": ours.cartpole(1, peers.ENVS, rollouts),
        "16 agents": ours.cartpole(16, peers.ENVS // 16, rollouts),
        "16 agents, in turn": ours.cartpole(16, peers.ENVS // 16, rollouts, batching="in turn"),
    }
    compiled = {case: {row: call.compile_seconds for row, call in calls.items()}}
    agents = harness.rows(
        {case: harness.measure_calls(calls, arguments.repeats)},
        compiled,
        f"environment steps per {second}",
        kind,
    )
    print(f"{case}: timed", file=sys.stderr, flush=True)

    shares, convolutions = _impala(ours, harness, arguments, second, kind)
    of_peer = {c: f["ratio"]["rejax"] for c, f in rows[0]["cases"].items()}
    of_one = agents[1]["cases"][case]["ratio"]["one agent"]
    measured = {f"rejax, {c}": (ratio, PEER_LIMIT) for c, ratio in of_peer.items()}
    measured[f"16 agents, {case}"] = of_one, AGENTS_LIMIT
    return harness.report(
        "ppo",
        rows,
        repeats=arguments.repeats,
        scale=arguments.scale,
        learned=checks,
        agents=agents,
        impala=shares,
        convolutions=convolutions,
        targets=[
            {"id": name, "measured": found, "limit": limit, "met": bool(found >= limit)}
            for name, (found, limit) in measured.items()
        ],
    )


def _impala(ours, harness, arguments, second: str, kind: str) -> tuple[dict, list]:
    """Shares of the time of an agent that sees pictures, and ways to apply its convolutions."""
    repeats = max(2, arguments.repeats // 2)
    calls = ours.parts()
    compiled = {"IMPALA": {row: call.compile_seconds for row, call in calls.items()}}
    parts = harness.rows(
        {"IMPALA": harness.measure_calls(calls, repeats)}, compiled, f"frames per {second}", kind
    )
    rates = {row["name"]: row["median"] for row in parts}

    def seconds_of(call) -> float:
        found = harness.measure({"product": call}, {"product": 1}, 5)["product"]
        return 1 / max(found.rates(kind))

    limit = ours.peak(seconds_of)
    shares = {
        "frames": parts,
        "share": {n: rates["whole"] / rates[n] for n in ("environment", "acting", "learning")},
        "operations_per_second_of_a_product": limit,
        "of_that": {
            n: rates[n] * ours.operations(n) / limit for n in ("acting", "learning", "whole")
        },
    }
    print("IMPALA: timed", file=sys.stderr, flush=True)
    timings, compiled = {}, {}
    made = ours.convolutions(max(1, round(arguments.scale * 16)))
    for case, calls in made.items():
        compiled[case] = {row: call.compile_seconds for row, call in calls.items()}
        timings[case] = harness.measure_calls(calls, repeats)
    ways = [
        row
        for case in made
        for row in harness.rows(
            {case: timings[case]}, {case: compiled[case]}, f"pictures per {second}", kind
        )
    ]
    return shares, ways


CASES = {
    "fedq": fedq,
    "grids": grids,
    "es": es,
    "episodes": episodes,
    "gradients": gradients,
    "clock": clock,
    "procgen": procgen,
    "ppo": ppo,
}
_REPEATS = {
    "fedq": 7,
    "grids": 1,
    "es": 2,
    "episodes": 7,
    "gradients": 3,
    "clock": 5,
    "procgen": 7,
    "ppo": 5,
}
_SUBJECTS = {
    "fedq": "fedjax_rl",
    "es": "fedjax_rl",
    "episodes": "compact",
    "clock": "fedjax_rl",
    "procgen": "pixels, 64 copies",
    "ppo": "fedjax_rl",
}


def _case(name: str) -> str:
    if name not in CASES:
        near = difflib.get_close_matches(name, CASES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise argparse.ArgumentTypeError(f"{name!r} is no case; {hint}known: {', '.join(CASES)}")
    return name


def _file(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name!r} is no file in an existing directory")
    return path


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: more than 0, at most 1000")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", metavar="CASE", type=_case, help=", ".join(CASES))
    parser.add_argument("--json", type=_file, help="write the numbers there")
    parser.add_argument(
        "--repeats",
        type=_at_least_one,
        help="7, clock and ppo 5, gradients 3, es 2, grids 1 by default",
    )
    parser.add_argument(
        "--scale",
        type=_positive,
        default=1.0,
        help="factor on the steps of fedq's calls, of clock's and of procgen's, the trials of es, "
        "the rounds of gradients, the rollouts and pictures of ppo",
    )
    parser.add_argument(
        "--grids", nargs="+", choices=GRIDS, default=GRIDS, help="scales of the case grids"
    )
    parser.add_argument(
        "--shapings", nargs="+", choices=SHAPINGS, default=SHAPINGS, help="cases of the case es"
    )
    parser.add_argument(
        "--original", type=_file, help="a Python with procgen 0.10.7, for the case procgen"
    )
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = _REPEATS[arguments.case]
    content = CASES[arguments.case](arguments)
    import harness

    if arguments.json is not None:
        harness.save(arguments.json, content)
    if arguments.case == "gradients":
        import gradient_peers

        gradient_peers.show(content)
    elif arguments.case in _SUBJECTS:
        harness.show(content, _SUBJECTS[arguments.case])
    else:
        harness.show_plain(content)


if __name__ == "__main__":
    main()
