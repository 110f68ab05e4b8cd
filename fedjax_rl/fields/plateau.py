"""A number that falls when a metric has stopped improving."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedjax_rl.fields.allowed import COUNT, FINITE, NAME, number, word
from fedjax_rl.fields.checked import checked
from fedjax_rl.fields.functions import Schedule

BETTER = ("higher", "lower")


# A class, not a lambda: two of one value are equal, and can be pickled.
@dataclasses.dataclass(frozen=True)
class _Always:
    """A function of time that is constant."""

    value: float

    def __call__(self, time):
        """The value, at every time."""
        del time
        return self.value


@dataclasses.dataclass(frozen=True)
class OnPlateau(Schedule):
    """A value that is multiplied where a metric stops improving; made by `on_plateau`.

    As a function of time it is what it is at first.

    Attributes:
      start: the value at first.
      factor: what it is multiplied by.
      patience: rounds without an improvement after which it is.
      metric: of the algorithm, one of federations.
      better: "higher" or "lower".
    """

    start: float
    factor: float
    patience: int
    metric: str
    better: str

    def __repr__(self) -> str:
        """As it is written."""
        return (
            f"on_plateau({self.start}, metric={self.metric!r}, factor={self.factor}, "
            f"patience={self.patience}, better={self.better!r})"
        )


@checked(
    start=FINITE,
    metric=NAME,
    factor=number(0, 1, above=True, below=True),
    patience=COUNT,
    better=word(BETTER),
)
def on_plateau(
    start: float, metric: str, factor: float = 0.5, patience: int = 10, better: str = "higher"
) -> Any:
    """A property that falls when the algorithm has stopped improving, such as a learning rate.

    The metric is looked at after every round, in each federation for itself, and the value is
    multiplied by the factor after as many rounds in a row in which the metric was not better than
    ever before; then the rounds are counted anew. For algorithms whose time counts rounds, and
    not on a clock.

    Example:
      >>> import fedjax_rl as frl
      >>> rate = frl.on_plateau(0.5, metric="objective", patience=3)
      >>> mdps = frl.envs.dirichlet_mdps(2)
      >>> result = frl.sweep(frl.fedpg(mdps, learning_rate=rate), num_agents=2, num_steps=4)

    Args:
      start: the value at first.
      metric: name of a metric of the algorithm that federations have.
      factor: in (0, 1).
      patience: rounds, at least 1.
      better: "higher" or "lower", which values of the metric are better.

    Returns:
      What every property takes that takes a schedule.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    # As floats, so that 1 and 1.0 have one content.
    start, factor = float(start), float(factor)
    return OnPlateau(_Always(start), start, factor, int(patience), metric, better)
