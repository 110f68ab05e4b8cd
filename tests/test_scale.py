"""Federations of many agents: in turns, in place, summed up, and refused where they do not fit."""

import collections
import functools
import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import backend, cli, memory, turns
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.sweeps import of_agents
from fedjax_rl.sweeps.programs import PROGRAMS

RUN = {"num_steps": 40, "record_every": 20}


@pytest.fixture
def anew(monkeypatch):
    """No program of before is used, as what shapes them is changed here."""
    monkeypatch.setattr(PROGRAMS, "_compiled", collections.OrderedDict())
    return monkeypatch


def test_turns_are_equal_where_they_can_be(monkeypatch):
    monkeypatch.setitem(turns.CACHE, "cpu", 1000)
    monkeypatch.setattr(turns, "MOST", 128)

    def length(count, each):
        return turns.length(count, jax.ShapeDtypeStruct((count, each), np.uint8))

    assert length(256, 1) == 256  # few
    assert length(1000, 1) == 125
    assert length(1000, 50) == 20  # a thousand bytes of them
    assert length(257, 1) == 86  # of which there are two, and 85 are left
    assert length(1000, 10**6) == 2


@pytest.mark.parametrize(
    ("name", "num_agents", "more"),
    [
        ("fedq", 53, {"sync_period": 7, "learning_rate": np.linspace(0.1, 0.3, 53)}),
        ("es", 50, {}),
    ],
)
def test_agents_in_turns_are_agents_at_once(anew, name, num_agents, more):
    where = frl.envs.paper_mdp() if name == "fedq" else frl.envs.simple_grid(max_steps=6)
    algorithm = getattr(frl, name)(where, **more)
    run = {**RUN, "num_steps": 4, "record_every": 2} if name == "es" else RUN
    run = {**run, "num_agents": num_agents, "metrics": tuple(algorithm.metrics)}
    at_once = frl.sweep(algorithm, **run)
    anew.setattr(turns, "MOST", 8)
    anew.setattr(PROGRAMS, "_compiled", collections.OrderedDict())
    found = frl.sweep(algorithm, **run)
    for metric in at_once.data_vars:
        # Each agent to the last bit; what is summed by another loop is rounded otherwise.
        same = "agent" in at_once[metric].dims or metric in COLUMNS
        tolerance = 0 if same else 1e-6
        np.testing.assert_allclose(found[metric], at_once[metric], rtol=tolerance, err_msg=metric)


@pytest.mark.thorough
def test_derivatives_go_through_turns(anew):
    def error(rate):
        one = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=4, learning_rate=rate)
        run = frl.simulate(one, num_agents=24, num_steps=8)
        return run.metrics["error_server"][-1]

    expected = jax.grad(error)(0.1)
    anew.setattr(turns, "MOST", 8)
    np.testing.assert_allclose(jax.grad(error)(0.1), expected, rtol=1e-6)


def test_batches_of_batches_are_computed_in_parts_of_what_differs():
    seen = []

    def function(x, many):
        seen.append((x["a"].shape, many.shape))
        return {"sum": x["a"] * jnp.sum(many) + x["b"], "word": many[0]}

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 7)).astype(np.float32), np.arange(7, dtype=np.float32)
    many = jnp.asarray([1.0, 2.0, 4.0])
    apart = turns.in_parts(function, 1, 4)
    inner = jax.vmap(apart, in_axes=({"a": 0, "b": 0}, None))
    found = jax.jit(jax.vmap(inner, in_axes=({"a": 0, "b": None}, None)))({"a": a, "b": b}, many)
    np.testing.assert_allclose(found["sum"], a * 7 + b, rtol=1e-6)
    np.testing.assert_array_equal(found["word"], np.ones((3, 7)))
    loops = str(jax.make_jaxpr(inner)({"a": a[0], "b": b}, many))
    assert "f32[2,4]" in loops  # two parts of four, the last one filled
    assert set(seen) == {((), (3,))}  # what is the same for all is never copied


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_is_computed_once_keeps_its_values(kind):
    values = {"x": jnp.arange(5.0), "n": jnp.arange(3, dtype=jnp.uint32), "b": jnp.asarray([True])}
    with backend.made_for(kind):
        kept = jax.jit(lambda tree: backend.once(tree))(values)
    jax.tree.map(np.testing.assert_array_equal, kept, values)


