"""What a property or an argument may be, declared once, and the one check of all of them.

A declaration is an `Allowed`: a sentence for people and a predicate for values. A dataclass has it
in the metadata of its fields (`declared`), a function in a decorator (`checked`); `check_config`
and `checked` then refuse whatever is not allowed, by name, value and what is allowed, whatever
type somebody hands in. What a user gives as a function says what it is a function of: `by_agents`
of the number of agents, `schedule` of time.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_rl.names import brief, check_known, nearest

# Programs compute in float32: beyond, a finite number becomes infinite, and below, where numbers
# lose their digits first, a positive one becomes zero.
LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
# Counters of agents and steps are int32 on the device.
WHOLE_LIMIT = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class ByAgents:
    """A value that follows the number of agents; made by `by_agents`."""

    function: Callable

    def __call__(self, num_agents: int):
        """The value at N agents."""
        return self.function(num_agents)

    def __repr__(self) -> str:
        """As it is written."""
        return f"by_agents({_name(self.function)})"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value that changes with time; made by `schedule`."""

    function: Callable

    def __call__(self, time):
        """The value at a time."""
        return self.function(time)

    def __repr__(self) -> str:
        """As it is written."""
        return f"schedule({_name(self.function)})"


def by_agents(function: Callable) -> ByAgents:
    """A property as a function of the number of agents: `by_agents(lambda n: 0.005 * n)`.

    Args:
      function: `num_agents -> value`, a plain Python function called once for each N.

    Raises:
      ValueError: what is given cannot be called.
    """
    return ByAgents(_callable("by_agents", function))


def schedule(function: Callable) -> Schedule:
    """A property as a function of time: `schedule(optax.exponential_decay(0.5, 100, 0.9))`.

    Args:
      function: `time -> value` on traced int32 scalars, such as any optax schedule; time counts in
        the algorithm's unit from 0.

    Raises:
      ValueError: what is given cannot be called.
    """
    return Schedule(_callable("schedule", function))


def _callable(what: str, function) -> Callable:
    if not callable(function) or isinstance(function, ByAgents | Schedule | type):
        raise ValueError(f"{what} is given {brief(function)}; allowed: a function")
    return function


def _name(function) -> str:
    return getattr(function, "__name__", type(function).__name__)


def plain(value):
    """A number or switch without axes as Python has it; anything else as it is."""
    single = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    kinds = (np.number, np.bool_)
    if not single or not any(jax.numpy.issubdtype(value.dtype, kind) for kind in kinds):
        return value
    return value.item() if is_concrete(value) else value


def plain_tuple(values) -> tuple:
    """A list or tuple as a tuple, its entries as Python has them."""
    return tuple(plain(value) for value in values)


class Allowed(NamedTuple):
    """What a value may be.

    Attributes:
      text: in words, as in "... is 3; allowed: {text}".
      fine: `value -> bool`; what raises is not allowed.
      optional: whether None is allowed, which `text` need not say.
      follows: whether `by_agents(f)` is allowed, and has to give what is allowed at every N.
      scheduled: what a `schedule(f)` has to give at every time; None where it is not allowed.
      traced: whether a traced value is allowed, which nobody can look at.
      axes: of a number: most axes that it may have.
      per_agent: whether the first one is of agents.
      words: those that are allowed, where these are all.
      kind: whether only what kind of object it is counts, which can be seen of traced ones too.
      read: what a value that is allowed becomes in a configuration.
    """

    text: str
    fine: Callable[[Any], bool]
    optional: bool = False
    follows: bool = False
    scheduled: Allowed | None = None
    traced: bool = False
    axes: int = 0
    per_agent: bool = False
    words: tuple[str, ...] = ()
    kind: bool = False
    read: Callable[[Any], Any] = plain

    def or_none(self) -> Allowed:
        """The same, or None."""
        return self._replace(optional=True)

    def fixed(self) -> Allowed:
        """The same for what shapes a program: neither traced nor a function of N."""
        return self._replace(traced=False, follows=False)

    def at(self, num_agents: int) -> Allowed:
        """The same once functions of N are evaluated; an array needs an entry for every agent."""
        if not self.per_agent:
            return self._replace(follows=False)

        def enough(value) -> bool:
            return np.ndim(value) == 0 or np.shape(value)[0] >= num_agents

        text = f"{self.text}, one for all or one for each of {num_agents} agents"
        return self._replace(
            text=text, fine=lambda value: enough(value) and self.fine(value), follows=False
        )


