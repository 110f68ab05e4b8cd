"""An algorithm as it is defined: its record, its learner, and what one compilation serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.algorithms import parameters, rate_rules
from fedjax_rl.algorithms.assemble import assemble, links_of
from fedjax_rl.algorithms.learner import Averaged, Federated
from fedjax_rl.federation.algorithm import Algorithm, Functions, describe_config
from fedjax_rl.federation.clock.arrivals import driven
from fedjax_rl.federation.derivatives import ESTIMATORS
from fedjax_rl.federation.ledger import tree_floats
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import Record


class Definition(NamedTuple):
    """An algorithm as it is defined; what `algorithm` was given.

    Attributes:
      name: as on the command line.
      record: class of its properties.
      learner: `config -> Learner`.
      environments: kinds of environments that it takes.
      metrics: name -> (axis "federation" or "agent", what it is); or a function of the record.
      unit: what time counts: "step", "episode", "round" or "epoch", or a function of the record.
      headline: name of the metric that tells at a glance how well it goes, or a function of the
        record; by default the first one of federations.
      sampled: `config -> str or None`, why a derivative through the simulation is wrong.
      draws: properties that only decide what is drawn, or a function of the record.
      estimators: as in `Algorithm`.
      scoreless: as in `Algorithm`.
      adapt: `environment -> environment`, what the record is made with.
      first_exchange: `config -> time` or None, as in `Algorithm`.
      smallest_share: as in `Algorithm`.
      memory: as in `Algorithm`.
      root_keys: as in `algorithm`.
      home: "module:name" of the public function.
    """

    name: str
    record: type
    learner: Callable
    environments: tuple[str, ...]
    metrics: Any
    unit: Any
    headline: Any
    sampled: Callable
    draws: Any
    estimators: Callable
    scoreless: tuple[str, ...]
    adapt: Callable
    first_exchange: Callable | None
    smallest_share: int
    memory: Callable | None
    root_keys: bool = False
    home: str = ""

    def build(self, config: Federated) -> Algorithm:
        """The algorithm of a configuration."""
        rate_rules.check_rules(config, _of(config, self.metrics))
        return driven(
            Algorithm(
                name=self.name,
                config=config,
                build=self.build,
                parameters=self.traced,
                functions=self.functions,
                static=self.static,
                metrics=_of(config, self.metrics),
                describe=describe,
                unit=_of(config, self.unit),
                headline=_of(config, self.headline),
                first_exchange=self.first_exchange,
                smallest_share=self.smallest_share,
                memory=self.memory,
                sampled=self.sampled,
                draws=_of(config, self.draws),
                estimators=self.estimators,
                scoreless=self.scoreless,
                home=self.home,
            )
        )

    def static(self, config: Federated) -> tuple:
        """Equal for configurations that one compilation serves."""
        config = config.resolved()
        # Estimates need what is not kept otherwise; without one the program stays what it is.
        estimator = config.derivative if config.derivative in ESTIMATORS else None
        own = (*parameters.shape_key(config), *config.static())
        return (*own, config.transmits().static, estimator)

    def traced(self, config: Federated, num_agents: int) -> Params:
        """What is traced, for one federation of N agents.

        Args:
          config: of the algorithm.
          num_agents: N.
        """
        config = config.at(num_agents).resolved()
        own, more = parameters.parameters_of(config, num_agents), config.derived(num_agents)
        params = Params(
            {**own.agent, **more.agent},
            {**own.federation, **more.federation},
            {**own.shared, **more.shared},
        )
        uplink = config.transmits(num_agents)
        if uplink.send is not None:
            numbers = self.message_size(config, params)
            params.federation["uplink"] = uplink.resolve(num_agents, numbers)
        # Where time counts steps without a clock, whoever drives them says when exchanges are due.
        whole = config.clock is not None or _of(config, self.unit) != "step"
        if isinstance(config, Averaged) and whole:
            period = config.sync_period
            xp = np if fields.is_concrete(period) else jnp
            params.federation["sync_period"] = xp.asarray(period, xp.uint32)
        return params

    def message_size(self, config: Federated, params: Params) -> int:
        """Numbers of a message that an uplink may compress, from its shape alone.

        Args:
          config: resolved.
          params: of one federation.
        """
        own = {n: jax.tree.map(lambda x: x[0], leaf) for n, leaf in params.agent.items()}
        own = {**params.shared, **params.federation, **own}
        # A schedule has its number only within a program; here any number has the right shape.
        own |= dict.fromkeys(parameters.schedules_of(config), 0.0)
        shapes = {name: jax.tree.map(_shape, value) for name, value in own.items()}
        leaves, structure = jax.tree.flatten(shapes)
        key = (self.learner, self.static(config), structure, tuple(map(str, leaves)))
        if key not in _SIZES:
            if len(_SIZES) >= _MOST_SIZES:
                _SIZES.clear()
            _SIZES[key] = self._message_size(config, shapes)
        return _SIZES[key]

    def _message_size(self, config: Federated, shapes: dict) -> int:
        learner = self.learner(config)
        link = links_of(learner.round)[-1]

        def numbers(key, params):
            agent = learner.agent(key, params)
            model = learner.share(agent) if learner.model is None else learner.model(key, params)
            return link.spec.numbers(link.message(agent, link.broadcast(model), params))

        return tree_floats(jax.eval_shape(numbers, jax.random.key(0), shapes))

    def functions(self, config: Federated) -> Functions:
        """The engine's functions of a configuration, reading static properties only."""
        config = config.resolved()
        return assemble(config, self.learner(config), self.root_keys)


def describe(config: Record) -> dict:
    """A configuration as plain JSON values, enough to make it again."""
    return describe_config(config.resolved())


# Sizes of messages by what they follow from: sweeps ask for each federation. Forgotten all at once,
# as keys hold on to tasks and to functions of notebooks that are long rewritten.
_SIZES: dict = {}
_MOST_SIZES = 256


def _of(config: Record, value):
    """What is said of an algorithm, perhaps as a function of its record."""
    return value(config) if callable(value) else value


def _shape(x) -> jax.ShapeDtypeStruct:
    """The shape of a leaf, floats in the precision of the run."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if hasattr(x, "dtype") else np.result_type(x))
    return jax.ShapeDtypeStruct(np.shape(x), dtype)
