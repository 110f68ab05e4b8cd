"""Functions of runs, uplinks and clocks, with the kind of value that each argument takes.

A target is a name, an argument, its kind in `torture_values.KINDS` and a function that hands a
value over and goes as far as compiling. The kind is read from the sentence that a user is told,
such as "allowed: in [0, 1]", so that what is said is compared with what is accepted by an oracle
that shares no code with the checks; tables say it where no sentence does.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

import fedjax_rl as frl
from fedjax_rl import fields
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.cli.named import fitting
from fedjax_rl.envs import registry
from fedjax_rl.federation.uplinks import UPLINKS


class Target(NamedTuple):
    """Something that takes a value.

    Attributes:
      name: of the function or record.
      argument: of it.
      kind: what fits.
      call: `value -> anything`, goes as far as compiling.
      also: what a refusal may call the argument.
      keep: whether a value should be tried, where some would take all the memory.
    """

    name: str
    argument: str
    kind: str
    call: Callable[[Any], Any]
    also: tuple[str, ...] = ()
    keep: Callable[[Any], bool] = lambda value: True


def same(kind: str, names: str) -> dict[str, str]:
    """The same kind for all of these names."""
    return dict.fromkeys(names.split(), kind)


# A sentence, or how it begins -> a kind of `torture_values.KINDS`.
SENTENCES = {
    "True or False": "switch",
    "in [0, 1]": "probability",
    "in (0, 1]": "share",
    "in [0, 1)": "below one",
    "finite and above 0": "positive",
    "finite and at least 0": "natural",
    "at least 0 or infinite": "natural or infinite",
    "above 0 or infinite": "positive or infinite",
    "finite": "finite",
    "a whole number of at least 0": "whole",
    "a whole number of at least 1": "count",
    "a whole number of at least 2": "two",
    "a whole number from 0 to 4294967295": "seed",
    "a tuple of whole numbers": "sizes",
    "a tuple of different words": "words",
    "an uplink": "uplink",
    "an frl.Clock": "clock",
    "1, as": "one",
    "2, 4, 8": "bytes of a word",
    "None, as": "object",
    "a TabularMDP": "object",
    "a grid world": "object",
    "an episodic task": "object",
    "a tabular task": "object",
    "an optax transformation": "object",
    "probabilities": "array",
    "an array": "array",
    "a function": "function",
    "whole numbers from 1": "count",
}
# Words or something else.
MIXED = {
    "initial": "number or array",
    "reference": "number or array",
    "utility_model": "function",
}
RUN = {
    "algorithm": "object",
    "num_steps": "count",
    "num_agents": "counts",
    "seeds": "seeds",
    "seed": "seed",
    **same("count?", "record_every first_record workers chunk"),
    "devices": "count?",
    "metrics": "names?",
    "agents": "places?",
    **same("function?", "stop watch"),
    "progress": "switch or function?",
    **same("switch", "cache debug"),
    "result": "object",
    "state": "object",
    "checkpoints": "path?",
    "cells": "object",
    "transfer": "whole",
    "clock": "clock",
}


def small(value) -> bool:
    """Whether a number of agents, levels and the like is one that a test can afford, or absurd."""
    try:
        number = abs(value) if isinstance(value, complex | np.complexfloating) else float(value)
    except Exception:  # no single number
        return True
    return not 300 < number < 2**31


def kind_of(name: str, allowed: fields.Allowed, default: Any = ...) -> str:
    """What fits a property, from what a user is told of it.

    Args:
      name: of the property.
      allowed: as it is declared; only its sentence and what functions and arrays it takes.
      default: of the property.
    """
    known = [start for start in SENTENCES if allowed.text.startswith(start)]
    kind = "word" if allowed.words else SENTENCES[max(known, key=len)] if known else "anything"
    kind = MIXED.get(name.rpartition(".")[2], kind)
    if allowed.axes and not allowed.per_agent and kind == "finite":
        kind = "number or array"
    return f"{kind}{'*' * allowed.per_agent}{'?' * (allowed.optional or default is None)}"


@functools.cache
def place_of(name: str):
    """The first environment that an algorithm accepts."""
    return registry.make(fitting(name)[0])


@functools.cache
def base(name: str):
    """An algorithm in the first environment that it accepts, as small as it can be."""
    return ALGORITHMS[name].make(place_of(name))


def swept(algorithm, **changes):
    """A run of two agents, as far as compiling."""
    options = {"num_agents": 2, "num_steps": 4, "record_every": 1, **changes}
    return frl.sweep(algorithm, **options)


def of_runs() -> Iterator[Target]:
    """Every argument of `sweep`, `run_cells`, `simulate`, `differentiate` and `timetable`."""
    algorithms = {"fedq": base("fedq").replace(sync_period=2), "es": base("es")}
    for name, algorithm in algorithms.items():
        good = {"num_agents": 2, "num_steps": 20, "record_every": 2, "seeds": 0}
        for argument in inspect.signature(frl.sweep).parameters:
            if argument in ("properties", "algorithm"):
                continue
            kind = RUN[argument]

            def swept_with(value, argument=argument, algorithm=algorithm, good=good):
                return frl.sweep(algorithm, **{**good, argument: value})

            also = ("seed", "metric")
            yield Target(f"sweep of {name}", argument, kind, swept_with, also, keep=small)
            if argument in ("num_agents", "seeds"):
                each = "count" if argument == "num_agents" else "seed"

                def in_list(value, argument=argument, algorithm=algorithm, good=good):
                    return frl.sweep(algorithm, **{**good, argument: [1, value]})

                yield Target(
                    f"sweep of {name}, list", argument, each, in_list, ("seed",), keep=small
                )
        cells = {
            "cells": lambda value: value,
            "num_agents": lambda value: [frl.Cell(value, 0, {})],
            "seed": lambda value: [frl.Cell(2, value, {})],
            "properties": lambda value: [frl.Cell(2, 0, value)],
        }
        kinds = {"cells": "object", "num_agents": "count", "seed": "seed", "properties": "mapping"}
        for argument, cell in cells.items():

            def of_cells(value, cell=cell, algorithm=algorithm):
                return frl.run_cells(algorithm, cell(value), num_steps=4)

            also = ("cells", "cell", "property", "no property")
            yield Target(
                f"run_cells of {name}", argument, kinds[argument], of_cells, also, keep=small
            )
    yield Target("sweep", "algorithm", "object", swept)
    traced = {"num_agents": 2, "num_steps": 4, "seed": 0, "record_every": 2}
    for argument in inspect.signature(frl.simulate).parameters:
        given = {} if argument != "algorithm" else traced

        def simulated(value, argument=argument, given=given):
            options = {"algorithm": algorithms["fedq"], **traced, **given, argument: value}
            return jax.eval_shape(lambda: frl.simulate(options.pop("algorithm"), **options))

        kind = "count?" if argument == "record_every" else RUN[argument]
        yield Target("simulate", argument, kind, simulated, keep=small)
    kinds = {
        "by": "word",
        "average": "count",
        "mode": "word",
        "truncation": "count?",
        "record_every": "count?",
        **dict.fromkeys(("second", "baseline", "check_finite"), "switch"),
    }
    shortest = {"num_agents": 2, "num_steps": 4, "seeds": [0, 1]}
    for argument in inspect.signature(frl.differentiate).parameters:
        # Of a metric or a function: both are told apart in `tests/test_differentiate.py`.
        if argument == "outcome":
            continue

        def differentiated(value, argument=argument):
            def of_rate(rate):
                own = algorithms["fedq"].replace(epsilon=1.0, learning_rate=rate)
                options = {"algorithm": own, **shortest, argument: value}
                return frl.differentiate(options.pop("algorithm"), **options).value

            return jax.eval_shape(of_rate, 0.1)

        kind = kinds.get(argument) or RUN[argument]
        also = ("seed", "property", "no property", "num_steps", "record_every")
        yield Target("differentiate", argument, kind, differentiated, also, keep=small)
    table = {"clock": frl.Clock("asynchronous"), "num_agents": 2, "num_steps": 4}
    for argument in inspect.signature(frl.timetable).parameters:

        def timed(value, argument=argument):
            return frl.timetable(**{**table, argument: value})

        yield Target("timetable", argument, RUN[argument], timed, ("seed",), keep=small)


def _hashable(value) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def of_comparisons() -> Iterator[Target]:
    """What is given to several algorithms at once, and what compares them."""
    several = {"a": base("fedq"), "b": base("fedq").replace(epsilon=0.5)}

    def among(value):
        return swept([base("fedq"), value])

    def labelled(value):
        return swept({**several, "c": value})

    def label(value):
        return swept({"a": base("fedq"), value: base("fedq")})

    yield Target("sweep of several", "algorithm", "object", among)
    yield Target("sweep of labelled", "algorithm", "object", labelled)
    yield Target("sweep of labelled", "label", "text", label, ("algorithm",), keep=_hashable)
    for name, own in type(several["a"].config).__dataclass_fields__.items():
        if name in ("mdp", "uplink", "clock"):
            continue

        def changed(value, name=name):
            return swept(several, **{name: frl.each([value])})

        kind = kind_of(name, type(several["a"].config).allowed(name), own.default)
        yield Target("sweep of labelled", name, kind, changed, keep=small)
    for argument in ("algorithm", "label"):

        def in_cell(value, argument=argument):
            if argument == "label":
                return frl.run_cells(several, [frl.Cell(2, 0, {}, value)], num_steps=4)
            return frl.run_cells(value, [frl.Cell(2, 0, {})], num_steps=4)

        yield Target("run_cells of labelled", argument, "object", in_cell, ("algorithm",))


def of_steps() -> Iterator[Target]:
    """Every argument of `init`, `round` and `extend`."""
    algorithm = base("fedq").replace(sync_period=2)
    good = {"algorithm": algorithm, "num_agents": 2, "seed": 0}
    for argument in inspect.signature(frl.init).parameters:

        def begun(value, argument=argument):
            options = {**good, argument: value}
            return jax.eval_shape(lambda: frl.init(**options))

        kind = {"num_agents": "count"}.get(argument, RUN[argument])
        yield Target("init", argument, kind, begun, keep=small)
    state = frl.init(**good)
    other = frl.init(base("pavg"), num_agents=2)
    for argument in inspect.signature(frl.round).parameters:

        def stepped(value, argument=argument):
            options = {"algorithm": algorithm, "state": state, argument: value}
            return jax.eval_shape(lambda: frl.round(**options))

        yield Target("round", argument, RUN[argument], stepped)

    def elsewhere(value):
        del value
        return jax.eval_shape(lambda: frl.round(algorithm, other))

    yield Target("round of another's", "state", "object", elsewhere)
    result = frl.sweep(algorithm, num_steps=4, record_every=2, workers=1)
    for argument in inspect.signature(frl.extend).parameters:

        def longer(value, argument=argument):
            return frl.extend(**{"result": result, "num_steps": 8, argument: value})

        kind = {"num_steps": "count?", "seeds": "seeds?"}.get(argument, RUN[argument])
        yield Target("extend", argument, kind, longer, ("seed",), keep=small)


def of_uplinks() -> Iterator[Target]:
    """Every argument of every uplink, in a run."""
    needed = {"probabilistic": {"target": 1}, "top-k": {"k": 1}}
    for name, factory in UPLINKS.items():
        for argument in inspect.signature(factory).parameters:

            def used(value, argument=argument, factory=factory, name=name):
                uplink = factory(**{**needed.get(name, {}), argument: value})
                return swept(base("fedq").replace(uplink=uplink, sync_period=2), record_every=2)

            default = inspect.signature(factory).parameters[argument].default
            kind = kind_of(argument, factory.allowed[argument], default)
            yield Target(f"uplink {name}", argument, kind, used, keep=small)


def of_clocks() -> Iterator[Target]:
    """Every property of a clock, with every scheduler, in a run."""
    for scheduler in ("synchronous", "semi-synchronous", "asynchronous"):
        for distribution in ("constant", "log_normal", "exponential", "two_class"):
            given = {"scheduler": scheduler, "distribution": distribution}
            given |= {"wait_for": 1} if scheduler == "semi-synchronous" else {}
            for field in dataclasses.fields(frl.Clock):

                def used(value, field=field, given=given):
                    clock = frl.Clock(**{**given, field.name: value})
                    return swept(base("fedq").replace(clock=clock, sync_period=2))

                name = f"clock {scheduler}, {distribution}"
                kind = kind_of(field.name, fields.declarations(frl.Clock)[field.name])
                yield Target(name, field.name, kind, used)