def test_what_is_computed_once_is_not_made_again_by_all_who_read_it():
    def table(x, apart):
        row = jnp.sin(x)
        row = backend.once(row) if apart else row
        return row[:, None] + row[None]

    def made_with_it(apart):
        text = jax.jit(table, static_argnums=1).lower(jnp.zeros(64), apart).compile().as_text()
        loops = [part for part in text.split("\n\n") if not part.startswith("ENTRY")]
        assert "sine(" in text
        return any("sine(" in loop and "f32[64,64]" in loop for loop in loops)

    assert made_with_it(False)
    assert not made_with_it(True)


@pytest.mark.thorough
def test_metrics_of_many_agents_are_summed_up_in_the_program(anew):
    """On one device and over two, beside a federation that is small."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=5)
    run = {**RUN, "num_agents": [3, 21], "metrics": ("error_local", "error_server")}
    plain = frl.sweep(algorithm, **run)
    anew.setattr(of_agents, "MOST", 20)
    for devices in (1, 2):
        anew.setattr(PROGRAMS, "_compiled", collections.OrderedDict())
        found = frl.sweep(algorithm, devices=devices, **run)
        first = found.error_local.sel(num_agents=21)
        np.testing.assert_allclose(first, plain.error_local.sel(num_agents=21)[:16], rtol=1e-5)
        small = found.error_local.sel(num_agents=3)
        np.testing.assert_allclose(small, plain.error_local.sel(num_agents=3)[:16], rtol=1e-5)
        for n in (3, 21):
            own = plain.error_local.sel(num_agents=n).values[:n]
            mean = found.error_local_mean_of_agents.sel(num_agents=n)
            np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-5)
            expected = np.quantile(own, found["quantile"], axis=0)
            spread = found.error_local_quantiles.sel(num_agents=n)
            np.testing.assert_allclose(spread, expected, rtol=1e-5)
        np.testing.assert_allclose(found.error_server, plain.error_server, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [1, 2])
def test_chosen_agents_are_those_of_the_whole_record(devices, tmp_path):
    """To the bit, of federations that have them; what all come to is found in NumPy."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=5)
    run = {**RUN, "num_agents": [3, 21], "metrics": ("error_local", "error_server")}
    run["devices"] = devices
    chosen = [20, 0, 2]
    whole = frl.sweep(algorithm, **run).error_local
    found = frl.sweep(algorithm, agents=chosen, checkpoints=tmp_path, **run)
    assert list(found["agent"]) == chosen
    np.testing.assert_array_equal(found.error_local, whole.isel(agent=chosen))
    assert np.isnan(found.error_local.sel(num_agents=3, agent=20)).all()
    mean = whole.mean("agent").transpose("num_agents", "time")
    np.testing.assert_allclose(found.error_local_mean_of_agents, mean, rtol=1e-5)
    spread = whole.quantile(found["quantile"].values, "agent").transpose(
        "num_agents", "quantile", "time"
    )
    np.testing.assert_allclose(found.error_local_quantiles, spread, rtol=1e-5)
    own = frl.analysis.agent_mean(found.error_local)
    there = whole.isel(agent=[0, 2]).sel(num_agents=3).mean("agent")
    np.testing.assert_allclose(own.sel(num_agents=3), there, rtol=1e-6)
    with pytest.raises(ValueError, match=r"agents is .*\[20, 1\], there .*\[20, 0, 2\]"):
        frl.sweep(algorithm, agents=[20, 1], checkpoints=tmp_path, **run)


BAD_AGENTS = {
    "21": "an entry of agents is 21; allowed: whole numbers from 0 to num_agents - 1, 20",
    "-1": "an entry of agents is -1",
    "0 3 0": "agents is [0, 3, 0], which repeats some",
    "0.5": "an entry of agents is 0.5",
}


@pytest.mark.parametrize("words", BAD_AGENTS)
def test_agents_that_are_not_there_are_refused(words, tmp_path, capsys):
    algorithm = frl.fedq(frl.envs.paper_mdp())
    run = {"num_agents": [3, 21], "num_steps": 10, "metrics": ["error_local"]}
    chosen = [float(word) if "." in word else int(word) for word in words.split()]
    with pytest.raises(ValueError, match=re.escape(BAD_AGENTS[words])):
        frl.sweep(algorithm, agents=chosen, **run)
    line = "sweep fedq paper-mdp --num-agents 3 21 --num-steps 10 --metrics error_local --agents"
    assert cli.main([*line.split(), *words.split(), "--out", str(tmp_path / "out")]) == 2
    assert "agents" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_agents_are_chosen_where_their_metrics_are_recorded():
    algorithm = frl.fedq(frl.envs.paper_mdp())
    for wrong in (3, "3", {3}, [], np.zeros((1, 1), int)):
        with pytest.raises(ValueError, match=r"agents is .*; allowed: a list of different"):
            frl.sweep(algorithm, num_agents=4, num_steps=10, metrics=["error_local"], agents=wrong)
    words = r"agents is \[3\], but metrics has none of agents; allowed: with error_local"
    with pytest.raises(ValueError, match=words):
        frl.sweep(algorithm, num_agents=4, num_steps=10, agents=[3])


