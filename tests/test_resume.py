"""A run that was stopped and one that was not leave the same numbers."""

import importlib

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import checkpoints, results
from fedjax_rl.checkpoints import Checkpoints

sweeping = importlib.import_module("fedjax_rl.sweep")


class Clock:
    """Time that passes ten seconds a look, so that every chunk is worth saving."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 10.0
        return self.now


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(checkpoints, "clock", Clock())
    # A save takes ten seconds by that clock and would be spaced twentyfold.
    monkeypatch.setattr(checkpoints, "max", lambda *values: 0.0, raising=False)


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


@pytest.mark.parametrize("damage", ["empty", "truncated", "missing"])
def test_a_torn_checkpoint_is_passed_over(whole, tmp_path, damage):
    interrupted(tmp_path, 0.7)
    newest = tmp_path / "job-0000" / str(saved(tmp_path)[-1])
    for path in [p for p in newest.rglob("*") if p.is_file()]:
        if damage == "missing":
            path.unlink()
        else:
            keep = 0 if damage == "empty" else path.stat().st_size // 2
            path.write_bytes(path.read_bytes()[:keep])
    xr.testing.assert_identical(run(checkpoints=tmp_path), whole)


def test_the_checkpoints_of_another_run_are_refused(tmp_path):
    interrupted(tmp_path, 0.5)
    with pytest.raises(ValueError, match="another run"):
        frl.sweep(
            frl.fedq(frl.envs.paper_mdp(), beta=2.0, participation=0.6, reward_noise=0.1),
            num_agents=5,
            num_steps=100,
            record_every=10,
            metrics=["error_server", "error_local"],
            checkpoints=tmp_path,
        )


def test_nothing_is_saved_more_often_than_asked_but_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "Checkpoints", lambda path: Checkpoints(path, seconds=1e9))
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
