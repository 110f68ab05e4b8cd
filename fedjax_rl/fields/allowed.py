"""What a value may be: an `Allowed`, and what makes one for each kind of value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_rl.fields.functions import ByAgents, Schedule
from fedjax_rl.fields.values import (
    LARGEST,
    SMALLEST,
    WHOLE_LIMIT,
    is_whole,
    plain,
    plain_tuple,
    real_array,
)


class Allowed(NamedTuple):
    """What a value may be.

    Attributes:
      text: in words, as in "... is 3; allowed: {text}".
      fine: `value -> bool`; what raises is not allowed.
      optional: whether None is allowed, which `text` need not say.
      follows: whether `by_agents(f)` is allowed, and has to give what is allowed at every N.
      scheduled: what a `schedule(f)` has to give at every time; None where it is not allowed.
      closed: of a number, the same with its bounds, which a schedule may reach; else None.
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
    closed: Allowed | None = None
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
            # More are fine: of a sweep over N every federation takes the first N.
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

    Returns:
      The `Allowed`.
    """
    axes = max(int(per_agent), arrays)

    def fine(value) -> bool:
        array = real_array(value)
        # Empty ones first: whatever is asked of all of nothing is true.
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

    # Rates that fall to 0 are common, numbers that start there are mistakes.
    closed = number(low, high, follows=False) if follows else None
    return Allowed(
        _range_text(low, high, above, below, infinite),
        fine,
        follows=follows,
        scheduled=closed if scheduled else None,
        closed=closed,
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


def whole(
    low: int = 1,
    high: int = WHOLE_LIMIT,
    *,
    follows: bool = False,
    traced: bool = False,
    text: str | None = None,
) -> Allowed:
    """A whole number of an integer type, Python's, NumPy's or JAX's; 5.0 is none, True neither.

    Args:
      low: smallest value.
      high: largest value.
      follows: as in `Allowed`.
      traced: as in `Allowed`.
      text: what the range is in words, where its ends say little.

    Returns:
      The `Allowed`.
    """

    def fine(value) -> bool:
        return is_whole(value) and low <= int(value) <= high

    bound = text or (f"of at least {low}" if high == WHOLE_LIMIT else f"from {low} to {high}")
    return Allowed(f"a whole number {bound}", fine, follows=follows, traced=traced)


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
    """A tuple of whole numbers, such as the units of each hidden layer.

    Args:
      low: smallest entry.
      high: largest entry.
      empty: whether there may be none.
      length: how many there are; None for any number.

    Returns:
      The `Allowed`.
    """

    def fine(value) -> bool:
        listed = isinstance(value, tuple | list) and (empty or len(value) > 0)
        listed = listed and length in (None, len(value))
        return bool(listed and all(is_whole(x) and low <= x <= high for x in value))

    count = "" if length is None else f"{length} "
    return Allowed(f"a tuple of {count}whole numbers from {low} to {high}", fine, read=plain_tuple)


def instance(*kinds: type, text: str | None = None, where: Callable | None = None) -> Allowed:
    """An object of one of these types, for which `where` is true if given; traced leaves are.

    Args:
      *kinds: the types.
      text: what they are in words; their names by default.
      where: `value -> bool`.

    Returns:
      The `Allowed`.
    """
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
    """What a predicate says; for arrays of several axes, functions and the like.

    Args:
      text: in words.
      fine: `value -> bool`.
      **options: further fields of `Allowed`.

    Returns:
      The `Allowed`.
    """
    return Allowed(text, fine, **options)


ANYTHING = Allowed("anything", lambda value: True, optional=True, follows=True, traced=True)
FUNCTION = Allowed(
    "a function",
    lambda value: callable(value) and not isinstance(value, type | ByAgents | Schedule),
)
