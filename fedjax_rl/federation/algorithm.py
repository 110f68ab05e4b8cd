"""What the rest of the package needs to know of an algorithm, and nothing more."""

from __future__ import annotations

import dataclasses
import importlib
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.federation import derivatives
from fedjax_rl.federation.state import Params
from fedjax_rl.names import check_known


class Own(NamedTuple):
    """What each agent has of a metric by itself: no other agent's last draws tell in it.

    Attributes:
      values: the metric of agents [A] whose mean it is.
      drawn: which draws of others do not: "round", those since the servers' models came down last,
        whatever an exchange has made of them since; or "measure", those of `drawn_to_measure`.
    """

    values: str
    drawn: str


class Functions(NamedTuple):
    """An algorithm with its static choices made, as pure functions of a population.

    Attributes:
      init: `(population, params, keys) -> State`.
      round: `(population, params, state, period) -> State`, one communication round of a static
        number of local steps; differentiable.
      advance: `(population, params, state, num_steps) -> State`, traced steps and periods.
      measure: `(population, params, state) -> {name: [F] or [A]}`.
      parts: what a round consists of, see `rounds.Rounds`; empty where no clock can drive it.
      act: `(model, observation, word) -> action`, what the model of a server does with a uint32
        word; None where there is no such thing.
      model: `(population, params, state) -> [F, ...]`, what `act` is to be given.
      drawn: `state -> [A]`, 0 with the derivative of the logarithm of the probability of all that
        an agent has drawn so far; [A + F] where servers draw, too. None where nothing is counted.
      drawn_to_measure: `(population, params, state) -> [A]`, the same of what `measure` draws;
        None where it draws nothing, or nobody counts.
      links: the exchanges of a round, each with how often it is made: `((Exchange, times), ...)`.
      own: metric -> `Own`, of those that are means over agents by themselves.
    """

    init: Callable
    round: Callable
    advance: Callable
    measure: Callable
    parts: tuple = ()
    act: Callable | None = None
    model: Callable = lambda population, params, state: state.server
    drawn: Callable | None = None
    drawn_to_measure: Callable | None = None
    links: tuple = ()
    own: Mapping[str, Own] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True, eq=False)
