"""Values that somebody may hand in by mistake, and an oracle of what fits where.

The oracle is written from the documentation, by hand, and shares no code with the checks of the
package: a kind is a word of `KINDS`, with "?" where None is allowed, "*" where an array with an
entry for each agent is, "{" where a record is whose first property it is, and "~" where the host
computes, in double precision. A word alone, of an enumeration, is "word": none of the values here
is one.
"""

from __future__ import annotations

import decimal
import fractions
import math
import pathlib

import jax.numpy as jnp
import numpy as np

import fedjax_rl as frl
from fedjax_rl.algorithms.records import Heterogeneity, Network
from fedjax_rl.fields.record import Record

# A federation of the cases has so many agents.
AGENTS = 2
# In single precision: beyond is infinity, below is zero.
TOP, BOTTOM = 3.4028234e38, 1.1754944e-38


class Thing:
    """An object that fits nowhere."""

    def __repr__(self) -> str:
        """Several lines, which a message must not have."""
        return "<a\nThing>"


class Unprintable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        """Fails."""
        raise RuntimeError("no")

    __bool__ = __len__ = __array__ = __iter__ = __float__ = __index__ = __repr__


def _nothing(*_):
    return None


def _half(_):
    return 0.5


NAN = float("nan")
VALUES: dict[str, object] = {
    **{str(x): x for x in (NAN, math.inf, -math.inf, -1, 0, 1, 2, 3, 7, -0.5, 0.5, 1.0, 1.5, 2.0)},
    **{str(x): x for x in (1e30, 1e39, -1e39, 1e308, 1e-30, 1e-39, 1e-45, 1e-300, -1e-300, 1e-9)},
    **{f"2^{n}": 2**n for n in (31, 32, 63, 64)},
    "2^32-1": 2**32 - 1,
    "10^400": 10**400,
    "-2^63": -(2**63),
    **{repr(x): x for x in ("abc", "", "1", "0.5", "nan", "None", "True", "a\nb", "é", " ")},
    "long word": "z" * 5000,
    **{repr(x): x for x in (None, True, False, b"x", 1j, 0.5 + 0j, ..., NotImplemented)},
    **{repr(x): x for x in ([], (), {}, set(), [1, 2], (1, 2), [0.5], (8,), (8, 8), (0,), (-1,))},
    **{repr(x): x for x in ((8.0,), ("a",), [NAN], [True], [None], ["a", "a"], [[1], [2, 3]])},
    **{repr(x): x for x in ({"a": 1}, {1: 2}, {1, 2}, range(0), range(2), slice(1), [1, 1])},
    "Thing": Thing(),
    "Unprintable": Unprintable(),
    "int": int,
    "Thing type": Thing,
    "object()": object(),
    "module": math,
    "path": pathlib.Path("x"),
    "generator": (x for x in ()),
    "Decimal": decimal.Decimal("0.5"),
    "Fraction": fractions.Fraction(1, 3),
    "np.float32(0.5)": np.float32(0.5),
    "np.float16(nan)": np.float16(NAN),
    "np.int64(3)": np.int64(3),
    "np.uint8(2)": np.uint8(2),
    "np.bool_": np.bool_(True),
    "np.str_": np.str_("abc"),
    "np.datetime64": np.datetime64("2020"),
    "np.complex64": np.complex64(1),
    "np.array([])": np.array([]),
    "np.array(0.5)": np.array(0.5),
    "np.array(3)": np.array(3),
    "np.array([0.5])": np.array([0.5]),
    "np.array([0.5, 0.25])": np.array([0.5, 0.25]),
    "np.array([0.5, nan])": np.array([0.5, NAN]),
    "np.array([2, 3])": np.array([2, 3]),
    "np.array([-1., 1])": np.array([-1.0, 1.0]),
    "np.array([True, False])": np.array([True, False]),
    "np.array(['a'])": np.array(["a"]),
    "np.array([None])": np.array([None]),
    "np.zeros((2, 2))": np.zeros((2, 2)),
    "np.full(3, nan)": np.full(3, NAN),
    "np.ones((3, 4))": np.ones((3, 4)),
    "np.ones((1, 2, 3, 4))": np.ones((1, 2, 3, 4)),
    "jnp.nan": jnp.float32(NAN),
    "jnp.float32(0.5)": jnp.float32(0.5),
    "jnp.int32(2)": jnp.int32(2),
    "jnp.zeros(0)": jnp.zeros(0),
    "jnp.ones(2)": jnp.ones(2),
    "jnp.bfloat16(0.5)": jnp.bfloat16(0.5),
    "lambda: 1": lambda: 1,
    "lambda n: 0.5": _half,
    "lambda n: nan": lambda n: NAN,
    "lambda *_: None": _nothing,
    "len": len,
    "by_agents 0.5": frl.by_agents(_half),
    "by_agents 2": frl.by_agents(lambda n: 2),
    "by_agents -1": frl.by_agents(lambda n: -1),
    "by_agents nan": frl.by_agents(lambda n: NAN),
    "by_agents None": frl.by_agents(_nothing),
    "by_agents 'a'": frl.by_agents(lambda n: "a"),
    "by_agents []": frl.by_agents(lambda n: []),
    "by_agents 1 / 0": frl.by_agents(lambda n: 1 / (n - n)),
    "by_agents of nothing": frl.by_agents(lambda: 1),
    "by_agents too few": frl.by_agents(lambda n: np.full(n - 1, 0.5)),
    "schedule 0.5": frl.schedule(lambda t: jnp.float32(0.5)),
    "schedule -1": frl.schedule(lambda t: jnp.float32(-1)),
    "schedule nan": frl.schedule(lambda t: jnp.float32(NAN)),
    "schedule 'a'": frl.schedule(lambda t: "a"),
    "schedule None": frl.schedule(_nothing),
    "schedule array": frl.schedule(lambda t: jnp.ones(3)),
    "schedule of nothing": frl.schedule(lambda: 1),
    "Clock": frl.Clock("asynchronous"),
    "Network": Network(hidden=(4,)),
    "Heterogeneity": Heterogeneity(level=0.1),
    "Uplink": frl.uplinks.scaled_sign(),
}


