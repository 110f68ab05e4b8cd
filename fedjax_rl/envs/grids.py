"""Grid worlds with exact tables: Simple Grid, Windy Grid and Frozen Lake.

The first two follow Gunn, "Communication Efficient Distributed Reinforcement Learning" (report,
University of Oxford, 2023), sections on the environments; what it leaves open is said where it is
decided. Frozen Lake is that of Gymnasium (``gymnasium/envs/toy_text/frozen_lake.py``, the maps
"4x4" and "8x8" included); Gymnasium ships no map of 5 by 5, so that one is ours.

Axis letters: ``S`` states (row by row), ``U`` actions, ``B`` outcomes of a step at most.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.tabular import TabularMDP, check_size, tabular_mdp
from fedjax_rl.envs.task import DISCOUNT, Discrete, Task
from fedjax_rl.names import check_known

MAPS = {
    "5x5": ("SFFFF", "FHFHF", "FFFHF", "HFFFF", "FHFFG"),
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}

# Steps as (rows, columns).
_LEFT, _RIGHT, _UP, _DOWN, _STAY = (0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GridWorld:
    """A grid world as a pytree: the exact MDP, and the same numbers in the form that is sampled.

    Attributes:
      mdp: float64 tables; terminal states are left by no action and give reward 0, so that the
        exact solvers apply as they are.
      terminal: [S] bool, where an episode ends.
      next_state: [S, U, B] int32, the states that a step can lead to.
      probability: [S, U, B] float64, of each; 0 where there are fewer than B.
      reward: [S, U, B] float64, with each.
      rows: of the grid; S = rows * columns.
      columns: of the grid.
    """

    mdp: TabularMDP
    terminal: chex.Array
    next_state: chex.Array
    probability: chex.Array
    reward: chex.Array
    rows: int = dataclasses.field(metadata={"static": True})
    columns: int = dataclasses.field(metadata={"static": True})

    @property
    def num_states(self) -> int:
        """S, the number of cells."""
        return self.rows * self.columns

    @property
    def num_actions(self) -> int:
        """U, the number of actions."""
        return self.mdp.num_actions

    def with_discount(self, discount: float) -> "GridWorld":
        """Returns the same world, its MDP with another discount in [0, 1].

        An exact solver needs one below 1, as everywhere.
        """
        discount = np.full_like(self.mdp.discount, discount)
        return dataclasses.replace(self, mdp=self.mdp.replace(discount=discount))


@dataclasses.dataclass(frozen=True)
class GridEnv:
    """A grid world behind the environment protocol; ``params`` is a `GridWorld`.

    The observation is the state, an int32 scalar. Both functions are for one agent.
    """

    def reset(self, key: chex.PRNGKey, params: GridWorld) -> tuple[chex.Array, chex.Array]:
        """Returns ``(obs, state)``, both the initial state; the key is not needed."""
        del key
        state = jnp.asarray(params.mdp.initial_state, jnp.int32)
        return state, state

    def step(
        self, key: chex.PRNGKey, state: chex.Array, action: chex.Array, params: GridWorld
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Draws one of at most B outcomes.

        Args:
          key: consumed, one uniform variate; unused where B is 1.
          state: [] integer.
          action: [] integer.
          params: one grid world.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the next state twice, the reward
          [] float32 (float64 where that is enabled), whether the next state is terminal, False,
          an empty dictionary. A step in a terminal state stays there with reward 0.
        """
        row = jnp.asarray(params.probability)[state, action]
        outcome = jnp.zeros((), jnp.int32)
        if row.shape[0] > 1:
            # The distribution function is inverted at a level in (0, total]: an outcome of
            # probability zero is never drawn, even where rounding leaves the total short of one.
            cdf = [row[0]]
            for b in range(1, row.shape[0]):
                cdf.append(cdf[-1] + row[b])
            level = cdf[-1] * (1 - jax.random.uniform(key, dtype=row.dtype))
            for mass in cdf[:-1]:
                outcome += (mass < level).astype(jnp.int32)
        next_state = jnp.asarray(params.next_state)[state, action, outcome]
        reward = jnp.asarray(params.reward)[state, action, outcome]
        terminated = jnp.asarray(params.terminal)[next_state]
        return next_state, next_state, reward, terminated, jnp.zeros((), bool), {}


