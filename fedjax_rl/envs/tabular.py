"""Tabular Markov decision processes: the record, its generators and its environment.

Axis letters: ``S`` states, ``U`` actions, ``S'`` next states, ``A`` agents. ``[...]`` is an
optional leading agent axis: a family of MDPs is one `TabularMDP` whose leaves all carry it, so that
``jax.vmap`` over the record is a loop over agents. Agent i of a family is
``jax.tree.map(lambda leaf: leaf[i], mdps)``.

The generators run on the host in float64 with NumPy's own streams: the MDP of the linear speedup
paper is defined by one of them and cannot be drawn with ``jax.random``.
"""

import dataclasses
import importlib.resources
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.names import brief

_ROW_SUM_TOLERANCE = 1e-6  # admits kernels that were stored in float32
_ARRAY = fields.anything(
    "an array of real numbers",
    lambda value: (
        isinstance(value, np.ndarray | jax.Array) and fields.real_array(value) is not None
    ),
)
_UNROLLED = 32  # states up to which a row is read entry by entry
# Entries of a table, 2 GiB in float64: beyond, a slip of the keyboard takes the machine's memory.
_LARGEST_TABLE = 2**28
_REWARDS = ("normal_next_state", "exponential_next_state", "normal_action_next_state")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP, or a family of them, as a pytree.

    Build one with `tabular_mdp`, which validates. The record itself neither checks nor converts:
    its leaves may be tracers or anything else that ``jax.tree`` puts there.

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
    """
    transition = np.asarray(transition, np.float64)
    _check_kernel_shape("", transition.shape)
    *batch, num_states, _, _ = transition.shape
    reward = _full_reward(np.asarray(reward, np.float64), transition.shape)
    discount = _broadcast("discount", np.asarray(discount, np.float64), batch)
    initial_state = _broadcast("initial_state", np.asarray(initial_state), batch)
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
        _check(size <= fields.LARGEST, f"{prefix}reward", known["reward"], "finite in float32")
    if "discount" in known:
        discount = known["discount"].astype(np.float64)
        inside = (discount >= 0) & (discount <= 1 if undiscounted else discount < 1)
        text = "in [0, 1]" if undiscounted else "in [0, 1)"
        _check(inside, f"{prefix}discount", discount, text)
    if "initial_state" in known:
        state = known["initial_state"]
        if not np.issubdtype(state.dtype, np.integer):
            raise ValueError(
                f"{prefix}initial_state has dtype {state.dtype}; allowed: whole numbers"
            )
        inside = (state >= 0) & (state < num_states)
        _check(inside, f"{prefix}initial_state", state, f"from 0 to {num_states - 1}")


def _check_kernel_shape(prefix: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or shape[-1] != shape[-3] or 0 in shape:
        raise ValueError(f"{prefix}transition has shape {shape}; allowed: [..., S, U, S]")


def _check_rows(name: str, rows: np.ndarray) -> None:
    """Checks that rows are distributions."""
    _check(rows >= 0, name, rows, "at least 0")  # not so for nan
    total = rows.sum(-1)
    close = np.abs(total - 1) <= _ROW_SUM_TOLERANCE
    _check(close, f"the row sum of {name}", total, "1")


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


@fields.checked(
    seed=fields.SEED,
    num_states=fields.COUNT,
    num_actions=fields.COUNT,
    power=fields.number(0, follows=False, single=False),
    signed=fields.switch(),
    reward_scale=fields.number(0, follows=False),
    reward=fields.word(_REWARDS),
    discount=fields.number(0, 1, below=True, follows=False, single=False),
)
def random_mdp(
    seed: int = 0,
    num_states: int = 4,
    num_actions: int = 3,
    power: float = 15.0,
    signed: bool = True,
    reward_scale: float = 1.0,
    reward: str = "normal_next_state",
    discount: float = 0.6,
) -> TabularMDP:
    r"""Draws an MDP whose rows are the softmax of a power of normal variates.

    Einhorn, "Federated Reinforcement Learning Has Linear Speedup" (2023):

    .. math:: P(\cdot|s,a) = softmax(sign(z) |z|^p), \quad z \sim N(0, 1)^{S \times U \times S'}

    The higher the power p, the more the choice of action matters: rows tend to point masses and
    to ties. At odd integers the formula is ``z ** p``, and it keeps its sign at any other power.
    A power large enough to overflow float64 is refused with the kernel that it gives.

    Args:
      seed: of ``numpy.random.default_rng``; z is drawn first, in C order, then the reward.
      num_states: S, at least 1.
      num_actions: U, at least 1.
      power: p >= 0; 0 leaves the softmax of the signs.
      signed: False drops the sign of z.
      reward_scale: standard deviation of a normal reward, mean of an exponential one; >= 0.
      reward: "normal_next_state" or "exponential_next_state", both [1, 1, S'], or
        "normal_action_next_state", [1, U, S'].
      discount: in [0, 1).

    Returns:
      One MDP that starts in state 0.

    Raises:
      ValueError: If an argument is out of its range.
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((num_states, num_actions, num_states))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        logits = np.abs(z) ** power
        if signed:
            logits = np.sign(z) * logits
        # Powers reach 1e9 and more: without its maximum subtracted every row would overflow.
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    transition = weights / weights.sum(-1, keepdims=True)
    if not np.isfinite(transition).all():
        raise ValueError(f"power is {power}, of which a kernel is nan; allowed: less")

    extents = (num_actions, num_states) if "action" in reward else (num_states,)
    draw = rng.standard_exponential if reward.startswith("exponential") else rng.standard_normal
    return tabular_mdp(transition, reward_scale * draw(extents), discount)


def random_mdps(seeds: Iterable[int], **options: Any) -> TabularMDP:
    """Draws one `random_mdp` per seed and stacks them on a leading axis [A].

    Args:
      seeds: one per agent or per federation; entry i is ``random_mdp(seeds[i], **options)``.
      **options: of `random_mdp`.

    Returns:
      A family of MDPs with unrelated kernels and rewards.

    Raises:
      ValueError: If there is no seed, or an option is out of its range.
    """
    seeds = _listed("seeds", seeds, fields.SEED, "whole numbers from 0 to 4294967295")
    return stack_mdps([random_mdp(seed, **options) for seed in seeds])


def _listed(name: str, values: Any, each: fields.Allowed, text: str) -> list:
    """The values of a sequence, at least one, all of them checked."""
    try:
        listed = [] if isinstance(values, str | bytes | dict) else list(values)
    except Exception:  # no sequence, or one that fails
        listed = []
    if not listed:
        raise ValueError(f"{name} is {brief(values)}; allowed: a sequence of {text}")
    for place, value in enumerate(listed):
        fields.check(f"{name}[{place}]", value, each)
    return listed


def paper_mdp() -> TabularMDP:
    """Returns the MDP of Einhorn (2023): 4 states, 3 actions, discount 0.6, start in state 0.

    It is ``random_mdp(seed=3701)``, shipped as data because neither NumPy's stream nor the last
    digit of a power is promised for ever. Squared Frobenius norm of its optimal action values:
    13.731440581206957.
    """
    text = importlib.resources.files(__package__).joinpath("data", "paper_mdp.json").read_text()
    table = json.loads(text)
    return tabular_mdp(
        table["transition"], table["reward"], table["discount"], table["initial_state"]
    )


def stack_mdps(mdps: Sequence[TabularMDP]) -> TabularMDP:
    """Stacks MDPs of equal S and U on a new leading axis [A].

    Args:
      mdps: at least one; rewards of different extents are brought to their common one, and if one
        has an initial distribution, the initial states of the others are written as such.

    Returns:
      A family, entry i equal to ``mdps[i]``.

    Raises:
      ValueError: If there is none, or their shapes differ.
    """
    mdps = _listed("mdps", mdps, fields.instance(TabularMDP), "TabularMDPs, at least one")
    for place, mdp in enumerate(mdps):
        check_mdp(mdp, f"mdps[{place}]", undiscounted=True)
    shapes = {np.shape(mdp.transition) for mdp in mdps}
    if len(shapes) != 1:
        raise ValueError(
            f"mdps has kernels of shapes {sorted(shapes)}; allowed: the same number of states and "
            "actions for all"
        )
    extents = np.broadcast_shapes(*(np.shape(mdp.reward) for mdp in mdps))
    return TabularMDP(
        transition=np.stack([mdp.transition for mdp in mdps]),
        reward=np.stack([np.broadcast_to(mdp.reward, extents) for mdp in mdps]),
        discount=np.stack([mdp.discount for mdp in mdps]),
        initial_state=np.stack([mdp.initial_state for mdp in mdps]),
        initial_distribution=_stacked_distributions(mdps),
    )


_LEVEL = fields.reals("of at least 0, one or one for each agent")


@fields.checked(
    mdp=fields.instance(TabularMDP),
    num_agents=fields.COUNT,
    seed=fields.SEED,
    kernel=_LEVEL,
    reward=_LEVEL,
)
def perturbed_mdps(
    mdp: TabularMDP,
    num_agents: int,
    seed: int = 0,
    kernel: chex.ArrayNumpy | float = 0.0,
    reward: chex.ArrayNumpy | float = 0.0,
) -> TabularMDP:
    r"""Spreads a heterogeneous family around one MDP.

    .. math:: P_i = (1 - \kappa) P + \kappa P'_i, \qquad R_i = R + \rho \, \xi_i

    with P'_i uniform over all kernels (flat Dirichlet rows) and xi_i standard normal, of the
    extents of the reward. A level of 0 leaves its part equal to the base bit for bit. Agent i
    draws the same P'_i and xi_i whatever the number of agents and the levels are.

    Args:
      mdp: the base, one MDP.
      num_agents: A, at least 1.
      seed: of ``numpy.random.default_rng``.
      kernel: kappa in [0, 1], a scalar or [A].
      reward: rho >= 0, a scalar or [A].

    Returns:
      A family with leading axis [A].

    Raises:
      ValueError: If an argument is out of its range or ``mdp`` is a family already.
    """
    check_mdp(mdp, undiscounted=True)
    if np.ndim(mdp.transition) != 3:
        raise ValueError(
            f"mdp has a kernel of shape {np.shape(mdp.transition)}; allowed: one MDP, [S, U, S]"
        )
    check_size("num_agents", num_agents, num_agents, *np.shape(mdp.transition))
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (num_agents, *np.shape(leaf))), mdp)
    return perturbed(copies, seed, kernel, reward)


def perturbed(
    mdps: TabularMDP,
    seed: int = 0,
    kernel: chex.ArrayNumpy | float = 0.0,
    reward: chex.ArrayNumpy | float = 0.0,
) -> TabularMDP:
    """Perturbs every member of a family around itself; see `perturbed_mdps`.

    Args:
      mdps: a family with one leading axis [A].
      seed: of ``numpy.random.default_rng``.
      kernel: kappa in [0, 1], a scalar or [A].
      reward: rho >= 0, a scalar or [A].

    Returns:
      A family of the same shape.

    Raises:
      ValueError: If a level is out of its range.
    """
    num_agents, *table = np.shape(mdps.transition)
    kernel = _broadcast("kernel", np.asarray(kernel, np.float64), [num_agents])
    reward = _broadcast("reward", np.asarray(reward, np.float64), [num_agents])
    _check((kernel >= 0) & (kernel <= 1), "kernel", kernel, "in [0, 1]")
    fine = (reward >= 0) & (reward <= fields.LARGEST)
    _check(fine, "reward", reward, "finite and at least 0")

    # Two streams, each with the agent as its slowest axis: more agents only lengthen them.
    kernel_rng, reward_rng = np.random.default_rng(seed).spawn(2)
    other = kernel_rng.standard_exponential((num_agents, *table))
    other /= other.sum(-1, keepdims=True)
    noise = reward_rng.standard_normal(mdps.reward.shape)
    kernel, reward = kernel[:, None, None, None], reward[:, None, None, None]
    return tabular_mdp(
        (1 - kernel) * mdps.transition + kernel * other,
        mdps.reward + reward * noise,
        mdps.discount,
        mdps.initial_state,
        mdps.initial_distribution,
    )


@fields.checked(mdps=fields.instance(TabularMDP))
def average_mdp(mdps: TabularMDP) -> TabularMDP:
    """Returns the MDP of the mean kernel and the mean reward of a family.

    Args:
      mdps: a family with one leading axis [A], of one discount, one initial state and one initial
        distribution if it has any.

    Returns:
      One MDP.

    Raises:
      ValueError: If ``mdps`` is no family, or its discounts, initial states or initial
        distributions differ.
    """
    check_mdp(mdps, "mdps", undiscounted=True)
    if np.ndim(mdps.transition) != 4:
        raise ValueError(
            f"mdps has a kernel of shape {np.shape(mdps.transition)}; allowed: a family, "
            "[A, S, U, S]"
        )
    for name in ("discount", "initial_state"):
        values = np.unique(getattr(mdps, name))
        if values.size > 1:
            raise ValueError(f"{name} takes the values {values}; allowed: one for the family")
    start = mdps.initial_distribution
    if start is not None and np.any(start != start[:1]):
        raise ValueError(
            "initial_distribution differs between members; allowed: one for the family"
        )
    return tabular_mdp(
        np.mean(mdps.transition, axis=0),
        np.mean(mdps.reward, axis=0),
        mdps.discount[0],
        mdps.initial_state[0],
        None if start is None else start[0],
    )


@dataclasses.dataclass(frozen=True)
class TabularEnv:
    """A tabular MDP behind the environment protocol of gymnax 1.x; ``params`` is a `TabularMDP`.

    The task continues for ever: no step terminates or truncates. The observation is the state, an
    int32 scalar. Both functions are for one agent; callers vmap.
    """

    def reset(self, key: chex.PRNGKey, params: TabularMDP) -> tuple[chex.Array, chex.Array]:
        """Returns ``(obs, state)``, both the state in which an episode begins.

        The key is consumed where ``params`` has an initial distribution, and not needed elsewhere.
        """
        if params.initial_distribution is None:
            state = jnp.asarray(params.initial_state, jnp.int32)
        else:
            state = _draw(key, jnp.asarray(params.initial_distribution), 0)
        return state, state

    def step(
        self, key: chex.PRNGKey, state: chex.Array, action: chex.Array, params: TabularMDP
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Moves to a next state by inverting the distribution function of its row.

        Args:
          key: consumed, one uniform variate.
          state: [] integer.
          action: [] integer.
          params: one MDP.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the next state twice, the reward
          [] of the dtype of ``params``, two False, an empty dictionary.
        """
        chex.assert_rank([state, action, params.transition], [0, 0, 3])
        state, action = (jnp.asarray(index, jnp.int32) for index in (state, action))
        transition, reward = jnp.asarray(params.transition), jnp.asarray(params.reward)
        next_state = _draw(key, transition, state * transition.shape[1] + action)
        place = 0
        for extent, index in zip(reward.shape, (state, action, next_state), strict=True):
            place = place * extent + (0 if extent == 1 else index)
        reward = reward.reshape(-1)[place]
        never = jnp.zeros((), bool)
        return next_state, next_state, reward, never, never, {}


def _draw(key: chex.PRNGKey, table: chex.Array, row: chex.Array | int) -> chex.Array:
    """Draws an index, [] int32, from a row of probabilities of a table [..., S].

    Under `vmap`, each agent with a table of its own, gathers of single entries fuse with what is
    done with them, and a gather of a row does not: that takes a fifth of the time on a CPU.

    Args:
      key: consumed, one uniform variate.
      table: whose rows are distributions, or are so but for rounding.
      row: [] integer, counted in C order.
    """
    size = table.shape[-1]
    if size > _UNROLLED:
        mass = table.reshape(-1, size)[row]
        # Sums in blocks, as a compiled cumulative sum makes them, are not monotone: they may rise
        # by a rounding where the probability is 0. Only where it is not, is anything drawn.
        cdf = jnp.where(mass > 0, jnp.cumsum(mass), -1)
        return jnp.argmax(cdf >= jnp.max(cdf) * _level(key, cdf.dtype)).astype(jnp.int32)
    entries = table.reshape(-1)
    cdf = [entries[row * size]]
    for place in range(1, size):
        cdf.append(cdf[-1] + entries[row * size + place])
    level = cdf[-1] * _level(key, table.dtype)
    index = jnp.zeros((), jnp.int32)
    for mass in cdf[:-1]:
        index += (mass < level).astype(jnp.int32)
    return index


def _level(key: chex.PRNGKey, dtype: Any) -> chex.Array:
    """Returns 1 - ``jax.random.uniform(key)``, [] in (0, 1].

    Below it, as a share of the total of a row, there is never an index of probability zero, be it
    the first or the last, even where rounding leaves the total short of one.
    """
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or dtype != jnp.float32 or jax.random.key_impl(key) != streams.IMPLEMENTATION:
        return 1 - jax.random.uniform(key, dtype=dtype)
    # The same bits, written out: the loop that jax.random calls takes longer than all the rest.
    word = streams.threefry(jax.random.key_data(key), jnp.uint32(0))
    one_to_two = (word >> jnp.uint32(9)) | jnp.uint32(0x3F800000)
    return 2 - jax.lax.bitcast_convert_type(one_to_two, jnp.float32)


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


def _broadcast(name: str, value: np.ndarray, batch: Sequence[int]) -> np.ndarray:
    """Repeats a scalar over the leading axes; a value per member is left as it is."""
    if value.shape not in ((), tuple(batch)):
        raise ValueError(
            f"{name} has shape {value.shape}; allowed: a number or {tuple(batch)}, the leading axes"
        )
    return np.broadcast_to(value, tuple(batch)).copy()


def _check(valid: chex.ArrayNumpy | bool, name: str, value: Any, allowed: str) -> None:
    """Refuses a value, quoting the first entry that is not valid."""
    bad = np.argwhere(~np.asarray(valid))
    if len(bad):
        index = tuple(bad[0].tolist())
        where = str(list(index)) if index else ""
        raise ValueError(f"{name}{where} is {np.asarray(value)[index]}; allowed: {allowed}")


def _stacked_distributions(mdps: Sequence[TabularMDP]) -> np.ndarray | None:
    """Returns where each of some MDPs begins, [A, S], or None if none has a distribution."""
    if all(mdp.initial_distribution is None for mdp in mdps):
        return None
    return np.stack([initial_distribution(mdp) for mdp in mdps])
