"""BigFish from pictures: what agents that average make of their frames, and three kinds of network.

The game, the levels (all of the easy mode), the pictures and the hyperparameters are those of the
published baseline (Cobbe, Hesse, Hilton and Schulman, arXiv 1912.01588), whose network is IMPALA's.
"""

from __future__ import annotations

import numpy as np

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.linear_speedup.deep_times import PASSES
from fedjax_rl.studies.numbers import Number, beside
from fedjax_rl.studies.pictures import Panel, curves, page
from fedjax_rl.studies.runs import STILL, runs
from fedjax_rl.studies.study import Scale

# Of rollouts and so on (smoke, quick, paper): five million frames of an agent are 306 rollouts. The
# quick one is of one million, for which two cores take eight hours, five of them with IMPALA; after
# fewer BigFish is hardly learned.
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


@figure("pixels", "PPO from pictures: N agents, and three kinds of network", only_named=True)
def pixels(size):
    """One to four agents with a small network, and one with IMPALA and with a transformer.

    Agents average after every pass over their frames. The network is the classic one, two
    convolutions and a hidden layer, of a tenth of IMPALA's operations. Late returns are means over
    the last fifth of the records. In the control nothing is learned.
    """
    frames = size.pixel_rollouts * size.pixel_envs * size.pixel_steps

    def stage(name, kind, label, agents=AGENTS[:1], **own):
        return runs(
            f"ppo-pixels-{name}",
            lambda: {label: (_learner(size, kind), own)},
            {"num_agents": agents},
            num_steps=PASSES * size.pixel_rollouts,
            trials=size.pixel_trials,
            metrics=(RETURN,),
            record_every=PASSES,
            seconds=SECONDS[kind] * sum(agents) * size.pixel_trials * size.pixel_rollouts,
        )

    many = stage("agents", SMALL, "FedPPO", AGENTS)
    null = stage("null", SMALL, "null", learning_rate=STILL)
    others = {label: stage(label.lower(), kind, label) for label, kind in NETWORKS.items()}
    by_agents = many[RETURN]["FedPPO"]
    late = {n: by_agents.sel(num_agents=n).late(LAST) for n in AGENTS}
    still = null[RETURN]["null"].sel(num_agents=1)
    alone = {SMALL: by_agents.sel(num_agents=1)} | {
        label: own[RETURN][label].sel(num_agents=1) for label, own in others.items()
    }
    first = still.late(1.0)
    why = FEW.format(size.pixel_trials, frames / 1e6)
    mean, deviation = _published(frames * (1 - LAST / 2))
    yield number(
        "P18",
        f"late return of {PUBLISHED}, N = 1",
        alone[PUBLISHED].late(LAST),
        (mean - 2 * deviation, mean + 2 * deviation),
        published=round(mean, 2),
        why=why,
    )
    learners = {f"N = {n}": (SMALL, n, own) for n, own in late.items()}
    learners |= {label: (label, 1, alone[label].late(LAST)) for label in NETWORKS}
    for id, (label, n, own) in learners.items():
        yield effect(
            f"P18 {id}",
            f"late return of {label}, N = {n}, less that of the first policy",
            own - first,
            published="agents learn from pictures",
            why=why,
        )
    yield effect(
        "P18 agents",
        f"late return of {SMALL}: N = 4 less N = 1",
        late[4] - late[1],
        published="agents that average learn faster",
        why=why,
    )
    yield control(
        "P18 null",
        "late return less that of the first policy where nothing is learned",
        still.late(LAST) - still.first(max(1, size.pixel_rollouts // 5)),
    )

    def against_frames(number: Number, by: str, title: str, **options) -> Panel:
        """Curves against millions of frames of an agent."""
        a_pass = size.pixel_envs * size.pixel_steps / PASSES / 1e6

        def of(array):
            attrs = {"long_name": "million frames of an agent"}
            return array.assign_coords(time=("time", a_pass * array["time"].values, attrs))

        return curves(number.then(of), by=by, title=title, y="return", **options)

    drawn = against_frames(
        beside(*(own.then(_named(label)) for label, own in alone.items())),
        "method",
        "networks, N = 1",
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

    yield page(
        "pixels",
        against_frames(
            by_agents.then(lambda array: array.rename(num_agents="N")),
            "N",
            f"{SMALL}, N agents",
            styles={f"N = {n}": place for place, n in enumerate(AGENTS)},
        ),
        Panel(with_published, drawn.needs, drawn.title),
        legends="below",
        title=f"BigFish from pictures, {size.pixel_trials} runs of each",
    )


def _named(label):
    return lambda array: array.drop_vars("num_agents").assign_coords(method=label)