@pytest.mark.thorough
def test_a_command_records_the_agents_that_it_names(tmp_path):
    line = "run fedq paper-mdp --num-agents 30 --num-steps 40 --metrics error_local"
    for out, more in (("whole", ""), ("some", "--agents 7 29")):
        assert cli.main([*line.split(), *more.split(), "--out", str(tmp_path / out)]) == 0
    whole, some = (frl.load(tmp_path / out) for out in ("whole", "some"))
    np.testing.assert_array_equal(some.error_local, whole.error_local.isel(agent=[7, 29]))
    own, all_ = (
        json.loads((tmp_path / out / "summary.json").read_text())["rows"][0]["metrics"]
        for out in ("some", "whole")
    )
    # What is said of a metric is of all agents, whoever is recorded.
    assert own.keys() == all_.keys()
    final = "error_local", "final", "mean"
    one, other = (functools.reduce(dict.__getitem__, final, each) for each in (own, all_))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert cli.main(["resume", str(tmp_path / "some"), "--num-steps", "80"]) == 0
    assert frl.load(tmp_path / "some").error_local.shape[0] == 2


def test_a_result_is_gone_on_with_more_than_once():
    """Though a program writes the state after a chunk over that before it."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
    result = frl.sweep(algorithm, num_agents=3, **RUN)
    longer = [frl.extend(result, num_steps=80) for _ in range(2)]
    xr.testing.assert_equal(*longer)
    whole = frl.sweep(algorithm, num_agents=3, **{**RUN, "num_steps": 80})
    xr.testing.assert_equal(longer[0], whole)


def test_more_agents_than_there_is_room_for_say_how_many_there_is(monkeypatch):
    algorithm = frl.fedq(frl.envs.paper_mdp())
    monkeypatch.setattr(memory, "available", lambda devices=None: 2**30)
    words = (
        r"num_agents is 2000000, which needs .*; allowed: at most about \d+, for which the 1 GiB"
    )
    with pytest.raises(ValueError, match=words):
        frl.sweep(frl.es(frl.envs.simple_grid()), num_agents=2 * 10**6, num_steps=10)
    # Arrays alone would fit; what the program needs while it runs does not.
    each = memory.size(frl.init(algorithm, num_agents=1).state.agents)
    monkeypatch.setattr(memory, "available", lambda devices=None: int(20_000 * 1.5 * (each + 64)))
    with pytest.raises(ValueError, match=r"num_agents is 20000, which needs .*; allowed: at most"):
        frl.sweep(algorithm, num_agents=20_000, num_steps=10)


@pytest.mark.thorough
def test_populations_are_cut_by_what_their_programs_take_at_the_peak(monkeypatch):
    algorithm = frl.fedppo(
        frl.envs.simple_grid(max_steps=4), num_envs=2, rollout_steps=8, network={"hidden": (4,)}
    )
    run = {"num_agents": 2, "seeds": range(6), "num_steps": 4, "record_every": 2, "workers": 1}
    plain = frl.sweep(algorithm, **run)
    needed = algorithm.memory(algorithm.config, 2)["total"]
    made = []
    batches = importlib.import_module("fedjax_rl.sweeps.batches")
    execute_all = batches.execute_all
    monkeypatch.setattr(
        batches, "execute_all", lambda jobs, **more: made.append(jobs) or execute_all(jobs, **more)
    )
    # Three times what the arrays take, and a quarter of it.
    for factor, there, most in ((3, 6, 2), (0.25, 5, 6)):

        def peak(job, factor=factor):
            return factor * needed * len(job.layout.order)

        monkeypatch.setattr("fedjax_rl.sweeps.room.bytes_of", peak)
        monkeypatch.setattr(memory, "available", lambda devices=None, n=there: n * needed)
        cut = frl.sweep(algorithm, **run)
        found = [len(job.layout.order) for job in made[-1]]
        assert sum(found) == 6
        assert max(found) <= most
        assert factor > 1 or found == [6]
        for name in plain.data_vars:
            np.testing.assert_allclose(cut[name], plain[name], rtol=1e-5, err_msg=name)
