"""CartPoles whose physics differ strongly, with networks."""

from __future__ import annotations

import functools

import jax
import numpy as np

from fedjax_rl import algorithms, plotting
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean, of_means, ratio, together
from fedjax_rl.studies.momentum.tables import CLIPPED, HA, PLAIN, SV
from fedjax_rl.studies.numbers import beside
from fedjax_rl.studies.pictures import Panel, against, curves, page, styles_of
from fedjax_rl.studies.policy_gradients import cartpoles
from fedjax_rl.studies.runs import STILL, runs

OWN = {"local_steps": 10, "episodes_per_step": 10, "baseline": "batch_mean", "normalize": False}
METRICS = ("return", "direction_norm", "weight_mean", "weight_max")
CLIP = 1.2  # of the authors
STEPS = (0.001, 0.003, 0.006, 0.01)  # lambda
BETAS, AGENTS, LOCAL = (0.1, 0.2, 0.5, 1.0), (1, 2, 5, 10), (1, 5, 20)
ROUNDS = (10, 20, 60)  # at which returns are compared
EARLY = 10  # rounds, after which nobody is done
FIRST = 20  # rounds over which returns are averaged
# Returns at ROUNDS of a prototype, three runs each.
POLES = {
    (PLAIN, 0.003): (66.8, 95.0, 99.6),
    (SV, 0.003): (69.8, 94.8, 99.3),
    (CLIPPED, 0.003): (95.5, 99.8, 99.9),
    ("FedHAPG-M, β = 0.5", 0.003): (67.3, 95.3, 99.5),
    (PLAIN, 0.01): (98.4, 99.6, 99.9),
    (CLIPPED, 0.01): (99.9, 100.0, 100.0),
}
FAST = (97.6, 99.6, 100.0)  # of Fast-FedPG at eta = 0.001
# Room around them: where learning is fast, runs are far apart.
SLOW, SURE = (30, 10, 2), (5, 2, 2)
LIMITS = (0, 104)
WHERE = "CartPoles that differ, N = 5, H = B = 10"


def _step(step: float, local_steps: int = 10, **more) -> dict:
    """A server's step, lambda, whose local steps lead as far."""
    return {"server_learning_rate": step, "learning_rate": step / local_steps, **more}


@functools.cache
def _made(name: str, **more):
    """An algorithm, one object for all figures."""
    return getattr(algorithms, name)(cartpoles(), **OWN, **more)


def _methods() -> dict:
    sv = _made("fedsvrpg_m", weight_clip=np.inf)
    return {
        PLAIN: (sv, {"momentum": 1.0}),
        SV: (sv, {"momentum": 0.2}),
        CLIPPED: (sv, {"momentum": 0.2, "weight_clip": CLIP}),
    }


def _lambdas(values) -> dict:
    return {"server_learning_rate": {value: _step(value) for value in values}}


def _runs(size, rounds, name, methods, axes, seconds):
    more = {"num_steps": rounds or FIRST, "trials": size.pole_trials, "record_every": 1}
    more |= {"num_agents": 5, "metrics": METRICS, "seconds": seconds}
    return runs(name, methods, axes, **more)


def _sweep(size, *what):
    return _runs(size, size.sweep_rounds, *what)


def long_runs(size, *what):
    """Runs of all rounds: the name, methods, axes and seconds."""
    return _runs(size, size.pole_rounds, *what)


def all_methods(size):
    """Methods whose server has a step of its own, at two of them."""
    ha = _made("fedhapg_m")
    methods = _methods() | {f"{HA}, β = {b:g}": (ha, {"momentum": b}) for b in (0.2, 0.5, 1.0)}
    return long_runs(size, "poles", methods, _lambdas((0.003, 0.01)), 300)


def _over_lambda(size):
    return _sweep(size, "poles-lambda", _methods(), _lambdas(STEPS), 150)


