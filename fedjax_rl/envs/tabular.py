"""Tabular Markov decision processes: the record and what it may hold.

Axis letters: ``S`` states, ``U`` actions, ``S'`` next states, ``A`` agents. ``[...]`` is an
optional leading agent axis: a family of MDPs is one `TabularMDP` whose leaves all carry it, so that
``jax.vmap`` over the record is a loop over agents. Agent i of a family is
``jax.tree.map(lambda leaf: leaf[i], mdps)``.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import numpy as np

from fedjax_rl import fields
from fedjax_rl.names import brief

# Of episodes, which end, so that they need none.
DISCOUNT = fields.number(0, 1, follows=False)
_ROW_SUM_TOLERANCE = 1e-6  # admits kernels that were stored in float32
_ARRAY = fields.anything(
    "an array of real numbers",
    lambda value: (
        isinstance(value, np.ndarray | jax.Array) and fields.real_array(value) is not None
    ),
)
# Entries of a table, 2 GiB in float64: beyond, a slip of the keyboard takes the machine's memory.
_LARGEST_TABLE = 2**28


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP, or a family of them, as a pytree.

    Build one with `tabular_mdp`, which validates. The record itself neither checks nor converts:
    its leaves may be tracers or anything else that ``jax.tree`` puts there.

      >>> import jax, fedjax_rl as frl
      >>> family = frl.envs.dirichlet_mdps(4)
      >>> second = jax.tree.map(lambda leaf: leaf[1], family)
      >>> family.transition.shape, second.transition.shape, second.num_states
      ((4, 5, 3, 5), (5, 3, 5), 5)

    Attributes:
      transition: [..., S, U, S'] probability of the next state; float64 on the host.
      reward: [..., S or 1, U or 1, S' or 1]; an extent of 1 says that the reward does not depend
        on that index. A reward for the state arrived in is [..., 1, 1, S'].
      discount: [...] in [0, 1).
      initial_state: [...] int32 in [0, S).
      initial_distribution: [..., S] probability of the state in which an episode begins; None,
        the default, says that it always begins in ``initial_state``.
    """

    transition: chex.Array
    reward: chex.Array
    discount: chex.Array
    initial_state: chex.Array
    initial_distribution: chex.Array | None = None

    @property
    def num_states(self) -> int:
        """S, the number of states."""
        return self.transition.shape[-1]

    @property
    def num_actions(self) -> int:
        """U, the number of actions."""
        return self.transition.shape[-2]

    def replace(self, **changes: Any) -> "TabularMDP":
        """Returns a copy with some leaves exchanged, unchecked (they may be traced)."""
        return dataclasses.replace(self, **changes)


