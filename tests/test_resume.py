"""A run that was stopped and one that was not leave the same numbers."""

import importlib

import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import checkpoints
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