@figure("clipping", "CartPole: what truncated weights do")
def clipping(size):
    """Weights truncated at 1.2 learn faster since they make longer steps, and for no other reason.

    They shrink the term that is subtracted. A method without momentum whose first steps are as long
    (interpolated between its λ) has learned more by then: the last panel.
    """
    made = _over_lambda(size)
    norm, value, over = made["direction_norm"], made["return"], "server_learning_rate"

    def around_early(own):
        return own.then(lambda array: array.sel(time=slice(EARLY - 1, EARLY + 1)).mean("time"))

    early = around_early(value)
    path = (norm.first(EARLY) * EARLY).then(lambda array: array * array["server_learning_rate"])
    one, both = {over: 0.003}, (path, early)

    def matched(length, value, lengths, values):
        return float(value - np.interp(np.log(length), np.log(lengths), values))

    def at_equal_lengths(method):
        """What a method has more than steps of the same length without momentum."""
        return of_means(
            matched, *(own[method].sel(one) for own in both), *(own[PLAIN] for own in both)
        )

    at = around_early(norm).sel(one)
    yield number(
        "T6",
        "λ = 0.003: norm of u at round 10 with weights of at most 1.2, in parts of that without",
        ratio(at[CLIPPED], at[SV]),
        (1.5, 3.5),
        reference=82 / 37,
    )
    yield effect(
        "claim 4",
        "λ = 0.003: return at round 10, β = 0.2 and w ≤ 1.2, less that of β = 1: at equal λ, at "
        "equal lengths of steps",
        together(early[CLIPPED].sel(one) - early[PLAIN].sel(one), at_equal_lengths(CLIPPED)),
        published="momentum learns faster",
        band=((0, None), (0, None)),
        why="""Truncated weights make longer steps (T6); with steps as long, from a larger λ, the
        method without momentum is ahead of them.""",
    )
    yield effect(
        "claim 4 free",
        "the same without a clip, β = 0.2",
        together(early[SV].sel(one) - early[PLAIN].sel(one), at_equal_lengths(SV)),
        published="momentum learns faster",
        band=((0, None), (0, None)),
        why="""With momentum steps are a little longer, too (the last panel); with steps as long
        the method without it is ahead.""",
    )

    def at_lengths(axis, results):
        lengths, returns = (own(results).transpose("method", over, "seed") for own in both)
        lines = {
            method: dict(zip(far.mean("seed").values, own.values, strict=True))
            for method, far, own in zip(returns["method"].values, lengths, returns, strict=True)
        }
        words = {"x_label": f"Σ λ ‖u‖ of {EARLY} rounds", "y_label": f"return at round {EARLY}"}
        plotting.points(lines, log="x", styles=styles_of(lines), axes=axis, **words)

    shown = {"title": "λ = 0.003"}
    yield page(
        "clipping",
        curves(made["weight_max"].sel(one), y="largest weight of a round", log=True, **shown),
        curves(made["weight_mean"].sel(one), y="mean weight of a round", **shown),
        curves(norm.sel(one), y="norm of u", **shown),
        curves(value.sel(one), y="return", limits=LIMITS, **shown),
        against(
            early,
            over,
            title="at equal λ",
            x="server's step λ",
            y=f"return at round {EARLY}",
            log="x",
        ),
        Panel(at_lengths, path.needs, "against how far they went"),
        title=f"{WHERE}, β = 1 or 0.2, {size.pole_trials} trials",
        caption=f"clipped: w ≤ {CLIP:g}",
        height=2.3,
    )