@fields.checked(
    reward=fields.reals("[S]"),
    shape=fields.sizes(length=2),
    start=fields.whole(0),
    discount=DISCOUNT,
)
def grid_world(
    outcomes: Sequence[tuple[float, chex.ArrayNumpy]],
    reward: chex.ArrayNumpy,
    terminal: chex.ArrayNumpy,
    shape: tuple[int, int],
    start: int = 0,
    discount: float = 0.9,
) -> GridWorld:
    """Builds the tables of a grid world.

    Args:
      outcomes: what a step may do, as pairs of a probability and the cells [S, U, 2] (row and
        column) where it leads, from every state by every action. The probabilities sum to one.
      reward: [S], of entering a state.
      terminal: [S] bool.
      shape: rows and columns.
      start: initial state.
      discount: in [0, 1].

    Returns:
      A `GridWorld`; B is the largest number of different next states.

    Raises:
      ValueError: If the probabilities do not sum to one, or as `tabular_mdp`.
    """
    rows, columns = shape
    check_size("shape", shape, rows * columns, rows * columns)
    outcomes = _outcomes(outcomes, rows, columns)
    terminal = _of_states("terminal", terminal, rows * columns, "bools", "b").astype(bool)
    reward = _of_states("reward", reward, rows * columns, "finite numbers", "iufb")
    num_states, num_actions = rows * columns, np.shape(outcomes[0][1])[1]
    if start >= num_states:
        raise ValueError(f"start is {start}; allowed: from 0 to {num_states - 1}")
    transition = np.zeros((num_states, num_actions, num_states))
    states, actions = np.ogrid[:num_states, :num_actions]
    for probability, cells in outcomes:
        np.add.at(
            transition, (states, actions, cells[..., 0] * columns + cells[..., 1]), probability
        )
    transition[terminal] = np.eye(num_states)[terminal][:, None]
    entering = np.where(terminal[:, None], 0.0, np.asarray(reward, np.float64))[:, None]
    mdp = tabular_mdp(transition, entering, 0.0, start)

    possible = transition > 0
    # A stable sort puts the possible next states first, in their order.
    width = possible.sum(-1).max()
    next_state = np.argsort(~possible, axis=-1, kind="stable")[..., :width]
    probability = np.take_along_axis(transition, next_state, axis=-1)
    drawn = np.take_along_axis(np.broadcast_to(entering, transition.shape), next_state, axis=-1)
    world = GridWorld(
        mdp=mdp,
        terminal=terminal,
        next_state=next_state.astype(np.int32),
        probability=probability,
        reward=np.where(probability > 0, drawn, 0.0),
        rows=rows,
        columns=columns,
    )
    return world.with_discount(discount)


def _of_states(name: str, values: Any, num_states: int, text: str, kinds: str) -> np.ndarray:
    """One value for each state as an array [S], after checking it."""
    try:
        array = np.asarray(values)
    except Exception:  # a ragged sequence, or no array at all
        array = np.empty(())
    if array.shape != (num_states,) or array.dtype.kind not in kinds:
        raise ValueError(
            f"{name} is {fields.brief(values)}; allowed: {text} [{num_states}], one for each cell"
        )
    return array


def _outcomes(outcomes: Any, rows: int, columns: int) -> list[tuple[float, np.ndarray]]:
    """What a step may do, after checking it: pairs of a probability and cells [S, U, 2]."""
    text = f"pairs of a probability and cells [{rows * columns}, U, 2] inside the grid"
    try:
        pairs = [(probability, np.asarray(cells)) for probability, cells in outcomes]
        fine = bool(pairs)
        for probability, cells in pairs:
            fields.check("the probability", probability, fields.number(0, 1, single=False))
            shape = (rows * columns, max(1, pairs[0][1].shape[1]), 2)
            fine &= cells.shape == shape and cells.dtype.kind in "iu"
            fine &= bool(np.all((cells >= 0) & (cells < [rows, columns])))
    except Exception:  # whatever is handed in as pairs
        fine = False
    if not fine:
        raise ValueError(f"outcomes is {fields.brief(outcomes)}; allowed: {text}")
    total = sum(probability for probability, _ in pairs)
    if not abs(total - 1) <= 1e-6:
        raise ValueError(f"outcomes has probabilities of sum {total}; allowed: 1")
    return pairs


