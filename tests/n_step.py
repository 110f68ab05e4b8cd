"""An actor-critic of n steps in NumPy, on `walk.WALK`, with the words of an agent.

Parameters are biases [2] and weights [2, 2] of the policy, a bias and weights [2] of the value.
"""

import jax
import jax.numpy as jnp
import numpy as np

ENVS, STEPS = 2, 5
# What both algorithms are given; loss and optimiser stand in the loops below.
GIVEN = {
    **{"num_envs": ENVS, "rollout_steps": STEPS, "learning_rate": 0.05, "discount": 0.9},
    **{"gae_lambda": 1.0, "gradient_clip": 0.6, "reward_scale": 2.0, "network": {"hidden": ()}},
    "loss": {"value_coefficient": 0.4, "entropy_coefficient": 0.1},
}
OPTIMIZER = {"decay": 0.8, "epsilon": 1e-3}


class Actor:
    """The environments of one agent."""

    def __init__(self):
        self.place, self.time = np.zeros(ENVS, int), np.zeros(ENVS, int)

    def seen(self, e):
        return np.array([self.place[e], self.time[e] ** 2]) / 2

    def rollout(self, key, theta):
        """What was seen and done, and what n steps from there were worth with the value behind."""
        words = [
            jax.random.bits(jax.random.fold_in(key, e), (25,), jnp.uint32) for e in range(ENVS)
        ]
        rows = []
        for e in range(ENVS):
            steps = []
            for t in range(STEPS):
                before = self.seen(e)
                level = (int(words[e][5 * t]) >> 8) * 2.0**-24
                action = int(level >= chances(theta, before)[0])
                self.place[e] += action
                self.time[e] += 1
                ended, late = self.place[e] >= 2, self.time[e] == 3
                after = None if ended else value(theta, self.seen(e)) if late else "goes on"
                steps.append((before, action, 2.0 * (0.5 + self.place[e]), after))
                if ended or late:
                    self.place[e] = self.time[e] = 0
            worth = value(theta, self.seen(e))
            for before, action, reward, after in reversed(steps):
                later = 0.0 if after is None else worth if after == "goes on" else after
                worth = reward + 0.9 * later
                rows.append((before, action, worth))
        return rows

    def gradient(self, key, theta):
        """Of the loss of a rollout that is made now, clipped, [9]."""
        gradient = np.zeros(9)
        rows = self.rollout(key, theta)
        for seen, action, worth in rows:
            likely, error = chances(theta, seen), value(theta, seen) - worth
            logs = np.log(likely)
            outwards = (np.eye(2)[action] - likely) * error
            outwards += 0.1 * likely * (logs - likely @ logs)
            gradient[:2] += outwards / len(rows)
            gradient[2:6] += np.outer(seen, outwards).ravel() / len(rows)
            gradient[6] += 0.4 * error / len(rows)
            gradient[7:] += 0.4 * error * seen / len(rows)
        return gradient * min(1, 0.6 / np.linalg.norm(gradient))


def chances(theta, seen):
    logits = theta[:2] + seen @ theta[2:6].reshape(2, 2)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def value(theta, seen):
    return theta[6] + seen @ theta[7:9]


class Descent:
    """Parameters, and what an optimiser remembers."""

    def __init__(self, theta, optimizer):
        self.theta, self.optimizer, self.count = np.array(theta, float), optimizer, 0
        self.first, self.second = (np.zeros_like(self.theta) for _ in range(2))

    def step(self, gradient):
        self.count += 1
        move = gradient
        if self.optimizer == "rmsprop":
            self.second = 0.8 * self.second + 0.2 * gradient**2
            move = gradient / np.sqrt(self.second + 1e-3)
        elif self.optimizer == "momentum":
            move = self.first = 0.8 * self.first + 0.2 * gradient
        elif self.optimizer == "adam":
            self.first = 0.9 * self.first + 0.1 * gradient
            self.second = 0.999 * self.second + 0.001 * gradient**2
            move = self.first / (1 - 0.9**self.count)
            move = move / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-3)
        self.theta = self.theta - 0.05 * move
