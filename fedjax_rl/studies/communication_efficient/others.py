"""The algorithms that the thesis describes and does not run, with what their papers state."""

from __future__ import annotations

from fedjax_rl import algorithms
from fedjax_rl.analysis import around
from fedjax_rl.envs import frozen_lake, gymnax_task, simple_grid
from fedjax_rl.federation import uplinks
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.communication_efficient.lines import (
    CARTPOLE_ES,
    CENTRED,
    GRID_ES,
    METRICS,
    NEAR,
    best_return,
    end,
    gunn_grid,
    over,
    pairs,
    positive,
    row,
)
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exponent, mean, ratio, together
from fedjax_rl.studies.pictures import against, curves, page
from fedjax_rl.studies.runs import runs

ROUNDS = 200
GRADIENT = {"num_agents": 5, "num_steps": ROUNDS, "metrics": METRICS, "record_every": 1}


@figure("reinforce", "REINFORCE on Simple Grid: what is credited, and baselines")
def reinforce(size):
    """A baseline leaves the mean of the estimate and lowers its variance (Williams, 1992).

    What came before an action is no consequence of it: to credit an action with what follows
    alone does the same.
    """
    task = simple_grid()

    def one(**own):
        return algorithms.reinforce(task, learning_rate=1.0, **own)

    baseline = one()
    methods = {
        "whole return": one(estimator="reinforce", baseline="none"),
        "what follows": one(baseline="none"),
        "minus a state's mean": baseline,
        "one agent alone": (baseline, {"num_agents": 1}),
        "still": (baseline, {"learning_rate": 0.0}),
    }
    made = runs("reinforce", methods, trials=size.others_trials, seconds=40, **GRADIENT)
    ends = end(made, list(methods))
    differences = (("what follows", "whole return"), ("minus a state's mean", "what follows"))
    yield positive(
        "REINFORCE",
        "last 20: what follows - whole return, minus a state's mean - what follows",
        *pairs(ends, *differences),
        published="less variance, the same mean",
    )
    curve = made["reward"]["minus a state's mean"]
    yield positive(
        "REINFORCE learn",
        "last 20 less without learning; first 50: 5 agents - one alone",
        ends["minus a state's mean"] - ends["still"],
        curve.first(50) - made["reward"]["one agent alone"].first(50),
    )
    yield page(
        "reinforce",
        *row(
            made,
            list(methods),
            ("reward",),
            title="Simple Grid, 5 agents, 10 episodes a round",
            reward="discounted return",
            level=(best_return(task), "optimum"),
        ),
        title=f"REINFORCE, {size.others_trials} trials",
    )


# Factor of the variance -> return of the last 20, uploads, of 10 and of 50 episodes a round.
LAZY = {
    10: {None: (-5.27, 1), 0: (-5.26, 0.88), 1: (-5.28, 0.62), 2: (-5.33, 0.13), 6: (-5.39, 0.03)},
    50: {None: (-5.26, 1), 0: (-5.26, 0.87), 2: (-5.28, 0.1), 6: (-5.28, 0.02)},
}


@figure("lapg", "LAPG on Simple Grid: returns and uploads")
def lapg(size):
    """A gradient is sent where it changed by more than chance and the model's moves explain.

    Agents alike, a change is mostly noise of twice the variance of a gradient: without that
    term in the threshold little is saved.
    """
    task = simple_grid()
    for episodes, table in LAZY.items():
        own = {"learning_rate": 1.0, "episodes_per_round": episodes}
        lazy = algorithms.lapg(task, **own)
        methods = {"always": algorithms.reinforce(task, **own)}
        methods |= {f"variance {v}": (lazy, {"variance": float(v)}) for v in table if v is not None}
        methods["still"] = lazy, {"learning_rate": 1e-12}
        made = runs(
            f"lapg-{episodes}",
            methods,
            seconds=8 * episodes,
            trials=size.others_trials if episodes == 10 else size.more_grid_trials,
            **GRADIENT,
        )
        learning = [label for label in methods if label != "still"]
        ends, talk = end(made, list(methods)), over(made, learning, "frequency")
        returns, uploads = zip(*table.values(), strict=True)
        names = ", ".join(learning)
        yield number(
            f"LAPG {episodes} return",
            f"{episodes} episodes a round, last 20: {names}",
            mean(ends[learning]),
            tuple((value - 0.08, value + 0.08) for value in returns),
            reference=returns,
        )
        yield number(
            f"LAPG {episodes} uploads",
            f"messages per agent and round: {names}",
            mean(talk),
            tuple((0.7 * value, max(1.3 * value, value + 0.02)) for value in uploads),
            reference=uploads,
        )
        yield number(
            f"LAPG {episodes} as good",
            "last 20 with the factor 2, over that of sending always; uploads",
            together(ratio(ends["variance 2"], ends["always"]), talk["variance 2"]),
            ((0.97, 1.03), (None, 0.5)),
            published="the same convergence at fewer uploads",
        )
        first = made["reward"].first(20)
        yield control(
            f"LAPG {episodes} null",
            "where nothing is learned: last 20 less first 20, more than 0.5",
            ends["still"] - first["still"],
            (0.5, None),
        )
        yield page(
            f"lapg-{episodes}",
            *row(
                made,
                learning,
                ("reward", "frequency"),
                reward="discounted return",
                window=5,
                level=(best_return(task), "optimum"),
            ),
            title=f"LAPG, 5 agents, {episodes} episodes a round",
        )