ENCODINGS = ("rc", "onehot", "index")
_SIZE = fields.whole(2)


@fields.checked(size=_SIZE, discount=DISCOUNT, max_steps=fields.COUNT)
def simple_grid(
    size: int = 5, encoding: str = "rc", discount: float = 0.9, max_steps: int = 100
) -> Task:
    """An empty square: from the top left to the bottom right cell, -1 for every step before.

    Actions are 0 left, 1 right, 2 up, 3 down, 4 stay; a wall stops a move. The step that enters
    the goal gives 0. Discount and length are ours, Gunn (2023) gives none.

    Args:
      size: rows and columns, at least 2.
      encoding: "rc" (row and column in [0, 1]), "onehot" or "index" (the raw number, [1]).
      discount: in [0, 1].
      max_steps: T, at least 1.

    Raises:
      ValueError: If an argument is out of its range.
    """
    return _open_grid("simple-grid", size, 0.0, "once", encoding, discount, max_steps, {})


@fields.checked(
    size=_SIZE,
    wind=fields.number(0, 1, follows=False),
    clip=fields.word(("once", "twice")),
    discount=DISCOUNT,
    max_steps=fields.COUNT,
)
def windy_grid(
    size: int = 5,
    wind: float = 0.3,
    clip: str = "once",
    encoding: str = "rc",
    discount: float = 0.9,
    max_steps: int = 100,
) -> Task:
    """A simple grid with wind: every step is pushed up and pushed left, each with some chance.

    The two pushes are independent of each other, and only the cell where the step ends counts.
    Whether a wall stops the sum or each part is open in Gunn (2023).

    Args:
      size: rows and columns, at least 2.
      wind: probability of a push, in [0, 1].
      clip: "once", the sum of the action and the pushes is kept inside; "twice", the action is,
        and then the pushes are.
      encoding: as of `simple_grid`.
      discount: in [0, 1].
      max_steps: T, at least 1.

    Raises:
      ValueError: If an argument is out of its range.
    """
    own = {"wind": wind, "clip": clip}
    return _open_grid("windy-grid", size, wind, clip, encoding, discount, max_steps, own)


@fields.checked(slippery=fields.switch(), discount=DISCOUNT, max_steps=fields.COUNT.or_none())
def frozen_lake(
    map: str | Sequence[str] = "5x5",
    slippery: bool = True,
    encoding: str = "rc",
    discount: float = 0.9,
    max_steps: int | None = None,
) -> Task:
    """Frozen Lake of Gymnasium: reach G from S over ice, holes end the episode; 1 at the goal.

    Actions are 0 left, 1 down, 2 right, 3 up. On slippery ice the action before, itself and the
    action after, in that circle, are taken with probability 1/3 each.

    Args:
      map: "5x5", "4x4", "8x8", or rows of the letters S (start, one), F (ice), H (hole), G (goal).
      slippery: False does what the action says.
      encoding: as of `simple_grid`.
      discount: in [0, 1].
      max_steps: T, at least 1; None is 100, and 200 for a map of 64 cells or more (Gymnasium's
        100 for its map of 4 by 4 and 200 for that of 8 by 8).

    Raises:
      ValueError: If the map is unknown or no map, or an argument is out of its range.
    """
    letters = _letters(map)
    if max_steps is None:
        max_steps = 200 if letters.size >= 64 else 100
    check_size("map", f"of {letters.size} cells", letters.size, 4, letters.size)
    moves = np.array([_LEFT, _DOWN, _RIGHT, _UP])
    cells = _cells(letters.shape)
    turns = (-1, 0, 1) if slippery else (0,)
    outcomes = [
        (1 / len(turns), _inside(cells + moves[(np.arange(4) + turn) % 4], letters.shape))
        for turn in turns
    ]
    goal = letters.ravel() == "G"
    world = grid_world(
        outcomes,
        reward=goal.astype(np.float64),
        terminal=goal | (letters.ravel() == "H"),
        shape=letters.shape,
        start=int(np.argmax(letters.ravel() == "S")),
        discount=discount,
    )
    own = {"map": map if isinstance(map, str) else tuple(map), "slippery": slippery}
    return _task("frozen-lake", world, encoding, discount, max_steps, own)


