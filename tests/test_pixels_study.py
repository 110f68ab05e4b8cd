"""Figures of `linear-speedup` from pictures: how runs are read, on invented ones; one tiny run."""

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.studies.linear_speedup import STUDY, pixels
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

SIZE = STUDY.size("paper").replace(pixel_trials=5, network_trials=5)


def invented(results_end):
    """Returns that rise in a line from 0.9 to an end, by stage; label -> end."""
    # Of noise alone a fortieth of intervals lies above 0; of this generator none.
    rng = np.random.default_rng(1)

    def stage(method, ends, rollouts):
        time = 3.0 * np.arange(1, rollouts + 1)
        rise = np.array(list(ends.values()))[:, None, None] - 0.9
        noise = rng.normal(0, 0.05, (len(ends), SIZE.pixel_trials, time.size))
        values = (0.9 + rise * time / time[-1] + noise)[None]
        dims = ("method", "num_agents", "seed", "time")
        coordinates = {"method": [method], "num_agents": list(ends), "time": time}
        coordinates |= {"seed": np.arange(SIZE.pixel_trials)}
        return xr.Dataset({pixels.RETURN: (dims, values)}, coordinates)

    many = {n: results_end[n] for n in pixels.AGENTS}
    alone = {label: {1: results_end[label]} for label in ("classic", "IMPALA", "ViT")}
    return {
        "ppo-pixels-agents": stage("FedPPO", many, SIZE.pixel_rollouts),
        "ppo-pixels-null": stage("null", {1: 0.9}, SIZE.pixel_rollouts),
    } | {
        f"ppo-networks-{label.lower()}": stage(label, end, SIZE.network_rollouts)
        for label, end in alone.items()
    }


def lines_of(ends, directory):
    made = STUDY.declare(["pixels", "networks"], SIZE)
    results = Results(directory, Meter(None, {}))
    results._made = invented(ends)
    lines = {own.claim.id: own.decide(results) for figure in made for own in figure.claims}
    return lines, [own.draw(results) for figure in made for own in figure.pictures]


def test_what_learns_learns_and_more_agents_learn_more(tmp_path):
    # The last fifth of a line ends a tenth of the way below its end.
    ends = {1: 6.0, 2: 7.0, 4: 8.0, "classic": 5.0, "ViT": 0.9}
    ends["IMPALA"] = 0.9 + (8.19 - 0.9) / 0.9
    lines, pages = lines_of(ends, tmp_path)
    # Between the published 3.7 at two and 9.0 at five million frames.
    assert lines["P19"]["published"] == pytest.approx(8.13, abs=0.01)
    assert lines["P19"]["measured"] == pytest.approx(8.19, abs=0.05)
    assert lines["P18 agents"]["measured"] == pytest.approx(0.9 * 2, abs=0.05)
    assert lines["P18 N = 2"]["measured"] == pytest.approx(0.9 * 6.1, abs=0.05)
    held = {name for name, line in lines.items() if line["verdict"] == "reproduced"}
    assert held == set(lines) - {"P19 ViT"}
    agents, networks = (own.axes[0] for own in pages)
    assert agents.get_xlabel() == "million frames of an agent"
    assert agents.get_xlim()[1] == pytest.approx(5.0, rel=0.1)
    words = [axis.get_legend_handles_labels()[1] for axis in (agents, networks)]
    assert words[0] == ["N = 1", "N = 2", "N = 4", "nothing is learned"]
    assert words[1] == ["classic", "IMPALA", "ViT", "published, IMPALA"]


def test_where_nothing_is_learned_nothing_is_claimed(tmp_path):
    ends = dict.fromkeys((*pixels.AGENTS, "classic", "IMPALA", "ViT"), 0.9)
    lines, _ = lines_of(ends, tmp_path)
    held = {name for name, line in lines.items() if line["verdict"] == "reproduced"}
    assert held == {"P18 null"}


def test_published_values_are_those_of_the_baseline():
    for frames, own in pixels.CURVE.items():
        assert pixels._published(1e6 * frames) == pytest.approx(own)
    assert pixels._published(1.5e6) == pytest.approx((2.8, 1.0))


def test_its_size_is_five_million_frames_an_agent():
    size = STUDY.size("paper")
    for part in ("pixel", "network"):
        assert 5e6 <= pixels.Part.of(size, part).frames < 5.02e6
    assert {"pixels", "networks"} <= set(STUDY.only_named)
    figure, _ = STUDY.declare(["pixels", "networks"], size)
    (many,) = (own for own in figure.stages if own.name == "ppo-pixels-agents")
    ((algorithm, counts, steps),) = many.plan()
    assert (counts, steps) == ({1: 3, 2: 3, 4: 3}, 3 * size.pixel_rollouts)
    config = algorithm.config.resolved()
    assert (config.network.kind, config.num_envs, config.rollout_steps) == ("classic", 16, 128)


@pytest.mark.thorough
def test_a_tiny_run(tmp_path, monkeypatch):
    """On CartPole, which compiles sooner."""
    tiny = frl.fedppo(frl.envs.gymnax_task("CartPole-v1"), num_envs=4, rollout_steps=64)
    monkeypatch.setattr(pixels.Part, "learner", lambda part, kind: tiny)
    summary = STUDY.run(tmp_path, ["pixels", "networks"], "smoke")
    verdicts = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert verdicts.pop("P18 null") == "reproduced"
    assert set(verdicts.values()) == {"undecided"}  # of two runs
    for picture in ("pixels", "networks"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 0
