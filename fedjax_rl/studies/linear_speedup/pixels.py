"""BigFish from pictures: what agents that average make of their frames, and three kinds of network.

The game, the levels (all of the easy mode), the pictures and the hyperparameters are those of the
published baseline (Cobbe, Hesse, Hilton and Schulman, arXiv 1912.01588), whose network is IMPALA's.
"""

from __future__ import annotations

import numpy as np

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies.claims import Measurable, control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.linear_speedup.deep_times import PASSES
from fedjax_rl.studies.numbers import Number, beside
from fedjax_rl.studies.pictures import Panel, Picture, curves, page
from fedjax_rl.studies.runs import STILL, runs
from fedjax_rl.studies.study import Scale

# Of rollouts and so on (smoke, quick, paper): five million frames of an agent are 306 rollouts. The
# quick one is of one million, for which two cores take eight hours, five and a half of them with
# IMPALA and the transformer; after fewer BigFish is hardly learned.
SIZES = {
    "pixel_rollouts": (2, 61, 306),
    "pixel_trials": (2, 2, 3),
    "pixel_envs": (4, 64, 64),
    "pixel_steps": (64, 256, 256),
}
AGENTS = (1, 2, 4)
RETURN = "episode_return"
SMALL, PUBLISHED = "classic", "IMPALA"
NETWORKS = {PUBLISHED: "impala", "ViT": "vit-3-4-32-8"}
# Of a rollout of an agent on a core.
SECONDS = {SMALL: 17.0, "impala": 300.0, "vit-3-4-32-8": 48.0}
LAST = 0.2  # of the records
# Millions of frames -> mean return of three runs on all levels, and its standard deviation.
CURVE = {
    0.1: (0.9, 0.1),
    0.5: (1.0, 0.1),
    1.0: (1.9, 1.0),
    2.0: (3.7, 1.0),
    5.0: (9.0, 1.1),
}
FEW = "{} runs of {:.2g} million frames an agent; published are 25 million."


def _published(frames: float) -> tuple[float, float]:
    """Mean return and its standard deviation after so many frames; lines between the points."""
    mean, deviation = np.transpose(list(CURVE.values()))
    at = frames / 1e6
    return float(np.interp(at, list(CURVE), mean)), float(np.interp(at, list(CURVE), deviation))


def _learner(size: Scale, kind: str) -> Algorithm:
    """FedPPO as the baseline has it, with another network."""
    return frl.fedppo(
        envs.procgen_task("BigFish", observation="pixels", discount=0.999),
        preset="procgen",
        size="paper",
        num_envs=size.pixel_envs,
        rollout_steps=size.pixel_steps,
        network={"kind": kind},
    )


class Played:
    """Runs from pictures of a size, as returns [seed, time].

    Attributes:
      why: what is to be said of every number.
      agents: those of the small network [num_agents, seed, time].
      null: those of one agent where nothing is learned.
    """

    def __init__(self, size: Scale) -> None:
        """Declares the stages; nothing runs."""
        self.size = size
        self.frames = size.pixel_rollouts * size.pixel_envs * size.pixel_steps
        self.why = FEW.format(size.pixel_trials, self.frames / 1e6)
        self.agents = self._stage("agents", SMALL, "FedPPO", AGENTS)
        self.null = self._stage("null", SMALL, "null", learning_rate=STILL).sel(num_agents=1)

    def of(self, label: str) -> Number:
        """Those of one agent with a network."""
        if label == SMALL:
            return self.agents.sel(num_agents=1)
        return self._stage(label.lower(), NETWORKS[label], label).sel(num_agents=1)

    def _stage(self, name: str, kind: str, label: str, agents=AGENTS[:1], **own) -> Number:
        size = self.size
        made = runs(
            f"ppo-pixels-{name}",
            lambda: {label: (_learner(size, kind), own)},
            {"num_agents": agents},
            num_steps=PASSES * size.pixel_rollouts,
            trials=size.pixel_trials,
            metrics=(RETURN,),
            record_every=PASSES,
            seconds=SECONDS[kind] * sum(agents) * size.pixel_trials * size.pixel_rollouts,
        )
        return made[RETURN][label]

    def learns(self, id: str, who: str, returns: Number) -> Measurable:
        """The claim that late returns are above those without learning."""
        return effect(
            f"{id} {who}",
            f"late return of {who} less that of the first policy",
            returns.late(LAST) - self.null.late(1.0),
            published="agents learn from pictures",
            why=self.why,
        )

    def panel(self, number: Number, by: str, title: str, **options) -> Panel:
        """Curves against millions of frames of an agent."""
        a_pass = self.size.pixel_envs * self.size.pixel_steps / PASSES / 1e6

        def of(array):
            attrs = {"long_name": "million frames of an agent"}
            return array.assign_coords(time=("time", a_pass * array["time"].values, attrs))

        return curves(number.then(of), by=by, title=title, y="return", **options)

    def page(self, stem: str, panel: Panel, of: str) -> Picture:
        """A picture of its own."""
        title = f"BigFish from pictures, {of}, {self.size.pixel_trials} runs of each"
        return page(stem, panel, title=title, height=3.0)


