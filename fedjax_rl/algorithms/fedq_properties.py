"""Properties of federated Q-learning."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms.define import Averaged
from fedjax_rl.algorithms.fedq_environment import policy_of_agents, prepared, shape_of
from fedjax_rl.envs.tabular import TabularMDP, check_mdp
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.server import SHARE
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import is_concrete, is_number
from fedjax_rl.fields.record import engine, environment, host, record, static, traced
from fedjax_rl.learners import behaviours, tables
from fedjax_rl.names import brief

BEHAVIOURS = {
    "uniform": behaviours.uniform_behaviour,
    "softmax": behaviours.softmax_behaviour,
    "greedy": behaviours.greedy_behaviour,
    "policy": behaviours.fixed_behaviour,
}
SAMPLING = ("markovian", "iid", "generative", "expected")
# In these the law of an agent's state is that of its trajectory.
TRAJECTORIES = ("markovian", "expected")
AGGREGATIONS = ("mean", "fixed", "learned", "importance")


def _probabilities(policy) -> bool:
    """Whether an array [S, U] or [N, S, U] has rows that are probabilities."""
    policy = fields.real_array(policy)
    rows = policy.ndim in (2, 3) and policy.size > 0 and (policy >= 0).all()
    return bool(rows and np.allclose(policy.sum(-1), 1.0, atol=1e-6))


def _finite_table(values) -> bool:
    """Whether an array has two axes, and finite numbers."""
    values = fields.real_array(values)
    return values is not None and values.ndim == 2 and bool(np.isfinite(values).all())


_OF_AGENTS = {"per_agent": True}


@record
class FedQ(Averaged):
    """Properties of federated Q-learning. Values marked N may also be an array [N].

    Any number may follow the number of agents: `frl.by_agents(f)`.

    Attributes:
      mdp: the environment; one for all, or a family with a leading axis [N], one per agent. Each
        agent starts in the initial state of its own, or in a state that it draws from its initial
        distribution; q* depends on neither.
      learning_rate: alpha in (0, 1], N; or `frl.schedule(f)` with `step -> alpha`, such as any
        optax schedule.
      sync_period: K, local steps between exchanges, at least 1.
      sampling: "markovian", a trajectory; "iid", in every step a pair (s, a) drawn uniformly;
        "generative", in every step a sample of every pair, of which the ledger counts one;
        "expected", the mean of a step over trajectories, where nothing is drawn: the model that
        sampled runs tend to at small rates. The behaviour is that of trajectories.
      behaviour: "softmax" (of `beta` times the row), "greedy", "uniform" or "policy".
      epsilon: probability of a uniform action instead, in [0, 1], N. 1 is uniform behaviour.
      beta: inverse temperature of the softmax, N.
      policy: [S, U] or [N, S, U], the behaviour "policy".
      discount: for learning, in [0, 1); None takes the MDP's.
      initial_q: number or [S, U], where every table starts.
      reference: None for q*, of a family that of its mean; or [S, U], what errors are measured
        against.
      visit_exponent: None, or omega: the step size is then `learning_rate / n^omega` with n the
        agent's visits to the pair so far, this one included.
      reward_noise: None, or the standard deviation of Gaussian noise on rewards, N.
      aggregation: "mean", "fixed" (`weights` on the simplex), "learned" (`weights` are logits) or
        "importance" (weight of an agent's entry proportional to prod 1 / (1 - alpha_t) over its
        updates since the last exchange; arXiv 2305.10697).
      weights: [N], for "fixed" and "learned".
      mixing: None, or c in [0, 1]: tables move the fraction c of the way to the server's model
        instead of all the way.
      participation: None, or the probability in [0, 1] that an agent takes part in an exchange:
        short for `uplink=partial(probability)`.
      uplink: what of an agent's table crosses the wire, everything by default. Uplinks other than
        `partial` act on the change of the table since the last broadcast, and everybody starts
        the next period from the server's model.
      server_optimizer: None for plain averaging, or an optax transformation of the mean change. It
        sees the server's table as action values [S, U].
      clock: how long agents take for their K steps and whom the server waits for, see
        `federation.clock`; by default everybody steps at the same time. Where a step of the server
        is made of m of N tables, it moves the fraction m / N of the way to their mean, with weights
        the sum of theirs over the sum of all. A server optimizer is given the mean change, with
        weights as often as those who arrived outweigh the average. Importance aggregation needs a
        synchronous clock without failures: how often others have visited an entry is not known
        before they arrive.
      generator: "threefry" or "hash", the inner loop's random words.
      derivative: None; or what derivatives are where the behaviour depends on the table: "pathwise"
        (biased, as sampling is discontinuous; so it is through an uplink that depends on messages),
        "score" (without a bias, by `frl.differentiate`) or "relaxed" (biased, of little variance).
        The last two are of the behaviour "softmax". With sampling "expected" derivatives are
        exact without, by behaviour and environment, too.
      relaxation: temperature above 0 of the relaxed derivative.
    """

    mdp: TabularMDP = environment(fields.instance(TabularMDP), by="host")
    learning_rate: Any = traced(0.1, fields.number(0, 1, above=True, **_OF_AGENTS), by="agent")
    sampling: str = static("markovian", fields.word(SAMPLING))
    behaviour: str = static("softmax", fields.word(BEHAVIOURS))
    epsilon: Any = traced(0.0, fields.number(0, 1, **_OF_AGENTS), by="agent")
    beta: Any = traced(1.0, fields.number(0, **_OF_AGENTS), by="agent")
    policy: Any = host(
        None,
        fields.anything(
            "probabilities [S, U] or [N, S, U] whose rows sum to one", _probabilities, optional=True
        ),
        cli=False,
    )
    discount: Any = host(None, fields.number(0, 1, below=True).or_none())
    initial_q: Any = host(0.0, fields.number(arrays=2))
    reference: Any = host(
        None,
        fields.anything("an array [S, U] of real numbers", _finite_table, optional=True),
        cli=False,
    )
    visit_exponent: Any = traced(None, fields.number(0, 1, **_OF_AGENTS).or_none(), by="agent")
    reward_noise: Any = traced(None, fields.number(0, **_OF_AGENTS).or_none(), by="agent")
    aggregation: str = static("mean", fields.word(AGGREGATIONS))
    weights: Any = traced(
        None, fields.number(**_OF_AGENTS).or_none(), by="agent", scheduled=False, cli=False
    )
    mixing: Any = traced(None, fields.PROBABILITY.or_none())
    participation: Any = engine(None, fields.PROBABILITY.or_none())
    server_optimizer: Any = static(
        None,
        fields.anything(
            "an optax transformation",
            lambda x: callable(x.init) and callable(x.update),
            optional=True,
        ),
        cli=False,
    )
    generator: str = static("threefry", fields.word(streams.GENERATORS))
    relaxation: float = static(0.5, fields.number(0, above=True), cli=False)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        _check(self)

    def transmits(self, num_agents=None) -> uplinks.Uplink:
        """The uplink, for which a probability of participation is short."""
        if self.participation is not None:
            return uplinks.partial(self.participation)
        return super().transmits(num_agents)

    def static(self) -> tuple:
        """The behaviour as the program sees it, and the shape of the environment."""
        drawn = self.mdp.initial_distribution is not None
        return behaviour_of(self), shape_of(self.mdp), self.mdp.transition.ndim, drawn

    def derived(self, num_agents: int) -> Params:
        """The environment and first table as the learner's inner loop wants them."""
        return _derived_parameters(self, num_agents)


