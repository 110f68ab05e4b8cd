"""Linear features of the states of a grid world, as tables on the host."""

from __future__ import annotations

import numpy as np

from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.names import check_known

FEATURES = ("onehot", "rbf")

# Centres by row and by column, and the width in cells of a world of five rows.
_CENTRES, _WIDTH = (4, 3), 1.5


def features(world: GridWorld, kind: str, per_action: bool = False) -> np.ndarray:
    """The features of every state, float64 [S, d], or of every state and action [S U, d].

    "onehot" has d = S. "rbf" are 4 x 3 Gaussians, their centres spread evenly over rows and
    columns, of width 1.5 cells where there are five rows; the vector of a state is divided by its
    Euclidean norm; d = 12. Every action has its own where actions are told apart: d is U times as
    large.

    Args:
      world: the grid.
      kind: of `FEATURES`.
      per_action: whether actions have features.

    Returns:
      The table; nothing is zeroed where an episode ends.

    Raises:
      ValueError: an unknown kind.
    """
    check_known(kind, FEATURES, "features")
    if kind == "onehot":
        table = np.eye(world.num_states)
    else:
        cells = np.indices((world.rows, world.columns)).reshape(2, -1).T
        rows = np.linspace(0, world.rows - 1, _CENTRES[0])
        columns = np.linspace(0, world.columns - 1, _CENTRES[1])
        centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        width = _WIDTH * max((world.rows - 1) / 4, 0.5)
        distances = np.sum((cells[:, None] - centres) ** 2, axis=-1)
        table = np.exp(-distances / (2 * width**2))
        # Norms of at most 1, as analyses of TD learning assume them.
        table = table / np.linalg.norm(table, axis=1, keepdims=True)
    return np.kron(table, np.eye(world.num_actions)) if per_action else table
