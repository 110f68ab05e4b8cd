"""What a value is, by its content: equal contents make equal numbers.

Names and options tell less than everything: a task with other parameters may keep its name, and a
function has none worth trusting. What decides a result is therefore told apart by content: arrays
by their bytes, records by their fields, functions by their code and what they have enclosed.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import logging
import numbers
import re
import sys
import types
from collections.abc import Hashable, Mapping

import jax
import numpy as np

# How much of a value a message shows.
_SHOWN = 60


class Itself:
    """A value that has no content to compare, such as a tracer or a lock: equal to itself alone."""

    def __init__(self, value: object) -> None:
        """Keeps the value, so that no other one takes its address."""
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def content(*values) -> Hashable:
    """Something hashable that is equal for values of equal content.

    Where a part of a value cannot be looked into, it counts as the object it is, and is kept alive
    by what is returned.

    Args:
      *values: anything: numbers, arrays, records, functions, pytrees of these.
    """
    walk = _Walk()
    text = walk(values)
    return (text, *walk.apart) if walk.apart else text


def digest(*values) -> str:
    """The content as a word that is the same in another process.

    Raises:
      ValueError: a part that cannot be told apart by content.
    """
    walk = _Walk()
    text = walk(values)
    if walk.apart:
        kind = type(walk.apart[0].value)
        raise ValueError(
            f"a {kind.__module__}.{kind.__qualname__} has no content that could be compared; "
            "allowed: numbers, arrays, functions, records of these"
        )
    return text


def parts(name: str, value) -> dict[str, tuple[str, str]]:
    """A named value as named leaves: what each looks like, and its digest.

    Records are taken apart, so that what differs between two of them has a name.

    Args:
      name: of the value.
      value: anything that `digest` takes.

    Returns:
      Such as `{"clock.latency": ("0.5", "1f0c...")}`.

    Raises:
      ValueError: naming the part that cannot be told apart by content.
    """
    named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    fields = value if named else _fields(value)
    if fields is not None and name.count(".") < 3:
        out = {name: (shown(value), digest(_kind(value)))}
        for own, part in fields.items():
            out |= parts(f"{name}.{own}", part)
        return out
    try:
        # 1 and 1.0 are one number, as a configuration on disk and its reader may have it.
        plain = float(value) if _is_number(value) and float(value) == value else value
        return {name: (shown(value), digest(plain))}
    except ValueError as error:
        raise ValueError(f"{name} is {shown(value)}: {error}") from None


def shown(value) -> str:
    """A value in a few words, for a message."""
    if isinstance(value, np.ndarray | jax.Array) and value.size > 8:
        return f"array of shape {list(value.shape)}"
    if isinstance(value, np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    if _fields(value) is not None and type(value).__str__ is object.__str__:
        return type(value).__name__
    text = getattr(value, "__qualname__", None) if callable(value) else None
    text = str(value) if text is None else text
    # Not where something lies in memory, which another process would call a difference.
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _is_number(value) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, jax.core.Tracer)
    return real and not isinstance(value, bool | np.bool_)


def _fields(value) -> dict | None:
    """The fields of a record that is not a class; None for anything else."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