def number(
    low: float = -np.inf,
    high: float = np.inf,
    *,
    above: bool = False,
    below: bool = False,
    infinite: bool = False,
    per_agent: bool = False,
    follows: bool = True,
    scheduled: bool = False,
    arrays: int = 0,
    single: bool = True,
) -> Allowed:
    """A real number, or an array of them.

    Args:
      low: smallest value.
      high: largest value.
      above: `low` itself is not allowed.
      below: `high` itself is not allowed.
      infinite: infinite values between the bounds are allowed.
      per_agent: an array with an entry for every agent is allowed.
      follows: as in `Allowed`.
      scheduled: whether a schedule is allowed, whose values then may reach the bounds.
      arrays: most axes of an array that has none of agents.
      single: whether programs compute with it, in single precision; not so on the host.
    """
    axes = max(int(per_agent), arrays)

    def fine(value) -> bool:
        array = real_array(value)
        if array is None or array.ndim > axes or array.size == 0 or np.isnan(array).any():
            return False
        finite = np.isfinite(array)
        size = np.abs(array[finite])
        kept = not single or (np.all(size <= LARGEST) and np.all((size == 0) | (size >= SMALLEST)))
        # An open end must not be reached by rounding either: 1 - 1e-9 is 1 to a program.
        dtype = jax.dtypes.canonicalize_dtype(np.float64) if single else np.float64
        with np.errstate(over="ignore"):
            rounded = array.astype(dtype).astype(np.float64)
        inside = (rounded > low if above else array >= low) & (
            rounded < high if below else array <= high
        )
        return bool(kept and inside.all() and (infinite or finite.all()))

    return Allowed(
        _range_text(low, high, above, below, infinite),
        fine,
        follows=follows,
        scheduled=number(low, high, follows=False) if scheduled else None,
        traced=True,
        axes=axes,
        per_agent=per_agent,
    )


def _range_text(low, high, above, below, infinite) -> str:
    if np.isfinite(low) and np.isfinite(high):
        return f"in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
    text = "" if infinite else "finite"
    if np.isfinite(low):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        text = f"{text} and {bound}" if text else f"{bound} or infinite"
    if np.isfinite(high):
        bound = f"below {high:g}" if below else f"at most {high:g}"
        text = f"{text} and {bound}" if text else bound
    return text or "a number"


PROBABILITY = number(0, 1)
POSITIVE = number(0, above=True)
NOT_NEGATIVE = number(0)
FINITE = number()


def real_array(value) -> np.ndarray | None:
    """A value as float64 if it consists of real numbers, else None; a bool or a word is none."""
    try:
        if isinstance(value, bool | np.bool_ | str | bytes) or value is None:
            return None
        # Python's integers may be larger than any of NumPy's.
        array = np.asarray(float(value) if isinstance(value, int) else value)
        if array.dtype.kind not in "iuf":
            # bfloat16 and its like are of no kind that NumPy knows.
            if not jax.numpy.issubdtype(array.dtype, np.floating):
                return None
        elif isinstance(value, list | tuple) and _has_bool(value):
            return None
        return array.astype(np.float64)
    except Exception:  # whatever an object does when it is read as an array
        return None


def _has_bool(values) -> bool:
    return any(
        _has_bool(x) if isinstance(x, list | tuple) else isinstance(x, bool | np.bool_)
        for x in values
    )


def whole(
    low: int = 1,
    high: int = WHOLE_LIMIT,
    *,
    follows: bool = False,
    traced: bool = False,
    text: str | None = None,
) -> Allowed:
    """A whole number of an integer type, Python's, NumPy's or JAX's; 5.0 is none, True neither."""

    def fine(value) -> bool:
        return is_whole(value) and low <= int(value) <= high

    bound = f"of at least {low}" if high == WHOLE_LIMIT else text or f"from {low} to {high}"
    return Allowed(f"a whole number {bound}", fine, follows=follows, traced=traced)


