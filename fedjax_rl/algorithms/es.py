"""Evolution strategies with scalar messages, and with probabilistic communication.

Every agent perturbs the learner's parameters, runs one episode and sends its return; the learner
draws the perturbations again from the shared seeds and moves along their weighted mean.

* Salimans, Ho, Chen, Sidor and Sutskever, *Evolution Strategies as a Scalable Alternative to
  Reinforcement Learning*, arXiv 1703.03864: ES.
* Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023), sections 2.4.4 and 4:
  ES on raw returns, and ESPC, which is ES on the uplink `probabilistic`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import (
    COUNT,
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    check_ranges,
    check_value,
    is_concrete,
    per_federation,
)
from fedjax_rl.envs.task import Discrete, Task
from fedjax_rl.federation import uplink as uplinks
from fedjax_rl.federation.aggregate import ServerStep, Total
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, Params, first_state, per_agent, rounds
from fedjax_rl.federation.uplink import Content, norm_squared
from fedjax_rl.learners import episodes, policies
from fedjax_rl.networks import MLP

SHAPINGS = ("raw", "center", "zscore", "rank")
DENOMINATORS = ("received", "n")
L2_MODES = ("coupled", "decoupled")
BASELINES = ("none", "own_window")
UTILITIES = ("signed", "absolute", "return", "norm")
WEIGHTS = ("return", "equal")

MODEL_METRIC = {"reward_of_model": ("federation", "return of an episode of the unperturbed policy")}

# Returns an agent averages for a baseline of its own.
BASELINE_WINDOW = 5


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Properties of everything whose learner draws the agents' perturbations again.

    Attributes:
      task: of every agent.
      sigma: standard deviation of the perturbations, above 0.
      learning_rate: of the optimiser, at least 0.
      optimizer: "adam" (0.9, 0.999, 1e-8), "momentum" or "sgd".
      momentum: of the optimiser "momentum", in [0, 1].
      l2: weight decay, at least 0.
      l2_mode: "coupled" (part of the gradient) or "decoupled" (beside the optimiser).
      denominator: the mean is over what was "received", or over all "n" agents.
      antithetic: whether agents 2i and 2i + 1 have opposite perturbations.
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0) or "uniform" (all parameters
        within +- 1 / sqrt(inputs)).
      policy: discrete actions are drawn ("sample") or the best one ("argmax"); continuous
        actions are tanh of the outputs.
      return_offset: added to every return before anything is done with it.
      uplink: who sends, see `federation.uplink`; everybody by default.
      loop: of the episodes, "compact", "while" or "scan".
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
    """

    task: Task
    sigma: Any = 0.05
    learning_rate: Any = 0.01
    optimizer: str = "adam"
    momentum: Any = 0.9
    l2: Any = 0.05
    l2_mode: str = "coupled"
    denominator: str = "received"
    antithetic: bool = False
    hidden: tuple[int, ...] = (8, 8)
    activation: str = "tanh"
    initializer: str = "normal"
    policy: str = "sample"
    return_offset: Any = 0.0
    uplink: uplinks.Uplink | None = None
    loop: str = "compact"
    word_bytes: int = 4
    header_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class ES(Strategy):
    """Properties of evolution strategies; see also `Strategy`.

    Attributes:
      shaping: what is done to the returns that were received: "raw", "center" (minus their mean),
        "zscore" or "rank" (centred ranks, ties averaged).
      baseline: "none", or "own_window": an agent subtracts the mean of its last 5 returns, the
        present one excluded, and sends the difference; there is no message in episode 0.
      weights: "return", or "equal": whatever was received counts 1 (a control experiment).
      evaluate: whether to run an episode of the unperturbed policy, too (`reward_of_model`).
    """

    shaping: str = "raw"
    baseline: str = "none"
    weights: str = "return"
    evaluate: bool = False