def behaviour_of(config: FedQ) -> str:
    """The behaviour as the program sees it.

    With epsilon 1 nothing is left of the table in the choice of actions, and the cheaper program
    for uniform behaviour draws the same law from the agent's stream. Off trajectories pairs are
    drawn uniformly, whatever is set.
    """
    if config.sampling not in TRAJECTORIES:
        return "uniform"
    depends = config.behaviour in ("softmax", "greedy")
    if depends and is_number(config.epsilon) and np.all(np.asarray(config.epsilon) == 1.0):
        return "uniform"
    return config.behaviour


def _check(config: FedQ) -> None:
    check_mdp(config.mdp)
    mdp = config.mdp
    if config.uplink is not None and config.participation is not None:
        raise ValueError(
            f"participation is {config.participation} with uplink {config.uplink}; allowed: one of "
            "the two"
        )
    _check_needed(config, "policy", "behaviour", ("policy",))
    if config.behaviour == "policy" and config.sampling not in TRAJECTORIES:
        raise ValueError(
            f"behaviour is 'policy' with sampling {config.sampling!r}, which draws pairs "
            "uniformly; allowed: sampling 'markovian' or 'expected'"
        )
    if config.sampling == "expected":
        _check_expected(config)
    sizes = (mdp.num_states, mdp.num_actions)
    for name in ("policy", "initial_q", "reference"):
        value = getattr(config, name)
        # The shape is known of what is traced, too.
        shape = () if value is None or isinstance(value, fields.ByAgents) else np.shape(value)
        if shape and shape[-2:] != sizes:
            raise ValueError(
                f"{name} is an array {list(shape)} with an MDP of {sizes[0]} states and {sizes[1]} "
                f"actions; allowed: {list(sizes)}"
            )
    _check_needed(config, "weights", "aggregation", ("fixed", "learned"))
    if config.aggregation == "fixed" and is_number(config.weights):
        _check_weights(config.weights)
    if config.aggregation == "importance":
        _check_all_arrive(config.clock)
        given = config.learning_rate
        if is_schedule(config):
            given = fields.schedule_values(given, fields.looked_at())
        if is_number(given):
            _check_importance(config, given)