def random_value(rng: np.random.Generator) -> tuple[str, object]:
    """A number, list or array of any size, with its label."""
    size = 10.0 ** rng.integers(-46, 47) * rng.choice([-1, 1, 1])
    number = float(size * rng.random())
    kind = rng.integers(6)
    if kind == 0:
        value = int(np.clip(number, -1e18, 1e18))
    elif kind == 1:
        value = float(np.round(rng.normal(), 2))
    elif kind == 2:
        value = rng.normal(size=tuple(rng.integers(0, 3, size=rng.integers(1, 4))))
    elif kind == 3:
        value = tuple(int(x) for x in rng.integers(-2, 9, size=rng.integers(0, 4)))
    elif kind == 4:
        value = [number, *VALUES.values()][rng.integers(20)]
    else:
        value = number
    return f"random {' '.join(repr(value).split())[:60]}", value


# The oracle: True fits, False does not, None cannot be told from the value alone ----------------


def real(value) -> float | None:
    """One real number, as a float, else None."""
    if isinstance(value, bool | np.bool_ | str | bytes | complex):
        return None
    if isinstance(value, int | float | np.integer | np.floating):
        return _float(value)
    if _is_array(value) and value.ndim == 0 and _is_real(value):
        return _float(value)
    return None


def _float(value) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_array(value) -> bool:
    return isinstance(value, np.ndarray) or type(value).__module__.startswith("jax")


def _is_real(array) -> bool:
    return array.dtype.kind in "iuf" or "bfloat16" in str(array.dtype)