@dataclasses.dataclass(frozen=True)
class ESPC(ES):
    """Properties of evolution strategies with probabilistic communication; see also `ES`.

    With as many senders as agents it is ES. A `shaping` acts on what was received; centring there,
    after the selection, takes away most of what the selection gained, a baseline before it does
    not.

    Attributes:
      target_senders: m, messages wanted per episode, a whole number from 0 to the number of
        agents; half of them by default.
      window: k, samples an agent compares with, at least 1.
      utility: of a sample with return F and perturbation e: "signed" (F |e|), "absolute" (|F|
        |e|), "return" (F) or "norm" (|e|). By default "signed", and "absolute" with a baseline.
      utility_model: where a utility stands in the window: "gaussian" or "empirical".
    """

    target_senders: Any = None
    window: Any = 5
    utility: str | None = None
    utility_model: Any = "gaussian"
    # Said by the properties above.
    uplink: uplinks.Uplink | None = dataclasses.field(default=None, metadata={"cli": False})


def es(task: Task, **values) -> Algorithm:
    """Evolution strategies; see `ES` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("es", ES, es, task, values)


def espc(task: Task, **values) -> Algorithm:
    """ES with probabilistic communication; see `ESPC` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("espc", ESPC, espc, task, values)


def _build(name, kind, factory, task, values) -> Algorithm:
    return episodic.build(
        name,
        kind,
        factory,
        task,
        values,
        check=check,
        parameters=parameters,
        functions=functions,
        static=static,
        metrics={**episodic.METRICS, **(MODEL_METRIC if values.get("evaluate") else {})},
    )


def check(config: ES) -> None:
    """Raises ValueError for a property that is not allowed."""
    check_strategy(config)
    for name, options in (("shaping", SHAPINGS), ("baseline", BASELINES), ("weights", WEIGHTS)):
        episodic.check_word(name, getattr(config, name), options)
    if isinstance(config, ESPC):
        if config.utility is not None:
            episodic.check_word("utility", config.utility, UTILITIES)
        if config.uplink is not None:
            raise ValueError(
                f"uplink is {config.uplink} for espc; allowed: none, espc is es with the uplink "
                "probabilistic"
            )
        check_value(
            "target_senders",
            0 if config.target_senders is None else config.target_senders,
            lambda x: (x >= 0) & (x == np.floor(x)),
            "a whole number from 0 to the number of agents",
        )
        check_value("window", config.window, *COUNT)
        if not callable(config.utility_model):
            episodic.check_word("utility_model", config.utility_model, uplinks.UTILITY_MODELS)


def check_strategy(config: Strategy) -> None:
    """Raises ValueError for a property of `Strategy` that is not allowed."""
    words = {
        "optimizer": episodic.OPTIMIZERS,
        "l2_mode": L2_MODES,
        "denominator": DENOMINATORS,
        "policy": policies.CHOICES,
        "loop": episodes.LOOPS,
    }
    for name, options in words.items():
        episodic.check_word(name, getattr(config, name), options)
    ranges = {
        "sigma": POSITIVE,
        "learning_rate": NOT_NEGATIVE,
        "momentum": PROBABILITY,
        "l2": NOT_NEGATIVE,
        "return_offset": FINITE,
    }
    check_ranges(config, ranges)
    check_value("hidden", config.hidden, *COUNT)
    network_of(config)
    if config.initializer not in ("normal", "uniform"):
        raise ValueError(f"initializer is {config.initializer}; allowed: normal, uniform")


def network_of(config: Strategy) -> MLP:
    """The policy's network."""
    action = config.task.action
    outputs = action.num if isinstance(action, Discrete) else action.size
    hidden = tuple(int(units) for units in config.hidden)
    return MLP((config.task.observation_size, *hidden, outputs), config.activation)


def uplink_of(config: ES, num_agents: int | None = None) -> uplinks.Uplink:
    """Who sends."""
    if not isinstance(config, ESPC):
        return episodic.uplink_of(config)
    target = config.target_senders
    if num_agents is not None and is_concrete(target) and (target or 0) > num_agents:
        raise ValueError(
            f"target_senders is {target} with num_agents {num_agents}; allowed: a whole number "
            "from 0 to num_agents"
        )
    if target is None:
        target = 0 if num_agents is None else num_agents // 2
    return uplinks.probabilistic(target, config.window, None, config.utility_model)


def utility_of(config: ES) -> str:
    """What makes a sample worth sending."""
    chosen = getattr(config, "utility", None)
    return chosen or ("signed" if config.baseline == "none" else "absolute")