@fields.checked(
    transition=fields.reals("[..., S, U, S]"),
    reward=fields.reals("[S], [U, S] or [..., S or 1, U or 1, S or 1]"),
    discount=fields.reals("in [0, 1)"),
    initial_state=fields.reals("that are whole, from 0 to S - 1"),
    initial_distribution=fields.reals("[..., S]").or_none(),
)
def tabular_mdp(
    transition: chex.ArrayNumpy,
    reward: chex.ArrayNumpy,
    discount: chex.ArrayNumpy | float,
    initial_state: chex.ArrayNumpy | int = 0,
    initial_distribution: chex.ArrayNumpy | None = None,
) -> TabularMDP:
    """Validates the parts of an MDP and puts them together in float64 and int32.

    Args:
      transition: [..., S, U, S'] rows that sum to one.
      reward: [S'] by next state, [U, S'] by action and next state, or the full form
        [..., S or 1, U or 1, S' or 1]. A reward per state and action is ``reward[:, :, None]``.
      discount: [...] or a scalar that the whole family shares, in [0, 1).
      initial_state: [...] or a scalar, integer in [0, S).
      initial_distribution: None, or [..., S] or an [S] that the whole family shares, sums of one.
        Episodes then begin in a state drawn from it, whatever ``initial_state`` is.

    Returns:
      A `TabularMDP` whose leaves all have the leading axes of ``transition``.

    Raises:
      ValueError: If a part has a wrong shape or an inadmissible value.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> kernel = [[[0.9, 0.1], [0.2, 0.8]], [[0.0, 1.0], [0.5, 0.5]]]
      >>> mdp = frl.envs.tabular_mdp(kernel, reward=[0.0, 1.0], discount=0.9)
      >>> mdp.num_states, mdp.num_actions, mdp.reward.shape
      (2, 2, (1, 1, 2))
      >>> frl.envs.tabular_mdp(kernel, [0.0, 1.0], discount=1.0)
      Traceback (most recent call last):
      ValueError: discount is 1.0; allowed: in [0, 1)
    """
    transition = np.asarray(transition, np.float64)
    _check_kernel_shape("", transition.shape)
    *batch, num_states, _, _ = transition.shape
    reward = _full_reward(np.asarray(reward, np.float64), transition.shape)
    discount = broadcast("discount", np.asarray(discount, np.float64), batch)
    initial_state = broadcast("initial_state", np.asarray(initial_state), batch)
    if initial_distribution is not None:
        initial_distribution = np.asarray(initial_distribution, np.float64)
        whole = (*batch, num_states)
        if initial_distribution.shape not in (whole, whole[-1:]):
            raise ValueError(
                f"initial_distribution has shape {initial_distribution.shape}; allowed: "
                f"{whole[-1:]} or {whole}"
            )
        initial_distribution = np.broadcast_to(initial_distribution, whole).copy()
    mdp = TabularMDP(transition, reward, discount, initial_state, initial_distribution)
    check_mdp(mdp, "")
    return mdp.replace(initial_state=initial_state.astype(np.int32))


def check_mdp(mdp: Any, name: str = "mdp", *, undiscounted: bool = False) -> None:
    """Checks an MDP, or a family, that somebody may have put together by hand.

    Leaves that are traced are passed over, except for their shapes.

    Args:
      mdp: anything.
      name: of what was set to it, for the message; "" for the parts alone.
      undiscounted: whether a discount of 1 is allowed, as for episodes that end.

    Raises:
      ValueError: no `TabularMDP`, a part of a wrong shape or an inadmissible value.
    """
    if not isinstance(mdp, TabularMDP):
        raise ValueError(f"{name} is {brief(mdp)}; allowed: a TabularMDP")
    prefix = f"{name}." if name else ""
    parts = {field.name: getattr(mdp, field.name) for field in dataclasses.fields(mdp)}
    for part, value in parts.items():
        if fields.is_concrete(value) and not (value is None and part == "initial_distribution"):
            numbers = part in ("discount", "initial_state")
            fields.check(
                f"{prefix}{part}", value, fields.reals("in an array") if numbers else _ARRAY
            )
    _check_kernel_shape(prefix, np.shape(mdp.transition))
    *batch, num_states, num_actions, _ = np.shape(mdp.transition)
    extents = np.shape(mdp.reward)
    table = (num_states, num_actions, num_states)
    fits = all(own in (1, whole) for own, whole in zip(extents[-3:], table, strict=False))
    if len(extents) != len(batch) + 3 or [*extents[:-3]] != batch or not fits:
        raise ValueError(
            f"{prefix}reward has shape {extents}; allowed with transition {(*batch, *table)}: "
            "[..., S or 1, U or 1, S' or 1]"
        )
    for part, whole in (
        ("discount", tuple(batch)),
        ("initial_state", tuple(batch)),
        ("initial_distribution", (*batch, num_states)),
    ):
        if parts[part] is not None and np.shape(parts[part]) != whole:
            raise ValueError(
                f"{prefix}{part} has shape {np.shape(parts[part])}; allowed: {whole}, that of "
                "the transition"
            )
    known = {
        part: np.asarray(value)
        for part, value in parts.items()
        if value is not None and fields.is_concrete(value)
    }
    for part in ("transition", "initial_distribution"):
        if part in known:
            _check_rows(f"{prefix}{part}", known[part].astype(np.float64))
    if "reward" in known:
        size = np.abs(known["reward"].astype(np.float64))
        check_entries(
            size <= fields.LARGEST, f"{prefix}reward", known["reward"], "finite in float32"
        )
    if "discount" in known:
        discount = known["discount"].astype(np.float64)
        inside = (discount >= 0) & (discount <= 1 if undiscounted else discount < 1)
        text = "in [0, 1]" if undiscounted else "in [0, 1)"
        check_entries(inside, f"{prefix}discount", discount, text)
    if "initial_state" in known:
        state = known["initial_state"]
        if not np.issubdtype(state.dtype, np.integer):
            raise ValueError(
                f"{prefix}initial_state has dtype {state.dtype}; allowed: whole numbers"
            )
        inside = (state >= 0) & (state < num_states)
        check_entries(inside, f"{prefix}initial_state", state, f"from 0 to {num_states - 1}")