def _open_grid(
    name: str,
    size: int,
    wind: float,
    clip: str,
    encoding: str,
    discount: float,
    max_steps: int,
    own: dict[str, Any],
) -> Task:
    """A square without obstacles, with wind or, where that is 0, without."""
    check_known(encoding, ENCODINGS, "encoding of a grid")
    check_size("size", size, size**2, 5, size**2)
    shape = (size, size)
    cells = _cells(shape) + np.array([_LEFT, _RIGHT, _UP, _DOWN, _STAY])
    if clip == "twice":
        cells = _inside(cells, shape)
    outcomes = []
    for up, up_mass in ((_STAY, 1 - wind), (_UP, wind)):
        for left, left_mass in ((_STAY, 1 - wind), (_LEFT, wind)):
            push = np.add(up, left)
            outcomes.append((up_mass * left_mass, _inside(cells + push, shape)))
    goal = np.arange(size**2) == size**2 - 1
    world = grid_world(outcomes, np.where(goal, 0.0, -1.0), goal, shape, 0, discount)
    return _task(name, world, encoding, discount, max_steps, {"size": size, **own})


def _task(
    name: str,
    world: GridWorld,
    encoding: str,
    discount: float,
    max_steps: int,
    own: dict[str, Any],
) -> Task:
    """The task of a grid world; its behaviour is the last cell, as row and column in [0, 1]."""
    size, encode = _encoder(encoding, world.rows, world.columns)
    options = {**own, "encoding": encoding, "discount": discount, "max_steps": max_steps}
    return Task(
        name=name,
        env=GridEnv(),
        params=world,
        observation_size=size,
        action=Discrete(world.num_actions),
        max_steps=max_steps,
        discount=discount,
        encode=encode,
        trace=_encoder("rc", world.rows, world.columns)[1],
        summarise=lambda last, mean, steps: last,
        behaviour_size=2,
        grid=world,
        options=tuple(sorted(options.items())),
    )


def _encoder(encoding: str, rows: int, columns: int) -> tuple[int, Callable]:
    """Returns D and the function from a state [] int32 to float32 [D]."""
    check_known(encoding, ENCODINGS, "encoding of a grid")
    largest = np.array([max(rows - 1, 1), max(columns - 1, 1)], np.float32)

    def rc(state: chex.Array) -> chex.Array:
        return jnp.stack([state // columns, state % columns]).astype(jnp.float32) / largest

    def onehot(state: chex.Array) -> chex.Array:
        return jax.nn.one_hot(state, rows * columns, dtype=jnp.float32)

    def index(state: chex.Array) -> chex.Array:
        return jnp.asarray(state, jnp.float32)[None]

    return {"rc": (2, rc), "onehot": (rows * columns, onehot), "index": (1, index)}[encoding]


def _cells(shape: tuple[int, int]) -> np.ndarray:
    """Returns [S, 1, 2], the row and the column of every state."""
    return np.indices(shape).reshape(2, -1).T[:, None]


def _inside(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Keeps cells [..., 2] inside the grid."""
    return np.clip(cells, 0, np.array(shape) - 1)


def _letters(map: str | Sequence[str]) -> np.ndarray:
    """Returns a map as letters [rows, columns], after checking it."""
    if isinstance(map, str):
        check_known(map, MAPS, "map of frozen-lake")
        map = MAPS[map]
    plain = isinstance(map, list | tuple) and all(isinstance(row, str) for row in map)
    if not plain:
        raise ValueError(
            f"map is {fields.brief(map)}; allowed: {', '.join(MAPS)}, or rows of the letters S, "
            "F, H and G"
        )
    lengths = {len(row) for row in map}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"map has rows of lengths {sorted(lengths)}; allowed: one length above 0")
    letters = np.array([list(row) for row in map])
    unknown = sorted(set(letters.ravel().tolist()) - set("SFHG"))
    if unknown:
        raise ValueError(f"map has the letters {', '.join(unknown)}; allowed: S, F, H and G")
    starts, goals = (int(np.sum(letters == letter)) for letter in "SG")
    if starts != 1:
        raise ValueError(f"map has {starts} cells S, the start; allowed: one")
    if not goals:
        raise ValueError("map has 0 cells G, the goal; allowed: at least one")
    return letters