def integer(value) -> int | None:
    """One whole number of an integer type, else None."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    if _is_array(value) and value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    return None


def _between(low, high, open_low=False, open_high=False, infinite=False):
    def fits(value):
        x = real(value)
        if x is None or math.isnan(x):
            # Fractions and decimals are real numbers, which a check may take or refuse.
            return None if isinstance(value, fractions.Fraction | decimal.Decimal) else False
        if math.isinf(x) and not infinite:
            return False
        if math.isfinite(x) and (abs(x) > TOP or 0 < abs(x) < BOTTOM):
            return False
        return (x > low if open_low else x >= low) and (x < high if open_high else x <= high)

    return fits


def _whole(low, high=2**31 - 1):
    def fits(value):
        x = integer(value)
        return x is not None and low <= x <= high

    return fits


def _sizes(value):
    listed = isinstance(value, tuple | list)
    return listed and all((integer(x) or 0) >= 1 for x in value)


def _function(value):
    return None if callable(value) and not wrapped(value) else False


def wrapped(value) -> str | None:
    """What a function says that it is a function of, or None."""
    name = type(value).__name__
    return name if name in ("ByAgents", "Schedule") else None


def _never(value):
    return False


def _array(value):
    """An array of finite numbers, whose shape the case decides."""
    try:
        x = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else value
    except ValueError:  # rows of different lengths
        return False
    if not _is_array(x) or not _is_real(x) or x.size == 0:
        return False
    x = np.asarray(x, np.float64)
    return None if np.isfinite(x).all() else False


def _either(*kinds):
    def fits(value):
        answers = [kind(value) for kind in kinds]
        return True if True in answers else None if None in answers else False

    return fits


def _sequence(each):
    def fits(value):
        if isinstance(value, list | tuple | range) and len(value):
            answers = [each(x) for x in value]
            return False if False in answers else None
        if _is_array(value) and value.ndim == 1 and value.size:
            return False if False in [each(x) for x in np.asarray(value)] else None
        return None if isinstance(value, set) and value else False

    return fits


def _switch(value):
    array = _is_array(value) and value.ndim == 0 and value.dtype.kind == "b"
    return isinstance(value, bool | np.bool_) or array


KINDS = {
    "word": _never,
    "object": _never,
    "function": _function,
    "clock": lambda value: type(value).__name__ == "Clock",
    "uplink": lambda value: type(value).__name__ == "Uplink",
    "switch": _switch,
    "probability": _between(0, 1),
    "share": _between(0, 1, open_low=True),
    "below one": _between(0, 1, open_high=True),
    "positive": _between(0, math.inf, open_low=True),
    "natural": _between(0, math.inf),
    "natural or infinite": _between(0, math.inf, infinite=True),
    "positive or infinite": _between(0, math.inf, open_low=True, infinite=True),
    "finite": _between(-math.inf, math.inf),
    "count": _whole(1),
    "one": _whole(1, 1),
    "bytes of a word": lambda value: integer(value) in (2, 4, 8),
    "whole": _whole(0),
    "two": _whole(2),
    "seed": _whole(0, 2**32 - 1),
    "integer": _whole(-(2**31)),
    "sizes": _sizes,
    "words": _never,
    "names": lambda value: None if type(value) in (list, tuple) and not value else False,
    "array": _array,
    "number or array": _either(_between(-math.inf, math.inf), _array),
    "switch or function": lambda value: _function(value) if callable(value) else _switch(value),
    "seeds": _either(_whole(0, 2**32 - 1), _sequence(_whole(0, 2**32 - 1))),
    "places": _sequence(_whole(0)),
    "counts": _either(_whole(1), _sequence(_whole(1))),
    "text": lambda value: None if isinstance(value, str) and value else False,
    "path": lambda value: None if isinstance(value, str | pathlib.Path) and str(value) else False,
    "mapping": lambda value: None if isinstance(value, dict) else False,
    "anything": lambda value: None,
}


def fits(kind: str, value) -> bool | None:
    """Whether a value fits a kind; None where that depends on the rest."""
    optional, per_agent = "?" in kind, "*" in kind
    plain = KINDS[kind.strip("?*~{")]
    if "{" in kind and isinstance(value, dict | Record):
        return None if value == {} or isinstance(value, Record) else False
    if kind == "anything":
        return None
    if value is None:
        return optional
    if (what := wrapped(value)) is not None:
        try:
            inner = value(AGENTS) if what == "ByAgents" else np.asarray(value(0))
        except Exception:  # whatever the function does
            return False
        inner = fits(kind if kind in ("uplink?", "clock?") else kind.replace("?", ""), inner)
        return None if inner is not False else False
    if per_agent and _is_array(value) and value.ndim == 1:
        if not _is_real(value) or value.size < AGENTS:
            return False
        values = np.asarray(value, np.float64)
        return False if False in [fits(kind.strip("?*"), float(x)) for x in values] else None
    if per_agent and isinstance(value, list | tuple | range):
        each = bool(value) and all(plain(x) is not False for x in value)
        return None if each and len(value) >= AGENTS else False
    if "~" in kind and (x := real(value)) is not None and math.isfinite(x):
        value = math.copysign(min(max(abs(x), BOTTOM), TOP), x) if x else x
    return plain(value)