def is_whole(value) -> bool:
    """Whether a value is one whole number of an integer type, with an axis never."""
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, numbers.Integral):
        return True
    array = isinstance(value, np.ndarray | jax.Array) and np.ndim(value) == 0
    return bool(array and np.dtype(value.dtype).kind in "iu")


COUNT = whole(1)
# NumPy's generators and the keys of agents take any of these, and different ones differ.
SEED = whole(0, 2**32 - 1)


def switch() -> Allowed:
    """True or False, and nothing that only counts as such."""
    return Allowed("True or False", lambda value: isinstance(value, bool | np.bool_))


def word(options: Iterable[str]) -> Allowed:
    """One of these words."""
    options = tuple(options)
    text = " or ".join(repr(option) for option in options)
    return Allowed(text, lambda value: isinstance(value, str) and value in options, words=options)


NAME = Allowed("a word", lambda value: isinstance(value, str) and value != "")


def words(options: Iterable[str] | None = None) -> Allowed:
    """A tuple of different words, of these if given, at least one."""
    known = None if options is None else tuple(options)

    def fine(value) -> bool:
        listed = isinstance(value, tuple | list) and len(value) > 0
        plain = listed and all(isinstance(x, str) for x in value)
        return bool(plain and len(set(value)) == len(value)) and (
            known is None or all(x in known for x in value)
        )

    text = "a tuple of different words" + ("" if known is None else f" of {', '.join(known)}")
    return Allowed(text, fine, read=plain_tuple)


# Most units of a layer: two such layers already have more weights than any memory holds.
MOST_UNITS = 2**16


def sizes(
    low: int = 1, high: int = MOST_UNITS, empty: bool = True, length: int | None = None
) -> Allowed:
    """A tuple of whole numbers, such as the units of each hidden layer."""

    def fine(value) -> bool:
        listed = isinstance(value, tuple | list) and (empty or len(value) > 0)
        listed = listed and length in (None, len(value))
        return bool(listed and all(is_whole(x) and low <= x <= high for x in value))

    count = "" if length is None else f"{length} "
    return Allowed(f"a tuple of {count}whole numbers of at least {low}", fine, read=plain_tuple)


def instance(*kinds: type, text: str | None = None, where: Callable | None = None) -> Allowed:
    """An object of one of these types, for which `where` is true if given; traced leaves are."""
    what = text or " or ".join(f"a {kind.__name__}" for kind in kinds)
    return Allowed(
        what,
        lambda value: isinstance(value, kinds) and (where is None or bool(where(value))),
        kind=True,
    )


def nothing(why: str) -> Allowed:
    """None alone, for a property that another one decides."""
    return Allowed(f"None, as {why}", lambda value: False, optional=True)


def reals(shape: str) -> Allowed:
    """An array of real numbers; its shape, told here in words, is the function's to check."""
    return Allowed(f"real numbers {shape}", lambda value: real_array(value) is not None)


def anything(text: str, fine: Callable[[Any], bool], **options) -> Allowed:
    """What a predicate says; for arrays of several axes, functions and the like."""
    return Allowed(text, fine, **options)


ANYTHING = Allowed("anything", lambda value: True, optional=True, follows=True, traced=True)


def is_concrete(value) -> bool:
    """Whether a value is known now rather than under a trace."""
    try:
        leaves = jax.tree.leaves(value)
    except Exception:  # no pytree, such as a dict whose keys cannot be sorted
        return True
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


FUNCTION = Allowed(
    "a function",
    lambda value: callable(value) and not isinstance(value, type | ByAgents | Schedule),
)


