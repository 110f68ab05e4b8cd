"""Records: everything that can be set of an algorithm, said once.

A record is a frozen dataclass whose fields say of each property its default, what is allowed and
where it goes: traced (one value per agent, per federation, or shared by all), part of the shape of
the program, or used on the host only. Its documentation is the entry of that name in the section
"Attributes" of the class. From that follow the checks, the signature and the help of the
algorithm, its options on the command line, what can be swept in one compilation, what needs
another one, and its form in JSON. What many algorithms share is a record within the record; its
properties are then named with a dot, such as "network.hidden".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fedjax_rl.fields.allowed import ANYTHING, Allowed
from fedjax_rl.fields.check import check
from fedjax_rl.fields.evaluated import check_schedules, evaluated
from fedjax_rl.fields.functions import ByAgents
from fedjax_rl.fields.values import is_number
from fedjax_rl.identity import content
from fedjax_rl.names import check_known

# Where a property goes.
TRACED = ("agent", "federation", "word", "switch", "shared")
PLACES = (*TRACED, "static", "host", "engine")


def traced(
    default=dataclasses.MISSING,
    allowed=None,
    by: str = "federation",
    absent=None,
    scheduled: bool = True,
    **more,
) -> Any:
    """A property that can be swept within one compilation, and follow a schedule if a number.

    Args:
      default: its value unless set; none where it has to be given.
      allowed: what it may be, from `fedjax_rl.fields`.
      by: whose it is: "agent" ([N], one for each), "federation" (a scalar), "word" (one of some
        words, which the program sees as its place among them), "switch" (a bool) or "shared"
        (arrays that are the same for all).
      absent: what the program sees for None; without, it sees no such property.
      scheduled: whether a number may follow a schedule.
      **more: further metadata of the field, such as `cli=False`.

    Returns:
      What `dataclasses.field` returns.
    """
    numbers = scheduled and by in ("agent", "federation")
    if allowed is not None and numbers and allowed.scheduled is None:
        allowed = allowed._replace(scheduled=allowed.closed)
    return _field(default, allowed, by=by, absent=absent, **more)


def static(default=dataclasses.MISSING, allowed=None, key: Callable | None = None, **more) -> Any:
    """A property that shapes the program: every value is compiled for itself.

    Args:
      default: as in `traced`.
      allowed: as in `traced`.
      key: `value -> hashable`, what of it shapes the program; itself by default.
      **more: as in `traced`.

    Returns:
      What `dataclasses.field` returns.
    """
    return _field(default, allowed, by="static", key=key, **more)


def host(default=dataclasses.MISSING, allowed=None, **more) -> Any:
    """A property that only decides what is made before the program runs, in `Record.derived`.

    Args:
      default: as in `traced`.
      allowed: as in `traced`.
      **more: as in `traced`.

    Returns:
      What `dataclasses.field` returns.
    """
    return _field(default, allowed, by="host", **more)


def environment(allowed, by: str = "static", key: Callable | None = None) -> Any:
    """Where the agents live: the one property that has to be given, and is given first.

    Args:
      allowed: as in `traced`.
      by: "static", or "shared" where its arrays are traced.
      key: as in `static`; of a shared one, what of its shape matters.

    Returns:
      What `dataclasses.field` returns.
    """
    return _field(dataclasses.MISSING, allowed, by=by, key=key, environment=True)


def engine(default=dataclasses.MISSING, allowed=None, **more) -> Any:
    """A property that the engine reads: periods, uplinks, clocks.

    Args:
      default: as in `traced`.
      allowed: as in `traced`.
      **more: as in `traced`.

    Returns:
      What `dataclasses.field` returns.
    """
    return _field(default, allowed, by="engine", **more)


def nested(kind: type, **values) -> Any:
    """A record within the record.

    Whoever sets it gives such a record, a dict of some of its properties, or the value of its first
    one; what a dict or a value does not say stays as it was, by default or before.

    Args:
      kind: its class.
      **values: of the record that is the default.

    Returns:
      What `dataclasses.field` returns.
    """
    default = kind(**values)
    return dataclasses.field(default=default, metadata={"record": kind, "by": "record"})


def _field(default, allowed, **metadata):
    return dataclasses.field(default=default, metadata={"allowed": allowed, **metadata})


class Property(NamedTuple):
    """A property of a record or of one within it.

    Attributes:
      name: with dots.
      value: as it was set.
      field: of the dataclass.
    """

    name: str
    value: Any
    field: dataclasses.Field

    @property
    def by(self) -> str:
        """Where it goes, of `PLACES`."""
        return self.field.metadata.get("by", "static")

    @property
    def allowed(self) -> Allowed:
        """What it may be."""
        return self.field.metadata.get("allowed") or ANYTHING


def record(kind: type) -> type:
    """Makes a class with declared fields a frozen dataclass; it derives from `Record`."""
    # Without the equality of dataclasses, which arrays answer with arrays.
    return dataclasses.dataclass(frozen=True, eq=False, kw_only=True)(kind)


@record
class Record:
    """What an algorithm, or a part of one, can be told.

    Two records are equal, and have the same hash, if they are of one class and all their
    properties have the same content, arrays and functions included.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """

    def __post_init__(self) -> None:
        """Checks every declared field, and reads it as Python has it."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, read(field, value, field.default))
        # At time 0 alone, as the length of a run is not known yet.
        check_schedules(self, 1)
        self.check()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and content(self) == content(other)

    def __hash__(self) -> int:
        return hash(content(self))

    def check(self) -> None:
        """Refuses properties that do not fit together, with a ValueError that names them."""

    def resolved(self):
        """The record with defaults filled in that follow from other properties; made once.

        A record keeps its None until it is used, so that a default is the one of the final
        record in whatever order properties are set.
        """
        found = vars(self).get("_resolved")
        if found is None:
            found = self.with_defaults()
            # Not itself, which nothing but a search would ever set free.
            if found is not self:
                object.__setattr__(self, "_resolved", found)
        return found

    def with_defaults(self):
        """What `resolved` returns; for a kind of record with such defaults to say."""
        return self

    def properties(self, prefix: str = "") -> Iterator[Property]:
        """All properties, those of records within it too, with dots in their names."""
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), f"{prefix}{field.name}"
            if isinstance(value, Record):
                yield from value.properties(f"{name}.")
            else:
                yield Property(name, value, field)

    @classmethod
    def names(cls) -> list[str]:
        """The names under which properties can be set, those of records within it with dots."""
        found = []
        for field in dataclasses.fields(cls):
            found.append(field.name)
            if (inner := field.metadata.get("record")) is not None:
                found += [f"{field.name}.{name}" for name in inner.names()]
        return found

    @classmethod
    def allowed(cls, name: str) -> Allowed:
        """What a property may be; of a record within, what its first property may be."""
        head, _, rest = name.partition(".")
        field = next(field for field in dataclasses.fields(cls) if field.name == head)
        inner = field.metadata.get("record")
        if inner is not None:
            return inner.allowed(rest or dataclasses.fields(inner)[0].name)
        return field.metadata.get("allowed") or ANYTHING

    def replace(self, **changes):
        """The record with some properties changed; dotted names reach into records within it.

        Raises:
          ValueError: an unknown property, or a value that is not allowed.
        """
        whole = {name: value for name, value in changes.items() if "." not in name}
        known = type(self).__dataclass_fields__
        for name in whole.keys() & known.keys():
            if "record" in known[name].metadata:
                whole[name] = read(known[name], whole[name], getattr(self, name))
        for name in changes.keys() - whole.keys():
            head, _, rest = name.partition(".")
            # Given at once with the whole record, a property is that of the new one.
            inner = whole.get(head, getattr(self, head))
            try:
                whole[head] = inner.replace(**{rest: changes[name]})
            except ValueError as error:
                raise ValueError(f"{head}.{error}") from None
        return dataclasses.replace(self, **whole)

    def at(self, num_agents: int):
        """The record of a federation of N agents: functions of N are evaluated.

        Raises:
          ValueError: naming the property, its value at this N and what is allowed.
        """
        changes = {
            each.name: evaluated(each.name, each.value, each.allowed, num_agents)
            for each in self.properties()
            if isinstance(each.value, ByAgents)
        }
        return self.replace(**changes) if changes else self


def read(field: dataclasses.Field, value, present):
    """A value as a record keeps it, checked.

    Args:
      field: that it is given for.
      value: as somebody wrote it.
      present: of a record within, the one that stays where the value says nothing.

    Returns:
      The value, or a record within made of it.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    kind = field.metadata.get("record")
    if kind is not None:
        if isinstance(value, kind):
            return value
        if isinstance(value, dict):
            check_names(kind, map(str, value), field.name)
        try:
            first = dataclasses.fields(kind)[0].name
            return present.replace(**(value if isinstance(value, dict) else {first: value}))
        except ValueError as error:
            raise ValueError(f"{field.name}.{error}") from None
    allowed = field.metadata.get("allowed")
    if allowed is None:
        return value
    check(field.name, value, allowed)
    return allowed.read(value) if value is not None and is_number(value) else value


def check_names(kind: type, names, what: str) -> None:
    """Refuses unknown names of properties.

    Args:
      kind: class of records.
      names: as somebody wrote them.
      what: whose they are, for the message.

    Raises:
      ValueError: naming the unknown one and the nearest known ones.
    """
    for name in names:
        check_known(name, kind.names(), f"property of {what}")
