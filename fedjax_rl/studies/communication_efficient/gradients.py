"""REINFORCE and LAPG, which the thesis describes and does not run, with what their papers state."""

from __future__ import annotations

from fedjax_rl import algorithms
from fedjax_rl.envs import simple_grid
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.communication_efficient.lines import (
    METRICS,
    best_return,
    end,
    over,
    pairs,
    positive,
    row,
)
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean, ratio, together
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import STILL, runs

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
        "one agent, 50 episodes": (one(episodes_per_round=50), {"num_agents": 1}),
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
        "last 20 less without learning",
        ends["minus a state's mean"] - ends["still"],
    )
    lone = (made["reward"][f"one agent{more}"].first(50) for more in (" alone", ", 50 episodes"))
    alone, wide = (curve.first(50) - own for own in lone)
    yield positive(
        "REINFORCE agents",
        "first 50, at one rate: 5 agents - one of them alone",
        alone,
        why="Averaging takes the noise, which moves a flat policy, and not the bias of a baseline "
        "from an agent's own few episodes (REINFORCE bias).",
    )
    yield positive(
        "REINFORCE bias",
        "first 50, as many episodes: one agent of 50 - 5 agents of 10",
        -wide,
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

LATE = {
    10: """The reference is one run each. Where little is sent some trials are late: with the factor
    6 three of thirty have not arrived, and the median is -5.45; with 2 the mean is 0.1 below it.
    Uploads are those of the reference.""",
    50: "",
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
        methods["still"] = lazy, {"learning_rate": STILL}
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
            why=LATE[episodes],
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
