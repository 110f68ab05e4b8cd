"""The rows of the case `clock`: arrivals, their part in a run, and brax within a federation."""

from __future__ import annotations

import functools
import heapq

import harness
import jax
import jax.numpy as jnp
import numpy as np
from harness import Call, compiled

import fedjax_rl as frl
from fedjax_rl import envs, streams
from fedjax_rl.envs.task import foreign
from fedjax_rl.federation import clock as clocks
from fedjax_rl.federation import population
from fedjax_rl.federation.clock.arrivals import PARAMETERS
from fedjax_rl.federation.clock.times import durations, stream_of_times

AGENTS = (8, 1000, 100_000)
FEDERATIONS = (1, 16, 256)
# Arrivals of one call, all federations together; of each a whole number of blocks is planned.
ARRIVALS = 200_000
CLOCK = frl.Clock("asynchronous", distribution="exponential")


def arrivals(num_agents: int, federations: int, scale: float) -> dict[str, Call]:
    """The next arrivals of so many federations: here, and by Python's heap."""
    timing = clocks.Timing(CLOCK.rules, population([num_agents] * federations))
    one = CLOCK.parameters(num_agents)
    own = {n: jnp.asarray(np.tile(x, federations), jnp.float32) for n, x in one.items()}
    keys = streams.agent_keys(
        np.repeat(np.arange(federations), num_agents), timing.population.member_of
    )
    in_flight, elapsed = jax.jit(timing.start)(own, keys)
    length = timing.block
    steps = length * max(1, round(scale * ARRIVALS / (federations * length)))

    def go(own, in_flight, elapsed):
        def body(carry):
            done, in_flight, elapsed = carry
            count = jnp.minimum(jnp.uint32(steps) - done, jnp.uint32(length))
            planned, in_flight, elapsed = timing.plan(own, in_flight, elapsed, done, count, length)
            # What is planned has to be kept: the learner reads it.
            kept = jax.tree.map(lambda x: jax.lax.optimization_barrier(x), planned)
            del kept
            return done + count, in_flight, elapsed

        first = (jnp.uint32(0), in_flight, elapsed)
        return jax.lax.while_loop(lambda carry: carry[0] < steps, body, first)

    program, seconds = compiled(go, own, in_flight, elapsed)
    start = np.asarray(in_flight.end).reshape(federations, num_agents)

    def by_heap():
        rng = np.random.default_rng(0)
        draws = rng.exponential(size=steps).tolist()
        ages = 0
        for federation in range(federations):
            heap = [(end, agent) for agent, end in enumerate(start[federation].tolist())]
            heapq.heapify(heap)
            handed = [0] * num_agents
            for version, draw in enumerate(draws):
                now, agent = heap[0]
                ages += version - handed[agent]
                handed[agent] = version + 1
                heapq.heapreplace(heap, (now + draw, agent))
        return ages

    units = steps * federations
    return {
        "fedjax_rl": Call(lambda: program(own, in_flight, elapsed), units, seconds),
        "heapq": Call(by_heap, units, 0.0),
        "draws": draws(num_agents, scale),
    }


def draws(num_agents: int, scale: float) -> Call:
    """Times of work alone, one to an arrival: more arrivals nobody can plan."""
    one = {n: jnp.asarray(x, jnp.float32) for n, x in CLOCK.parameters(num_agents).items()}
    stream = stream_of_times(streams.agent_keys(np.zeros(num_agents, int), np.arange(num_agents)))
    turns = max(1, int(scale * ARRIVALS) // num_agents)

    def go(one, stream):
        def body(turn, total):
            attempt = jnp.full(num_agents, turn, jnp.uint32)
            return total + durations(CLOCK.rules, 0, one, stream, attempt, jnp.float32)

        return jax.lax.fori_loop(0, turns, body, jnp.zeros(num_agents))

    program, seconds = compiled(go, one, stream)
    return Call(lambda: program(one, stream), turns * num_agents, seconds)


def mean_age(call: Call, num_agents: int) -> float:
    """Mean age of the messages of a call, over N - 1, where it should be after many of them."""
    _, _, elapsed = call.run()
    ages = np.asarray(elapsed.total).sum() / np.asarray(elapsed.histogram).sum()
    return float(ages / (num_agents - 1))


def learner(num_agents: int, federations: int, steps: int) -> dict[str, Call]:
    """AFedPG on a table of five states, B = 8, whole; and its clock alone."""
    task = envs.tabular_task(envs.dirichlet_mdp(), max_steps=25)
    algorithm = frl.afedpg(task, episodes_per_step=8, clock=CLOCK)
    everybody, functions, params, state = harness.started(algorithm, num_agents, federations)
    whole, first = compiled(
        lambda p, s: functions.advance(everybody, p, s, jnp.uint32(steps)), params, state
    )
    timing = clocks.Timing(CLOCK.rules, everybody)

    def plan(own, in_flight, elapsed):
        def body(carry):
            done, in_flight, elapsed = carry
            _, in_flight, elapsed = timing.plan(
                own, in_flight, elapsed, done, jnp.uint32(timing.block), timing.block
            )
            return done + jnp.uint32(timing.block), in_flight, elapsed

        start = (jnp.uint32(0), in_flight, elapsed)
        return jax.lax.while_loop(lambda carry: carry[0] < steps, body, start)

    own, in_flight = params.agent[PARAMETERS], state.in_flight[0]
    alone, second = compiled(plan, own, in_flight, state.elapsed)
    units = steps * federations
    return {
        "whole": Call(lambda: whole(params, state), units, first),
        "clock": Call(lambda: alone(own, in_flight, state.elapsed), units, second),
    }


def physics(name: str, copies: int, max_steps: int, steps: int) -> dict[str, Call]:
    """Environment steps of brax: in AFedPG's run, and in a plain scan of its own step.

    The environment must not end episodes early: the same number of steps is then made by both.
    """
    task = envs.brax_task(name, max_steps=max_steps)
    algorithm = frl.afedpg(
        task, episodes_per_step=copies, network=(64, 64), baseline="linear", evaluation_episodes=1
    )
    one, functions, params, state = harness.started(algorithm, 1)
    run, first = compiled(
        lambda p, s: functions.advance(one, p, s, jnp.uint32(steps)), params, state
    )
    env, size = task.env.env, task.action.size

    def rollout(key):
        with foreign():
            begin = jax.vmap(env.reset)(jax.random.split(key, copies))

            def step(carry, key):
                action = jax.random.uniform(key, (copies, size), minval=-1.0)
                return jax.vmap(env.step)(carry, action), None

            def episode(carry, key):
                after, _ = jax.lax.scan(step, begin, jax.random.split(key, max_steps))
                return carry + after.reward.sum(), None

            return jax.lax.scan(episode, 0.0, jax.random.split(key, steps))[0]

    own, second = compiled(rollout, jax.random.key(0))
    units = copies * max_steps * steps
    return {
        "federated": Call(lambda: run(params, state), units, first),
        "brax": Call(functools.partial(own, jax.random.key(1)), units, second),
    }
