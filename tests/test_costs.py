"""What a program computes and keeps, what is kept of it on disk, and how it runs without one."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import backend
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.envs import registry
from fedjax_rl.federation import debugging
from fedjax_rl.federation.population import Population
from fedjax_rl.sweeps import cache, costs
from fedjax_rl.sweeps.compiling import compiled_quickly
from fedjax_rl.sweeps.lowering import job_of
from fedjax_rl.sweeps.programs import PROGRAMS, bytes_of

ROOT = pathlib.Path(__file__).parent.parent
PLACES = {
    "mdp": "paper-mdp",
    "tabular": "dirichlet-mdp",
    "grid": "simple-grid",
    "task": "lqr",
}


def test_operations_of_loops_and_branches():
    """By hand: a product of [2, 3] and [3, 5] takes 60, and one number of an array one."""
    a, b = jnp.ones((2, 3)), jnp.ones((3, 5))

    def program(a, b):
        def body(carry, _):
            return carry + jnp.sum(a @ b), None

        total, _ = jax.lax.scan(body, 0.0, length=7)
        total = jax.lax.cond(total > 1, lambda x: x * 2 + 1, lambda x: x * 3, total)
        return jax.lax.while_loop(lambda x: x < 5, lambda x: x + 1, total)

    found = costs._count(jax.make_jaxpr(program)(a, b).jaxpr)
    # Of each pass 10 for the sum and 1 for the addition; 2 of the larger branch, 1 of the loop.
    # Turns: those of the scan, and one of a loop of which nobody knows.
    assert found == costs.Operations(7 * 60.0, 7 * 11.0 + 2 + 1, False, 7 + 1)
    # A loop that only keeps a compiler from merging is none, in batches and derivatives neither.
    kept = jax.grad(lambda x: backend.once(jnp.sin(x) * x) ** 2)
    found = costs._count(jax.make_jaxpr(jax.vmap(kept))(jnp.ones(3)).jaxpr)
    assert found.counted
    assert found.turns == 0 < found.others
    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def convolved(image, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=layout
        )

    found = costs._count(jax.make_jaxpr(convolved)(image, kernel).jaxpr)
    assert found.products == 2 * (6 * 6 * 4) * (3 * 3 * 3)


# Those of one kind each; what differs between the rest is little.
_SHOWN = ("fedq", "es", "afedpg", "fedppo")


@pytest.mark.parametrize(
    "name", [n if n in _SHOWN else pytest.param(n, marks=pytest.mark.thorough) for n in ALGORITHMS]
)
def test_every_algorithm_tells_what_it_computes_and_keeps(name):
    """Twice the agents keep twice as much and, without a clock, compute twice as much."""
    entry = ALGORITHMS[name]
    one = entry.make(registry.make(PLACES[entry.environments[0]]))
    few, many = (costs.costs_of(one, n) for n in (2, 4))
    assert few.step.total > 0
    agents = [
        jax.tree.leaves(jax.eval_shape(lambda n=n: frl.init(one, n).state.agents)) for n in (2, 4)
    ]
    assert sum(x.size * x.dtype.itemsize for x in agents[0]) <= few.kept["agents"]
    assert many.kept["agents"] == 2 * few.kept["agents"]
    if not one.on_clock:
        assert 1.5 * few.step.total < many.step.total < 2.5 * few.step.total


@pytest.mark.thorough
def test_memory_of_ppo_is_that_of_its_state():
    one = frl.fedppo(frl.envs.gymnax_task("CartPole-v1"))
    kept = sum(costs.costs_of(one, 3).kept.values())
    said = one.memory(one.config, 3)
    lasting = sum(said[name] for name in ("parameters", "rollout", "environments"))
    assert kept == pytest.approx(lasting, rel=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("feda2c", {}),
        ("feda2c", {"network": {"kind": "mlp", "hidden": (8,)}}),
        ("feda2c", {"num_envs": 32, "rollout_steps": 32}),
        ("a3c", {}),
        ("feddqn", {}),
        ("feddqn", {"batch_size": 512}),
    ],
)
def test_memory_is_that_of_the_compiled_program(name, more):
    one = getattr(frl, name)(frl.envs.make("CartPole-v1"), **more)
    taken = bytes_of(job_of(one, 32))
    # Where XLA splits loops between threads it keeps less of a rollout at a time.
    assert 0.85 * taken < one.memory(one.config, 32)["total"] < 1.4 * taken


@pytest.mark.thorough
@pytest.mark.parametrize("num_agents", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("feda2c", {"num_envs": 64, "rollout_steps": 32}),
        ("fedppo", {"num_envs": 16, "rollout_steps": 32, "preset": "procgen", "size": "paper"}),
    ],
)
def test_memory_is_that_of_the_compiled_program_that_learns_pictures(name, more, num_agents):
    game = frl.envs.procgen_task("BigFish", observation="pixels")
    one = getattr(frl, name)(game, network={"kind": "classic"}, **more)
    taken = bytes_of(job_of(one, num_agents))
    assert 0.85 * taken < one.memory(one.config, num_agents)["total"] < 1.4 * taken


# Kept on disk -------------------------------------------------------------------------------------


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """As in the process of a user who has set nothing."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    jax.config.update(names[0], None)
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache(unset):
    where = cache.keep_programs(0.25)
    assert where.parent == unset / "fedjax_rl"
    assert jax.config.jax_compilation_cache_dir == str(where)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.25
    assert cache.keep_programs() == where
    for place, age in (("old", 2), ("new", 1)):
        (where / place).write_bytes(bytes(10))
        os.utime(where / place, (1e9 - age, 1e9 - age))
    cache._prune(where, 15)
    assert [path.name for path in where.iterdir()] == ["new"]