@figure("hyperparameters", "CartPole: beta, the server's step, N and H")
def hyperparameters(size):
    """At one λ more local steps learn faster; more agents and β = 0.2 do so by a little.

    Lines of several N are not of the same poles: the first of them falls sooner than the others,
    by six steps where nothing is learned. So ten agents are held against ten that never speak, each
    on its own pole (claim 6).
    """
    sv, base = _made("fedsvrpg_m", weight_clip=np.inf), {"momentum": 0.2, **_step(0.003)}
    settings = {f"β = {b:g}": {**base, "momentum": b} for b in BETAS}
    settings |= {f"N = {n}": {**base, "num_agents": n} for n in AGENTS}
    settings |= {f"N = {n}, still": {**base, **_step(STILL), "num_agents": n} for n in (1, 10)}
    both = {SV: sv, CLIPPED: (sv, {"weight_clip": CLIP})}
    value = _sweep(size, "poles-settings", both, {"setting": settings}, 300)["return"]
    steps = {f"H = {h}": {**base, "local_steps": h, **_step(0.003, h)} for h in LOCAL}
    steps |= {f"{h}, still": {**steps[h], **_step(STILL)} for h in ("H = 1", "H = 20")}
    local = _sweep(size, "poles-steps", {CLIPPED: both[CLIPPED]}, {"setting": steps}, 100)["return"]
    poles = all_methods(size)["return"].sel(server_learning_rate=0.003)
    named = [f"λ = {step:g}" for step in STEPS]
    lambdas = _over_lambda(size)["return"][CLIPPED].then(
        lambda array: array.assign_coords(server_learning_rate=named)
    )

    task = cartpoles()
    alone = {i: {"task": _pole(task, i, AGENTS[-1]), "num_agents": 1} for i in range(AGENTS[-1])}
    lone = {m: (sv, {**base, **own}) for m, own in ((SV, {}), (CLIPPED, {"weight_clip": CLIP}))}
    lone["still"] = (sv, {**base, **_step(STILL)})
    lone = _sweep(size, "poles-single", lone, {"agent": alone}, 60)["return"].first(FIRST)
    lone = lone.then(lambda array: array.mean("agent"))

    def together_of(method, setting="N = 10"):
        return value[method].first(FIRST).sel(setting=setting)

    def more(number, one, other):
        first = number.first(FIRST)
        return first.sel(setting=one) - first.sel(setting=other)

    hessian = (poles[f"{HA}, β = {b}"].first(FIRST) for b in (0.2, 1))
    words = f"mean return of {FIRST} rounds"
    yield effect(
        "claim 3c",
        f"{words}, β = 0.2 less β = 1, equal λ, no clip: FedSVRPG-M, FedHAPG-M",
        together(more(value[SV], "β = 0.2", "β = 1"), next(hessian) - next(hessian)),
        published="momentum learns faster",
        band=((0, None), (0, None)),
        why="""Of a return of 100 it is some two steps; at equal lengths of steps nothing is left of
        it (`claim 4 free`).""",
    )
    yield effect(
        "claim 6",
        f"{words}, N = 10 less ten agents that never speak: FedSVRPG-M, clipped",
        together(*(together_of(m) - lone[m] for m in (SV, CLIPPED))),
        published="more agents learn faster",
        band=((0, None), (0, None)),
    )
    yield effect(
        "claim 7",
        f"{words}, H = 20 less H = 1 at one λ, clipped",
        more(local[CLIPPED], "H = 20", "H = 1"),
        published="more local steps learn faster",
    )
    yield control(
        "claims 6, 7 null",
        "the same where nothing is learned: N, H",
        together(
            together_of(SV, "N = 10, still") - lone["still"],
            more(local[CLIPPED], "H = 20, still", "H = 1, still"),
        ),
        ((0, None), (0, None)),
    )

    def lines(number, by, values, title, **more):
        own = number.sel({by: values})
        return curves(own, by=by, title=title, y="return", limits=LIMITS, **more)

    betas = [f"β = {b:g}" for b in BETAS]
    of_ha = poles[[f"{HA}, {beta}" for beta in betas[1:]]].then(
        lambda array: array.sel(time=slice(FIRST)).assign_coords(method=betas[1:])
    )
    same = {"styles": {beta: place for place, beta in enumerate(betas)}}
    yield page(
        "hyperparameters",
        lines(value[SV], "setting", betas, SV),
        lines(value[CLIPPED], "setting", betas, CLIPPED),
        lines(of_ha, "method", betas[1:], HA, **same),
        lines(lambdas, "server_learning_rate", named, "clipped: λ, η = λ / H"),
        lines(value[CLIPPED], "setting", [f"N = {n}" for n in AGENTS], "clipped: agents"),
        lines(local[CLIPPED], "setting", [f"H = {h}" for h in LOCAL], "clipped: local steps"),
        title=f"{WHERE}, λ = 0.003, β = 0.2, {size.pole_trials} trials",
        legends="lower right",
    )


