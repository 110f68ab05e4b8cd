"""Published value, measured value, verdict.

The rule, the same for every kind of target: a target is **reproduced** when the measured number
lies in its band, limits included. The band was fixed beforehand, wide enough for the spread of one
replicate of the design, so the interval of the measurement is reported beside it but does not
decide: otherwise fewer seeds would make everything reproducible. A claim about an interval (say,
an upper limit below 0.1) is judged by giving that limit as the measured number, and an ordering by
giving the difference, or True or False for the band (1, 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

KINDS = ("exact", "statistical", "ordering")

Number = float | int | bool | None
Band = tuple[float | None, float | None]


@dataclass(frozen=True)
class Target:
    """A published quantity and the band in which a reproduction must fall.

    Attributes:
        id: as in the specification, e.g. "T10".
        figure: where it was published, e.g. "Fig 4".
        quantity: what the number is, in words.
        published: the published number, several, words, or None if it was not published.
        band: (low, high), None for an open side; a sequence of such pairs for several numbers.
        tolerance: instead of `band`: published +- tolerance, for every published number.
        kind: "exact" (deterministic), "statistical" or "ordering" (a qualitative claim).
        prototype: what the specification's prototype measured, for the reader.
    """

    id: str
    figure: str
    quantity: str
    published: Any
    band: Band | Sequence[Band] | None = None
    tolerance: float | None = None
    kind: str = "statistical"
    prototype: str | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind must be one of {KINDS}, not {self.kind!r}")
        if (self.band is None) == (self.tolerance is None):
            raise ValueError(f"{self.id}: give either a band or a tolerance")
        if self.band is None:
            if isinstance(self.published, str) or self.published is None:
                raise ValueError(f"{self.id}: a tolerance needs a published number")
            reach = Decimal(repr(float(self.tolerance)))

            def spread(value):
                # In decimals, as published: 0.7 + 0.1 is 0.8, which a sum of floats falls short of.
                middle = Decimal(repr(float(value)))
                return float(middle - reach), float(middle + reach)

            several = _is_several(self.published)
            band = tuple(map(spread, self.published)) if several else spread(self.published)
            object.__setattr__(self, "band", band)
        for band in self.bands:
            if len(band) != 2:
                raise ValueError(f"{self.id}: a band is (low, high), not {band!r}")
            low, high = _limits(band)
            if not low <= high:
                raise ValueError(f"{self.id}: the band {band!r} is empty")

    @property
    def bands(self) -> tuple[Band, ...]:
        """One band per measured number."""
        return tuple(self.band) if self.several else (self.band,)

    @property
    def several(self) -> bool:
        """Whether the target is several numbers, which must all hold."""
        return len(self.band) > 0 and _is_several(self.band[0])


def judge(
    target: Target,
    measured: Number | Sequence[Number] = None,
    low: Number | Sequence[Number] = None,
    high: Number | Sequence[Number] = None,
) -> dict[str, Any]:
    """The line of `summary.json` for one target.

    Of several numbers all must hold: one outside its band is enough for "not reproduced", and one
    missing (with none outside) leaves the target "not run". An infinite measurement is outside
    every band.

    Args:
        target: what was published.
        measured: the number, or as many as the target has bands; None or NaN where not run.
        low: lower limit(s) of the interval of `measured`, if there is one.
        high: upper limit(s).

    Returns:
        `{id, figure, quantity, published, measured, low, high, band, kind, verdict}` with plain
        numbers only; whatever is not finite, and an open side of a band, is None.

    Raises:
        ValueError: if the number of measured values is not the number of bands.

    Examples:
        >>> from fedjax_rl import analysis
        >>> target = analysis.Target("T1", "Fig 6", "slope in N", -1.0, (-1.1, -0.9))
        >>> analysis.judge(target, -0.98, -1.02, -0.94)["verdict"]
        'reproduced'
    """
    values = _as_tuple(target, measured, "measured")
    inside = [
        None if _is_missing(value) else _is_inside(float(value), band)
        for value, band in zip(values, target.bands, strict=True)
    ]
    if False in inside:
        verdict = "not reproduced"
    elif None in inside:
        verdict = "not run"
    else:
        verdict = "reproduced"

    def plain(numbers):
        numbers = [_plain(number) for number in numbers]
        return numbers if target.several else numbers[0]

    return {
        "id": target.id,
        "figure": target.figure,
        "quantity": target.quantity,
        "published": _plain(target.published),
        "measured": plain(values),
        "low": plain(_as_tuple(target, low, "low")),
        "high": plain(_as_tuple(target, high, "high")),
        "band": plain(target.bands),
        "kind": target.kind,
        "verdict": verdict,
    }


def _as_tuple(target: Target, values, name: str) -> tuple:
    expected = len(target.bands)
    if values is None:
        return (None,) * expected
    values = tuple(values) if _is_several(values) else (values,)
    if len(values) != expected:
        raise ValueError(f"{target.id}: {name} has {len(values)} numbers for {expected} bands")
    return values


def _is_several(value) -> bool:
    return (
        not isinstance(value, str) and getattr(value, "ndim", 1) > 0 and hasattr(value, "__len__")
    )


def _is_missing(value) -> bool:
    return value is None or math.isnan(value)


def _limits(band: Band) -> tuple[float, float]:
    low, high = band
    return (-math.inf if low is None else low), (math.inf if high is None else high)


def _is_inside(value: float, band: Band) -> bool:
    low, high = _limits(band)
    return math.isfinite(value) and low <= value <= high


def _plain(value):
    """JSON-safe copy: NumPy scalars to Python's, what is not finite to None, sequences to lists."""
    if value is None or isinstance(value, str):
        return value
    if _is_several(value):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return value
    return value if math.isfinite(value) else None
