"""Exact gradients: the bias of local steps, and environments that differ.

With exact gradients FedHAPG-M is FedSVRPG-M, whose lines therefore stand for both.
"""

# ruff: noqa: RUF001 -- the labels say λ and − as the papers do

from __future__ import annotations

import jax
import numpy as np
import xarray as xr

from fedjax_rl import algorithms, plotting
from fedjax_rl.analysis import around
from fedjax_rl.plotting.page import HAIR
from fedjax_rl.plotting.style import GREY
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exact, power, together
from fedjax_rl.studies.pictures import against, curves, page, panel
from fedjax_rl.studies.policy_gradients import ENTROPY, exactly, m1
from fedjax_rl.studies.runs import STILL, Stage, runs
from fedjax_rl.sweeps.simulate import simulate

BETAS = (0.01, 0.05, 0.2, 0.5, 1.0)
ETAS = (0.2, 0.1, 0.05, 0.01, 0.001)
GAPS = (1.1e-3, 2.9e-4, 7.3e-5, 3.0e-6, 3.0e-8)  # of A11b, at these
KAPPAS = (0.0, 0.2, 0.5, 0.8, 1.0)
SV, SAME, AVERAGED = "FedSVRPG-M", "FedPG, same server steps", "FedPG, averaging"
_STYLES = {SV: 0, SAME: 6, AVERAGED: 4}
SMALLEST = 1e-5  # of what a picture shows
SOON = 0.01  # part of the first gap, above the bias of every η


