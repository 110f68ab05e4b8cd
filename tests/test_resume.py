"""A run that was stopped and one that was not leave the same numbers."""

import importlib
import os
import shutil

import jax
import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.identity import digest
from fedjax_rl.saving import checkpoints, directory, results
from fedjax_rl.saving.checkpoints import Checkpoints
from fedjax_rl.sweeps import jobs

batches = importlib.import_module("fedjax_rl.sweeps.batches")


class Clock:
    """Time that passes ten seconds a look, so that every chunk is worth saving."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 10.0
        return self.now


def hurry(monkeypatch):
    monkeypatch.setattr(checkpoints, "time", Clock())
    # A save takes ten seconds by that clock and would be spaced twentyfold.
    monkeypatch.setattr(checkpoints, "max", lambda *values: 0.0, raising=False)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


def run(**options):
    algorithm = frl.fedq(frl.envs.paper_mdp(), beta=2.0, participation=0.6, reward_noise=0.1)
    result = frl.sweep(
        algorithm,
        num_agents=[1, 3],
        sync_period=[4, 7],
        learning_rate=0.3,
        seeds=range(2),
        num_steps=100,
        record_every=10,
        chunk=1,
        workers=1,
        metrics=["error_server", "error_local"],
        **options,
    )
    result.attrs.pop("seconds")
    return result


@pytest.fixture(scope="module")
def whole():
    return run()


class StopError(Exception):
    """Somebody pulled the plug."""


def interrupted(directory, at):
    """Runs until so many agent-steps are done; returns how many there are in all."""
    totals = []

    def progress(done, total):
        totals.append(total)
        if done >= at * total:
            raise StopError

    with pytest.raises(StopError):
        run(checkpoints=directory, progress=progress)
    return totals[0]


def saved(directory):
    return sorted(int(p.name) for p in (directory / "job-0000").iterdir() if p.name.isdigit())


def test_a_resumed_run_is_the_same_bit_for_bit(whole, tmp_path):
    interrupted(tmp_path, 0.5)
    assert saved(tmp_path)[-1] in (4, 5)
    interrupted(tmp_path, 0.8)
    seen = []
    again = run(checkpoints=tmp_path, progress=lambda done, total: seen.append((done, total)))
    xr.testing.assert_identical(again, whole)
    assert seen[0][0] > 0.6 * seen[0][1]  # it did not begin at the beginning
    assert seen[-1][0] == seen[-1][1]
    # A finished run is only read.
    xr.testing.assert_identical(run(checkpoints=tmp_path), whole)


def test_the_last_few_checkpoints_are_kept(tmp_path):
    interrupted(tmp_path, 0.9)
    kept = saved(tmp_path)
    assert len(kept) == 3
    assert kept == list(range(kept[0], kept[0] + 3))


def test_nothing_is_saved_more_often_than_asked_but_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "Checkpoints", lambda *at: Checkpoints(*at, seconds=1e9))
    run(checkpoints=tmp_path)
    assert saved(tmp_path) == [10]


@pytest.mark.parametrize("damage", [b"", b"junk" * 100, b"{}"])
def test_a_damaged_result_is_never_read(tmp_path, whole, damage):
    frl.save(tmp_path / "new" / "directory", whole)
    file = tmp_path / "new" / "directory" / "result.nc"
    xr.testing.assert_identical(frl.load(file), whole)
    good = file.read_bytes()
    file.write_bytes(damage)
    with pytest.raises(OSError, match="damaged"):
        frl.load(file)
    rng = np.random.default_rng(0)
    for _ in range(30):  # a bit of a number is as bad
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(bad))
        try:
            again = frl.load(file)
        except OSError:
            continue
        xr.testing.assert_identical(again, whole)


@pytest.mark.parametrize("value", [None, {"a": 1}, True])
def test_what_a_file_cannot_hold_is_refused_by_name(tmp_path, whole, value):
    with pytest.raises(ValueError, match=r"attrs\['note'\] of result is .*; allowed: words"):
        frl.save(tmp_path, whole.assign_attrs(note=value))
    with pytest.raises(ValueError, match="directory is a Dataset; allowed: a path first"):
        frl.save(xr.Dataset(), "there")
    with pytest.raises(ValueError, match="result is a DataArray; allowed: a Dataset"):
        frl.save(tmp_path, whole["error_server"])
    assert not list(tmp_path.iterdir())


def test_home_is_one_place_for_writing_and_reading(tmp_path, monkeypatch, whole):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    frl.save("~/a", whole)
    assert (tmp_path / "a" / "result.nc").is_file()
    xr.testing.assert_identical(frl.load("~/a"), whole)
    assert results.claim("~/b", {"command": "run"}) == tmp_path / "b"
    assert not (tmp_path / "~").exists()


MDP = frl.envs.paper_mdp()
FEDQ = {"epsilon": 1.0, "learning_rate": 0.1, "sync_period": 10}
SWEPT = {"num_agents": 4, "seeds": range(2), "num_steps": 200, "record_every": 10}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Directories of finished runs, by what was changed in them."""
    made = {}

    def directory(**changes):
        key = digest(changes)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("begun")
            frl.sweep(frl.fedq(MDP, **{**FEDQ, **changes}), checkpoints=made[key], **SWEPT)
        return made[key]

    return directory


