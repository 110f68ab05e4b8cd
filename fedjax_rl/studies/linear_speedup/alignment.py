"""CoinRun: what is learned of rewards that stand one step late.

The author's code stores a reward with the action after the one that earned it. In CoinRun the only
reward is that of the coin, which ends the episode: one step late it stands at the first step of the
next episode, where no action has earned it.
"""

from __future__ import annotations

from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import together
from fedjax_rl.studies.linear_speedup import deep_runs
from fedjax_rl.studies.linear_speedup import deep_times as times
from fedjax_rl.studies.linear_speedup.deep_runs import EACH
from fedjax_rl.studies.linear_speedup.deep_times import AGENTS, NULL, PASSES, REWARD
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import curves, page
from fedjax_rl.studies.runs import STILL, runs

# Of epochs (smoke, quick, paper); of runs there are as many as in figures 9 to 13.
SIZES = {"coin_epochs": (30, 300, 600)}
FEW, MANY = AGENTS[0], AGENTS[-1]
STEPS = "episode_steps"
CORRECT, LATE, BLIND = "rewards with their actions", "a step late", "a step late, no values learned"
LAST = 0.2  # of the records
STAY = """Values of where episodes begin stand for coins of the episodes before, and those of places
nearby for a part of them: agents learn to stay there (row P20 steps), and get no coin. Where no
values are learned they drift (row P20 values), some to nothing and some to 0.5 or 0.6."""


@figure("coinrun", "PPO on CoinRun: rewards that stand a step late", only_named=True)
def coinrun(size):
    """The author tried CoinRun and gave it up, as agents stayed at a reward of 0.5.

    Runs differ in one thing: whether a reward stands with the action that earned it, or one step
    later as in his code. In a third kind these agents learn no values of states, so that a late
    reward is all that they hear of. Late returns are means over the last fifth of the records; the
    first policy is that of the control, whose agents learn nothing.
    """
    size = deep_runs.sized(size)

    def with_(alignment: str, **own):
        own = {"rewards.alignment": alignment, **own}
        return deep_runs.algorithm(size, game="CoinRun", num_epochs=size.coin_epochs, **own)

    right = with_("correct")
    methods = {
        CORRECT: right,
        LATE: with_("late"),
        BLIND: with_("late", **{"loss.value_coefficient": 0.0}),
        NULL: (right, {"learning_rate": STILL}),
    }
    each = deep_runs.PICTURES if size.ppo_size == "paper" else 1 / 150
    many = len(methods) * size.ppo_trials * (FEW + MANY)
    made = runs(
        "ppo-coinrun",
        methods,
        {"num_agents": (FEW, MANY)},
        num_steps=size.coin_epochs,
        trials=size.ppo_trials,
        metrics=(EACH, STEPS),
        record_every=PASSES,
        seconds=many * size.coin_epochs * each,
    )
    rewards = made[EACH].then(lambda array: REWARD * array)
    reward = rewards.then(lambda array: array.mean("agent"))
    end = {(m, n): reward[m].sel(num_agents=n).late(LAST) for m in methods for n in (FEW, MANY)}
    first = end[NULL, MANY]

    def more(method: str, other: str | None = None) -> list[Number]:
        """By how much a method ends above another one, or the first policy, by N."""
        return [end[method, n] - (first if other is None else end[other, n]) for n in (FEW, MANY)]

    by_agents = f"N = {FEW} and {MANY}"
    yield effect(
        "P20",
        f"late reward with the actions less that of a step late, {by_agents}",
        together(*more(CORRECT, LATE)),
        band=((0, None),) * 2,
        published="agents of CoinRun did not learn",
    )
    yield effect(
        "P20 correct",
        f"late reward with the actions less that of the first policy, {by_agents}",
        together(*more(CORRECT)),
        band=((0, None),) * 2,
    )
    yield effect(
        "P20 late",
        f"the same of rewards a step late, {by_agents}: agents unlearn",
        together(*more(LATE)),
        band=((None, 0),) * 2,
        why=STAY,
    )
    steps = made[STEPS].log()
    yield effect(
        "P20 steps",
        f"logarithm of the steps of an episode, a step late less first policy, {by_agents}",
        together(*((steps[LATE] - steps[NULL]).sel(num_agents=n).late(LAST) for n in (FEW, MANY))),
        band=((0, None),) * 2,
    )
    yield effect(
        "P20 values",
        f"late reward a step late without values less with them, {by_agents}",
        together(*more(BLIND, LATE)),
        band=((0, None),) * 2,
    )
    yield number(
        "P20 reading",
        f"late reward a step late as published: the largest of {MANY} agents' running means",
        rewards[LATE].sel(num_agents=MANY).then(_as_published(size)).late(LAST),
        (0.45, 0.55),
        published=0.5,
        why=STAY,
    )
    yield control(
        "P20 null",
        f"late reward where nothing is learned: N = {FEW} less N = {MANY}",
        end[NULL, FEW] - first,
    )
    styles = dict(zip(methods, (2, 1, 4, 0), strict=True))
    shown = {"by": "method", "styles": styles, "window": 10}
    yield page(
        "coinrun",
        *(
            curves(
                reward.sel(num_agents=n),
                title="one agent" if n == FEW else f"{n} agents that average always",
                y="reward / 10",
                **shown,
            )
            for n in (FEW, MANY)
        ),
        curves(
            made[STEPS].sel(num_agents=MANY),
            title=f"{MANY} agents",
            y="steps of an episode",
            **shown,
        ),
        title=f"CoinRun, {size.ppo_trials} runs of each; 95 % intervals",
    )


def _as_published(size):
    return lambda rewards: times.read(rewards, size, times.ANY)
