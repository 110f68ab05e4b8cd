"""BigFish from pictures: what agents that average make of their frames, and three kinds of network.

The game, the levels (all of the easy mode), the pictures and the hyperparameters are those of the
published baseline (Cobbe, Hesse, Hilton and Schulman, arXiv 1912.01588), whose network is IMPALA's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.plotting.panel import caption
from fedjax_rl.studies.claims import Measurable, control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.linear_speedup.deep_times import NULL, PASSES
from fedjax_rl.studies.numbers import Number, beside
from fedjax_rl.studies.pictures import Panel, curves, page
from fedjax_rl.studies.runs import STILL, runs
from fedjax_rl.studies.study import Scale

# Of rollouts, environments and so on (smoke, quick, paper). Five million frames of an agent are
# 2,442 rollouts of agents that average, or 306 of the published size. A quick run is of one
# million: three and a half hours for the agents on two cores, and six for the networks.
SIZES = {
    "pixel_trials": (2, 3, 3),
    "pixel_rollouts": (2, 489, 2442),
    "pixel_envs": (4, 16, 16),
    "pixel_steps": (64, 128, 128),
    "network_trials": (2, 2, 3),
    "network_rollouts": (2, 61, 306),
    "network_envs": (4, 64, 64),
    "network_steps": (64, 256, 256),
}
AGENTS = (1, 2, 4)
RETURN = "episode_return"
SMALL, PUBLISHED = "classic", "IMPALA"
NETWORKS = {PUBLISHED: "impala", "ViT": "vit-3-4-32-8"}
# Of a thousand frames of an agent on a core.
SECONDS = {SMALL: 1.0, "impala": 18.0, "vit-3-4-32-8": 3.0}
LAST = 0.2  # of the records
WINDOW = 0.04  # of them, in a running mean
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


class Part(NamedTuple):
    """How long a part of the runs is, and how many there are.

    Attributes:
      trials: runs of each.
      rollouts: of an agent.
      envs, steps: of a rollout.
    """

    trials: int
    rollouts: int
    envs: int
    steps: int

    @classmethod
    def of(cls, size: Scale, part: str) -> Part:
        """The sizes whose names begin with a word."""
        return cls(*(getattr(size, f"{part}_{name}") for name in cls._fields))

    @property
    def frames(self) -> int:
        """Of an agent."""
        return self.rollouts * self.envs * self.steps

    @property
    def why(self) -> str:
        """What is to be said of every number."""
        return FEW.format(self.trials, self.frames / 1e6)

    @property
    def window(self) -> int:
        """Records in a running mean."""
        return max(1, round(WINDOW * self.rollouts))

    def learner(self, kind: str) -> Algorithm:
        """FedPPO as the baseline has it, but for the network and the sizes."""
        return frl.fedppo(
            envs.procgen_task("BigFish", observation="pixels", discount=0.999),
            preset="procgen",
            size="paper",
            num_envs=self.envs,
            rollout_steps=self.steps,
            network={"kind": kind},
        )

    def returns(self, name: str, label: str, kind: str, agents=AGENTS[:1], **own) -> Number:
        """Returns [num_agents, seed, time] of a stage of runs."""
        made = runs(
            f"ppo-{name}",
            lambda: {label: (self.learner(kind), own)},
            {"num_agents": agents},
            num_steps=PASSES * self.rollouts,
            trials=self.trials,
            metrics=(RETURN,),
            record_every=PASSES,
            seconds=SECONDS[kind] * sum(agents) * self.trials * self.frames / 1000,
        )
        return made[RETURN][label]

    def page(self, stem: str, number: Number, of: str, drawn: Callable | None = None, **options):
        """Curves against millions of frames of an agent; `drawn` adds to the axes."""
        a_pass = self.envs * self.steps / PASSES / 1e6

        def against_frames(array):
            attrs = {"long_name": "million frames of an agent"}
            return array.assign_coords(time=("time", a_pass * array["time"].values, attrs))

        made = curves(number.then(against_frames), y="return", window=self.window, **options)

        def draw(axis, results):
            made.draw(axis, results)
            if drawn is not None:
                drawn(axis)

        title = f"BigFish from pictures, {of}"
        return page(stem, Panel(draw, made.needs, ""), title=title, height=3.0)


def _first(size: Scale) -> Number:
    """Returns [seed, time] of the first policy: of an agent that learns nothing."""
    null = Part.of(size, "pixel").returns("pixels-null", "null", SMALL, learning_rate=STILL)
    return null.sel(num_agents=1)


def _learns(id: str, who: str, returns: Number, first: Number, why: str) -> Measurable:
    """The claim that late returns are above those of the first policy."""
    return effect(
        f"{id} {who}",
        f"late return of {who} less that of the first policy",
        returns.late(LAST) - first.late(1.0),
        published="agents learn from pictures",
        why=why,
    )


@figure("pixels", "PPO from pictures: N agents that average", only_named=True)
def pixels(size):
    """One to four agents with a small network, which average after every pass over their frames.

    The network is the classic one, two convolutions and a hidden layer, of a tenth of IMPALA's
    operations. Rollouts are of sixteen environments and 128 steps, an eighth of the published size,
    so that networks change eight times as often. Late returns are means over the last fifth of the
    records. In the control nothing is learned.
    """
    part, first = Part.of(size, "pixel"), _first(size)
    many = part.returns("pixels-agents", "FedPPO", SMALL, AGENTS)
    own = {n: many.sel(num_agents=n) for n in AGENTS}
    for n, returns in own.items():
        yield _learns("P18", f"N = {n}", returns, first, part.why)
    yield effect(
        "P18 agents",
        "late return: N = 4 less N = 1",
        own[4].late(LAST) - own[1].late(LAST),
        published="agents that average learn faster",
        why=part.why,
    )
    yield control(
        "P18 null",
        "late return less that of the first policy where nothing is learned",
        first.late(LAST) - first.first(max(1, part.rollouts // 2)),
        why=part.why,
    )
    lines = {f"N = {n}": array for n, array in own.items()} | {NULL: first}
    shown = caption((part.trials,), level=None, window=part.window)
    yield part.page("pixels", _beside(lines), shown)


@figure("networks", "PPO from pictures: three kinds of network", only_named=True)
def networks(size):
    """One agent with the classic network, with that of the published baseline, and a transformer.

    Rollouts are of the published size, 64 environments and 256 steps. Late returns are means over
    the last fifth of the records. The published curve is of three runs.
    """
    part, first = Part.of(size, "network"), _first(size)
    own = {
        label: part.returns(f"networks-{label.lower()}", label, kind).sel(num_agents=1)
        for label, kind in {SMALL: SMALL, **NETWORKS}.items()
    }
    mean, deviation = _published(part.frames * (1 - LAST / 2))
    yield number(
        "P19",
        f"late return of {PUBLISHED}",
        own[PUBLISHED].late(LAST),
        (mean - 2 * deviation, mean + 2 * deviation),
        published=round(mean, 2),
        why=part.why,
    )
    for label, returns in own.items():
        yield _learns("P19", label, returns, first, part.why)

    def published(axis):
        low, high = axis.get_xlim()
        shown = [at for at in CURVE if at <= high]
        means, deviations = ([CURVE[at][place] for at in shown] for place in (0, 1))
        label = f"published, {PUBLISHED}"
        axis.errorbar(shown, means, deviations, fmt="k*", ms=6, lw=1, label=label)
        axis.set_xlim(low, high)

    styles = {SMALL: 0, PUBLISHED: 2, "ViT": 3}
    of = f"one agent, {part.trials} runs of each"
    yield part.page("networks", _beside(own), of, published, styles=styles)


def _beside(lines: dict[str, Number]) -> Number:
    """Returns [seed, time] as lines of a picture."""

    def named(label):
        return lambda array: array.assign_coords(method=label)

    return beside(*(array.then(named(label)) for label, array in lines.items()))


FIGURES = (pixels, networks)
