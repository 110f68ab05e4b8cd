"""A small MDP drawn: its optimal action values and its graph."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from numpy.typing import ArrayLike

from fedjax_rl.envs import TabularMDP
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.style import OKABE_ITO, PAGE, canvas, style
from fedjax_rl.plotting.tables import cells

SMALLEST = 1e-3  # probabilities below are not drawn
MOST_STATES, MOST_ACTIONS = 12, len(OKABE_ITO)
RADIUS = 0.2  # of a state, where the circle of states has radius 1


def mdp(mdp: TabularMDP, q: ArrayLike, *, axes: Sequence[Axes] | None = None) -> Figure:
    """The table of optimal action values and the graph of the MDP (Fig. 1 of Einhorn 2023).

    States lie on a circle. An arrow per transition, coloured by action, as wide as it is probable;
    those below 1e-3 are left out. A state's label holds the reward of arriving in it, where the
    reward depends on nothing else.

    Args:
        mdp: one MDP of at most 12 states and 7 actions.
        q: [S, U] values to show, e.g. `envs.optimal_q(mdp)`.
        axes: two, for the table and the graph; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: if it is a family of MDPs, too large to be drawn, or `q` has another shape.
    """
    transition, q = np.asarray(mdp.transition), np.asarray(q, dtype=np.float64)
    if transition.ndim != 3:
        raise ValueError(
            f"the MDP has a kernel of shape {transition.shape}; draw one MDP, [S, U, S]"
        )
    num_states, num_actions, _ = transition.shape
    if q.shape != (num_states, num_actions):
        raise ValueError(f"q has shape {q.shape}; it must be {(num_states, num_actions)}")
    if num_states > MOST_STATES or num_actions > MOST_ACTIONS:
        raise ValueError(
            f"{num_states} states and {num_actions} actions are too many for a graph; at most "
            f"{MOST_STATES} and {MOST_ACTIONS}"
        )
    with style():
        ratio = {"width_ratios": [1, 1.9]} if axes is None else {}
        figure, (left, right) = canvas(axes, (PAGE, 3.9), 1, 2, **ratio)
        cells(
            left,
            q,
            [formats.number(s) for s in range(num_states)],
            [formats.number(a) for a in range(num_actions)],
        )
        left.set_xlabel("action")
        left.set_ylabel("state")
        left.set_title("action values q*")
        _graph(right, transition, np.asarray(mdp.reward))
        right.set_title("transitions")
    return figure


def _graph(axis, transition, reward):
    num_states, num_actions, _ = transition.shape
    # The first state at the top, then clockwise.
    angle = np.pi / 2 - 2 * np.pi * np.arange(num_states) / num_states
    place = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    radius = min(RADIUS, 1.2 / num_states)
    for s, action, after in np.argwhere(transition >= SMALLEST):
        p = transition[s, action, after]
        options = {"color": OKABE_ITO[action], "linewidth": 0.4 + 2.1 * p, "alpha": 0.9}
        # Actions fan out; both directions of a pair bend to their own side.
        spread = action - (num_actions - 1) / 2
        if s == after:
            _loop(axis, place[s], angle[s] + 0.7 * spread, radius, options)
        else:
            _arrow(axis, place[s], place[after], 0.24 + 0.13 * spread, radius, options)
    arrival = reward.shape[:-1] == (1, 1)
    gain = np.broadcast_to(reward[0, 0], num_states)
    for s, (x, y) in enumerate(place):
        axis.add_patch(
            Circle((x, y), radius, facecolor="white", edgecolor="#222222", linewidth=0.9, zorder=5)
        )
        text = f"{s}\nr {gain[s]:.2f}".replace("-", "\u2212") if arrival else f"{s}"
        axis.text(x, y, text, ha="center", va="center", fontsize=6.5 if arrival else 8, zorder=6)
    axis.set_aspect("equal")
    axis.set_axis_off()
    reach = 1 + 2.3 * radius
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    handles = [
        Line2D([], [], color=OKABE_ITO[a], linewidth=1.8, label=f"action {a}")
        for a in range(num_actions)
    ]
    handles += [
        Line2D([], [], color="#999999", linewidth=0.4 + 2.1 * p, label=f"P = {p:g}")
        for p in (0.1, 0.5, 1.0)
    ]
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(0.98, 0.5))


def _arrow(axis, start, end, bend, radius, options):
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=7,
            # Shrinking by patches, so that the tip meets the rim at any size of the figure.
            patchA=Circle(start, radius, transform=axis.transData),
            patchB=Circle(end, radius, transform=axis.transData),
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            **options,
        )
    )


def _loop(axis, centre, angle, radius, options):
    """A small circle that leaves the state outwards at `angle`, with a head where it comes back."""
    size = 0.42 * radius
    away = np.array([np.cos(angle), np.sin(angle)])
    middle = centre + (radius + 0.8 * size) * away
    turn = np.degrees(angle)
    axis.add_patch(
        Wedge(
            middle,
            size,
            turn - 140,
            turn + 140,
            width=0,
            fill=False,
            edgecolor=options["color"],
            linewidth=options["linewidth"],
            alpha=options["alpha"],
        )
    )
    end = middle + size * np.array([np.cos(angle + 2.44), np.sin(angle + 2.44)])
    before = middle + size * np.array([np.cos(angle + 2.1), np.sin(angle + 2.1)])
    axis.add_patch(
        FancyArrowPatch(
            before,
            end,
            arrowstyle="-|>",
            mutation_scale=6,
            shrinkA=0,
            shrinkB=0,
            **(options | {"linewidth": 0.5}),
        )
    )
