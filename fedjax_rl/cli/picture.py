"""The picture of a run or sweep."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence

from fedjax_rl.cli.report import say

# What learning by episodes is drawn with, where it was recorded.
_BESIDE = ("frequency", "size")
_WIDTH = 34


def picture(result, algorithm, metrics: Sequence[str] | None, headline: str | None = None):
    """The headline of a result against time, for episodes beside what was sent.

    Args:
      result: of a run or sweep, as saved.
      algorithm: with its unit of time and its headline.
      metrics: those that were asked for, if any.
      headline: what is drawn where none were, if not the algorithm's own.

    Returns:
      A figure, or None where nothing can be drawn, which is said.
    """
    from fedjax_rl import plotting
    from fedjax_rl.plotting.style import OKABE_ITO
    from fedjax_rl.sweeps.of_agents import MEAN

    metric = metrics[0] if metrics else headline or algorithm.headline
    # Of those that are recorded one by one there need not be many.
    metric = metric + MEAN if metric + MEAN in result else metric
    if not _finite(result[metric]):
        say(f"warning: {metric} has no value that is finite; there is no picture")
        return None
    swept = [d for d in result[metric].dims if d not in ("time", "seed", "agent")]
    lines = math.prod(result.sizes[d] for d in swept)
    # More lines than colours cannot be told apart; `curves` has dashes for them.
    if algorithm.unit == "step" or lines > len(OKABE_ITO):
        return plotting.curves(result, metric)
    panels = [metric, *_BESIDE]
    panels = [n for n in panels if n in result and (not metrics or n in metrics)] or [metric]
    words = {n: textwrap.fill(result[n].attrs.get("long_name", n), _WIDTH) for n in panels}
    return plotting.banded_curves(_by_label(result[panels], swept), words)


def _finite(variable) -> bool:
    import numpy as np

    return bool(np.isfinite(variable.values).any())


def _by_label(result, swept: list[str]):
    """A result for every combination of what was swept, or the one result."""
    if not swept:
        return result
    from fedjax_rl.plotting import formats

    columns = []
    for dim in swept:
        values = result[dim].values.tolist()
        tags = formats.tags([dim], [[value] for value in values])
        words = [v if isinstance(v, str) else tag for v, tag in zip(values, tags, strict=True)]
        columns.append(formats.numbered(words))
    labels = [", ".join(words) for words in itertools.product(*columns)]
    places = itertools.product(*(range(result.sizes[d]) for d in swept))
    return {
        label: result.isel(dict(zip(swept, place, strict=True)))
        for label, place in zip(labels, places, strict=True)
    }
