"""What is exact of the study `afedpg`: late gradients, clocks alone, an agent and its reference."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs, streams
from fedjax_rl.algorithms.afedpg import first_model, point_ahead, server_of
from fedjax_rl.algorithms.oracle import keys_at
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.clock import Clock
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.rollouts.episodes import sample_trajectories
from fedjax_rl.studies.study import Meter, Scale

DELAYS = (0, 1, 4, 8)
PROFILES = {
    "equal": (1.0,) * 8,
    "two classes": (1.0,) * 4 + (4.0,) * 4,
    "linear": tuple(float(t) for t in np.linspace(1, 4, 8)),
    "one slow": (1.0,) * 7 + (10.0,),
}


@functools.cache
def m3() -> Task:
    """M3: five states, three actions, episodes of 25 steps."""
    return envs.tabular_task(envs.dirichlet_mdp(), max_steps=25)


def lookahead(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """A9: errors of d on a quadratic, in units of the Hessian times a step: [kind, delay].

    The algorithm's own points and steps, alpha 0.1, eta 0.002, 600 steps; every gradient arrives
    so many steps late.
    """
    del scale
    report = meter.stage(stage)
    curvature = np.diag([0.4, 1.0, 1.7])
    methods = {"without": (False, 0.0), "with": (True, 0.0), "compensated": (True, 1.0)}
    table = np.empty((len(methods), len(DELAYS)))
    with jax.enable_x64(True):
        for row, (ahead, compensation) in enumerate(methods.values()):
            config = frl.afedpg(m3(), lookahead=ahead).config
            for column, delay in enumerate(DELAYS):
                table[row, column] = _delayed(config, curvature, delay, compensation * delay)
                report(row * len(DELAYS) + column + 1, table.size)
    return xr.Dataset(
        {"factor": (("kind", "delay"), table)}, {"kind": list(methods), "delay": list(DELAYS)}
    )


def _delayed(config, curvature, delay: int, compensation: float) -> float:
    """Error of d after 600 steps, over the norm of the Hessian times the last step."""
    server = server_of(config)
    params = {
        "messages": 1.0,
        "momentum": 0.1,
        "learning_rate": 0.002,
        "delay_compensation": float(compensation),
        "momentum_decay": 0.0,
        "learning_rate_decay": 0.0,
        "decay_start": 50.0,
    }
    params = {name: jnp.asarray(value) for name, value in params.items()}
    hessian = -jnp.asarray(curvature)

    def handed(model):
        return point_ahead(config, model, params)

    def step(carry, _):
        model, points = carry
        late = jax.tree.map(lambda x: x[0], points)
        gradient, alpha = hessian @ late[0], late[1]
        new, _ = server.step(model, (), (alpha * gradient, alpha), params)
        points = jax.tree.map(
            lambda old, now: jnp.concatenate([old[1:], now[None]]), points, handed(new)
        )
        return (new, points), new.direction - hessian @ model.parameters

    start = jnp.asarray([60.0, 0.5, -0.3])
    model = first_model(start)
    first = jax.tree.map(lambda x: jnp.repeat(x[None], delay + 1, axis=0), handed(model))
    (model, _), errors = jax.jit(lambda: jax.lax.scan(step, (model, first), length=600))()
    move = hessian @ (model.parameters - model.previous)
    return float(jnp.linalg.norm(errors[-1]) / jnp.linalg.norm(move))


def schedule(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """A10: the clock alone, 20,000 arrivals: [profile]; `time` of asynchronous, synchronous steps.

    `age` is the mean delay of the messages after everybody's first, `largest` of all.
    """
    del scale
    report = meter.stage(stage)
    data: dict = {name: [] for name in ("time", "round", "age", "largest")}
    for place, times in enumerate(PROFILES.values()):
        table = frl.timetable(
            Clock("asynchronous", compute_time=times), num_agents=8, num_steps=20_000
        )
        rounds = frl.timetable(Clock(compute_time=times), num_agents=8, num_steps=1000)
        data["time"].append(table.time[0, -1] / 20_000)
        data["round"].append(rounds.time[0, -1] / 1000)
        data["age"].append(table.staleness.mean())
        data["largest"].append(table.staleness.max())
        report(place + 1, len(PROFILES))
    return xr.Dataset(
        {name: ("profile", values) for name, values in data.items()}, {"profile": list(PROFILES)}
    )


def transport(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """A14: AFedPG with one agent beside N-PG-IGT written out, 50 steps, the same keys.

    Returns:
      `parameters` and `reference` [entry], float64.
    """
    del scale
    report = meter.stage(stage)
    rate, alpha, steps = 0.05, 0.1, 50
    with jax.enable_x64(True):
        task = m3()
        own = frl.afedpg(task, learning_rate=rate, momentum=alpha, episodes_per_step=8)
        ours = jax.jit(
            lambda: frl.simulate(own, num_agents=1, num_steps=steps).state.server.parameters[0]
        )()
        policy, rule = own.config.make_policy(), learner.AdvantageRule()
        keys = streams.agent_keys(np.zeros(1, np.int32), np.zeros(1, np.int32))
        start = policy.init(streams.keys_of(keys, streams.Episodic.MODEL)[0])

        def step(carry, place):
            here, before, direction = carry
            point = here + (1 - alpha) / alpha * (here - before)
            made = sample_trajectories(
                task,
                policy,
                keys_at(keys, place, jnp.uint32(0)),
                point[None],
                8,
                environment=jax.tree.map(jnp.asarray, own.parameters(own.config, 1).agent)[
                    "environment"
                ],
                kind="scan",
            )
            one = jax.tree.map(lambda x: x[0], made)
            found = learner.estimate(policy, point, one, task.discount, rule)
            direction = jnp.where(place == 0, found, (1 - alpha) * direction + alpha * found)
            there = here + rate * direction / jnp.linalg.norm(direction)
            return (there, here, direction), None

        start = start.astype(float)
        first = (start, start, jnp.zeros_like(start))
        reference = jax.jit(
            lambda: jax.lax.scan(step, first, jnp.arange(steps, dtype=jnp.uint32))[0][0]
        )()
    report(1, 1)
    return xr.Dataset(
        {"parameters": ("entry", np.asarray(ours)), "reference": ("entry", np.asarray(reference))}
    )
