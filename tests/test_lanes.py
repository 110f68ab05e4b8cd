"""Copies in lanes are what `vmap` makes of them: operation by operation, nested, differentiated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax import lax

import fedjax_rl as frl
from fedjax_rl import backend, envs
from fedjax_rl.envs import lanes
from fedjax_rl.envs.lanes import in_lanes

ROWS = np.array([3, 0, 2, 2])
SHARED = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def scanned(x, y, k):
    """A carry that begins as what all share, and rows of both kinds."""

    def turn(carry, row):
        total, count = carry
        total = 0.5 * total + row[0] * y + row[1]
        return (total, count + 1), (total.sum(), count)

    (total, count), rows = lax.scan(turn, (jnp.zeros(3), 0), (x, SHARED), reverse=True)
    return total, count, rows


def looped(x, y, k):
    return lax.while_loop(lambda c: c[0] < k, lambda c: (c[0] + 1, c[1] * 1.5 + y), (0, x))


@pytest.fixture(autouse=True)
def functions_of_others():
    """They promote as they like, as physics does."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


# What each does; x [4, 3], y [3], k [] int32 in 0 to 3.
OPERATIONS = {
    "numbers": lambda x, y, k: jnp.arctan2(x, y) ** 2 + jnp.maximum(x, 0.3) - SHARED / (1 + y * y),
    "comparisons": lambda x, y, k: jnp.where((x > y) & (k > 1), x, SHARED),
    "one predicate": lambda x, y, k: lax.select(k > 1, x, x * 2),
    "bounds": lambda x, y, k: lax.clamp(-0.1, x, 0.5) + jnp.clip(x, y, y + 1),
    "whole numbers": lambda x, y, k: (k % 2, k << 1, -k, k.astype(jnp.float32), jnp.sign(k)),
    "shapes": lambda x, y, k: (x.T.reshape(2, 6), x[:, None], y[None].repeat(2, 0), x[1]),
    "pieces": lambda x, y, k: (x[1:4:2, ::-1], jnp.split(x, 2), jnp.flip(x, 0)),
    "joined": lambda x, y, k: jnp.concatenate([x, SHARED, y[None]]),
    "stacked": lambda x, y, k: jnp.stack([x[:, 0] * y[0], SHARED[:, 1], x[:, 2]], axis=-1),
    "edges": lambda x, y, k: (jnp.pad(x, ((1, 2), (0, 1))), jnp.pad(x, 1, constant_values=y[0])),
    "tiles": lambda x, y, k: jnp.tile(x, (2, 3)),
    "sums": lambda x, y, k: (x.sum(0), x.max(), jnp.any(x > 0, 1), x.prod(1), jnp.argmin(x, 0)),
    "running sums": lambda x, y, k: (jnp.cumsum(x, 0), jnp.cumprod(y)),
    "order": lambda x, y, k: (jnp.sort(x, 0), jnp.argsort(y)),
    "rows": lambda x, y, k: (x[ROWS], x[ROWS, 1], jnp.take(x, ROWS, 0, mode="clip")),
    "rows of its own": lambda x, y, k: (x[k], jnp.asarray(SHARED)[k], x.at[k].add(y)),
    "rows out of range": lambda x, y, k: x.at[np.array([1, 9])].get(mode="fill", fill_value=7.0),
    "changed rows": lambda x, y, k: (
        x.at[ROWS].add(x * 2),
        x.at[1].set(y),
        jnp.asarray(SHARED).at[ROWS[:2], 1].add(y[:2]),
        jax.ops.segment_sum(x, ROWS, 5),
    ),
    "windows": lambda x, y, k: (
        lax.dynamic_slice(x, (1, 0), (2, 3)),
        lax.dynamic_slice(x, (k, 0), (2, 3)),
        lax.dynamic_update_slice(x, y[None], (k, 0)),
    ),
    "products": lambda x, y, k: (x @ y, x.T @ x, SHARED @ y, y @ jnp.asarray(SHARED).T),
    "products of batches": lambda x, y, k: jnp.einsum(
        "ij,ik->ijk", x, jnp.einsum("ij,j->ij", x, y)
    ),
    "long products": lambda x, y, k: jnp.outer(x, y).reshape(-1) @ jnp.ones(36),
    "whole products": lambda x, y, k: jnp.arange(3) @ jnp.arange(3) * k,
    "cross products": lambda x, y, k: jnp.cross(x, y),
    "systems": lambda x, y, k: jnp.linalg.solve(x.T @ x + jnp.eye(3), y),
    "derivatives of its own": lambda x, y, k: (jax.nn.relu(x), jax.nn.softplus(y)),
    "a scan": scanned,
    "a loop": looped,
    "a condition": lambda x, y, k: lax.cond(k > 1, lambda: x @ y, lambda: x[:, 0]),
    "a choice": lambda x, y, k: lax.switch(k, [jnp.sin, jnp.cos, jnp.tanh, jnp.abs], x),
    "nothing of its own": lambda x, y, k: (jnp.asarray(SHARED), 3.0),
}