def _check_expected(config: FedQ) -> None:
    """Refuses what is about draws where there are none."""
    if config.reward_noise is not None:
        name, allowed = "reward_noise", "None"
    elif config.generator != "threefry":
        name, allowed = "generator", "'threefry', which is not asked"
    else:
        return
    raise ValueError(
        f"{name} is {brief(getattr(config, name))} with sampling 'expected', in which nothing is "
        f"drawn; allowed: {allowed}"
    )


def _check_all_arrive(clock: Clock | None) -> None:
    """Refuses clocks whose steps are made of some of the tables."""
    if clock is not None and (clock.scheduler != "synchronous" or clock.rules.fails):
        raise ValueError(
            f"clock is {clock} with aggregation 'importance', whose weights are shares of the "
            "visits of all agents; allowed: None, or a synchronous clock without failures"
        )


def _check_needed(config: FedQ, name: str, choice: str, needing: tuple[str, ...]) -> None:
    """Refuses a property that only some choices of another have, and these always."""
    value, chosen = getattr(config, name), getattr(config, choice)
    if (value is not None) != (chosen in needing):
        allowed = "None" if value is not None else "an array"
        raise ValueError(
            f"{name} is {brief(value)} with {choice} {chosen!r}; allowed: {allowed}, since "
            f"{' and '.join(map(repr, needing))} alone need it"
        )


def _check_weights(weights, num_agents: int | None = None) -> None:
    """Refuses fixed weights that are negative, or all 0 (among the first N)."""
    own = np.asarray(weights, np.float64)
    own = own[:num_agents] if own.ndim and num_agents is not None else own
    if not (np.all(own >= 0) and np.any(own > 0)):
        where = "" if num_agents is None else f" for num_agents {num_agents}"
        raise ValueError(
            f"weights is {brief(weights)}{where} with aggregation 'fixed'; allowed: at "
            "least 0 and not all 0"
        )


def _check_importance(config: FedQ, rates) -> None:
    """Refuses learning rates of 1, also those that are 1 to the precision of a run."""
    if rates is None or not is_concrete(rates):
        return
    rates = np.asarray(rates, jnp.result_type(float))
    if np.any(rates >= 1):
        shown = f"{config.learning_rate}" if rates.ndim == 0 else f"{rates.max():g} somewhere"
        raise ValueError(
            f"learning_rate is {shown} with importance aggregation, whose weights are powers of "
            "1 / (1 - learning_rate); allowed: (0, 1)"
        )


def _derived_parameters(config: FedQ, num_agents: int) -> Params:
    expected = config.sampling == "expected"
    own = prepared(config.mdp, config.discount, expected)
    agent = {}
    if config.aggregation == "importance" and not is_schedule(config):
        # Again at this N, where a function of N has become a number.
        _check_importance(config, config.learning_rate)
    if config.weights is not None:
        weights = _first(config.weights, num_agents)
        if config.aggregation == "fixed" and is_concrete(weights):
            _check_weights(weights, num_agents)
        if config.clock is not None:
            agent[SHARE] = _shares(config.aggregation, weights)
    reference, offset = own["reference"], own["offset"]
    if config.reference is not None:
        # Compared with tables of the inner loop, which are centred.
        given = np.asarray(config.reference, np.float64).reshape(-1) - offset
        reference = tables.layout(given, shape_of(config.mdp).unrolled)
    shared = {"reference": reference, "offset": offset}
    if own["family"]:
        size = config.mdp.transition.shape[0]
        if size < num_agents:
            raise ValueError(
                f"mdp is a family of {size} for num_agents {num_agents}; allowed: at least one "
                "member per agent"
            )
        agent |= jax.tree.map(lambda leaf: leaf[:num_agents], own["own"])
    else:
        shared |= own["own"]
    shape = shape_of(config.mdp)
    if config.policy is not None:
        agent["policy"] = policy_of_agents(config.policy, shape, num_agents, expected)
    xp = np if is_concrete(config.initial_q) else jnp
    initial = xp.asarray(config.initial_q, float).reshape(-1)
    return Params(agent, {"initial_q": xp.broadcast_to(initial, (shape.size,))}, shared)


def _first(value, num_agents: int):
    """A number for all, or those of the first N agents, as [N]."""
    xp = np if is_concrete(value) else jnp
    value = xp.asarray(value, float)
    return xp.broadcast_to(value, (num_agents,)) if value.ndim == 0 else value[:num_agents]


def _shares(aggregation: str, weights):
    """Of every agent in the weight of all, [N]."""
    xp = np if is_concrete(weights) else jnp
    if aggregation == "learned":
        # Logits: any constant may be taken off, and the largest keeps exp from overflowing.
        weights = xp.exp(weights - xp.max(weights))
    return weights / xp.sum(weights)


def is_schedule(config: FedQ) -> bool:
    """Whether the learning rate is a schedule over steps."""
    return isinstance(config.learning_rate, fields.Schedule)
