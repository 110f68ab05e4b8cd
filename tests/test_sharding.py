"""The same federations on one device and over eight."""

import json
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import fedjax_rl as frl
from fedjax_rl.federation.mesh import layout


@pytest.mark.thorough
def test_a_federation_spread_over_eight_devices_is_the_one_on_one():
    """Its exchanges, too: weights of entries, some silent. What lies whole is in the contract."""
    algorithm = frl.fedq(
        frl.envs.paper_mdp(),
        epsilon=1.0,
        aggregation="importance",
        participation=0.7,
        learning_rate=np.linspace(0.1, 0.4, 16),
    )
    cells = [frl.Cell(16, 0, {"sync_period": 3})]
    options = {"num_steps": 60, "record_every": 20, "metrics": ("error_server", "error_local")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said about a layout
        one, eight = (frl.run_cells(algorithm, cells, devices=d, **options) for d in (1, 8))
    for metric in options["metrics"]:
        np.testing.assert_allclose(eight[metric], one[metric], rtol=2e-5, atol=1e-7)
    assert np.isfinite(one["error_server"]).all()
    for column in ("communications", "messages_up", "bytes_down", "env_steps"):
        np.testing.assert_array_equal(eight[column], one[column])


def test_devices_get_as_little_work_as_can_be():
    assert layout([16], 8).blocks == (1, 8)
    assert layout([3] * 16, 8).blocks == (8, 1)
    assert layout([3] * 3, 8).blocks == (3, 2)  # two agents each; one of all three is three
    # On a clock only those who arrive work: one by one there is nothing to share out.
    assert layout([8], 8, working=lambda n: 1).blocks == (1, 1)
    assert layout([8], 8, working=lambda n: 2).blocks == (1, 2)
    # Unless one device does not hold them.
    assert layout([8], 8, working=lambda n: 1, most=2).blocks == (1, 4)


SIZES = [5, 1, 2, 5, 7]


def test_everybody_has_one_place_that_counts():
    plan = layout(SIZES, 4)
    assert plan.blocks == (1, 4)
    federation, member = (x[plan.places("agent")] for x in plan.agents())
    np.testing.assert_array_equal(federation, np.repeat(np.arange(5), SIZES))
    np.testing.assert_array_equal(member, np.concatenate([np.arange(n) for n in SIZES]))
    np.testing.assert_array_equal(np.asarray(plan.order)[plan.places("federation")], range(5))
    # As they lay on one device, and back.
    alone, values = layout(SIZES, 1), np.arange(sum(SIZES))
    laid = plan.moved(alone.told(), values, "agent")
    np.testing.assert_array_equal(alone.moved(plan.told(), laid, "agent"), values)
    each = alone.moved(plan.told(), np.arange(5)[None], "federation", axis=1)
    np.testing.assert_array_equal(each[0], np.argsort(plan.order)[np.asarray(alone.order)])


def test_nobody_counts_in_no_reduction():
    """Against NumPy, of federations that no number of devices divides."""
    plan = layout(SIZES, 4)
    federation, member = plan.agents()
    values = np.random.default_rng(0).normal(size=(5, max(SIZES))).astype(np.float32)
    here = values[federation, member]
    one = plan.population

    def everything(x):
        mask = x > -0.5
        ranks = one.mid_rank(x, mask)
        return (
            [one.mean(x), one.sum(x), one.max(x), one.first(x), one.max((x * 99).astype("int32"))],
            [one.others(x, one.places - one.places % 2), jnp.where(mask, ranks, -1), one.places],
            one.gathered(x),
            one.held(one.gathered(x)) == x,
        )

    specs = ("federation", ("federation", "agent"), None, ("federation", "agent"))
    specs = [PartitionSpec(axis) if axis else PartitionSpec() for axis in specs]
    spec = PartitionSpec(("federation", "agent"))
    whole, here = plan.shard(everything, spec, tuple(specs)), plan.place(jnp.asarray(here), spec)
    reduced, of_agents, gathered, same = jax.jit(whole)(here)
    assert np.all(same)
    places, first = plan.places("agent"), plan.places("federation")
    mean, total, top, begin, whole_top = (np.asarray(x)[first] for x in reduced)
    pair, ranks, member_of = (np.asarray(x)[places] for x in of_agents)
    np.testing.assert_array_equal(
        np.asarray(gathered), np.concatenate([values[f, : SIZES[f]] for f in plan.order])
    )
    at = 0
    for f, n in enumerate(SIZES):
        own = values[f, :n]
        np.testing.assert_allclose(mean[f], own.mean(), rtol=1e-5)
        np.testing.assert_allclose(total[f], own.sum(), rtol=1e-5)
        np.testing.assert_array_equal([top[f], begin[f]], [own.max(), own[0]])
        assert whole_top[f] == (own * 99).astype(np.int32).max()
        mine = slice(at, at + n)
        np.testing.assert_array_equal(pair[mine], own[np.arange(n) // 2 * 2])
        np.testing.assert_array_equal(member_of[mine], range(n))
        counts = own > -0.5
        expected = np.where(counts, np.argsort(np.argsort(np.where(counts, own, np.inf))), -1)
        np.testing.assert_array_equal(ranks[mine], expected)
        at += n


CLOCKS = {
    "one at a time": frl.Clock("asynchronous", distribution="exponential"),
    "three of five": frl.Clock("semi-synchronous", wait_for=3, distribution="exponential"),
    "everybody": frl.Clock(distribution="log_normal"),
    "with failures": frl.Clock(
        "semi-synchronous",
        wait_for=4,
        distribution="exponential",
        failure_time=2.0,
        return_time=0.5,
    ),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_members_of_a_federation_on_a_clock_lie_on_several_devices(kind, monkeypatch):
    """Five on two and four devices, who arrive in the order of one device, bit for bit."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, clock=CLOCKS[kind])
    options = {"num_agents": 5, "seeds": 3, "num_steps": 24, "record_every": 8}
    options["metrics"] = ("error_server", "error_local", "simulated_time", "uploads_of_agent")
    one = frl.sweep(algorithm, **options)
    # One message at a time is spread where a device does not hold all.
    spread = {"working": lambda n: n}
    monkeypatch.setattr("fedjax_rl.sweeps.jobs._spread", lambda *args: spread)
    for devices in (2, 4) if kind == "with failures" else (2,):
        several = frl.sweep(algorithm, devices=devices, **options)
        for metric in ("simulated_time", "uploads_of_agent"):
            np.testing.assert_array_equal(several[metric], one[metric])
        for metric in ("error_server", "error_local"):
            np.testing.assert_allclose(several[metric], one[metric], rtol=2e-5, atol=1e-7)
        for column in ("messages_up", "bytes_down", "env_steps"):
            np.testing.assert_array_equal(several[column], one[column])


@pytest.mark.thorough
def test_pairs_of_opposite_perturbations_lie_on_several_devices():
    one = frl.es(frl.envs.simple_grid(max_steps=4), antithetic=True)
    options = {"num_agents": 6, "num_steps": 4, "record_every": 2}
    # Six on four: two each, and one device holds nobody but a copy of the last.
    found = [frl.sweep(one, devices=devices, **options)["return"] for devices in (1, 2, 4)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)


@pytest.mark.parametrize(
    "before", [((4, 30),), pytest.param(((1, 20), (4, 40)), marks=pytest.mark.thorough)]
)
def test_a_run_goes_on_over_other_devices(before, tmp_path):
    algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, participation=0.7)
    options = {"num_agents": [5, 2], "sync_period": 3, "record_every": 10, "seeds": [4, 7]}
    options["metrics"] = ("error_server", "error_local")
    whole = frl.sweep(algorithm, num_steps=60, **options)
    for devices, steps in before:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frl.sweep(algorithm, num_steps=steps, devices=devices, checkpoints=tmp_path, **options)
    with pytest.warns(UserWarning, match=r"devices is 2, was 4: the last digits may differ"):
        parts = frl.sweep(algorithm, num_steps=60, devices=2, checkpoints=tmp_path, **options)
    for metric in options["metrics"]:
        np.testing.assert_allclose(parts[metric], whole[metric], rtol=2e-5, atol=1e-7)
    for column in ("messages_up", "bytes_down", "env_steps"):
        np.testing.assert_array_equal(parts[column], whole[column])


@pytest.mark.parametrize("devices", [0, -1, 9])
def test_more_devices_than_there_are_is_refused(devices):
    assert jax.device_count() == 8
    with pytest.raises(ValueError, match=f"devices is {devices}; allowed: 1 to 8"):
        layout([4], devices)


@pytest.mark.thorough
def test_a_command_has_as_many_devices_as_it_asks_for(tmp_path):
    """Three of a CPU, which is told before JAX starts: what reads the line must not start it."""
    line = [sys.executable, "-m", "fedjax_rl", "run", "fedq", "paper-mdp", "--num-agents", "5"]
    line += ["--num-steps", "4", "--devices", "3", "--out", str(tmp_path / "run")]
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(line, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["devices"] == 3