def test_where_somebody_keeps_programs_is_their_choice(unset, tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert cache.keep_programs() is None
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", _refused)
    assert cache.keep_programs() is None  # a directory that cannot be written
    assert jax.config.jax_compilation_cache_dir is None


def _refused(**_):
    raise PermissionError("read-only")


@pytest.mark.thorough
def test_a_damaged_entry_is_compiled_again(tmp_path):
    """In processes of their own, as JAX opens its cache once; the second finds it damaged."""
    line = ["-m", "fedjax_rl", "run", "fedq", "paper-mdp", "--num-steps", "20", "--out"]
    own = {name: x for name, x in os.environ.items() if not name.startswith(("JAX_C", "JAX_PERS"))}
    own |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    numbers = []
    for out in ("first", "second"):
        done = subprocess.run(
            [sys.executable, *line, out],
            env=own, cwd=tmp_path, timeout=300, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        numbers.append(frl.load(tmp_path / out)["error_server"].values)
        kept = [p for p in (tmp_path / "cache").rglob("jit_*") if p.is_file()]
        assert kept
        for path in kept:
            path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(*numbers)


# Without compiling --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        pytest.param(
            lambda: frl.fedq(frl.envs.paper_mdp(), sync_period=2, uplink=frl.uplinks.top_k(3)),
            4,
            marks=pytest.mark.thorough,
        ),
        (lambda: frl.dql(frl.envs.simple_grid(max_steps=3)), 1),
    ],
)
def test_numbers_are_the_same_without_compiling(make, steps):
    one = make()
    options = {"num_agents": 2, "num_steps": steps, "seeds": [3, 4]}
    compiled = frl.sweep(one, **options)
    with jax.disable_jit():
        plain = frl.sweep(one, **options)
    debugged = frl.sweep(one, debug=True, **options)
    for other in (plain, debugged):
        for name in compiled.data_vars:
            np.testing.assert_allclose(
                other[name].values, compiled[name].values, rtol=1e-5, atol=1e-6, err_msg=name
            )


def test_debugging_names_where_a_value_broke_and_refuses_what_it_cannot():
    one = frl.fedq(frl.envs.paper_mdp(), sync_period=2)
    with pytest.raises(ValueError, match="debug is 1; allowed: True or False"):
        frl.simulate(one, num_agents=2, num_steps=4, debug=1)
    with pytest.raises(ValueError, match="devices is 2; allowed: 1 where nothing is compiled"):
        frl.sweep(one, num_agents=2, num_steps=4, devices=2, debug=True)
    several = Population(((2, 3),))
    state = frl.init(one, 6).state
    table = np.zeros((6, 4))
    table[1, 0] = -np.inf  # from the start, such as the best of nothing yet
    first = dataclasses.replace(state, agents={"table": table}, server=np.ones((2, 2)))
    table = table.copy()
    table[4, 2] = np.nan
    for broken, words in (
        ({"agents": {"table": table}}, r"agent 1 of federation 1: agents\['table'\]\[2\] is nan"),
        (
            {"server": np.float32([[1, 2], [3, np.inf]])},
            r"server of federation 1: server\[1\] is inf",
        ),
    ):
        with debugging.debugging("round"):
            debugging.look(several, first, "local work")
            message = f"^round 7, {words} after an exchange$"
            with pytest.raises(FloatingPointError, match=message):
                debugging.look(several, dataclasses.replace(first, **broken), "an exchange", 7)


@pytest.mark.thorough
def test_what_is_compiled_quickly_is_the_same_run():
    """With programs of its own, whatever was compiled before."""
    algorithm = frl.es(frl.envs.simple_grid(max_steps=5), network=(4,))
    run = {"num_agents": 2, "seeds": range(2), "num_steps": 4}
    usual, count = frl.sweep(algorithm, **run), len(PROGRAMS._compiled)
    with compiled_quickly():
        quick = frl.sweep(algorithm, **run)
    assert len(PROGRAMS._compiled) == count + 1
    for name in usual.data_vars:
        np.testing.assert_allclose(quick[name], usual[name], rtol=1e-5, atol=1e-6)
