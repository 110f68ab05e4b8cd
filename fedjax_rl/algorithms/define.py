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
from typing import Any

from fedjax_rl import fields
from fedjax_rl.algorithms.assemble import per_federation
from fedjax_rl.algorithms.average import average
from fedjax_rl.algorithms.definition import Definition
from fedjax_rl.algorithms.learner import Averaged, Federated, Learner, Local, Steps
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.rounds import Repeated
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.fields import described
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


def algorithm(
    kind: type,
    *,
    environments: tuple[str, ...] = EVERYWHERE,
    metrics: Any,
    unit: Any = "step",
    headline: Any = None,
    sampled: Callable = lambda config: "actions may be drawn from what is learned",
    draws: Any = (),
    estimators: Callable = lambda config: (),
    scoreless: tuple[str, ...] = (),
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
      estimators: as in `Definition`.
      scoreless: as in `Definition`.
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
            estimators,
            scoreless,
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
    environment = described.environment_of(kind)
    # Given to the form rather than to the record, which knows nothing of dots.
    nothing = object()

    def factory(*args, **values) -> Algorithm:
        records.check_names(kind, values, definition.name)
        if len(args) > 1 or (args and environment in values):
            raise TypeError(f"{name} takes one environment; properties are given by name")
        place = args[0] if args else values.pop(environment, nothing)
        if place is nothing:
            raise TypeError(f"{name} is given no {environment}")
        for own in defaults.keys() & values.keys():
            # What a dict does not say is as the variant has it, not as what it is a variant of.
            field = kind.__dataclass_fields__[own]
            if "record" in field.metadata:
                present = records.read(field, defaults[own], field.default)
                values[own] = records.read(field, values[own], present)
        values = {**defaults, **values}
        whole = {n: value for n, value in values.items() if "." not in n}
        config = kind(**{environment: definition.adapt(place)}, **whole)
        inner = {n: value for n, value in values.items() if "." in n}
        return definition.build(config.replace(**inner) if inner else config)

    factory.__name__ = factory.__qualname__ = name
    factory.__module__ = module
    factory.__signature__ = described.signature_of(kind, Algorithm, **defaults)
    factory.__doc__ = _help(text, kind)
    factory.definition = definition
    return factory


def _help(text: str, kind: type) -> str:
    """What `help` shows of an algorithm: its text, and every property with what is said of it."""
    texts = described.documentation(kind)
    lines = [inspect.cleandoc(text) or "An algorithm.", "", "Args:"]
    for field in described.in_order(kind):
        lines.append(f"  {field.name}: {texts.get(field.name, '')}")
        inner = field.metadata.get("record")
        if inner is not None:
            own = described.documentation(inner)
            lines += [
                f"    {field.name}.{part.name}: {own.get(part.name, '')}"
                for part in dataclasses.fields(inner)
            ]
    lines += ["", "Raises:", "  ValueError: naming the property, its value and what is allowed."]
    return "\n".join(lines)


def of_servers(**functions: Callable) -> Callable:
    """Metrics of the servers' models, as `Learner.measure` takes them.

    Args:
      **functions: name -> `(model, params) -> scalar`, unbatched.
    """

    def measure(population, params, state) -> dict:
        del population
        return {n: per_federation(f, params, state.server) for n, f in functions.items()}

    return measure
