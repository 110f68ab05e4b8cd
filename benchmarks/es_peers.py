"""Federated evolution strategies on CartPole, written the ways one writes them without fedjax_rl.

Every row is a function `(workload) -> Program`. All of them run the same trials: the policy, the
perturbations, the optimiser and the horizon of `Workload`, on random numbers of their own.
`agreement` compares what they learned.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax

ENVIRONMENT = "CartPole-v1"
AGENTS = 50  # n
EPISODES = 200  # E, one update each
HORIZON = 500  # T_max
LAYERS = (4, 8, 8, 2)  # tanh between them
PARAMETERS = sum((a + 1) * b for a, b in itertools.pairwise(LAYERS))  # q
SIGMA = 0.05
LEARNING_RATE, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.999, 1e-8  # Adam
L2 = 0.05  # coupled: part of the gradient that Adam sees
LAST = 20  # episodes at the end whose mean return is what was learned

# What n = 50 agents learn in E = 200 episodes: mean and standard error over 60 trials.
KNOWN = {"raw": (95.2, 10.4), "center": (291.1, 22.3)}


@dataclasses.dataclass(frozen=True)
class Workload:
    """So many independent trials.

    Attributes:
      trials: runs from weights and random numbers of their own.
      episodes: updates of each.
      agents: perturbed policies of an update, one episode each.
      shaping: "raw" returns weigh the perturbations, or returns minus their mean, "center".
    """

    trials: int = 20
    episodes: int = EPISODES
    agents: int = AGENTS
    shaping: str = "raw"

    def __post_init__(self):
        if self.shaping not in KNOWN:
            raise ValueError(f"shaping={self.shaping!r}; allowed: {', '.join(KNOWN)}")

    @property
    def num_copies(self) -> int:
        """Copies of the environment that run at once if all trials do."""
        return self.trials * self.agents


class Outcome(NamedTuple):
    """What one call did.

    Attributes:
      returns: mean return of the perturbed policies, [trials, episodes].
      env_steps: steps of episodes that had not ended.
      scanned_steps: steps computed, those of ended copies included.
      seconds: wall time of the call.
    """

    returns: np.ndarray
    env_steps: int
    scanned_steps: int
    seconds: float


class Program(NamedTuple):
    """A peer made ready for a workload.

    Attributes:
      run: `seed -> Outcome`, all trials from the start.
      compile_seconds: wall time it took to get ready.
    """

    run: Callable[[int], Outcome]
    compile_seconds: float


class Agreement(NamedTuple):
    """What was learned against what is known.

    Attributes:
      expected: mean return of the last episodes, over the trials.
      found: the same in the outcome.
      error: its standard error.
      standard_errors: of the difference, how many it is.
    """

    expected: float
    found: float
    error: float
    standard_errors: float

    @property
    def holds(self) -> bool:
        """Within 4 standard errors."""
        return abs(self.standard_errors) <= 4


def learned(outcome: Outcome) -> np.ndarray:
    """Mean return of the last episodes of each trial."""
    return outcome.returns[:, -LAST:].mean(1)


def agreement(workload: Workload, outcome: Outcome) -> Agreement:
    """Compares the end of whole trials of n = 50 agents with `KNOWN`."""
    if (workload.agents, workload.episodes) != (AGENTS, EPISODES):
        raise ValueError(f"known only for {AGENTS} agents and {EPISODES} episodes")
    expected, known_error = KNOWN[workload.shaping]
    ends = learned(outcome)
    error = float(np.std(ends, ddof=1) / np.sqrt(len(ends)))
    found = float(np.mean(ends))
    return Agreement(expected, found, error, (found - expected) / np.hypot(error, known_error))


# --- Gymnasium and NumPy -------------------------------------------------------------------------

TRIALS_PER_ENV = {"vector_entry_point": 60, "sync": 1}


def gymnasium_numpy(
    workload: Workload, mode: str = "vector_entry_point", trials_per_env: int | None = None
) -> Program:
    """Gymnasium's vector environment, and array code over all its copies for the policies.

    Copies stand on the last axis of every array, so that each operation is one long loop. The
    policies of copies whose episode has ended are dropped from the batch now and then; the
    environment steps them all the same, from a reset on, and they do not count. An episode of the
    trials of one environment ends with its last copy.

    Args:
      workload: what to run.
      mode: "vector_entry_point" is the environment written in NumPy, "sync" a loop over copies of
        the scalar one.
      trials_per_env: trials that share one environment, by default what is fastest in each mode.
    """
    import gymnasium

    start = time.perf_counter()
    together = min(workload.trials, trials_per_env or TRIALS_PER_ENV[mode])
    parts = [
        min(together, workload.trials - first) for first in range(0, workload.trials, together)
    ]
    envs = {
        trials: gymnasium.make_vec(
            ENVIRONMENT, num_envs=trials * workload.agents, vectorization_mode=mode
        )
        for trials in sorted(set(parts))
    }
    for env in envs.values():
        env.reset(seed=0)
        env.step(np.zeros(env.num_envs, np.int64))
    seconds = time.perf_counter() - start

    def run(seed):
        start = time.perf_counter()
        returns, alive, scanned = [], 0, 0
        for part, trials in enumerate(parts):
            generator = np.random.Generator(np.random.SFC64((seed, part)))
            found = _numpy_trials(workload, envs[trials], trials, generator)
            returns.append(found[0])
            alive += found[1]
            scanned += found[2]
        return Outcome(np.concatenate(returns), alive, scanned, time.perf_counter() - start)

    return Program(run, seconds)


def _numpy_trials(workload, env, trials, generator):
    """Returns [trials, episodes], steps alive and steps made, of trials that share `env`."""
    agents, shape = workload.agents, (PARAMETERS, trials)
    env.reset(seed=int(generator.integers(2**31)))
    theta = np.zeros(shape, np.float32)
    for weights, _ in _layers(theta):
        scale = np.float32(weights.shape[1] ** -0.5)
        weights[:] = scale * generator.standard_normal(weights.shape, np.float32)
    first, second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    out, alive, scanned = np.empty((trials, workload.episodes)), 0, 0
    for episode in range(workload.episodes):
        noise = generator.standard_normal((*shape, agents), np.float32)
        perturbed = (theta[:, :, None] + np.float32(SIGMA) * noise).reshape(PARAMETERS, -1)
        returns, steps, made = _numpy_episode(env, perturbed, generator)
        alive, scanned = alive + steps, scanned + made
        returns = returns.reshape(trials, agents)
        out[:, episode] = returns.mean(1)
        if workload.shaping == "center":
            returns = returns - returns.mean(1, keepdims=True)
        gradient = np.einsum("qbn,bn->qb", noise, returns) / np.float32(agents * SIGMA) - L2 * theta
        first += (1 - BETA_1) * (gradient - first)
        second += (1 - BETA_2) * (gradient**2 - second)
        corrected = np.sqrt(second / (1 - BETA_2 ** (episode + 1))) + EPSILON
        theta += LEARNING_RATE / (1 - BETA_1 ** (episode + 1)) * first / corrected
    return out, alive, scanned


def _layers(parameters):
    """Weights [outputs, inputs, ...] and biases [outputs, ...] of each layer, as views."""
    at, out = 0, []
    for inputs, outputs in itertools.pairwise(LAYERS):
        end = at + inputs * outputs
        weights = parameters[at:end].reshape(outputs, inputs, *parameters.shape[1:])
        out.append((weights, parameters[end : end + outputs]))
        at = end + outputs
    return out


def _numpy_policies(parameters):
    """`(observations [4, copies], uniform [copies]) -> actions`, of parameters [q, copies].

    Of two actions the second has probability sigmoid(d) = (1 + tanh(d/2))/2, d the difference of
    the outputs, so that one row of the last layer is enough.
    """
    *hidden, (weights, bias) = _layers(parameters)
    head, offset = (weights[1] - weights[0]) / 2, (bias[1] - bias[0]) / 2

    def act(x, uniform):
        for weights, bias in hidden:
            x = np.einsum("oic,ic->oc", weights, x)
            x += bias
            np.tanh(x, out=x)
        half = np.einsum("ic,ic->c", head, x)
        half += offset
        np.tanh(half, out=half)
        return half > 2 * uniform - 1

    return act


def _numpy_episode(env, parameters, generator):
    """One episode of every copy: returns [copies], steps alive, steps made."""
    observations, _ = env.reset()
    copies = env.num_envs
    returns = np.zeros(copies, np.float32)
    alive, actions = np.ones(copies, bool), np.zeros(copies, np.int64)
    batch, act = None, _numpy_policies(parameters)  # copies whose policies are computed; None: all
    size = left = copies
    alive_steps = made = 0
    while left:
        x = observations.T
        x = x if batch is None else x.take(batch, 1)
        chosen = act(x, generator.random(size, np.float32))
        if batch is None:
            actions[:] = chosen
        else:
            actions[batch] = chosen
        observations, reward, terminated, truncated, _ = env.step(actions)
        np.add(returns, reward, out=returns, where=alive, casting="same_kind")
        alive_steps, made = alive_steps + left, made + copies
        alive &= ~(terminated | truncated)
        left = np.count_nonzero(alive)
        if 0 < left < 0.7 * size:
            batch, size = np.flatnonzero(alive), left
            act = _numpy_policies(parameters.take(batch, 1))
    return returns, int(alive_steps), made


# --- evosax --------------------------------------------------------------------------------------


def evosax_open_es(workload: Workload, common: bool = True) -> Program:
    """`Open_ES` of evosax on its `GymnaxProblem`, vmapped over trials, one program for all.

    Its problem runs on gymnax as it is. Every rollout scans the whole horizon, and the
    environment resets itself in every step.

    Args:
      workload: what to run.
      common: all agents of an update start alike and act on the same random numbers, as the
        problem does by itself: 50 times fewer numbers to draw, and returns that, centred, learn
        more than `KNOWN`. Otherwise each agent is evaluated with a key of its own.
    """
    from evosax.algorithms import Open_ES
    from evosax.problems.networks import MLP
    from evosax.problems.rl.gymnax import GymnaxProblem

    policy = MLP(
        layer_sizes=LAYERS[1:],
        kernel_init=jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    )
    problem = GymnaxProblem(
        ENVIRONMENT, policy, episode_length=HORIZON, num_rollouts=1, use_normalize_obs=False
    )

    def shape(population, fitness, state, params):
        return fitness - fitness.mean() if workload.shaping == "center" else fitness

    strategy = Open_ES(
        population_size=workload.agents,
        solution=problem.sample(jax.random.key(0)),
        use_antithetic_sampling=False,
        optimizer=optax.chain(
            optax.add_decayed_weights(L2),
            optax.adam(LEARNING_RATE, b1=BETA_1, b2=BETA_2, eps=EPSILON),
        ),
        std_schedule=optax.constant_schedule(SIGMA),
        fitness_shaping_fn=shape,
    )
    params = strategy.default_params

    def evaluate(key, population, state):
        if common:
            return problem.eval(key, population, state)
        keys = jax.random.split(key, workload.agents)
        alone = jax.tree.map(lambda x: x[:, None], population)
        fitness, _, _ = jax.vmap(problem.eval, (0, 0, None))(keys, alone, state)
        return fitness[:, 0], state, {}

    def generation(carry, key):
        state, problem_state = carry
        key_ask, key_eval, key_tell = jax.random.split(key, 3)
        population, state = strategy.ask(key_ask, state, params)
        fitness, problem_state, _ = evaluate(key_eval, population, problem_state)
        # It minimises.
        state, _ = strategy.tell(key_tell, population, -fitness, state, params)
        return (state, problem_state), fitness.mean()

    def trial(key):
        key_mean, key_strategy, key_problem, key_run = jax.random.split(key, 4)
        state = strategy.init(key_strategy, problem.sample(key_mean), params)
        carry = state, problem.init(key_problem)
        return jax.lax.scan(generation, carry, jax.random.split(key_run, workload.episodes))[1]

    def program(key):
        scanned = jnp.full(workload.episodes, HORIZON)
        return jax.vmap(trial)(jax.random.split(key, workload.trials)), scanned

    return _jax_program(workload, program)


def _jax_program(workload, function) -> Program:
    """Of `key -> (mean returns [trials, episodes], steps of every copy in each episode)`."""
    start = time.perf_counter()
    program = jax.jit(function).lower(jax.random.key(0)).compile()
    seconds = time.perf_counter() - start

    def run(seed):
        start = time.perf_counter()
        returns, steps = (np.asarray(x, np.float64) for x in program(jax.random.key(seed)))
        # Reward is 1 a step.
        alive = round(float(returns.sum()) * workload.agents)
        scanned = round(float(steps.sum())) * workload.num_copies
        return Outcome(returns, alive, scanned, time.perf_counter() - start)

    return Program(run, seconds)


# --- what one writes in JAX ----------------------------------------------------------------------


def jax_plain(workload: Workload, early_stop: bool = False) -> Program:
    """A rollout as a scan with a mask, vmapped over agents and trials; gymnax's raw step.

    Args:
      workload: what to run.
      early_stop: the scan is a loop over all copies at once instead, which ends with the last one.
    """
    env, env_params = gymnax.make(ENVIRONMENT)
    optimizer = optax.chain(
        optax.add_decayed_weights(L2), optax.adam(LEARNING_RATE, b1=BETA_1, b2=BETA_2, eps=EPSILON)
    )
    trials, agents = workload.trials, workload.agents

    def act(parameters, obs, uniform):
        *hidden, (weights, bias) = _layers(parameters)
        for w, b in hidden:
            obs = jnp.tanh(w @ obs + b)
        outputs = weights @ obs + bias
        return (uniform < jax.nn.sigmoid(outputs[1] - outputs[0])).astype(jnp.int32)

    def step(parameters, uniform, obs, state, total, alive):
        action = act(parameters, obs, uniform)
        obs, state, reward, terminated, _ = env.step_env(None, state, action, env_params)
        total = total + jnp.where(alive, reward, 0.0)
        return obs, state, total, alive & ~terminated

    def scanned(key, parameters):
        """Return of one policy."""
        key_reset, key_actions = jax.random.split(key)
        start = (*env.reset_env(key_reset, env_params), jnp.float32(0), jnp.bool_(True))
        uniform = jax.random.uniform(key_actions, (HORIZON,))
        end, _ = jax.lax.scan(lambda c, u: (step(parameters, u, *c), None), start, uniform)
        return end[2]

    def stopped(key, parameters):
        """Returns of policies [copies, q], and the steps made."""
        copies = trials * agents
        key_reset, key_actions = jax.random.split(key)
        keys = jax.random.split(key_reset, copies)
        obs, state = jax.vmap(env.reset_env, (0, None))(keys, env_params)
        start = obs, state, jnp.zeros(copies), jnp.ones(copies, bool)

        def body(carry):
            t, start = carry
            uniform = jax.random.uniform(jax.random.fold_in(key_actions, t), (copies,))
            return t + 1, jax.vmap(step)(parameters, uniform, *start)

        def more(carry):
            return (carry[0] < HORIZON) & jnp.any(carry[1][3])

        t, end = jax.lax.while_loop(more, body, (0, start))
        return end[2], t

    def update(theta, state, noise, returns):
        if workload.shaping == "center":
            returns = returns - returns.mean()
        updates, state = optimizer.update(-returns @ noise / (agents * SIGMA), state, theta)
        return optax.apply_updates(theta, updates), state

    def episode(carry, key):
        theta, state = carry
        key_noise, key_run = jax.random.split(key)
        noise = jax.random.normal(key_noise, (trials, agents, PARAMETERS))
        perturbed = (theta[:, None] + SIGMA * noise).reshape(-1, PARAMETERS)
        if early_stop:
            returns, steps = stopped(key_run, perturbed)
        else:
            returns = jax.vmap(scanned)(jax.random.split(key_run, len(perturbed)), perturbed)
            steps = HORIZON
        returns = returns.reshape(trials, agents)
        return jax.vmap(update)(theta, state, noise, returns), (returns.mean(1), steps)

    def initial(key):
        theta = jax.random.normal(key, (PARAMETERS,))
        parts = [(w / w.shape[1] ** 0.5, jnp.zeros_like(b)) for w, b in _layers(theta)]
        return jnp.concatenate([x.ravel() for part in parts for x in part])

    def program(key):
        key_initial, key_run = jax.random.split(key)
        theta = jax.vmap(initial)(jax.random.split(key_initial, trials))
        carry = theta, jax.vmap(optimizer.init)(theta)
        _, (returns, steps) = jax.lax.scan(
            episode, carry, jax.random.split(key_run, workload.episodes)
        )
        return returns.T, steps

    return _jax_program(workload, program)


ROWS: dict[str, Callable[[Workload], Program]] = {
    "gymnasium_numpy": gymnasium_numpy,
    "evosax": evosax_open_es,
    "evosax_own_keys": functools.partial(evosax_open_es, common=False),
    "jax_plain": jax_plain,
    "jax_early_stop": functools.partial(jax_plain, early_stop=True),
}