class Algorithm:
    """An algorithm and its configuration.

    Attributes:
      name: as on the command line.
      config: the record of its properties, see `fields.record`.
      parameters: `(config, num_agents) -> Params` of *one* federation: `agent` leaves [N, ...],
        the others without a population axis. What is named here is traced: it can differ between
        federations without another compilation. This is the one place that says so.
      functions: `config -> Functions`, reading static properties only.
      static: `config -> hashable`, equal for configurations that share one compilation.
      metrics: name of each metric -> (axis "federation" or "agent", what it is).
      describe: `config -> dict` of plain values, enough to make the algorithm again.
      build: `config -> Algorithm`, the same algorithm with another configuration.
      unit: what time counts, "step", "episode", "round", "epoch" or, on a clock, "update".
      headline: the metric that tells at a glance how well it goes; by default the first one of
        federations.
      first_exchange: `config -> time` of the first exchange, or None where that is not known. To
        be given where the period says when agents exchange, but does not make a round: then a
        federation of one does the same whatever the period.
      smallest_share: agents that repay a population of their own where a core is idle, in runs
        that are not short; with 1 they do in any.
      memory: `(config, num_agents) -> {what: bytes}` of a federation, "total" among them; None
        where agents are so small that nobody has to ask.
      sampled: `config -> str or None`: why a derivative through the simulation is wrong, as in
        "where {actions are drawn from what is learned}"; None where it is right. What says
        nothing of itself is refused, see `derivatives`.
      draws: properties that do nothing but decide what is drawn, and that have no derivative even
        where the rest has.
      estimators: `config -> names`, which of "score" and "relaxed" its property `derivative` may
        be.
      scoreless: properties that have no derivative where "score" is: what they decide is compared,
        or drawn with a probability that is not counted.
      home: "module:name" of the public function that makes it, under which it is pickled.
    """

    name: str
    config: object
    parameters: Callable
    functions: Callable
    static: Callable
    metrics: dict
    describe: Callable
    build: Callable
    unit: str = "step"
    headline: str | None = None
    first_exchange: Callable | None = None
    smallest_share: int = 256
    memory: Callable | None = None
    sampled: Callable = lambda config: "actions may be drawn from what is learned"
    draws: tuple[str, ...] = ()
    estimators: Callable = lambda config: ()
    scoreless: tuple[str, ...] = ()
    home: str = ""

    def __post_init__(self) -> None:
        """Fills in the headline, and sees to it that derivatives are right or refused."""
        derivatives.check(self)
        contract = derivatives.Contract(self.name, self.sampled, self.draws, self.scoreless)
        guarded = {
            "parameters": derivatives.GuardedParameters,
            "functions": derivatives.GuardedFunctions,
        }
        for name, kind in guarded.items():
            # `dataclasses.replace` hands on what is guarded already, by the contract of before.
            own = derivatives.without_guards(getattr(self, name))
            object.__setattr__(self, name, kind(own, contract))
        if self.headline is None:
            sides = {name: side for name, (side, _) in self.metrics.items()}
            of_federations = [name for name in sides if sides[name] == "federation"]
            object.__setattr__(self, "headline", (*of_federations, *sides)[0])

    def __eq__(self, other: object) -> bool:
        """Equal if name and configuration are."""
        # Functions are closures, never equal; what they close over follows from the configuration.
        same = isinstance(other, Algorithm) and other.name == self.name
        return same and other.config == self.config

    def __reduce__(self) -> tuple:
        """By where it is found and its configuration, as its functions are closures."""
        return _found, (self.home, self.config)

    def __hash__(self) -> int:
        """Of name and configuration."""
        return hash((self.name, self.config))

    @property
    def periodic(self) -> bool:
        """Whether a round has `sync_period` units of time; otherwise it has one."""
        return self.unit == "step" and "sync_period" in self.properties

    @property
    def on_clock(self) -> bool:
        """Whether arrivals drive it, whose steps of the server time then counts."""
        return self.unit == "update"

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of everything that can be set, and hence swept."""
        return tuple(self.config.names())

    def replace(self, **changes) -> Algorithm:
        """The algorithm with some properties changed.

        Raises:
          ValueError: a property that it does not have, or a value that is not allowed.
        """
        for name in changes:
            check_known(name, self.properties, f"property of {self.name}")
        return self.build(self.config.replace(**changes))

    def at(self, num_agents: int) -> Algorithm:
        """The algorithm of a federation of N agents: functions of N are evaluated.

        Raises:
          ValueError: naming the property, its value at this N and what is allowed.
        """
        own = self.config.at(num_agents)
        return self if own is self.config else self.build(own)

    def evaluated(self, name: str, value, num_agents: int):
        """A value of a property at N, which may be a function of N.

        Args:
          name: of the property.
          value: as the user gave it.
          num_agents: N.

        Returns:
          The value, with a function of N called.

        Raises:
          ValueError: naming the property, its value at this N and what is allowed.
        """
        return fields.evaluated(name, value, self.config.allowed(name), num_agents)


def _found(home: str, config) -> Algorithm:
    """The algorithm of a configuration whose public function is `module:name`."""
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name).definition.build(config)


def common(each: list[Params]) -> set[str]:
    """The entries of `shared` that are one and the same object in every federation."""
    first = each[0].shared
    # By object: to compare the tables of thousands of federations would take long, and what is
    # traced cannot be compared.
    return {n for n in first if all(p.shared[n] is first[n] for p in each)}


def bind(each: list[Params], same: set[str] | None = None) -> Params:
    """Joins the parameters of single federations into those of a population.

    Args:
      each: one `Params` per federation, as `Algorithm.parameters` gives them.
      same: the entries that stay shared, those of `common(each)` unless given; the others of
        `shared` get a federation axis.

    Returns:
      The `Params` of the population, in the order of `each`.
    """
    first = each[0]
    same = common(each) if same is None else same

    def joined(leaves, how: str) -> jax.Array:
        # On the host where all is there: one dispatch, not one for each federation. Numbers of
        # Python have no type of their own, which NumPy would give them.
        host = all(isinstance(x, np.ndarray | np.generic) for x in leaves)
        if host and len({x.dtype for x in leaves}) == 1:
            return jnp.asarray(getattr(np, how)(leaves))
        return getattr(jnp, how)([jnp.asarray(x) for x in leaves])

    def stack(values):
        return jax.tree.map(lambda *leaves: joined(leaves, "stack"), *values)

    def join(values):
        return jax.tree.map(lambda *leaves: joined(leaves, "concatenate"), *values)

    federation = {n: stack([p.federation[n] for p in each]) for n in first.federation}
    federation |= {n: stack([p.shared[n] for p in each]) for n in first.shared if n not in same}
    agent = {n: join([p.agent[n] for p in each]) for n in first.agent}
    shared = jax.tree.map(jnp.asarray, {n: first.shared[n] for n in sorted(same)})
    return Params(agent, federation, shared)


def describe_config(config) -> dict:
    """The fields of a configuration dataclass as plain JSON values."""

    def plain(value):
        if isinstance(value, fields.ByAgents | fields.Schedule):
            return repr(value)
        if isinstance(getattr(value, "config", None), dict):  # a task, an uplink
            return {name: plain(own) for name, own in value.config.items()}
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if type(value) is tuple and all(isinstance(x, str | bool | int | float) for x in value):
            return list(value)
        if callable(value) or isinstance(value, tuple):
            return getattr(value, "__qualname__", type(value).__qualname__)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return np.asarray(value).tolist()

    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
