"""The row `numba` of the case `fedq`: scalar loops, compiled."""

from __future__ import annotations

import functools
import time

import numba
import numpy as np
from fedq_peers import DISCOUNT, MDP, REWARD, Case, Program, S, U

from fedjax_rl.learners import tabular_steps

_jit = functools.partial(numba.njit, fastmath=True, error_model="numpy", inline="always")


# Unsigned indices need no test for being negative; worth a tenth.
_ONE, _TWO, _THREE = np.uintp(1), np.uintp(2), np.uintp(3)


@_jit
def _next_word(word):
    """Splitmix64 (Steele, Lea and Flood 2014): next counter, and 64 random bits of it."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    z = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word, z ^ (z >> np.uint64(31))


@_jit
def _exp(x):
    """The exponential to 2e-7, inline: a call of the library's costs more than the step."""
    t = x * np.float32(1.4426950408889634)
    whole = np.int32(t + np.float32(64.5)) - np.int32(64)  # rounds, for |t| < 64
    r = (t - np.float32(whole)) * np.float32(0.6931471805599453)
    power = np.float32(1 / 720)
    for c in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        power = power * r + np.float32(c)
    return power * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@_jit
def _refresh(policy, weight, s, epsilon):
    """Cumulative probabilities of the first two actions in state s, from the exponentials."""
    x, y, z = weight[s * _THREE], weight[s * _THREE + _ONE], weight[s * _THREE + _TWO]
    explore = epsilon * np.float32(1 / 3)
    scale = (np.float32(1) - epsilon) / (x + y + z)
    policy[s * _TWO] = explore + scale * x
    policy[s * _TWO + _ONE] = explore + explore + scale * (x + y)


@functools.cache
def _numba_loop(softmax: bool):
    """Compiles the loop over federations, rounds, agents and steps for one behaviour.

    An agent's softmax is kept beside its table and refreshed where the table changed, so that a
    step takes one exponential instead of three and does not wait for it. It does without the
    subtraction of the maximum: values of this MDP are small.
    """

    @numba.njit(fastmath=True, error_model="numpy")
    def learn(q, sizes, rates, period, num_steps, seed, bounds, reward, discount, epsilon):
        largest = sizes.max()
        states = np.zeros(largest, np.uintp)
        words = np.zeros(largest, np.uint64)
        mean = np.empty(12, np.float32)
        weights = np.ones((largest, 12), np.float32)
        policies = np.empty((largest, 8), np.float32)
        first = 0
        for f in range(len(sizes)):
            members, rate = sizes[f], rates[f]
            for i in range(members):
                states[i] = 0
                # Agents read one counter stream from places far apart.
                words[i] = np.uint64(seed) + np.uint64(first + i) * np.uint64(0xD1342543DE82EF95)
                if softmax:
                    weights[i] = 1
                    for s in range(4):
                        _refresh(policies[i], weights[i], np.uintp(s), epsilon)
            done = 0
            while done < num_steps:
                steps = min(period, num_steps - done)
                for i in range(members):
                    table, weight, policy = q[first + i], weights[i], policies[i]
                    s, word = states[i], words[i]
                    for _ in range(steps):
                        word, bits = _next_word(word)
                        high = bits >> np.uint64(32)
                        low = np.uint32(bits) >> np.uint32(1)
                        if softmax:
                            level = np.float32(np.int64(high)) * np.float32(2.0**-32)
                            a = np.uintp(level >= policy[s * _TWO])
                            a += np.uintp(level >= policy[s * _TWO + _ONE])
                        else:
                            a = np.uintp((high * np.uint64(3)) >> np.uint64(32))
                        before, sa = s, s * _THREE + a
                        s = np.uintp(low >= bounds[sa, 0])
                        s += np.uintp(low >= bounds[sa, 1])
                        s += np.uintp(low >= bounds[sa, 2])
                        best = max(
                            table[s * _THREE], table[s * _THREE + _ONE], table[s * _THREE + _TWO]
                        )
                        old = table[sa]
                        table[sa] = old + rate * (reward[s] + discount * best - old)
                        if softmax:
                            weight[sa] = _exp(table[sa])
                            _refresh(policy, weight, before, epsilon)
                    states[i], words[i] = s, word
                done += steps
                if members > 1 and steps == period:
                    mean[:] = 0
                    for i in range(members):
                        for j in range(12):
                            mean[j] += q[first + i, j]
                    for j in range(12):
                        mean[j] /= np.float32(members)
                    for i in range(members):
                        for j in range(12):
                            q[first + i, j] = mean[j]
                    if softmax:
                        for j in range(12):
                            weights[0, j] = _exp(mean[j])
                        for s in range(4):
                            _refresh(policies[0], weights[0], np.uintp(s), epsilon)
                        for i in range(1, members):
                            weights[i] = weights[0]
                            policies[i] = policies[0]
            first += members

    return learn


def numba_loop(case: Case) -> Program:
    """Scalar loops on one thread; an agent takes its K steps with its table in the cache."""
    start = time.perf_counter()
    learn = _numba_loop(case.epsilon < 1.0)
    bounds = tabular_steps.thresholds(MDP.transition).reshape(S * U, S - 1)

    def one(pack, seed, num_steps):
        q = np.zeros((pack.population.num_agents, S * U), np.float32)
        learn(
            q,
            pack.population.sizes.astype(np.intp),
            np.asarray(pack.learning_rates, np.float32),
            pack.period,
            num_steps,
            seed,
            bounds,
            REWARD,
            np.float32(DISCOUNT),
            np.float32(case.epsilon),
        )
        return q

    def run(num_steps):
        return [one(pack, 11 + i, num_steps) for i, pack in enumerate(case.packs)]

    one(case.packs[0], 0, 1)  # compiles
    return Program(run, list, time.perf_counter() - start)