@figure("pixels", "PPO from pictures: N agents that average", only_named=True)
def pixels(size):
    """One to four agents with a small network, which average after every pass over their frames.

    The network is the classic one, two convolutions and a hidden layer, of a tenth of IMPALA's
    operations. Late returns are means over the last fifth of the records. In the control nothing
    is learned.
    """
    played = Played(size)
    own = {n: played.agents.sel(num_agents=n) for n in AGENTS}
    for n, returns in own.items():
        yield played.learns("P18", f"N = {n}", returns)
    yield effect(
        "P18 agents",
        "late return: N = 4 less N = 1",
        own[4].late(LAST) - own[1].late(LAST),
        published="agents that average learn faster",
        why=played.why,
    )
    yield control(
        "P18 null",
        "late return less that of the first policy where nothing is learned",
        played.null.late(LAST) - played.null.first(max(1, size.pixel_rollouts // 5)),
    )
    lines = beside(
        *(array.then(_named(f"N = {n}")) for n, array in own.items()),
        played.null.then(_named("nothing is learned")),
    )
    yield played.page("pixels", played.panel(lines, "method", ""), "the classic network")


@figure("networks", "PPO from pictures: three kinds of network", only_named=True)
def networks(size):
    """One agent with the classic network, with that of the published baseline, and a transformer.

    Late returns are means over the last fifth of the records. The published curve is of three runs.
    """
    played = Played(size)
    alone = {label: played.of(label) for label in (SMALL, *NETWORKS)}
    mean, deviation = _published(played.frames * (1 - LAST / 2))
    yield number(
        "P19",
        f"late return of {PUBLISHED}",
        alone[PUBLISHED].late(LAST),
        (mean - 2 * deviation, mean + 2 * deviation),
        published=round(mean, 2),
        why=played.why,
    )
    for label in NETWORKS:
        yield played.learns("P19", label, alone[label])
    drawn = played.panel(
        beside(*(own.then(_named(label)) for label, own in alone.items())),
        "method",
        "",
        styles={SMALL: 0, PUBLISHED: 2, "ViT": 3},
    )

    def with_published(axis, results):
        drawn.draw(axis, results)
        low, high = axis.get_xlim()
        shown = [at for at in CURVE if at <= high]
        means, deviations = ([CURVE[at][place] for at in shown] for place in (0, 1))
        label = f"published, {PUBLISHED}"
        axis.errorbar(shown, means, deviations, fmt="k*", ms=6, lw=1, label=label)
        axis.set_xlim(low, high)

    yield played.page("networks", Panel(with_published, drawn.needs, drawn.title), "one agent")


def _named(label):
    return lambda array: array.drop_vars("num_agents").assign_coords(method=label)


FIGURES = (pixels, networks)