def per_agent(scale):
    return frl.by_agents(lambda num_agents: scale / num_agents)


@pytest.mark.parametrize(
    ("before", "properties", "arguments", "words"),
    [
        ({}, {"learning_rate": 0.01}, {}, "learning_rate is 0.01, there 0.1"),
        ({}, {"sync_period": 5}, {}, "sync_period is 5, there 10"),
        ({}, {"mdp": MDP.replace(reward=MDP.reward + 1e-3)}, {}, "mdp.reward is "),
        ({}, {"discount": 0.3}, {}, "discount is 0.3, there None"),
        ({}, {"participation": 0.3}, {}, "participation is 0.3, there None"),
        ({}, {"uplink": frl.uplinks.top_k(1)}, {}, r"uplink is top-k\(k=1\), there None"),
        ({"uplink": frl.uplinks.top_k(1)}, {"uplink": frl.uplinks.top_k(2)}, {}, "uplink is "),
        ({"learning_rate": per_agent(0.1)}, {"learning_rate": per_agent(0.2)}, {}, "learning_rate"),
        ({}, {"learning_rate": np.array([0.1, 0.1, 0.1, 0.2])}, {}, "learning_rate is"),
        ({}, {"generator": "hash"}, {}, "generator is hash, there threefry"),
        ({}, {}, {"seeds": [5, 6]}, r"seeds is \[5, 6\], there \[0, 1\]"),
        ({}, {}, {"num_agents": 3}, "num_agents is 3, there 4"),
        ({}, {}, {"learning_rate": [0.1, 0.2]}, r"learning_rate is \[0.1, 0.2\], there 0.1"),
        ({}, {}, {"record_every": 20, "num_steps": 400}, "record_every is 20, there 10"),
        ({}, {}, {"first_record": 1}, "first_record is 1, there 10"),
        ({}, {}, {"metrics": ["error_local"]}, r"metrics is \['error_local'\], there"),
        ({}, {}, {"num_steps": 100}, "20 records are made there, and it makes 10"),
    ],
)
def test_checkpoints_of_other_arguments_are_refused_by_name(
    begun, before, properties, arguments, words
):
    algorithm = frl.fedq(**{"mdp": MDP, **FEDQ, **properties})
    with pytest.raises(ValueError, match=words):
        frl.sweep(algorithm, checkpoints=begun(**before), **{**SWEPT, **arguments})


@pytest.mark.parametrize("flag", ["jax_enable_x64", "jax_threefry_partitionable"])
def test_checkpoints_of_another_arithmetic_are_refused_by_name(begun, flag):
    before = getattr(jax.config, flag)
    jax.config.update(flag, not before)
    try:
        with pytest.raises(ValueError, match=r"precision is float64, there float32|partitionable"):
            frl.sweep(frl.fedq(MDP, **FEDQ), checkpoints=begun(), **SWEPT)
    finally:
        jax.config.update(flag, before)