# Properties whose words are traced as numbers, so that variants share one program.
_CODES = {
    "shaping": SHAPINGS,
    "denominator": DENOMINATORS,
    "l2_mode": L2_MODES,
    "baseline": BASELINES,
    "weights": WEIGHTS,
}
_NUMBERS = ("sigma", "learning_rate", "momentum", "l2", "return_offset")


def parameters(config: ES, num_agents: int) -> Params:
    """What is traced, for one federation."""
    federation = traced(config, num_agents)
    federation["utility"] = np.int32(UTILITIES.index(utility_of(config)))
    # A message is one number, the return.
    federation |= episodic.uplink_parameters(uplink_of(config, num_agents), num_agents, 1)
    return Params({}, federation, {})


def traced(config: Strategy, num_agents: int) -> dict:
    """The numbers of a strategy, and the words that it has, as scalars.

    Raises:
      ValueError: antithetic perturbations of an odd number of agents.
    """
    if config.antithetic and num_agents % 2:
        raise ValueError(
            f"num_agents is {num_agents} with antithetic perturbations; allowed: even numbers"
        )
    words = {n: options for n, options in _CODES.items() if hasattr(config, n)}
    codes = {n: np.int32(options.index(getattr(config, n))) for n, options in words.items()}
    return per_federation(config, _NUMBERS, num_agents) | codes


def static(config: ES):
    """Equal for configurations that one compilation serves."""
    return (*static_strategy(config), uplink_of(config).static, config.evaluate)


def static_strategy(config: Strategy) -> tuple:
    """What shapes the program of a strategy, but for its uplink."""
    return (
        config.task,
        config.optimizer,
        config.antithetic,
        network_of(config),
        config.initializer,
        config.policy,
        config.loop,
        episodic.wire_of(config),
    )


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      noise: [q], its perturbation in units of sigma.
      past: [5], its last returns, a ring.
      count: int32, episodes behind it.
    """

    experience: Experience
    noise: jax.Array
    past: jax.Array
    count: jax.Array


class Sample(NamedTuple):
    """A message; on the wire only the value.

    Attributes:
      value: return, or its difference to the agent's baseline.
      noise: [q], drawn again by the learner.
      utility: what the uplink goes by.
      valid: whether there is anything to send.
    """

    value: jax.Array
    noise: jax.Array
    utility: jax.Array
    valid: jax.Array


class Model(NamedTuple):
    """The learner's model.

    Attributes:
      parameters: [q].
      value: return of the unperturbed policy in this round; NaN where not asked for.
    """

    parameters: jax.Array
    value: jax.Array


def message(agent: Agent, model: Model, params) -> Sample:
    """The sample of an agent's last episode."""
    seen = jnp.minimum(agent.count - 1, BASELINE_WINDOW)
    # The ring holds the present return already, at the place of episode count - 1.
    places = jnp.arange(BASELINE_WINDOW + 1)
    now = (agent.count - 1) % (BASELINE_WINDOW + 1)
    earlier = (places != now) & (places < agent.count)
    total = jnp.sum(jnp.where(earlier, agent.past, jnp.zeros_like(agent.past)))
    baseline = total / jnp.maximum(seen, 1).astype(total.dtype)
    own = params["baseline"] == BASELINES.index("own_window")
    value = agent.experience.value
    value = jnp.where(own, value - baseline, value)
    norm = jnp.sqrt(norm_squared(agent.noise))
    kinds = [value * norm, jnp.abs(value) * norm, value, norm]
    utility = jnp.select([params["utility"] == n for n in range(len(kinds))], kinds)
    valid = agent.experience.fine & (~own | (seen > 0))
    return Sample(value, agent.noise, utility, valid)


CONTENT = Content(
    numbers=lambda sample: sample.value,
    replaced=lambda sample, value: sample._replace(value=value),
    items=lambda sample: (jnp.abs(sample.value)[None], sample.valid[None]),
    utility=lambda sample: sample.utility,
    size=lambda sample: jnp.uint32(1),
)