AGENTS = (1, 5, 20)
# Compressor -> distance to the fixed point for 1, 5 and 20 agents, of a prototype.
TD = {
    "uncompressed": (0.128, 0.044, 0.026),
    "top-1 + EF": (0.142, 0.040, 0.026),
    "top-1, no EF": (0.195, 0.191, 0.194),
    "sign + EF": (0.146, 0.043, 0.026),
    "sign, no EF": (1.10, 1.08, 1.07),
}


@figure("ef-td", "EF-TD: compressed temporal differences with error feedback")
def ef_td(size):
    """What was left out of a message is added to the next.

    The values go where uncompressed ones go, with more agents closer. Without that the bias of
    the compressor stays, whatever the number of agents.
    """
    own = algorithms.ef_td(simple_grid())
    kinds = {"top-1": uplinks.top_k, "sign": uplinks.scaled_sign}
    methods = {"uncompressed": own, "still": (own, {"learning_rate": 0.0})}
    for name, make in kinds.items():
        size_of = {"k": 1} if name == "top-1" else {}
        for feedback, words in ((True, " + EF"), (False, ", no EF")):
            link = make(feedback=feedback, **size_of)
            methods[f"{name}{words}"] = algorithms.ef_td(simple_grid(), uplink=link)
    made = runs(
        "ef-td",
        methods,
        {"num_agents": AGENTS},
        num_steps=size.td_steps,
        seconds=120,
        trials=size.others_trials,
        metrics=("value_error", "size"),
        record_every=size.td_steps // 400,
    )
    error = made["value_error"].late(0.25)
    table = error[list(TD)]

    def parts(a, agents, b, others):
        return ratio(error[a].sel(num_agents=agents), error[b].sel(num_agents=others))

    yield number(
        "EF-TD",
        f"RMS distance to the fixed point for N = 1, 5, 20: {'; '.join(TD)}",
        mean(table),
        around([value for row in TD.values() for value in row], 0.2),
        reference=[value for row in TD.values() for value in row],
    )
    yield number(
        "EF-TD recovers",
        "distance with error feedback over the uncompressed one at N = 20: top-1, sign",
        together(*(parts(f"{name} + EF", 20, "uncompressed", 20) for name in kinds)),
        (NEAR, NEAR),
        published="error feedback makes up for the compression",
    )
    fed = ["top-1 + EF", "sign + EF"]
    yield positive(
        "EF-TD agents",
        "distance at N = 1 - 5, 5 - 20: top-1 + EF, sign + EF",
        *(
            error[label].sel(num_agents=a) - error[label].sel(num_agents=b)
            for label in fed
            for a, b in ((1, 5), (5, 20))
        ),
        published="linear speedup in the number of agents",
    )
    yield number(
        "EF-TD exponent",
        "exponent of the mean squared distance in N: top-1 + EF, sign + EF",
        exponent((error * error)[fed], "num_agents"),
        ((-1.3, -0.7),) * 2,
        published=(-1, -1),
    )
    yield number(
        "EF-TD bias",
        "distance at N = 20 over N = 1 without feedback: top-1, sign",
        together(*(parts(f"{name}, no EF", 20, f"{name}, no EF", 1) for name in kinds)),
        (NEAR, NEAR),
    )
    yield control(
        "EF-TD null",
        "distance where nothing is learned, N = 1 over N = 20",
        parts("still", 1, "still", 20),
        (1.5, None),
    )
    yield page(
        "ef-td",
        against(
            table,
            "num_agents",
            title="mean of the last quarter",
            x="agents N",
            y="RMS distance to the fixed point",
            dodge=0.06,
        ),
        curves(
            made["value_error"].sel(num_agents=20)[list(TD)],
            title="20 agents",
            y="RMS distance to the fixed point",
            log=True,
        ),
        title=f"EF-TD, 12 dense features, {size.others_trials} trials",
    )


