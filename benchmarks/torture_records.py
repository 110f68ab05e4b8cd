"""Every property of every record, in all the ways in which somebody may set it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import jax
import numpy as np
from torture_targets import Target, base, kind_of, place_of, small, swept

import fedjax_rl as frl
from fedjax_rl import fields
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.fields.described import environment_of
from fedjax_rl.fields.record import Property
from fedjax_rl.sweeps.stepping import stepper


def within(config, name: str):
    """The value of a property, whose name may have dots."""
    return functools.reduce(getattr, name.split("."), config)


def of_algorithms() -> Iterator[Target]:
    """Every property of every algorithm: set in every way, and in a list that is swept."""
    for name in ALGORITHMS:
        yield Target(
            name,
            "environment",
            "object",
            lambda value, name=name: swept(ALGORITHMS[name].make(value)),
            also=("mdp", "task"),
        )
        config = base(name).config
        place = environment_of(type(config))
        for own in config.properties():
            if own.name != place:
                yield from _of_property(name, own)
        for field in dataclasses.fields(config):
            if (inner := field.metadata.get("record")) is not None:
                kind = kind_of(field.name, inner.allowed(dataclasses.fields(inner)[0].name))
                yield from _set(name, field.name, f"{kind}{{")


def _of_property(name: str, own: Property) -> Iterator[Target]:
    kind = kind_of(own.name, own.allowed, own.value)
    yield from _set(name, own.name, kind)
    head, _, rest = own.name.partition(".")
    if rest:

        def by_dict(value):
            return swept(ALGORITHMS[name].make(place_of(name), **{head: {rest: value}}))

        yield Target(f"{name}, by dict", own.name, kind, by_dict, keep=small)


def _set(name: str, own: str, kind: str) -> Iterator[Target]:
    """A property of an algorithm by its name, with dots or not."""

    def replaced(value):
        return swept(base(name).replace(**{own: value}))

    def made(value):
        return swept(ALGORITHMS[name].make(place_of(name), **{own: value}))

    def fixed(value):
        return swept(base(name), **{own: value})

    def listed(value):
        return swept(base(name), **{own: frl.each([within(base(name).config, own), value])})

    def in_cell(value):
        return frl.run_cells(base(name), [frl.Cell(2, 0, {own: value})], num_steps=4)

    yield Target(name, own, kind, replaced, keep=small)
    yield Target(f"{name}, made", own, kind, made, keep=small)
    # What is handed to a sweep as it is may be a list of values.
    yield Target(f"{name}, fixed", own, "anything", fixed, keep=small)
    yield Target(f"{name}, swept", own, kind, listed, keep=small)
    yield Target(f"{name}, cell", own, kind, in_cell, keep=small)


def of_records() -> Iterator[Target]:
    """Every property of every record that is constructed by itself."""
    found: dict = {}
    for name in ALGORITHMS:
        config = base(name).config
        place = environment_of(type(config))
        found.setdefault(type(config), {place: getattr(config, place)})
        for field in dataclasses.fields(config):
            if "record" in field.metadata:
                found.setdefault(field.metadata["record"], {})
    for record, given in found.items():
        for field in dataclasses.fields(record):
            if field.name in given or "record" in field.metadata:
                continue
            kind = kind_of(field.name, record.allowed(field.name), field.default)

            def constructed(value, record=record, field=field, given=given):
                one = record(**given, **{field.name: value})
                one.resolved().at(2)
                hash(one)
                repr(one)
                return one

            # Looked at once N, or the task that has such parts, is known.
            kind = "anything" if "*" in kind or kind.startswith("words") else kind
            yield Target(f"records.{record.__name__}", field.name, kind, constructed, keep=small)


# Combinations -------------------------------------------------------------------------------------


def good_values(own: Property, rng) -> list:
    """Values of a property each of which is allowed by itself."""
    from torture_values import VALUES, fits

    allowed = own.allowed
    if allowed.words:
        return [*allowed.words, *([None] if allowed.optional else [])]
    kind = kind_of(own.name, allowed, own.value)
    if kind.startswith("clock"):
        return [
            None,
            frl.Clock(),
            frl.Clock("asynchronous", latency=0.5),
            frl.Clock("semi-synchronous", wait_for=1, failure_time=5.0),
        ]
    if kind.startswith("uplink"):
        each = (
            frl.uplinks.partial(0.5),
            frl.uplinks.top_k(1),
            frl.uplinks.scaled_sign(),
            frl.uplinks.event_triggered(0.1),
            frl.uplinks.probabilistic(target=1),
            frl.uplinks.lazy(),
            frl.uplinks.top_k(1, feedback=False),
        )
        return [None, *each]
    values = [
        value
        for value in VALUES.values()
        if small(value) and not isinstance(value, np.ndarray) and fits(kind, value) is True
    ]
    values = [own.value, *(values[place] for place in rng.permutation(len(values))[:4])]
    if allowed.scheduled is not None:
        values.append(frl.schedule(lambda time: 0.5 + 0.0 * time))
    if allowed.follows and fields.is_number(own.value) and own.value is not None:
        values.append(frl.by_agents(lambda n, value=own.value: value))
    return values


def schedules() -> Iterator[tuple[str, dict]]:
    """Every algorithm and each of its properties that may follow time."""
    for name in ALGORITHMS:
        for own in base(name).config.properties():
            if own.allowed.scheduled is not None:
                yield name, {own.name: frl.schedule(lambda time: 0.5 + 0.0 * time)}


def pairs(number: int, rng) -> Iterator[tuple[str, dict]]:
    """An algorithm and two of its properties with values, so many times for each."""
    for name in ALGORITHMS:
        config = base(name).config
        place = environment_of(type(config))
        own = [each for each in config.properties() if each.name != place]
        every = list(itertools.combinations(own, 2))
        for which in rng.permutation(len(every))[:number]:
            values = {}
            for each in every[which]:
                choice = good_values(each, rng)
                values[each.name] = choice[rng.integers(len(choice))]
            yield name, values


def traced(name: str, values: dict) -> None:
    """Makes an algorithm with these properties, and traces its start and a round.

    Raises:
      ValueError: what does not fit together.
    """
    one = ALGORITHMS[name].make(place_of(name), **values)

    def short():
        state = frl.init(one, num_agents=2, seed=0)
        steps = stepper(one.at(2), 2)
        after = steps.round(state.params, state.state)
        return steps.measure(state.params, after)

    jax.eval_shape(short)
    swept(one)
