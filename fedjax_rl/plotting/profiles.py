"""Performance profiles: of how many runs, over all tasks, the score lies above any value."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fedjax_rl.analysis import FEWEST, performance_profile
from fedjax_rl.plotting.panel import styles_of
from fedjax_rl.plotting.style import COLUMN, OKABE_ITO, canvas, style


def performance_profiles(
    scores: Mapping[str, ArrayLike | xr.DataArray],
    thresholds: ArrayLike | None = None,
    *,
    score: str = "score",
    confidence: float = 0.95,
    axes: Axes | None = None,
) -> Figure:
    """A falling line per algorithm with its stratified bootstrap band (arXiv 2108.13264, Fig. 5).

    A line that lies above another everywhere is better in every quantile, where more is better.
    The legend says how many runs a line rests on; of fewer than three there is no band.

    Args:
        scores: label -> [R], [R, M] or labelled, as `analysis.performance_profile` takes them.
        thresholds: [J], where shares are computed; over all scores by default.
        score: words of the horizontal axis.
        confidence: level of the bands, of each threshold by itself.
        axes: where to draw; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: without scores, for more algorithms than colours, or as `performance_profile`.

    Examples:
        >>> import numpy as np
        >>> from fedjax_rl import plotting
        >>> scores = np.random.default_rng(0).normal(size=(5, 3))
        >>> figure = plotting.performance_profiles({"a": scores, "b": scores[:2] + 1})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['a, 5 runs', 'b, 2 runs']
    """
    if not scores:
        raise ValueError("scores is empty; allowed: at least one algorithm")
    places = styles_of(list(scores), None)
    if thresholds is None:
        ends = [f(np.asarray(own, np.float64)) for own in scores.values() for f in (np.min, np.max)]
        low, high = min(ends), max(ends)
        room = 0.03 * ((high - low) or 1.0)
        thresholds = np.linspace(low - room, high + room, 201)
    levels = np.asarray(thresholds, np.float64)
    with style():
        figure, (axis,) = canvas(axes, (COLUMN * 1.35, 2.9))
        bands = False
        for label, own in scores.items():
            found = performance_profile(own, levels, confidence=confidence)
            colour = OKABE_ITO[places[label]]
            text = f"{label}, 1 run" if found.runs == 1 else f"{label}, {found.runs} runs"
            axis.step(levels, found.value, where="post", color=colour, label=text)
            if found.runs >= FEWEST:
                bands = True
                shape = {"color": colour, "alpha": 0.16, "linewidth": 0, "step": "post"}
                axis.fill_between(levels, found.low, found.high, **shape)
        axis.set_xlabel(f"{score} τ")
        axis.set_ylabel("share of runs above τ")
        axis.set_ylim(-0.02, 1.02)
        if bands:
            axis.set_title(f"with {100 * confidence:g} % stratified bootstrap intervals")
        axis.legend()
    return figure