def check(name: str, value, allowed: Allowed) -> None:
    """Refuses what is not allowed.

    Args:
      name: of the property or argument.
      value: anything at all.
      allowed: what it may be.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    none = " or None" if allowed.optional and not allowed.text.startswith("None") else ""
    if value is None:
        good = allowed.optional
    elif isinstance(value, ByAgents):
        good = allowed.follows
    elif isinstance(value, Schedule):
        good = allowed.scheduled is not None
    elif not allowed.kind and not is_concrete(value):
        if not allowed.traced:
            raise ValueError(
                f"{name} is traced, but decides what is drawn, who is heard or how a program looks,"
                f" which has no derivative; allowed: a value that is known, {allowed.text}"
            )
        good = _axes(value) <= allowed.axes
    else:
        good = _holds(allowed, value)
        if not good and callable(value) and not isinstance(value, type):
            raise ValueError(_bare_function(name, allowed, none))
    if not good:
        near = nearest(value, allowed.words)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"{name} is {brief(value)}{_lost(value)}; allowed: {allowed.text}{none}{hint}"
        )


def _axes(value) -> float:
    """Axes of a traced array; infinitely many of a container of such."""
    return value.ndim if isinstance(value, jax.core.Tracer) else np.inf


def _holds(allowed: Allowed, value) -> bool:
    try:
        return bool(allowed.fine(value))
    except Exception:  # a predicate need not know every type there is
        return False


def _lost(value) -> str:
    """What single precision makes of a number that it cannot hold, else nothing."""
    array = None if isinstance(value, list | tuple) else real_array(value)
    if array is None or array.ndim or not np.isfinite(array):
        return ""
    with np.errstate(over="ignore"):
        single = np.float32(array)
    # Programs set to zero what is below the smallest number with all its digits.
    single = np.float32(0) if np.abs(array) < SMALLEST else single
    lost = single != array and (single in (0, 1) or not np.isfinite(single))
    return f", {single:g} in float32" if lost else ""


def _bare_function(name: str, allowed: Allowed, none: str) -> str:
    """Says how a function is given, since one alone does not say what it is a function of."""
    ways = [allowed.text + none]
    if allowed.follows:
        ways.append("frl.by_agents(f) for a function of the number of agents")
    if allowed.scheduled:
        ways.append("frl.schedule(f) for a function of time")
    return f"{name} is a bare function; allowed: {', or '.join(ways)}"


def evaluated(name: str, value, allowed: Allowed, num_agents: int):
    """A property at N agents, looked at again: functions of N are called here.

    Args:
      name: of the property.
      value: as the user gave it.
      allowed: what it may be.
      num_agents: N.

    Returns:
      The value, with functions of N evaluated.

    Raises:
      ValueError: naming the property, its value at this N and what is allowed.
    """
    if not isinstance(value, ByAgents):
        if not isinstance(value, Schedule):
            check(name, value, allowed.at(num_agents))
            _check_entries(name, value, allowed, num_agents)
        return value
    check(name, value, allowed)
    try:
        given = value(num_agents)
    except Exception as error:
        raise ValueError(
            f"{name} is {value!r}, which fails at num_agents {num_agents} with "
            f"{type(error).__name__}: {brief(error)}; allowed: {allowed.text}"
        ) from error
    check(
        f"{name} at num_agents {num_agents}",
        given,
        # Nothing is a default to be found later, which has been too late for a number.
        allowed.at(num_agents)._replace(scheduled=None, optional=allowed.optional and allowed.kind),
    )
    _check_entries(f"{name} at num_agents {num_agents}", given, allowed, num_agents)
    return given


def _check_entries(name: str, value, allowed: Allowed, num_agents: int) -> None:
    """Refuses a traced array of fewer entries than agents, of which `check` sees the axes alone."""
    traced = allowed.per_agent and isinstance(value, jax.core.Tracer)
    if traced and value.ndim and value.shape[0] < num_agents:
        raise ValueError(
            f"{name} is a traced array of {value.shape[0]} entries; allowed: "
            f"{allowed.at(num_agents).text}"
        )


def at(config, num_agents: int) -> dict:
    """What functions of N in a configuration give, by name.

    Args:
      config: a dataclass.
      num_agents: N.

    Raises:
      ValueError: as in `evaluated`.
    """
    known = declarations(type(config))
    return {
        field.name: evaluated(field.name, value, known.get(field.name, ANYTHING), num_agents)
        for field in dataclasses.fields(config)
        if isinstance(value := getattr(config, field.name), ByAgents)
    }


# Schedules are looked at where something may happen: at each of so many first times, and at so
# many later ones, ever farther apart.
_FIRST_TIMES, _LATER_TIMES = 4096, 4096


def looked_at(length: int = WHOLE_LIMIT) -> np.ndarray:
    """The times below a length at which schedules are looked at, int32 [n], the last one too."""
    first = np.arange(min(length, _FIRST_TIMES))
    later = np.geomspace(first[-1] + 1, length, _LATER_TIMES) - 1
    return np.unique(np.concatenate([first, np.minimum(later, length - 1)]).astype(np.int32))


def schedule_values(given: Schedule, times: np.ndarray):
    """What a schedule gives at times [n], as [n, ...] from one call; traced if it is."""
    return jax.vmap(lambda time: jax.numpy.asarray(given(time), float))(jax.numpy.asarray(times))


def check_schedules(config, length: int = WHOLE_LIMIT) -> None:
    """Checks what the schedules of a configuration give below a length, where that is known.

    Raises:
      ValueError: naming the property, its value at the first time at which that is not allowed,
        and what is.
    """
    for name, allowed in declarations(type(config)).items():
        value = getattr(config, name)
        if not isinstance(value, Schedule) or allowed.scheduled is None:
            continue
        times = looked_at(length)
        try:
            given = schedule_values(value, times)
        except Exception as error:
            raise ValueError(
                f"{name} is {value!r}, which fails for a traced time with "
                f"{type(error).__name__}: {brief(error)}; allowed: {allowed.scheduled.text}"
            ) from error
        if not is_concrete(given):
            continue
        given = np.asarray(given)
        # What is allowed has no gaps but near 0.
        size = np.abs(given[given != 0])
        ends = [given.min(), given.max(), *([size.min()] if size.size else [])]
        if given.ndim == 1 and all(_holds(allowed.scheduled, end) for end in ends):
            continue
        for time, one in zip(times, given, strict=True):
            check(f"{name} at time {time}", one, allowed.scheduled)


def declared(default=dataclasses.MISSING, allowed: Allowed | None = None, **metadata):
    """A field of a configuration with its default and what it may be.

    Args:
      default: its value unless set.
      allowed: what it may be; None declares that another check looks at it.
      **metadata: further entries of the field's metadata, such as `cli=False`.
    """
    return dataclasses.field(default=default, metadata={"allowed": allowed, **metadata})


@functools.cache
def declarations(kind: type) -> dict[str, Allowed]:
    """What each declared field of a dataclass may be."""
    fields = dataclasses.fields(kind)
    return {f.name: f.metadata["allowed"] for f in fields if f.metadata.get("allowed") is not None}


def check_config(config):
    """Checks every declared field of a configuration.

    Returns:
      The configuration, its values as Python has them: 0.5 for an array without axes, a tuple for a
      list, so that they can be compared, hashed and written down.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    changes = {}
    for name, allowed in declarations(type(config)).items():
        value = getattr(config, name)
        check(name, value, allowed)
        if value is not None and is_number(value):
            read = allowed.read(value)
            changes |= {} if read is value else {name: read}
    check_schedules(config, 1)
    return dataclasses.replace(config, **changes) if changes else config


def is_number(*values) -> bool:
    """Whether all values are known already: not traced, and no function of N or of time."""
    return not any(isinstance(value, ByAgents | Schedule) for value in values) and is_concrete(
        values
    )


def checked(**allowed: Allowed) -> Callable:
    """Decorates a function whose arguments are checked before it is called.

    Single numbers and switches of NumPy or JAX reach it as those of Python, which can be hashed,
    compared and written down.

    Args:
      **allowed: what each argument may be; the attribute `allowed` of the result. A function
        without `**kwargs` answers an unknown name with the nearest known ones.
    """

    def wrap(function: Callable) -> Callable:
        signature = inspect.signature(function)
        parameters = signature.parameters.values()
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = set(allowed) - set(signature.parameters)
        if unknown:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

        @functools.wraps(function)
        def call(*args, **kwargs):
            for name in kwargs:
                if not open_ended:
                    check_known(name, signature.parameters, f"argument of {function.__name__}")
            bound = signature.bind(*args, **kwargs)
            for name, kind in allowed.items():
                if name in bound.arguments:
                    check(name, bound.arguments[name], kind)
                    bound.arguments[name] = plain(bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        call.allowed = allowed
        return call

    return wrap
