"""What a figure says: claims, each with what measures it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fedjax_rl.analysis import Claim, decide
from fedjax_rl.analysis.verdict import CONTROL, EFFECT, NUMBER, Band
from fedjax_rl.studies.estimates import Estimate, mean
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.runs import Results

ABOVE_ZERO: Band = (0.0, None)


@dataclasses.dataclass(frozen=True, eq=False)
class Measurable:
    """A claim together with what measures it.

    Attributes:
      claim: what is said.
      estimate: of its numbers.
    """

    claim: Claim
    estimate: Estimate

    @property
    def there(self) -> bool:
        """Whether the scale has all the runs that it needs."""
        return all(stage.there for stage in self.estimate.needs)

    def decide(self, results: Results) -> dict[str, Any]:
        """The line of the claim; "not run" where the scale has no runs for it."""
        return decide(self.claim, self.estimate(results) if self.there else None)


def number(
    id: str,
    quantity: str,
    estimate: Estimate | Number,
    band: Band | Sequence[Band],
    *,
    published: Any = None,
    reference: Any = None,
    corrected: str = "",
    why: str = "",
    figure: str = "",
) -> Measurable:
    """A number, or several, and the values that count as the same.

    Args:
      id: unique in the study.
      quantity: what the numbers are.
      estimate: measures them; of a `Number` its mean over seeds.
      band: (low, high), with the published number; or one for each.
      published: of the paper, one for each band.
      reference: of somebody else: a prototype, a theorem, another code.
      corrected: why the band leaves a published number out.
      why: what explains the verdict.
      figure: of the paper, such as "Fig 3a"; by default that in which the claim is declared.

    Raises:
      ValueError: as `analysis.Claim`.
    """
    claim = Claim(id, figure, quantity, band, published, NUMBER, reference, corrected, why)
    return Measurable(claim, _estimate(id, estimate))


def effect(
    id: str,
    quantity: str,
    estimate: Estimate | Number,
    *,
    published: str | None = None,
    band: Band | Sequence[Band] = ABOVE_ZERO,
    reference: Any = None,
    why: str = "",
    figure: str = "",
) -> Measurable:
    """A sentence about an effect, or an order, that holds if its interval lies above 0.

    Args:
      id: unique in the study.
      quantity: the effect, so signed that the sentence makes it positive; or several, such as the
        differences of neighbours in an order.
      estimate: as of `number`.
      published: the sentence; None of our own.
      band: another place than above 0; one for each of several effects.
      reference: as of `number`.
      why: as of `number`.
      figure: as of `number`.
    """
    claim = Claim(id, figure, quantity, band, published, EFFECT, reference, "", why)
    return Measurable(claim, _estimate(id, estimate))


def control(
    id: str,
    quantity: str,
    estimate: Estimate | Number,
    band: Band | Sequence[Band] = ABOVE_ZERO,
    *,
    why: str = "",
    figure: str = "",
) -> Measurable:
    """The same measurement where nothing is learned: reproduced unless the claim holds there, too.

    Args:
      id: unique in the study.
      quantity: what is measured without learning.
      estimate: as of `number`, of runs at learning rate 0 or the like.
      band: of the claim that it controls.
      why: as of `number`.
      figure: as of `number`.
    """
    claim = Claim(id, figure, quantity, band, None, CONTROL, None, "", why)
    return Measurable(claim, _estimate(id, estimate))


def _estimate(id: str, estimate) -> Estimate:
    if isinstance(estimate, Number):
        return mean(estimate)
    if not isinstance(estimate, Estimate):
        raise ValueError(
            f"{id}: estimate is {estimate!r}; allowed: a Number, or an Estimate such as mean(...), "
            "exponent(...), measured(function, stage)"
        )
    return estimate
