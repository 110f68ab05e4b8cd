"""Published value, measured value, verdict: one rule for every claim, ours as well.

A claim has a band, fixed before anything runs: the values that count as the same as a published
number, or those that an effect must have. The 95 % interval of what was measured decides:

    inside the band               reproduced
    apart from it                 not reproduced
    partly inside                 undecided, and how many runs would decide

An exact quantity is its own interval. Of fewer than three runs there is no interval, and nothing is
decided. A claim of several numbers has the worst of their verdicts. A control is measured where
nothing is learned, and is reproduced unless what is claimed holds there, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

from fedjax_rl.analysis.bands import FEWEST

NUMBER, EFFECT, CONTROL = KINDS = ("number", "effect", "control")
# The worst first.
NOT_REPRODUCED, UNDECIDED, NOT_RUN, REPRODUCED = VERDICTS = (
    "not reproduced",
    "undecided",
    "not run",
    "reproduced",
)
MARKS = dict(zip(VERDICTS, "\u2717?\u2013\u2713", strict=True))
MOST = 1_000_000  # runs that anybody would make
POWER = 0.8

Band = tuple[float | None, float | None]


class Measured(NamedTuple):
    """A measured number.

    Attributes:
      value: itself.
      low: end of its 95 % interval; None where there is none.
      high: the other end.
      runs: independent runs behind it; None of an exact quantity.
    """

    value: float
    low: float | None = None
    high: float | None = None
    runs: int | None = None

    @property
    def reach(self) -> float:
        """How far the interval goes; to the other side where a share's ends cut it off."""
        return max(self.high - self.value, self.value - self.low)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What is said of one number or of several, and what they must be.

    Attributes:
      id: such as "T10".
      figure: where it is shown.
      quantity: what the numbers are, in words.
      band: (low, high), None for an open side; or a sequence of these.
      published: the published number, several (None where one is not published), or words.
      kind: "number"; "effect", of what is claimed without a number; or "control".
      reference: numbers that are not from the publication: of a prototype, a theorem, another code.
      corrected: why the band leaves out a published number.
      why: what explains the verdict, for the reader.
    """

    id: str
    figure: str
    quantity: str
    band: Band | Sequence[Band]
    published: Any = None
    kind: str = NUMBER
    reference: Any = None
    corrected: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind is {self.kind!r}; allowed: {', '.join(KINDS)}")
        if self.band is None:
            raise ValueError(f"{self.id}: band is None; allowed: (low, high), fixed beforehand")
        for band in self.bands:
            if len(band) != 2 or band == (None, None):
                raise ValueError(f"{self.id}: band is {band!r}; allowed: (low, high), one not None")
            low, high = _limits(band)
            if not low <= high:
                raise ValueError(f"{self.id}: band is {band!r}; allowed: low at most high")
        if isinstance(self.published, str) or self.published is None:
            return
        published = _several(self.published)
        if len(published) != len(self.bands):
            raise ValueError(
                f"{self.id}: published has {len(published)} numbers; allowed: {len(self.bands)}, "
                "one to a band"
            )
        for value, band in zip(published, self.bands, strict=True):
            if value is not None and not self.corrected and not _inside(value, value, band):
                raise ValueError(
                    f"{self.id}: band is {band!r}, without the published {value}; allowed: a band "
                    "with it, or corrected= with the reason"
                )

    @property
    def bands(self) -> tuple[Band, ...]:
        """One band per measured number."""
        return tuple(self.band) if self.several else (self.band,)

    @property
    def several(self) -> bool:
        """Whether there are several numbers, of which each has a verdict."""
        return len(self.band) > 0 and isinstance(self.band[0], Sequence)


def decide(claim: Claim, measured: Measured | Sequence[Measured] | None = None) -> dict[str, Any]:
    """The line of `summary.json` for one claim.

    Args:
      claim: what is said.
      measured: a number, or as many as the claim has bands; None where nothing was run.

    Returns:
      `{id, figure, kind, quantity, published, reference, measured, low, high, runs, band,
      corrected, verdict, verdicts, note, why}` with plain values only: what is not a number, and
      an open side of a band, is None, infinities are "inf" and "-inf". `note` says of an undecided
      number what would decide.

    Raises:
      ValueError: another number of numbers than of bands.

    Examples:
      >>> from fedjax_rl.analysis import Claim, Measured, decide
      >>> claim = Claim("T1", "Fig 6", "slope in N", (-1.1, -0.9), published=-1.0)
      >>> decide(claim, Measured(-0.98, -1.02, -0.94, runs=10))["verdict"]
      'reproduced'
      >>> decide(claim, Measured(-0.98, -1.22, -0.74, runs=10))["note"]
      'about 70 runs would decide'
    """
    bands = claim.bands
    numbers = [None] * len(bands) if measured is None else _numbers(measured)
    if len(numbers) != len(bands):
        raise ValueError(
            f"{claim.id}: {len(numbers)} numbers are measured; allowed: {len(bands)}, one to a band"
        )
    found = [_decide(claim.kind, own, band) for own, band in zip(numbers, bands, strict=True)]
    numbers = [Measured(math.nan) if own is None else own for own in numbers]

    def plain(values):
        values = [_plain(value) for value in values]
        return values if claim.several else values[0]

    return {
        "id": claim.id,
        "figure": claim.figure,
        "kind": claim.kind,
        "quantity": claim.quantity,
        "published": _plain(claim.published),
        "reference": _plain(claim.reference),
        "measured": plain([own.value for own in numbers]),
        "low": plain([own.low for own in numbers]),
        "high": plain([own.high for own in numbers]),
        "runs": plain([own.runs for own in numbers]),
        "band": plain(bands),
        "corrected": claim.corrected,
        "verdict": min((own.verdict for own in found), key=VERDICTS.index),
        "verdicts": [own.verdict for own in found],
        "note": _note(found),
        "why": claim.why,
    }


class _Found(NamedTuple):
    """A verdict on one number, and of an undecided one what would decide.

    Attributes:
      verdict: of `VERDICTS`.
      note: anything that a reader has to know of it.
      needed: runs that would decide; `MOST` and one where more are needed.
      visible: the smallest effect that these runs would have seen; None of a number.
    """

    verdict: str
    note: str = ""
    needed: int | None = None
    visible: float | None = None


def _decide(kind: str, measured: Measured | None, band: Band) -> _Found:
    """The verdict on one number."""
    # An effect of nothing is none: the ends of its band do not belong to it.
    found = _of_interval(measured, band, strict=kind != NUMBER)
    if kind != CONTROL or found.verdict == NOT_RUN:
        return found
    holds = found.verdict == REPRODUCED
    return _Found(NOT_REPRODUCED, "holds without learning") if holds else _Found(REPRODUCED)


def _of_interval(measured: Measured | None, band: Band, strict: bool) -> _Found:
    if measured is None:
        return _Found(NOT_RUN)
    value, low, high, runs = measured
    if runs is None:
        inside = math.isfinite(value) and _inside(value, value, band, strict)
        return _Found(REPRODUCED if inside else NOT_REPRODUCED)
    if runs < FEWEST:
        return _Found(UNDECIDED, f"{runs} run{'s' * (runs > 1)}")
    if math.isnan(value):
        return _Found(NOT_REPRODUCED, "not finite")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return _Found(UNDECIDED, "no interval")
    if _inside(low, high, band, strict):
        return _Found(REPRODUCED)
    least, most = _limits(band)
    if high < least or low > most or (strict and (high == least or low == most)):
        return _Found(NOT_REPRODUCED)
    reach = measured.reach
    if not math.isfinite(reach) or not math.isfinite(value):
        return _Found(UNDECIDED, "the interval is infinite")
    needed = runs_to_decide(measured, band) or MOST + 1
    if None not in band:
        return _Found(UNDECIDED, needed=needed)
    more = stats.t.ppf(POWER, runs - 1) / stats.t.ppf(0.975, runs - 1)
    return _Found(UNDECIDED, needed=needed, visible=reach * (1 + more))


def _note(found: Sequence[_Found]) -> str:
    """What there is to say of the numbers of a claim, in words."""
    notes = [own.note for own in found if own.note]
    needed = max((own.needed for own in found if own.needed is not None), default=None)
    if needed is not None:
        many = f"about {_rounded(needed)} runs" if needed <= MOST else "more than a million runs"
        notes.append(f"{many} would decide")
    seen = [own.visible for own in found if own.visible is not None]
    if seen:
        each = ", ".join(dict.fromkeys(f"{value:.2g}" for value in seen))
        notes.append(f"{POWER:.0%} of such studies would see an effect of {each}")
    return "; ".join(dict.fromkeys(notes))


def _rounded(count: int) -> int:
    """Up to two digits, as nobody knows it better."""
    digits = max(0, len(str(count)) - 2)
    return math.ceil(count / 10**digits) * 10**digits


def runs_to_decide(measured: Measured, band: Band) -> int | None:
    """The fewest runs whose interval would lie inside or outside a band, the number being the same.

    Args:
      measured: with an interval that is Student's, of at least two runs.
      band: (low, high).

    Returns:
      The number of runs; None where it is beyond a million.
    """
    value, runs = measured.value, measured.runs
    away = min(abs(value - end) for end in band if end is not None)
    deviation = measured.reach * math.sqrt(runs) / stats.t.ppf(0.975, runs - 1)

    def decides(count: int) -> bool:
        return stats.t.ppf(0.975, count - 1) * deviation <= away * math.sqrt(count)

    if not decides(MOST):
        return None
    fewest, enough = FEWEST - 1, MOST
    while enough - fewest > 1:
        middle = (fewest + enough) // 2
        fewest, enough = (fewest, middle) if decides(middle) else (middle, enough)
    return enough


def around(values: Sequence[float], part: float) -> tuple[Band, ...]:
    """Bands of numbers plus or minus a part of each."""
    return tuple((value - part * abs(value), value + part * abs(value)) for value in values)


def _limits(band: Band) -> tuple[float, float]:
    low, high = band
    return (-math.inf if low is None else low), (math.inf if high is None else high)


def _inside(low: float, high: float, band: Band, strict: bool = False) -> bool:
    least, most = _limits(band)
    if strict:
        above, below = low > least or least == -math.inf, high < most or most == math.inf
        return above and below
    return least <= low and high <= most


def _several(values) -> tuple:
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _numbers(measured) -> list:
    return [measured] if isinstance(measured, Measured) else list(measured)


def _plain(value):
    """JSON-safe copy: NumPy scalars to Python's, NaN to None, infinities to words, lists."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value
