"""Batches of linear algebra: the same bits as those of one call, and nobody waits for ever."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import lapack


@functools.cache
def systems(count):
    rng = np.random.default_rng(count)
    matrix = np.eye(5) - 0.9 * rng.dirichlet(np.ones(5), (count, 5))
    return jnp.asarray(matrix, jnp.float32), jnp.asarray(rng.normal(size=(count, 5)), jnp.float32)


# Of 1,200 systems of five equations all are one part, of 2,521 there are three, the last not full.
@pytest.mark.parametrize("count", [3, 2521])
def test_systems_and_their_derivatives_are_those_of_one_call(count):
    matrix, vector = systems(count)

    def loss(solve, matrix, vector):
        return jnp.sum(jnp.sin(jax.vmap(solve)(matrix, vector)))

    both = lapack.solve, jnp.linalg.solve
    np.testing.assert_array_equal(*(jax.jit(jax.vmap(f))(matrix, vector) for f in both))
    gradients = [jax.jit(jax.grad(functools.partial(loss, f), (0, 1))) for f in both]
    for ours, theirs in zip(*(f(matrix, vector) for f in gradients), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_batches_of_batches_and_shared_matrices_are_cut_too():
    matrix, vector = (x[:2400].reshape(60, 40, *x.shape[1:]) for x in systems(2521))
    nested = [
        jax.jit(jax.vmap(jax.vmap(f)))(matrix, vector) for f in (lapack.solve, jnp.linalg.solve)
    ]
    np.testing.assert_array_equal(*nested)
    shared = jax.vmap(lapack.solve, in_axes=(None, 0))(matrix[0, 0], vector[0])
    expected = np.linalg.solve(np.asarray(matrix[0, 0]), np.asarray(vector[0]).T).T
    np.testing.assert_allclose(shared, expected, rtol=1e-5)
    positive = matrix[0] @ matrix[0].swapaxes(1, 2)
    both = jnp.stack([vector[0], vector[0] + 1], axis=-1)
    ours = jax.vmap(lapack.solve_positive)(positive, both)
    np.testing.assert_allclose(ours, np.linalg.solve(positive, both), rtol=2e-3)


def test_orthogonal_weights_are_those_of_jax():
    keys = jax.random.split(jax.random.key(0), 40)
    for shape in ((40, 64), (64, 4)):
        both = (make(1.4) for make in (lapack.orthogonal, jax.nn.initializers.orthogonal))
        made = [jax.jit(jax.vmap(lambda key, f=f, s=shape: f(key, s, jnp.float32))) for f in both]
        np.testing.assert_array_equal(*(f(keys) for f in made))


SYSTEMS = """
import fedjax_rl as frl
task = frl.envs.tabular_task(frl.envs.opposed_mdps(1.0), max_steps=4)
algorithm = frl.fedpg(task, local_steps=1)
rates = [0.01 + 0.001 * place for place in range(12)]
options = dict(num_steps=2, record_every=1, seeds=range(10))
found = frl.sweep(algorithm, num_agents=[2, 8, 32], learning_rate=rates, workers=2, **options)
print(found.gap.shape)
"""
LAYERS = """
import fedjax_rl as frl
task = frl.envs.gymnax_task("CartPole-v1")
algorithm = frl.fedppo(task, num_envs=2, rollout_steps=8, network={"hidden": (64, 64)})
found = frl.sweep(algorithm, num_agents=[2, 4], seeds=range(4), num_steps=2, workers=2)
print(found.sizes["seed"])
"""


@pytest.mark.thorough
@pytest.mark.parametrize(("code", "shown"), [(SYSTEMS, "(3, 12, 10, 2)"), (LAYERS, "4")])
def test_nobody_waits_for_ever(code, shown):
    """In a process of its own, which has no more threads than cores and may be ended."""
    environment = {n: v for n, v in os.environ.items() if n not in ("XLA_FLAGS", "NPROC")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip() == shown, done.stderr