class _Walk:
    """Visits a value once and sums it up in a word; gathers what has no content."""

    def __init__(self) -> None:
        self.apart: list[Itself] = []
        self._known: dict[int, str] = {}
        self._path: list[int] = []
        self._alive: list = []

    def __call__(self, value) -> str:
        simple = _simple(value)
        if simple is not None:
            return simple
        place = id(value)
        if place in self._known:
            return self._known[place]
        if place in self._path:  # a value that contains itself
            return f"up {len(self._path) - self._path.index(place)}"
        self._path.append(place)
        try:
            # A line for each part, a digest where it has parts itself: none looks like two others.
            word = _sum("\n".join(self(part) for part in self._parts(value)))
        finally:
            self._path.pop()
        self._known[place] = word
        self._alive.append(value)  # or another value might get its address
        return word

    def _parts(self, value) -> list:
        """What a value consists of, beginning with what it is."""
        if isinstance(value, jax.core.Tracer):
            return self._unknown(value)
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return ["keys", str(jax.random.key_impl(value)), np.asarray(jax.random.key_data(value))]
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(np.asarray(value))
        if isinstance(value, Mapping):
            # Sorted, as sets are below: their order does not count, and differs between processes.
            pairs = sorted((self(key), self(own)) for key, own in value.items())
            return [_kind(value), *(word for pair in pairs for word in pair)]
        if isinstance(value, set | frozenset):
            return [_kind(value), *sorted(self(own) for own in value)]
        if isinstance(value, tuple | list):
            return [_kind(value), *value]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, logging.Logger):
            return ["logger", value.name]
        if isinstance(value, jax.tree_util.PyTreeDef):
            return ["structure", str(value)]
        # What is installed is what its name says, in the version that stands beside every result.
        if (name := _library_name(value)) is not None:
            return ["named", name]
        return self._functions(value) or self._record(value)

    def _array(self, value: np.ndarray) -> list:
        head = ["array", value.dtype.str, str(value.shape)]
        # The bytes of an array of objects are their addresses.
        if value.dtype.hasobject:
            return [*head, *value.ravel().tolist()]
        # By name too: `dtype.str` of bfloat16 is no more than `<V2`.
        return [*head, str(value.dtype), _sum(np.ascontiguousarray(value).tobytes())]

    def _functions(self, value) -> list | None:
        """The parts of anything that is called; None for other values."""
        if isinstance(value, functools.partial):
            return ["partial", value.func, value.args, value.keywords]
        if isinstance(value, types.MethodType):
            return ["method", value.__func__, value.__self__]
        if isinstance(value, types.FunctionType):
            cells = [_cell(cell) for cell in value.__closure__ or ()]
            own = ["function", value.__code__, value.__defaults__, value.__kwdefaults__, *cells]
            # What is installed changes with its version; the caller's own may change at any time.
            return own if _installed(value.__module__) else [*own, _globals(value)]
        if isinstance(value, types.CodeType):
            # What runs, not where it stands: comments, lines and names of locals change no number.
            return [
                "code",
                value.co_code,
                value.co_consts,
                value.co_names,
                value.co_argcount,
                value.co_posonlyargcount,
                value.co_kwonlyargcount,
                value.co_flags,
                len(value.co_freevars),
            ]
        if isinstance(value, type):
            return ["class", value.__qualname__, value.__bases__, _own(vars(value))]
        if isinstance(value, staticmethod | classmethod):
            return [_kind(value), value.__func__]
        if isinstance(value, property):
            return [_kind(value), value.fget]
        if isinstance(value, functools.cached_property):
            return [_kind(value), value.func]
        if hasattr(value, "__wrapped__"):  # jit, a cache
            return [_kind(value), value.__wrapped__]
        return None

    def _record(self, value) -> list:
        """The parts of an object."""
        if isinstance(value, enum.Enum):
            return [type(value), value.name]
        fields = _fields(value)
        if fields is None:
            slots = {
                name: getattr(value, name)
                for kind in type(value).__mro__
                for name in _names(vars(kind).get("__slots__", ()))
                if hasattr(value, name)
            }
            fields = {**slots, **_own(getattr(value, "__dict__", {}), type(value))}
            if not hasattr(value, "__dict__") and not slots:
                return self._reduced(value)
        return [type(value), fields]

    def _reduced(self, value) -> list:
        """The parts of an object of another language, as it would be copied."""
        try:
            made = value.__reduce_ex__(4)
        except Exception:  # whatever it says, it cannot be copied
            return self._unknown(value)
        return ["made", made] if isinstance(made, str) else ["made", *made[:3]]

    def _unknown(self, value) -> list:
        self.apart.append(Itself(value))
        return ["itself", type(value).__qualname__]


def _simple(value) -> str | None:
    """Values that are a word themselves; None for all others."""
    if value is None or isinstance(value, bool) or value is Ellipsis:
        return f"constant {value}"
    kind = type(value)
    if kind is int:
        return f"int {value}"
    if kind is float:
        # Every bit: -0.0, infinities and the last digit.
        return f"float {value.hex()}"
    if kind is complex:
        return f"complex {value.real.hex()} {value.imag.hex()}"
    if kind is str:
        return f"str {_sum(value)}" if len(value) > 64 or "\n" in value else f"str {value}"
    if kind in (bytes, bytearray):
        return f"bytes {_sum(bytes(value))}"
    return None


def _sum(data: bytes | str) -> str:
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _kind(value) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _names(slots) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _own(attributes: Mapping, kind: type | None = None) -> dict:
    """Attributes that say what something is, without what Python or a cache adds."""
    cached = functools.cached_property
    return {
        name: own
        for name, own in attributes.items()
        if not (name.startswith("__") and name.endswith("__") and not callable(own))
        and not isinstance(getattr(kind, name, None), cached)
        and type(own).__name__ not in ("getset_descriptor", "member_descriptor", "_abc_data")
    }


def _cell(cell) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return "empty"


def _globals(function: types.FunctionType) -> dict:
    """The global values that a function reads, by name."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        # From the instructions: `co_names` holds attributes as well.
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    known = function.__globals__
    return {name: known[name] for name in sorted(names) if name in known}


def _library_name(value) -> str | None:
    """Module and name of what an installed package defines; None for anything else."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not _installed(module):
        return None
    # The name alone proves nothing: a method of an instance has that of its class.
    found = sys.modules.get(module)
    for word in name.split("."):
        found = getattr(found, word, None)
    return f"{module}.{name}" if found is value else None


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether a module is part of Python, of this package or of an installed one."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == __package__:
        return True
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    return any("-packages" in place for place in places if place)
