"""One way to say an algorithm: a record of its properties, and a function from it to a learner.

    @record
    class FedAC(Averaged):
        mdp: TabularMDP = traced(allowed=..., by="shared")
        learning_rate: float = traced(0.05, fields.POSITIVE, by="agent")

    @algorithm(FedAC, environments=("mdp",), metrics=METRICS)
    def fedac(config) -> Learner:
        ...
        return Learner(agent=first, round=(Steps(step), average(config)), measure=measure)

`fedac(mdp, learning_rate=0.1)` is then an algorithm that runs in `simulate`, `sweep` and on the
command line, with every uplink, on clocks, over devices and under derivatives.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.algorithms import parameters, rate_rules
from fedjax_rl.algorithms.assemble import assemble, links_of, per_federation
from fedjax_rl.algorithms.learner import Averaged, Federated, Learner, Local, Steps
from fedjax_rl.federation import server as servers
from fedjax_rl.federation.algorithm import Algorithm, Functions, describe_config
from fedjax_rl.federation.clock.arrivals import driven
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import tree_floats
from fedjax_rl.federation.rounds import Repeated
from fedjax_rl.federation.server import SHARE
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.fields import record as records
from fedjax_rl.fields.record import (
    Record,
    engine,
    environment,
    host,
    nested,
    record,
    static,
    traced,
)

__all__ = [
    "EVERYWHERE",
    "Averaged",
    "Definition",
    "Exchange",
    "Federated",
    "Learner",
    "Local",
    "Params",
    "Record",
    "Repeated",
    "Steps",
    "algorithm",
    "average",
    "engine",
    "environment",
    "fields",
    "host",
    "nested",
    "of_servers",
    "per_agent",
    "per_federation",
    "record",
    "static",
    "traced",
    "variant",
]

# Environments by kind, as `envs.registry.kind` names them: a `TabularMDP`; a `Task` around one, or
# around a family of them; a `Task` with exact tables; a `Task` without.
EVERYWHERE = ("tabular", "mdp", "grid", "task")


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
      draws: properties that only decide what is drawn.
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
    draws: tuple[str, ...]
    adapt: Callable
    first_exchange: Callable | None
    smallest_share: int
    memory: Callable | None
    root_keys: bool = False
    home: str = ""

    def build(self, config: Federated) -> Algorithm:
        """The algorithm of a configuration."""

        def of_config(value):
            return value(config) if callable(value) else value

        rate_rules.check_rules(config, of_config(self.metrics))
        return driven(
            Algorithm(
                name=self.name,
                config=config,
                build=self.build,
                parameters=self.traced,
                functions=self.functions,
                static=self.static,
                metrics=of_config(self.metrics),
                describe=describe,
                unit=of_config(self.unit),
                headline=of_config(self.headline),
                first_exchange=self.first_exchange,
                smallest_share=self.smallest_share,
                memory=self.memory,
                sampled=self.sampled,
                draws=self.draws,
                home=self.home,
            )
        )

    def static(self, config: Federated) -> tuple:
        """Equal for configurations that one compilation serves."""
        config = config.resolved()
        return (*parameters.shape_key(config), *config.static(), config.transmits().static)

    def traced(self, config: Federated, num_agents: int) -> Params:
        """What is traced, for one federation of N agents."""
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
        if isinstance(config, Averaged) and (config.clock is not None or self.unit != "step"):
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
        own |= dict.fromkeys(parameters.schedules_of(config), 0.0)
        shapes = {name: jax.tree.map(_shape, value) for name, value in own.items()}
        leaves, structure = jax.tree.flatten(shapes)
        key = (self.learner, self.static(config), structure, tuple(map(str, leaves)))
        if key not in _SIZES:
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


def algorithm(
    kind: type,
    *,
    environments: tuple[str, ...] = EVERYWHERE,
    metrics: Any,
    unit: Any = "step",
    headline: Any = None,
    sampled: Callable = lambda config: "actions may be drawn from what is learned",
    draws: tuple[str, ...] = (),
    adapt: Callable = lambda environment: environment,
    first_exchange: Callable | None = None,
    smallest_share: int = 256,
    memory: Callable | None = None,
    root_keys: bool | None = None,
    name: str | None = None,
) -> Callable:
    """Decorates `config -> Learner`; gives the public function that makes the algorithm.

    Args:
      kind: class of the properties, a `Federated` record with an `environment`.
      environments: as in `Definition`.
      metrics: as in `Definition`.
      unit: as in `Definition`.
      headline: as in `Definition`.
      sampled: as in `Definition`.
      draws: as in `Definition`.
      adapt: as in `Definition`.
      first_exchange: as in `Definition`.
      smallest_share: as in `Definition`.
      memory: as in `Definition`.
      root_keys: whether it is handed the agents' keys themselves, of which it reads streams that
        stand in the register `fedjax_rl.streams`; so are by default the algorithms of the package.
        Others are handed keys into which they can fold anything.
      name: by default that of the function, with dashes.

    Returns:
      `(environment, **properties) -> Algorithm` with the signature of the record; its attribute
      `definition` is a `Definition`.
    """

    def wrap(learner: Callable) -> Callable:
        known = name or learner.__name__.replace("_", "-")
        definition = Definition(
            known,
            kind,
            learner,
            environments,
            metrics,
            unit,
            headline,
            sampled,
            draws,
            adapt,
            first_exchange,
            smallest_share,
            memory,
            learner.__module__.startswith("fedjax_rl.") if root_keys is None else root_keys,
        )
        return _factory(definition, learner.__name__, learner.__module__, learner.__doc__ or "")

    return wrap


def variant(of: Callable, name: str, text: str, **defaults) -> Callable:
    """Another algorithm of the same learner and properties, some of which default otherwise.

    Args:
      of: the public function of an algorithm.
      name: of the variant, as a Python name.
      text: its documentation, one line and perhaps an example.
      **defaults: of its properties.

    Returns:
      A public function as `algorithm` gives.
    """
    definition = of.definition._replace(name=name.replace("_", "-"))
    return _factory(definition, name, of.__module__, text, **defaults)


def _factory(definition: Definition, name: str, module: str, text: str, **defaults) -> Callable:
    """The public function of an algorithm."""
    kind, definition = definition.record, definition._replace(home=f"{module}:{name}")
    environment = records.environment_of(kind)
    # Given to the form rather than to the record, which knows nothing of dots.
    nothing = object()

    def factory(*args, **values) -> Algorithm:
        records.check_names(kind, values, definition.name)
        if len(args) > 1 or (args and environment in values):
            raise TypeError(f"{name} takes one environment; properties are given by name")
        place = args[0] if args else values.pop(environment, nothing)
        if place is nothing:
            raise TypeError(f"{name} is given no {environment}")
        values = {**defaults, **values}
        whole = {n: value for n, value in values.items() if "." not in n}
        config = kind(**{environment: definition.adapt(place)}, **whole)
        inner = {n: value for n, value in values.items() if "." in n}
        return definition.build(config.replace(**inner) if inner else config)

    factory.__name__ = factory.__qualname__ = name
    factory.__module__ = module
    factory.__signature__ = records.signature_of(kind, Algorithm, **defaults)
    factory.__doc__ = _help(text, kind)
    factory.definition = definition
    return factory


def _help(text: str, kind: type) -> str:
    """What `help` shows of an algorithm: its text, and every property with what is said of it."""
    texts = records.documentation(kind)
    lines = [inspect.cleandoc(text) or "An algorithm.", "", "Args:"]
    for field in records.in_order(kind):
        lines.append(f"  {field.name}: {texts.get(field.name, '')}")
        inner = field.metadata.get("record")
        if inner is not None:
            own = records.documentation(inner)
            lines += [
                f"    {field.name}.{part.name}: {own.get(part.name, '')}"
                for part in dataclasses.fields(inner)
            ]
    lines += ["", "Raises:", "  ValueError: naming the property, its value and what is allowed."]
    return "\n".join(lines)


def describe(config: Record) -> dict:
    """A configuration as plain JSON values, enough to make it again."""
    return describe_config(config.resolved())


def of_servers(**functions: Callable) -> Callable:
    """Metrics of the servers' models, as `Learner.measure` takes them.

    Args:
      **functions: name -> `(model, params) -> scalar`, unbatched.
    """

    def measure(population, params, state) -> dict:
        del population
        return {n: per_federation(f, params, state.server) for n, f in functions.items()}

    return measure


def average(
    config: Federated,
    share: Callable = lambda agent: agent,
    adopt: Callable = lambda agent, model, params: model,
    **more,
) -> Exchange:
    """The exchange of averaging: agents send what they share, and adopt the mean.

    Over an uplink that acts on changes the changes since the last broadcast are sent, and on a
    clock the server moves the part of the way to the mean that those who arrived are of all.

    Args:
      config: the configuration.
      share: `agent -> message`.
      adopt: `(agent, model, params) -> agent`.
      **more: further fields of the `Exchange`, such as weights or a server step.
    """
    changes = config.transmits().on_changes
    server = servers.towards(SHARE) if config.clock is not None else servers.replace()

    def message(agent, model, params):
        del params
        return jax.tree.map(jnp.subtract, share(agent), model) if changes else share(agent)

    def decode(message, model):
        return jax.tree.map(jnp.add, model, message) if changes else message

    return Exchange(
        **{"message": message, "receive": adopt, "decode": decode, "server": server, **more}
    )


# Sizes of messages by what they follow from: sweeps ask for each federation.
_SIZES: dict = {}


def _shape(x) -> jax.ShapeDtypeStruct:
    """The shape of a leaf, floats in the precision of the run."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if hasattr(x, "dtype") else np.result_type(x))
    return jax.ShapeDtypeStruct(np.shape(x), dtype)