def _check_kernel_shape(prefix: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or shape[-1] != shape[-3] or 0 in shape:
        raise ValueError(f"{prefix}transition has shape {shape}; allowed: [..., S, U, S]")


def _check_rows(name: str, rows: np.ndarray) -> None:
    """Checks that rows are distributions."""
    check_entries(rows >= 0, name, rows, "at least 0")  # not so for nan
    total = rows.sum(-1)
    close = np.abs(total - 1) <= _ROW_SUM_TOLERANCE
    check_entries(close, f"the row sum of {name}", total, "1")


def check_size(what: str, value: Any, *extents: int) -> None:
    """Refuses a table of more entries than a slip of the keyboard should be able to allocate.

    Args:
      what: the argument that makes it so large.
      value: of the argument.
      *extents: of the table.

    Raises:
      ValueError: more than 2^28 entries, with their number.
    """
    entries = math.prod(int(extent) for extent in extents)
    if entries > _LARGEST_TABLE:
        raise ValueError(
            f"{what} is {value}, a table of {entries:.3g} entries; allowed: tables of at most "
            f"{_LARGEST_TABLE} entries"
        )


def initial_distribution(mdp: TabularMDP) -> np.ndarray:
    """Returns where an episode begins, [..., S]: a point mass where only a state is known."""
    if mdp.initial_distribution is not None:
        return np.asarray(mdp.initial_distribution, np.float64)
    return np.eye(mdp.num_states)[np.asarray(mdp.initial_state)]


def _full_reward(reward: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Brings a reward of any accepted rank to [..., S or 1, U or 1, S' or 1]."""
    full = reward
    if reward.ndim in (1, 2):  # [S'] and [U, S']
        full = reward.reshape((1,) * (3 - reward.ndim) + reward.shape)
    agrees = 3 <= full.ndim <= len(shape) and all(
        extent in (1, whole) for extent, whole in zip(full.shape[::-1], shape[::-1], strict=False)
    )
    if not agrees:
        raise ValueError(
            f"reward has shape {reward.shape}; allowed with transition {shape}: [S'], [U, S'] "
            "or [..., S or 1, U or 1, S' or 1]"
        )
    return np.broadcast_to(full, (*shape[:-3], *full.shape[-3:])).copy()


def broadcast(name: str, value: np.ndarray, batch: Sequence[int]) -> np.ndarray:
    """Repeats a scalar over the leading axes; a value per member is left as it is.

    Args:
      name: of the part, for messages.
      value: [] or [...].
      batch: the leading axes [...].

    Returns:
      A copy, [...].

    Raises:
      ValueError: another shape.
    """
    if value.shape not in ((), tuple(batch)):
        raise ValueError(
            f"{name} has shape {value.shape}; allowed: a number or {tuple(batch)}, the leading axes"
        )
    return np.broadcast_to(value, tuple(batch)).copy()


def check_entries(valid: chex.ArrayNumpy | bool, name: str, value: Any, allowed: str) -> None:
    """Refuses a value, quoting the first entry that is not valid.

    Args:
      valid: of the shape of the value, or [].
      name: of the value.
      value: an array or a number.
      allowed: in words.

    Raises:
      ValueError: with the place of the entry.
    """
    bad = np.argwhere(~np.asarray(valid))
    if len(bad):
        index = tuple(bad[0].tolist())
        where = str(list(index)) if index else ""
        raise ValueError(f"{name}{where} is {np.asarray(value)[index]}; allowed: {allowed}")