@figure("cartpole", "CartPole: all methods")
def cartpole(size):
    """All methods learn within 60 rounds; at the larger step single runs with momentum collapse.

    Of those at λ = 0.01 the truncated one and that without momentum never do (B9b). Agents that
    never speak learn their own poles as surely; FedSVRPG-M is ahead of them by two steps within the
    first rounds, a server without momentum by nothing that these runs can tell (claim 6b).
    """
    made, task = all_methods(size), cartpoles()
    value = made["return"]
    plain = _made("fedpg", learning_rate=0.001)
    others = {
        "FedPG": plain,
        "SCAFFOLD": _made("scaffold_pg", learning_rate=0.001),
        "Fast-FedPG": _made("fast_fedpg", learning_rate=0.001),
        # In the end its step is that of FedPG.
        "FedAvgM": _made("fedavgm_pg", learning_rate=0.001, server_learning_rate=0.1),
        "FedAdam": _made("fedadam_pg", learning_rate=0.001),
        "still": (plain, {"learning_rate": STILL}),
    }
    other = long_runs(size, "poles-others", others, {}, 200)["return"]
    alone = {i: {"task": _pole(task, i), "num_agents": 1} for i in range(5)}
    sv = _made("fedsvrpg_m", weight_clip=np.inf)
    own = {
        "independent": (sv, {"momentum": 1.0, **_step(0.003)}),
        "independent, still": (sv, {"momentum": 1.0, **_step(STILL)}),
    }
    lone = long_runs(size, "poles-alone", own, {"agent": alone}, 30)["return"]
    lone = lone.then(lambda array: array.mean("agent"))

    def rounds(number):
        return mean(number.then(lambda array: array.sel(time=list(ROUNDS))))

    at = [value[method].sel(server_learning_rate=step) for method, step in POLES]
    found = [*POLES.values(), FAST]
    room = [SLOW if row[0] < 97 else SURE for row in found]
    yield number(
        "B9",
        "return at rounds 10, 20, 60: β = 1, FedSVRPG-M, with w ≤ 1.2, FedHAPG-M 0.5, all at "
        "λ = 0.003; β = 1, FedSVRPG-M with w ≤ 1.2 at 0.01; Fast-FedPG at η = 0.001",
        together(*map(rounds, at), rounds(other["Fast-FedPG"])),
        tuple(
            (x - own, x + own)
            for row, rooms in zip(found, room, strict=True)
            for x, own in zip(row, rooms, strict=True)
        ),
        reference=tuple(x for row in found for x in row),
        why="""Most of what is open some 60 runs would decide. Where nearly all runs have a return
        of 100, one that has not moves the mean by five, and the band is four or ten wide.""",
    )
    fast = value.sel(server_learning_rate=0.01).last()
    yield number(
        "B9b",
        "return at the end, λ = 0.01: FedSVRPG-M without clip, FedHAPG-M of β = 0.2, of 0.5",
        together(*(fast[m] for m in (SV, f"{HA}, β = 0.2", f"{HA}, β = 0.5"))),
        ((None, 75), (None, 30), (90, None)),
        reference="40 to 70; collapses to 10; works",
        why="""At this step single runs collapse to a return of ten and the others reach 100: of
        20 runs 10, 16 and 5 collapsed. A mean over few, as the prototype's, may be anywhere.""",
    )
    slow = value.sel(server_learning_rate=0.003).first(FIRST)
    yield effect(
        "claim 6b",
        f"λ = 0.003, mean return of {FIRST} rounds, less that of agents that never speak: β = 1, "
        "FedSVRPG-M",
        together(*(slow[m] - lone["independent"].first(FIRST) for m in (PLAIN, SV))),
        published="collaboration helps where environments differ",
        band=((0, None), (0, None)),
    )
    yield control(
        "claim 6b null",
        "the same where nothing is learned",
        other["still"].first(FIRST) - lone["independent, still"].first(FIRST),
    )
    yield control(
        "B9 null", "return at the end where nothing is learned", other["still"].last(), (90, None)
    )
    look = {"y": "return", "limits": LIMITS}
    five = [*_methods(), f"{HA}, β = 0.2", f"{HA}, β = 0.5"]
    yield page(
        "cartpole",
        curves(other[list(others)[:-1]], title="η = 0.001", **look),
        curves(
            beside(value[five].sel(server_learning_rate=0.003), lone["independent"]),
            title="λ = 0.003",
            **look,
        ),
        curves(value[five].sel(server_learning_rate=0.01), title="λ = 0.01", **look),
        title=f"{WHERE}, η = λ / H, {size.pole_trials} trials",
        caption=f"FedSVRPG-M: β = 0.2; clipped: w ≤ {CLIP:g}; independent: agents never speak",
        legends="below",
        height=3.0,
    )


def _pole(task, place, num_agents=5):
    """The task of one pole of so many."""
    own = jax.tree.map(lambda x: x[place], task.members(num_agents))
    return task.replace(params=own, members=None)