@figure("novelty", "novelty search on the grids: the remedy of section 4.6")
def novelty(size):
    """The thesis blames the failure of ES on the grids on a lack of exploration.

    Novelty does not mend it on Windy Grid, where the mean taken off the returns does.
    """
    made, last = {}, min(100, size.episodes // 4)
    steps, three = min(600, size.episodes), ("NS-ES", "NSR-ES", "NSRA-ES")
    for name, task in (("windy", gunn_grid()), ("lake", frozen_lake())):
        own = {"task": task, **GRID_ES}
        methods = {
            "ES": algorithms.es(**own),
            "ES centred": algorithms.es(shaping="center", **own),
            "NS-ES": algorithms.ns_es(**own),
            "NSR-ES": algorithms.nsr_es(**own),
            "NSRA-ES": algorithms.nsra_es(**own),
            "ES still": (algorithms.es(**own), {"learning_rate": 0.0}),
        }
        made[name] = runs(
            f"novelty-{name}",
            methods,
            num_agents=30,
            num_steps=steps,
            seconds=60,
            trials=size.more_grid_trials,
            metrics=METRICS,
            record_every=1,
        )
        ends = end(made[name], list(methods), last)
        yield positive(
            f"novelty {name}",
            f"last 100 above ES centred: {', '.join(three)}",
            *(ends[label] - ends["ES centred"] for label in three),
            published="novelty is a remedy (section 4.6)",
            why="The signal was there: it is lost in raw returns, not missing." * (name == "windy"),
        )
        yield positive(
            f"novelty {name} learn",
            f"last 100 above play without learning: {', '.join(three)}",
            *(ends[label] - ends["ES still"] for label in three),
        )
    shown = ("ES", "ES centred", *three)
    yield page(
        "novelty",
        *row(
            made["windy"],
            shown,
            ("reward",),
            title="Windy Grid",
            reward="discounted return",
            window=10,
            level=(best_return(gunn_grid()), "optimum"),
        ),
        *row(
            made["lake"],
            shown,
            ("reward",),
            title="Frozen Lake",
            reward="discounted return",
            window=min(50, steps // 4),
        ),
        title=f"30 agents, {size.more_grid_trials} trials",
    )


@figure("iw-es", "IW-ES on CartPole: returns used several times")
def iw_es(size):
    """Weights of returns drawn around older parameters degenerate fast.

    They do with the square of the step over sigma (the reference: of full steps of Adam). At the
    thesis's rate fewer than half are left, and hardly anything is reused.
    """
    task = gymnax_task("CartPole-v1")

    def one(reuse):
        return algorithms.iw_es(task, reuse=reuse, **CARTPOLE_ES, **CENTRED)

    slow = {"learning_rate": 0.002}
    methods = {
        "ES, rate 0.002": (one(0), slow),
        "IW-ES, rate 0.002": (one(3), slow),
        "ES, rate 0.01": one(0),
        "IW-ES, rate 0.01": one(3),
        "still": (one(3), {"learning_rate": 0.0}),
    }
    made = runs(
        "iw-es",
        methods,
        num_agents=50,
        num_steps=size.cartpole_episodes,
        seconds=120,
        trials=size.more_trials,
        record_every=1,
        metrics=("reward", "frequency", "effective_sample_size", "reused"),
    )
    ends = end(made, list(methods))
    yield positive(
        "IW-ES",
        "last 20: IW-ES - ES at the rate 0.002; less without learning",
        ends["IW-ES, rate 0.002"] - ends["ES, rate 0.002"],
        ends["IW-ES, rate 0.002"] - ends["still"],
        published="more is learned of as many episodes",
    )
    yield control(
        "IW-ES null",
        "last 20 less first 20 where nothing is learned, more than 5",
        ends["still"] - made["reward"].first(20)["still"],
        (5, None),
    )
    known = over(made, ["IW-ES, rate 0.002", "IW-ES, rate 0.01"], "effective_sample_size")
    yield number(
        "IW-ES samples",
        "effective samples of 50, of which half must be left for a reuse: rate 0.002, rate 0.01",
        mean(known),
        ((25, 50), (1, 25)),
        reference=(41, 1),
    )
    yield number(
        "IW-ES thesis rate",
        "last 20 of IW-ES over ES at the rate 0.01",
        ratio(ends["IW-ES, rate 0.01"], ends["ES, rate 0.01"]),
        NEAR,
    )
    shown = list(methods)[:4]
    yield page(
        "iw-es",
        curves(made["reward"][shown], y="return", title="CartPole, 50 agents"),
        curves(
            made["effective_sample_size"][["IW-ES, rate 0.002", "IW-ES, rate 0.01"]],
            y="effective samples",
            title="of 50 returns",
            window=5,
        ),
        title=f"IW-ES, {size.more_trials} trials",
    )