@figure("bias", "exact gradients: what bias is left, against beta, eta and H; what is the same")
def bias(size):
    """The fixed point has the bias of local steps, proportional to η (H − 1), whatever β is.

    It vanishes as η shrinks at a fixed step λ of the server, which costs no rounds. That is so
    without momentum, too: FedPG whose server moves as far per round (rate λ / (η H)) has no more
    bias and the same speed. What slows down as η shrinks is averaging of parameters, whose step is
    η H: in claim 1b as the rounds that it takes, for what it leaves says only how long it ran.
    """
    own = exactly(local_steps=10, learning_rate=0.1)
    sv = algorithms.fedsvrpg_m(m1(1.0, 0.5), **own, momentum=0.2, server_learning_rate=1.0)
    pg = algorithms.fedpg(m1(1.0, 0.5), **own)
    more = {"num_steps": size.exact_rounds, "trials": 1, "num_agents": 8, "double": True}
    more["metrics"] = ("gap", "gradient_norm")
    betas = runs("bias-beta", {SV: sv}, {"momentum": BETAS}, **more)
    methods = {
        SV: sv,
        SAME: (pg, lambda at: {"server_learning_rate": 0.1 / at["learning_rate"]}),
        AVERAGED: pg,
        "still": (sv, {"server_learning_rate": STILL}),
    }
    more["record_every"] = max(1, size.exact_rounds // 3000)  # rounds to a gap are counted
    etas = runs("bias-eta", methods, {"learning_rate": ETAS}, **more)
    fixed = {h: {"local_steps": h, "learning_rate": 1 / h} for h in size.fixed}
    del more["record_every"]
    steps = runs("bias-steps", {SV: sv}, {"local_steps": fixed}, **more)
    gap, norm = etas["gap"], etas["gradient_norm"].last()

    def apart(array):
        return abs(array / array.mean("momentum") - 1).max("momentum")

    def order(array):
        along = {"input_core_dims": [["learning_rate"]], "vectorize": True}
        return xr.apply_ufunc(lambda norms: power(ETAS, norms), array, **along)

    def shrunk(number):
        return exact(number.sel(learning_rate=0.001) / number.sel(learning_rate=0.1))

    rounds = (gap / gap["still"]).until(lambda part: part < SOON)

    yield number(
        "A11",
        "FedSVRPG-M, exact: largest deviation of the gap from its mean over β = 0.01 to 1; "
        "exponent of the gradient norm in η",
        together(exact(betas["gap"].last().then(apart)), exact(norm[SV].then(order))),
        ((0, 0.15), (0.95, 1.05)),
        reference=(0, 1),
    )
    yield number(
        "A11b",
        "gap at η = 0.2, 0.1, 0.05, 0.01, 0.001",
        exact(gap.last()[SV]),
        around(GAPS, 0.05),
        reference=GAPS,
    )
    yield from _identities(size.identities)
    yield number(
        "claim 1",
        "exact convergence where environments differ: gradient norm at a fixed η = 0.1, H = 10",
        exact(norm[SV].sel(learning_rate=0.1)),
        (0, 1e-6),
        published=0,
        why="""At a fixed η and H the fixed point has grad J = −η (H − 1) / 2 mean(grad² J_i grad
        J_i), as that of FedPG; β cancels (A11).""",
    )
    yield number(
        "claim 1b",
        "as the paper reads it: at η = 0.001 in parts of what it is at 0.1: gradient norm of "
        f"FedSVRPG-M at a fixed λ; rounds until the gap is {SOON:g} of the first: FedSVRPG-M, "
        "averaging of parameters",
        together(shrunk(norm[SV]), shrunk(rounds[SV]), shrunk(rounds[AVERAGED])),
        ((0, 0.02), (None, 1.25), (10, None)),
        published="0 at no cost in rounds; averaging slows down",
    )
    yield effect(
        "claim 1b equal",
        "at equal steps of the server: gradient norm of FedPG in parts of that of FedSVRPG-M, less "
        "1, at η = 0.1, 0.001",
        exact((norm[SAME] / norm[SV] - 1).sel(learning_rate=[0.1, 0.001])),
        band=((0.05, None), (0.05, None)),
        published="momentum takes the bias away",
        why="""FedPG whose server moves as far has no more bias: the small local step removes it,
        the momentum does not.""",
    )
    yield control(
        "claim 1b null",
        "gradient norm at η = 0.001 in parts of that at 0.1 where nothing is learned",
        shrunk(norm["still"]),
        (0, 0.02),
    )
    yield page(
        "bias",
        against(
            betas["gradient_norm"].last(),
            "momentum",
            title="η = 0.1, H = 10: no effect of β",
            x="β",
            y="norm of the gradient of J",
            log="x",
            level=(0.0, "no bias"),
        ),
        against(
            norm[[SV, SAME, AVERAGED]],
            "learning_rate",
            title=f"after {size.exact_rounds} rounds, H = 10",
            x="η",
            y="norm of the gradient of J",
            dashed=(SAME,),
            styles=_STYLES,
        ),
        curves(
            gap[[SV, SAME, AVERAGED]].sel(learning_rate=0.01),
            title="η = 0.01: what is slow is averaging",
            y="gap J* − J",
            log=True,
            dashed=(SAME,),
            styles=_STYLES,
        ),
        panel(_fixed, steps, title="fixed η H = 1: no bias at H = 1 only"),
        title="Exact gradients, M1 with rewards and kernels of their own, 8 agents, λ = 1",
        columns=2,
    )


def _fixed(axis, made):
    """The bias against H where eta H is fixed, and the law that it follows to first order."""
    norms = made["gradient_norm"].isel(time=-1, method=0).transpose("local_steps", "seed")
    steps = norms["local_steps"].values
    points = dict(zip(steps.tolist(), norms.values, strict=True))
    plotting.points(
        {SV: points},
        log="",
        x_label="local steps H",
        y_label="norm of the gradient of J",
        axes=axis,
    )
    for line in axis.lines:
        line.set_linestyle("none")
    fine, last = np.linspace(1, max(steps), 200), max(steps)
    law = float(norms[-1, 0]) * (fine - 1) / fine * last / (last - 1)
    axis.plot(fine, law, **HAIR)
    axis.annotate("∝ η (H − 1)", (6, law[60] * 0.8), color=GREY, fontsize=7, va="top")
    axis.set_xticks(steps)


@figure("kernels", "tables: exact gap where kernels and rewards differ, all methods")
def kernels(size):
    """Where kernels differ a large local step leaves a gap, and a small one does not.

    As published the momentum methods have small local steps, the others large ones. At equal local
    steps and equal steps of the server FedPG without momentum reaches the same gap or a smaller
    one. Averages of Q tables and of policies are fixed points of their own. P_i = (1 − κ) P + κ Q_i
    and rewards likewise, as in the tabular study of the paper; no entropy.
    """
    own = {"gradient": "exact", "local_steps": 10, "learning_rate": 0.5}
    small, many = {"learning_rate": 0.0005}, {"local_steps": 10}
    sv = algorithms.fedsvrpg_m(m1(), **own, momentum=0.2, server_learning_rate=5.0)
    pg = algorithms.fedpg(m1(), **own)
    fine, coarse = "η = 0.0005", "η = 0.5"
    methods = {
        f"{SV}, {fine}": (sv, small),
        f"FedPG, {fine}": (pg, {**small, "server_learning_rate": 1000.0}),
        f"{SV}, {coarse}": sv,
        f"FedPG, {coarse}": pg,
        "Fast-FedPG": algorithms.fast_fedpg(m1(), **own),
        "QAvg": algorithms.qavg(m1(), learning_rate=0.5, **many),
        "PAvg": algorithms.pavg(m1(), learning_rate=0.05, **many),
        "still": (sv, {"server_learning_rate": STILL}),
    }
    made = runs(
        "kernels",
        methods,
        {"kappa": {k: {"task": m1(k, k)} for k in KAPPAS}},
        num_steps=size.kernel_rounds,
        trials=1,
        metrics=("gap",),
        num_agents=8,
        double=True,
        seconds=60,
    )
    gap = made["gap"]

    def falls(*labels):
        own = gap[list(labels)].sel(kappa=1.0)
        half = own.then(lambda array: array.isel(time=array.sizes["time"] // 2 - 1))
        return exact(own.last() / half)

    yield number(
        "claim 5",
        "as the paper reads it: κ = 1, gap at the end in parts of that at half the rounds: "
        "FedSVRPG-M (η = 0.0005), PAvg, QAvg, FedPG (η = 0.5)",
        falls(f"{SV}, {fine}", "PAvg", "QAvg", f"FedPG, {coarse}"),
        ((None, 0.8), (0.95, None), (0.95, None), (0.95, None)),
        published="a plateau of averaging only",
    )
    last = gap.sel(kappa=1.0).last()
    yield effect(
        "claim 5 equal",
        "κ = 1, at equal steps: gap of FedPG at the end in parts of that of FedSVRPG-M, less 1, at "
        "η = 0.0005, 0.5",
        together(*(exact(last[f"FedPG, {e}"] / last[f"{SV}, {e}"] - 1) for e in (fine, coarse))),
        band=((0.05, None), (0.05, None)),
        published="momentum takes the plateau away",
        why="""The step does all of it: at η = 0.0005 FedPG with the server's rate 1000 has the gap
        of FedSVRPG-M, at η = 0.5 it has a smaller one.""",
    )
    yield control(
        "claim 5 null",
        "κ = 1, gap at the end in parts of that at half the rounds where nothing is learned",
        falls("still"),
        (None, 0.8),
    )
    shown = gap[list(methods)[:-1]].then(lambda array: np.maximum(array, SMALLEST))
    look = {"styles": {f"{SV}, {coarse}": 0, f"FedPG, {coarse}": 6}}
    look["dashed"] = list(look["styles"])
    yield page(
        "kernels",
        against(
            shown.last(),
            "kappa",
            title="after all rounds; at the lower end: exact",
            x="κ: share of its own in every kernel and reward",
            y="gap J* − J",
            log="y",
            dodge=0.012,
            **look,
        ),
        curves(shown.sel(kappa=1.0), title="κ = 1", y="gap J* − J", log=True, **look),
        title=f"Exact gradients without entropy, M1, 8 agents, H = 10, {size.kernel_rounds} rounds",
        height=2.9,
    )


# What is the same to rounding --------------------------------------------------------------------


def _identities(there):
    made = Stage("identities", _same, 30, of=(ENTROPY,), there=there)
    yield number(
        "A12",
        "largest difference of the momentum and what the model moved by",
        exact(made["moved"].then(lambda array: array.max("of_moved"))),
        (0, 1e-12),
        reference=0,
    )
    yield number(
        "A13",
        "β = H = 1: largest difference of the parameters of FedPG and those of Fast-FedPG, "
        "FedSVRPG-M, FedHAPG-M",
        exact(made["ended"].then(lambda array: array.max("of_ended"))),
        (0, 1e-12),
        reference=0,
    )


def _same(meter):
    """Differences by what they are of, in double precision."""
    report = meter.stage("identities")
    task, moved, ended = m1(), {}, {}
    own = {"local_steps": 1, "learning_rate": 0.1, "episodes_per_step": 2, "entropy": ENTROPY}
    plain = {"momentum": 1.0, "server_learning_rate": 0.1}
    alike = {
        "FedPG": algorithms.fedpg(task, **own),
        "Fast-FedPG": algorithms.fast_fedpg(task, **own, reuse_first=True),
        "FedSVRPG-M": algorithms.fedsvrpg_m(task, **own, **plain),
        "FedHAPG-M": algorithms.fedhapg_m(task, **own, **plain, two_trajectories=True),
    }

    def server(algorithm, rounds):
        options = {"num_agents": 8, "num_steps": rounds, "record_every": rounds, "seed": 0}
        return jax.jit(lambda: simulate(algorithm, **options).state.server)()

    with jax.enable_x64(True):
        for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m):
            end = server(make(task, **exactly(), server_learning_rate=0.7), 5)
            move = (end.parameters - end.previous) / 0.7
            moved[make.__name__] = np.max(np.abs(move - end.direction))
        ends = {name: np.asarray(server(one, 4).parameters) for name, one in alike.items()}
        for name in list(alike)[1:]:
            ended[name] = np.max(np.abs(ends[name] - ends["FedPG"]))
    report(1, 1)
    arrays = {"moved": list(moved.values()), "ended": list(ended.values())}
    return xr.Dataset({k: (("seed", f"of_{k}"), [v]) for k, v in arrays.items()})