def given(*shape):
    """x, y and k of copies, in front."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(*shape, 4, 3)).astype(np.float32),
        rng.normal(size=(*shape, 3)).astype(np.float32),
        rng.integers(0, 4, shape).astype(np.int32),
    )


def same(found, expected, tolerance=2e-5):
    """Numbers of the same dtype; whole ones exactly."""

    def one(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    jax.tree.map(one, found, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_that_of_vmap(name):
    args = given(9)
    expected = jax.vmap(OPERATIONS[name])(*args)
    same(jax.jit(jax.vmap(in_lanes(OPERATIONS[name])))(*args), expected)


def everything(x, y, k):
    own = OPERATIONS
    first = own["changed rows"](own["numbers"](x, y, k), y, k)[0]
    return own["products of batches"](first, y, k), scanned(first, y, k), looped(x, y, k)


@pytest.mark.parametrize("copies", [1, 6, 7, 15, 16, 300, 2 * lanes.LANES])
def test_few_copies_are_filled_up_and_many_computed_in_groups(copies):
    args = given(copies)
    same(jax.jit(jax.vmap(in_lanes(everything)))(*args), jax.vmap(everything)(*args))


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, None, None), (None, 0, None)),
        ((None, 0, 0), (0, 0, None)),
        ((0, 0, None), (None, None, 0)),
    ],
)
def test_batches_of_batches_are_one(monkeypatch, inner, outer):
    seen = []
    real = lanes._in_groups
    monkeypatch.setattr(
        lanes, "_in_groups", lambda *own: seen.append((own[1], own[2])) or real(*own)
    )
    shapes = [
        ((7,) if o == 0 else ()) + ((5,) if i == 0 else ())
        for i, o in zip(inner, outer, strict=True)
    ]
    args = [own[place] for place, own in enumerate(map(lambda s: given(*s), shapes))]

    def both(function):
        return jax.vmap(jax.vmap(function, inner), outer)

    same(jax.jit(both(in_lanes(everything)))(*args), both(everything)(*args))
    many, copies = seen[-1]
    assert copies == 35
    own = tuple(a == 0 or b == 0 for a, b in zip(inner, outer, strict=True))
    assert many[-3:] == own


def smooth(x, y):
    return (scanned(jnp.tanh(x), y, 0)[0] @ jnp.cross(x, y).T).sum() + jax.nn.softplus(
        x[ROWS]
    ).sum()


@pytest.mark.thorough
def test_derivatives_are_those_of_vmap():
    x, y, _ = given(6)
    laned = in_lanes(smooth)
    total = lambda f: lambda x, y: jax.vmap(f)(x, y).sum()
    same(jax.grad(total(laned), (0, 1))(x, y), jax.grad(total(smooth), (0, 1))(x, y), 1e-4)
    same(jax.vmap(jax.grad(laned))(x, y), jax.vmap(jax.grad(smooth))(x, y), 1e-4)
    push = lambda f: jax.jvp(jax.vmap(f), (x, y), (y[:, None] * x, y))
    same(push(laned), push(smooth), 1e-4)
    twice = lambda f: jax.vmap(jax.hessian(f, 1))(x, y)
    same(twice(laned), twice(smooth), 1e-3)


def test_other_devices_have_copies_in_front(monkeypatch):
    args = given(5)
    monkeypatch.setattr(backend, "kind", lambda: "gpu")
    monkeypatch.setattr(lanes, "evaluate", None)
    same(jax.vmap(in_lanes(everything))(*args), jax.vmap(everything)(*args))


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        args = tuple(own.astype(np.float64) if own.dtype == np.float32 else own for own in given(5))
        same(jax.jit(jax.vmap(in_lanes(everything)))(*args), jax.vmap(everything)(*args), 1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "spring") for name in ("halfcheetah", "hopper", "walker2d", "ant", "humanoid")),
        ("swimmer", "generalized"),
        ("hopper", "positional"),
        ("hopper", "generalized"),
        ("hopper", "mjx"),
    ],
)
def test_physics_is_that_of_vmap(name, backend):
    """A step of agents of which each has a mass of its own; of two bodies, and of one for all."""
    task = envs.brax_task(name, backend=backend)
    env, keys = task.env, jax.random.split(jax.random.key(0), 9)
    heavy = np.linspace(0.8, 1.2, 9, dtype=np.float32)
    own = jax.tree.map(jnp.asarray, task.params._replace(mass=heavy))
    chosen = [(own, task.params._replace(mass=0))]
    if (name, backend) in (("hopper", "spring"), ("swimmer", "generalized")):
        chosen.append((task.params, None))
    for params, axes in chosen:
        reset = jax.jit(jax.vmap(env.reset, (0, axes)))
        _, state = reset(keys, params)
        actions = jax.random.uniform(keys[0], (9, task.action.size), minval=-1)
        plain = jax.jit(jax.vmap(env._stepped, (0, 0, axes)))(state, actions, params)
        found = jax.jit(jax.vmap(functools.partial(env.step, keys[0]), (0, 0, axes)))(
            state, actions, params
        )
        same(found, plain, 1e-3)


@pytest.mark.thorough
def test_a_run_goes_on_and_is_spread_over_devices(tmp_path):
    """Copies of several agents, as many on each device as are no whole number of lanes."""
    algorithm = frl.fedpg(envs.brax_task("inverted_pendulum", max_steps=20), episodes_per_step=3)
    run = {"num_agents": 5, "seeds": [0, 1], "record_every": 1, "metrics": ("return", "reward")}
    whole = frl.sweep(algorithm, num_steps=3, **run)
    assert float(whole["return"].std("time").min()) > 0
    frl.sweep(algorithm, num_steps=1, checkpoints=tmp_path, **run)
    xr.testing.assert_equal(frl.sweep(algorithm, num_steps=3, checkpoints=tmp_path, **run), whole)
    # Of other numbers of copies sums are taken in another order.
    for devices in (2, 3):
        spread = frl.sweep(algorithm, num_steps=3, devices=devices, **run)
        xr.testing.assert_allclose(spread, whole, rtol=1e-5)