def shaped(population, values, counts, params: Params):
    """Returns as the weights of their perturbations.

    Args:
      population: who belongs to whom.
      values: [A], returns.
      counts: bool [A], which of them were received.
      params: with "shaping" and "weights" of each federation.

    Returns:
      [A], zero where nothing was received, and the number received [F].
    """
    received = population.sum(counts.astype(values.dtype))
    size = population.spread(jnp.maximum(received, 1))
    values = jnp.where(counts, values, jnp.zeros_like(values))
    centred = values - population.spread(population.sum(values)) / size
    centred = jnp.where(counts, centred, jnp.zeros_like(values))
    variance = population.spread(population.sum(centred**2)) / size
    deviation = jnp.sqrt(variance)
    scored = jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1), 0.0)
    ranks = centred_ranks(population, values, counts)
    shaping = population.spread(params.federation["shaping"])
    kinds = [values, centred, scored, ranks]
    out = jnp.select([shaping == n for n in range(len(kinds))], kinds)
    equal = population.spread(params.federation["weights"]) == WEIGHTS.index("equal")
    return jnp.where(equal, counts.astype(values.dtype), out), received


def centred_ranks(population, values, counts):
    """Ranks in [-1/2, 1/2] among what was received, ties averaged; 0 for who is alone.

    Args:
      population: who belongs to whom.
      values: [A].
      counts: bool [A], which of them were received.

    Returns:
      [A], zero where nothing was received.
    """
    size = population.spread(jnp.maximum(population.sum(counts.astype(values.dtype)), 1))
    ranks = population.mid_rank(values, counts) / jnp.maximum(size - 1, 1) - 0.5
    return jnp.where(counts & (size > 1), ranks, jnp.zeros_like(values))


def aggregate(population, sample: Sample, sent, weight, context) -> Total:
    """The weighted mean of the perturbations, [F, q]; the gradient times sigma."""
    del weight
    counts = sample.valid if sent is None else sample.valid & sent
    values, received = shaped(population, sample.value, counts, context.params)
    return direction(population, values, sample.noise, received, context.params)


def direction(population, values, noise, received, params: Params) -> Total:
    """The mean of the perturbations [A, q] weighted by values [A]; received [F] of them count."""
    total = population.sum(values[:, None] * noise)
    every = params.federation["denominator"] == DENOMINATORS.index("n")
    number = jnp.where(every, jnp.asarray(population.sizes, values.dtype), received)
    return Total(total / jnp.maximum(number, 1)[:, None], received > 0)


def server_of(config) -> ServerStep:
    """A step uphill."""
    optimizer = episodic.optimizer_of(config)

    def init(model):
        return optimizer.init(model.parameters), jnp.zeros_like(model.parameters)

    def step(model, memory, total, params):
        theta, (memory, speed) = model.parameters, memory
        coupled = params["l2_mode"] == L2_MODES.index("coupled")
        gradient = total / params["sigma"]
        gradient = gradient - jnp.where(coupled, params["l2"], 0.0) * theta
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            direction, memory = optimizer.update(gradient, memory, theta)
        if config.optimizer == "momentum":
            speed = params["momentum"] * speed + direction
            direction = speed
        decay = jnp.where(coupled, 0.0, params["l2"]) * theta
        theta = theta + params["learning_rate"] * (direction - decay)
        return model._replace(parameters=theta), (memory, speed)

    return ServerStep(init, step)


def perturbations(config: Strategy, network: MLP, population, state):
    """The perturbation of every agent in this round, [A, q]."""
    keys = state.keys
    if config.antithetic:
        if population.axis_name is not None:
            raise ValueError("devices is more than 1 with antithetic perturbations; allowed: 1")
        partner = np.arange(population.num_agents) - population.member_of % 2
        keys = keys[partner]
    keys = episodic.keys_of(keys, episodic.NOISE_STREAM, state.time)
    counters = jnp.arange(network.num_parameters, dtype=jnp.uint32)

    def draw(key):
        return jax.vmap(lambda n: streams.normal(streams.threefry(key, n)))(counters)

    # Half the time of jax.random.normal on a CPU.
    noise = jax.vmap(draw)(jax.random.key_data(keys))
    if config.antithetic:
        noise = noise * jnp.where(population.member_of % 2, -1.0, 1.0)[:, None]
    return noise