@pytest.mark.parametrize("properties", [{}, {"learning_rate": per_agent(0.1)}])
def test_a_longer_run_goes_on_to_the_bits_of_a_fresh_one(tmp_path, properties):
    algorithm = frl.fedq(MDP, **{**FEDQ, **properties})
    frl.sweep(algorithm, checkpoints=tmp_path, **SWEPT)
    longer = {**SWEPT, "num_steps": 330}
    seen = []
    again = frl.sweep(
        algorithm, checkpoints=tmp_path, progress=lambda *at: seen.append(at), **longer
    )
    fresh = frl.sweep(algorithm, **longer)
    xr.testing.assert_identical(again.drop_attrs(), fresh.drop_attrs())
    assert seen[0][0] == 200 * 8


def test_a_rule_that_ends_a_run_is_asked_the_same_again(tmp_path):
    def stop(times, records, cells):
        return records["error_server"][-1] < 60

    algorithm, options = frl.fedq(MDP, **FEDQ), {**SWEPT, "chunk": 3, "stop": stop}
    whole = frl.sweep(algorithm, **options).drop_attrs()
    assert 0 < whole.sizes["time"] < 20
    for _ in range(2):
        again = frl.sweep(algorithm, checkpoints=tmp_path, **options)
        xr.testing.assert_identical(again.drop_attrs(), whole)


@pytest.mark.thorough
def test_the_split_into_jobs_is_that_of_the_machine_it_was_begun_on(tmp_path, monkeypatch):
    """Cores, and free memory, may differ when a run goes on; its numbers may not."""
    monkeypatch.setattr(jobs, "SHORT", 1)  # or so few rounds would not be split
    algorithm = frl.es(frl.envs.simple_grid(max_steps=5), network=(4,))

    def go(cores, **options):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        return frl.sweep(
            algorithm, num_agents=64, seeds=range(16), num_steps=4, chunk=1, **options
        ).drop_attrs()

    def stop_half_way(done, total):
        if done > total / 3:
            raise StopError

    whole = go(2)
    for cores in (4, 1):
        with pytest.raises(StopError):
            go(2, checkpoints=tmp_path / str(cores), progress=stop_half_way)
        assert len(list((tmp_path / str(cores)).glob("job-*"))) == 2
        xr.testing.assert_identical(go(cores, checkpoints=tmp_path / str(cores)), whole)


def test_other_versions_are_told(begun, monkeypatch):
    directory = begun()
    monkeypatch.setattr(results, "versions", lambda: {"jax": "0.1"})
    with pytest.warns(UserWarning, match=r"jax is 0.1, was \d.*: the last digits may differ"):
        frl.sweep(frl.fedq(MDP, **FEDQ), checkpoints=directory, **SWEPT)


def test_two_callers_do_not_share_checkpoints(begun):
    with directory.held(begun()), pytest.raises(ValueError, match="another process is at work"):
        frl.sweep(frl.fedq(MDP, **FEDQ), checkpoints=begun(), **SWEPT)


def _junk(job):
    for path in [p for p in job.rglob("*") if p.is_file()]:
        path.write_bytes(b"junk")


ODD = {
    "an empty newest step": lambda job, new: (shutil.rmtree(new), new.mkdir()),
    "a later step that is empty": lambda job, new: (job / "99").mkdir(),
    "a later step that is a copy": lambda job, new: shutil.copytree(new, job / "9999"),
    "a step under another number": lambda job, new: new.rename(job / "40"),
    "a step without its arrays": lambda job, new: shutil.rmtree(new / "default"),
    "a file named like a step": lambda job, new: (job / "9").write_text("x"),
    "a link to itself": lambda job, new: (job / "77").symlink_to(job / "77"),
    "everything junk": lambda job, new: _junk(job),
    "stray names": lambda job, new: [(job / n).mkdir() for n in ("abc", "-1", "08.tmp")],
    "half a save": lambda job, new: shutil.copytree(new, job / "8.orbax-checkpoint-tmp"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_checkpoints_are_passed_over(whole, stopped, tmp_path, capfd, odd):
    copy = shutil.copytree(stopped, tmp_path / "copy", symlinks=True)
    job = copy / "job-0000"
    ODD[odd](job, job / str(saved(copy)[-1]))
    xr.testing.assert_identical(run(checkpoints=copy), whole)
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Checkpoints of a run that was stopped; not to be changed."""
    directory = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        interrupted(directory, 0.7)
    return directory
