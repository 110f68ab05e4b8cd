"""Who arrives when on a clock, as a plain simulation with a heap."""

import heapq

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.federation.clock.times import stream_of_times, work


def by_heap(attempt, num_agents, wait_for, num_steps):
    """The same rules, one event at a time.

    `attempt(agent, count)` says how long the attempt of that number takes, whether it ends in a
    failure, and how long the agent is then away.

    Returns:
      The steps, each its time and the pairs (agent, age of its model in steps) of who arrived; how
      long each agent has waited; failures; and how often models were sent down, but at first.
    """
    heap, handed, begun = [], [0] * num_agents, [0] * num_agents
    idle, lost, steps = np.zeros(num_agents), 0, []

    def begin(agent, now, version):
        work, fails, away = attempt(agent, begun[agent])
        begun[agent] += 1
        handed[agent] = version
        heapq.heappush(heap, (now + work, agent, "fails" if fails else "comes", away))

    for agent in range(num_agents):
        begin(agent, 0.0, 0)
    away = []
    while len(steps) < num_steps:
        arrived, at_work = [], sum(event[2] != "back" for event in heap)
        version = len(steps)
        # Until the step: enough messages, or nobody left at work who could send one.
        while True:
            now, agent, kind, pause = heapq.heappop(heap)
            if kind == "comes":
                arrived.append((agent, now, version - handed[agent]))
                at_work -= 1
            elif kind == "fails":
                lost += 1
                at_work -= 1
                heapq.heappush(heap, (now + pause, agent, "back", 0.0))
            else:
                away.append((agent, now))
            due = len(arrived) == wait_for or (arrived and at_work == 0)
            if due:
                break
            if at_work == 0 and away:  # nobody is going to come: whoever is back begins
                here, away = away, []
                for other, then in here:
                    idle[other] += now - then
                    begin(other, now, version)
                at_work += len(here)
        steps.append((now, sorted((a, age) for a, _, age in arrived)))
        for agent, then, _ in arrived:
            idle[agent] += now - then
        for agent, then in away:
            idle[agent] += now - then
        for agent in sorted([a for a, _, _ in arrived] + [a for a, _ in away]):
            begin(agent, now, version + 1)
        away = []
    return steps, idle, lost, sum(begun) - num_agents


def attempts(clock, num_agents, seed, count):
    """What the clock draws, by agent and attempt: time at work, whether it fails, time away."""
    own = {n: jnp.asarray(x, float) for n, x in clock.parameters(num_agents).items()}
    keys = streams.agent_keys(np.full(num_agents, seed), np.arange(num_agents))
    stream = stream_of_times(keys)

    def one(number):
        turn = jnp.full(num_agents, number, jnp.uint32)
        end, failing, ready = work(clock.rules, 0, own, stream, turn, jnp.zeros(num_agents))
        if not clock.rules.fails:
            failing, ready = jnp.zeros(num_agents, bool), end
        return end, failing, ready - end

    drawn = [np.asarray(x) for x in jax.vmap(one)(jnp.arange(count, dtype=jnp.uint32))]
    return lambda i, j: (float(drawn[0][j, i]), bool(drawn[1][j, i]), float(drawn[2][j, i]))