def behaviour_of(config: Strategy, network: MLP) -> Callable:
    """`(parameters, observation, word) -> action`, for `episodes`."""
    discrete = isinstance(config.task.action, Discrete)

    def act(parameters, observation, word):
        outputs = network.apply(parameters, observation)
        if not discrete:
            return policies.squashed(outputs)
        if config.policy == "argmax":
            return policies.greedy(outputs)
        return policies.categorical(outputs, word)

    return act


def run_episodes(
    config: Strategy, network: MLP, keys, parameters, kind, **options
) -> episodes.Episode:
    """One episode of every policy with parameters [A, q]; options as for `episodes`."""
    act = behaviour_of(config, network)
    if not network.unrolled:
        return episodes.episodes(config.task, act, keys, parameters, kind=kind, **options)

    def act_on_scalars(parameters, observation, word):
        scalars = tuple(parameters[n] for n in range(network.num_parameters))
        return act(scalars, observation, word)

    # One parameter of all agents after the other: each is a vector in the inner loop.
    return episodes.episodes(
        config.task, act_on_scalars, keys, parameters.T, axis=1, kind=kind, **options
    )


def exchange_of(
    config: ES, aggregate: Callable = aggregate, server: ServerStep | None = None
) -> Exchange:
    """The exchange of a round; the parameters go down, without what is known of them."""
    return Exchange(
        message=message,
        uplink=uplink_of(config),
        aggregate=aggregate,
        server=server_of(config) if server is None else server,
        broadcast=lambda model: model.parameters,
        content=CONTENT,
        wire=episodic.wire_of(config),
        star=True,
    )


def functions(
    config: ES, aggregate: Callable = aggregate, server: ServerStep | None = None
) -> Functions:
    """The algorithm as pure functions of a population.

    Args:
      config: the properties.
      aggregate: of the exchange.
      server: of the exchange, a step uphill by default.
    """
    network = network_of(config)
    link = exchange_of(config, aggregate, server)

    def work(population, params, state, differentiable):
        kind = "scan" if differentiable else config.loop
        noise = perturbations(config, network, population, state)
        sigma = population.spread(params.federation["sigma"])
        centre = state.server.parameters
        perturbed = population.spread(centre) + sigma[:, None] * noise
        keys = episodic.episode_keys(state)
        episode = run_episodes(config, network, keys, perturbed, kind)

        def remember(agent, noise, value, steps, params):
            value = value + params["return_offset"]
            experience = agent.experience.following(value, steps)
            place = agent.count % (BASELINE_WINDOW + 1)
            past = agent.past.at[place].set(experience.value)
            return Agent(experience, noise, past, agent.count + 1)

        agents = per_agent(
            remember, population, params, state.agents, noise, episode.value, episode.steps
        )
        state = dataclasses.replace(state, agents=agents)
        if config.evaluate:
            first = tuple(episodic.first_key(population, key) for key in keys)
            now = run_episodes(config, network, first, centre, kind)
            state = dataclasses.replace(state, server=state.server._replace(value=now.value))
        return state, episode.steps.astype(jnp.uint32)

    drive = rounds(work, link)

    def init(population, params, keys):
        first = episodic.first_key(population, keys)
        model = jax.vmap(
            lambda key: network.init(
                jax.random.fold_in(key, episodic.MODEL_STREAM), config.initializer
            )
        )(first)
        server = Model(model, jnp.full(population.num_federations, jnp.nan))

        def agent(params):
            del params
            return Agent(
                episodic.no_experience(),
                jnp.zeros(network.num_parameters),
                jnp.zeros(BASELINE_WINDOW + 1),
                jnp.int32(0),
            )

        nothing = jnp.zeros(population.num_agents)
        agents = per_agent(lambda _, params: agent(params), population, params, nothing)
        return first_state(population, link, params, keys, agents, server, detailed=True)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, link, state.agents.experience)
        return {**own, "reward_of_model": state.server.value} if config.evaluate else own

    return Functions(init, drive.round, drive.advance, measure)
