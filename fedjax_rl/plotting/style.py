"""How the pictures look, and how they reach the disk."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure

from fedjax_rl.saving.results import place, write

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which white paper swallows.
# Consecutive colours also differ in lightness.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = (0, (4, 2))  # of a dashed line, in widths of it
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
GREY = "#6B6B6B"
GREEN = "#009E73"
RED = "#D55E00"
SEQUENTIAL = "viridis"
MAP_END = 0.9  # the last tenth of viridis is too pale for lines and points on white

COLUMN, PAGE = 3.4, 7.0  # inches: widths of one column and of two
DPI = 200

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9.5,
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.prop_cycle": mpl.cycler(color=OKABE_ITO),
    "axes.formatter.use_mathtext": True,
    "grid.linewidth": 0.4,
    "grid.color": "#E4E4E4",
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.7,
    "ytick.minor.size": 1.7,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.3,
    "legend.handlelength": 1.6,
    "hatch.linewidth": 0.4,
    "image.cmap": SEQUENTIAL,
    "savefig.dpi": DPI,
    "svg.fonttype": "none",  # letters stay letters: searchable, and small files
    "svg.hashsalt": "fedjax_rl",  # identifiers inside the file do not depend on the process
}


class Picture(Figure):
    """A matplotlib figure that keeps its style and shows itself in a notebook.

    It belongs to no window system and to no global state: nothing has to be closed.
    """

    def draw(self, renderer):
        """Draws in our style: matplotlib makes ticks only now, from the settings of now."""
        with style():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return _render(self, "png")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The settings of our pictures, for the length of a `with` block."""
    with mpl.rc_context():
        mpl.rcdefaults()  # the user's own settings would make files differ between machines
        mpl.rcParams.update(_SETTINGS)
        yield


def save(figure: Figure, stem: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes a figure as `stem.png` (200 dpi) and `stem.svg`.

    Equal figures give equal bytes. Both are drawn before either is written, and each file is
    replaced in one step: on failure the directory is as it was before, or has a whole file.

    Args:
        figure: any matplotlib figure.
        stem: path without the ending; its directory must exist.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        OSError: naming the file, when it cannot be written.
    """
    stem = place(stem)
    # not with_suffix, which would cut "alpha_0.002" short
    paths = tuple(stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    data = [_render(figure, "png")]
    # Where everything lies takes as long to find as to draw, and is known now.
    engine = figure.get_layout_engine()
    try:
        figure.set_layout_engine("none")
        data.append(_render(figure, "svg", laid_out=True))
    finally:
        figure.set_layout_engine(engine)
    for path, content in zip(paths, data, strict=True):
        write(path, content)
    return paths


def _render(figure: Figure, kind: str, *, laid_out: bool = False) -> bytes:
    buffer = io.BytesIO()
    # The date would change at every call, the version of matplotlib with every machine.
    unwanted = {"png": ("Software",), "svg": ("Date", "Creator")}[kind]
    with style():
        # The layout is an iteration that starts from the last one: start it anew, so that a
        # figure already shown is saved like one that was not.
        for axis in () if laid_out else figure.axes:
            if axis.get_subplotspec() is not None:
                axis.set_subplotspec(axis.get_subplotspec())
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=dict.fromkeys(unwanted))
    return buffer.getvalue()


def canvas(
    axes, size: tuple[float, float], rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray]:
    """The axes to draw into, new ones unless given. Call inside `style()`.

    Args:
        axes: None, one Axes, or a sequence of `rows * columns` of them.
        size: width and height of a new figure in inches.
        rows: of new axes.
        columns: of new axes.
        **options: of `Figure.subplots`.

    Returns:
        The figure and the axes, flat.

    Raises:
        ValueError: if the number of axes is another one.
    """
    if axes is None:
        figure = Picture(figsize=size)
        return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()
    given = np.asarray([axes] if isinstance(axes, Axes) else axes, dtype=object).ravel()
    if len(given) != rows * columns:
        raise ValueError(f"axes has {len(given)} entries; this picture needs {rows * columns}")
    return given[0].get_figure(root=True), given


def colour_map() -> Colormap:
    """Perceptually uniform, for values with an order; its pale end is cut off."""
    full = mpl.colormaps[SEQUENTIAL]
    return mpl.colors.ListedColormap(full(np.linspace(0, MAP_END, 256)), name="sequential")


def colours(labels: Sequence) -> list:
    """One colour per label: sequential for three or more numbers, distinct otherwise."""
    numbers = all(isinstance(label, int | float | np.number) for label in labels)
    if len(labels) > len(OKABE_ITO) or (numbers and len(labels) > 2):
        full = mpl.colormaps[SEQUENTIAL]
        return [full(x) for x in np.linspace(0, MAP_END, len(labels))]
    return list(OKABE_ITO[: len(labels)])


def norm(values: np.ndarray) -> Normalize:
    """Logarithmic where all values are positive and span a factor of five, linear otherwise."""
    low, high = float(np.min(values)), float(np.max(values))
    if low > 0 and high / low >= 5:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1)
