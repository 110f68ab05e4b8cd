"""Episodic tasks: an environment, how long and how far-sighted its episodes are, what is seen."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.tabular import DISCOUNT
from fedjax_rl.envs.tabular_env import TabularEnv
from fedjax_rl.identity import content


class Discrete(NamedTuple):
    """Actions 0, 1, ..., num - 1, an int32 scalar."""

    num: int


class Continuous(NamedTuple):
    """A vector of actions, float32 in [-1, 1]^size; the environment scales them to its own range.

    Attributes:
      size: M.
      bounded: whether that is so. Otherwise they are any numbers, in the precision of the policy,
        and policies do not clip them.
    """

    size: int
    bounded: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An episodic task as the learners see it; everything is for one agent, callers vmap.

      >>> import jax, fedjax_rl as frl
      >>> task = frl.envs.frozen_lake("4x4")
      >>> observation, state = task.env.reset(jax.random.key(0), task.params)
      >>> task.encode(observation).shape, task.action, task.config["map"]
      ((2,), Discrete(num=4), '4x4')

    The environment has the protocol ``reset(key, params) -> (obs, state)`` and
    ``step(key, state, action, params) -> (obs, state, reward, terminated, truncated, info)`` and
    never starts a new episode by itself. ``terminated`` says that the MDP ended, ``truncated``
    that the environment gave up for another reason, as its clock; a roll-out stops at either and
    after ``max_steps`` steps, which is a truncation too.

    Two tasks are equal, and hash alike, if everything in them but ``members`` is, ``params``
    included: a task can be part of the key of a compiled function. Where ``params`` are an argument
    of that function, ``static`` is the better key: many tasks share it.

    Attributes:
      name: of the environment, in the registry.
      env: the environment.
      params: pytree of its parameters; may be traced, may get a leading agent axis.
      observation_size: D, entries of the vector that a policy sees.
      action: `Discrete` or `Continuous`.
      max_steps: T, steps of the longest episode, >= 1.
      discount: in [0, 1].
      encode: from an observation to what a policy sees, float32 [D].
      trace: from a state after a step to what the behaviour needs of it, float32 [c].
      summarise: from the last trace [c], the mean trace [c] and the number of steps [] of an
        episode to its behaviour [b], float32: the vector that novelty is measured on.
      behaviour_size: b.
      grid: the exact tables, for tabular learners; None where there are none.
      options: (name, value) pairs in order of name; with the name they make the task again.
      members: from N to the parameters of N environments, leaves [N, ...]: agent i has the i-th.
        None where all agents have ``params``.
      shape: what the compiled programs of this task depend on, apart from its length and its
        discount; None says that they depend on the whole task.
    """

    name: str
    env: Any
    params: Any
    observation_size: int
    action: Discrete | Continuous
    max_steps: int
    discount: float
    encode: Callable[[chex.Array], chex.Array]
    trace: Callable[[Any], chex.Array]
    summarise: Callable[[chex.Array, chex.Array, chex.Array], chex.Array]
    behaviour_size: int
    grid: GridWorld | None = None
    options: tuple[tuple[str, Any], ...] = ()
    members: Callable[[int], Any] | None = None
    shape: Hashable = None

    def __post_init__(self):
        check_episode(self.max_steps, self.discount)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self is other or self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> Hashable:
        """Everything the task is, by content: parameters may change under a name.

        Looked at each time where arrays can be written to, once where they cannot.
        """
        # Not a cached property: what is kept stands beside the fields of a frozen record.
        settled = self.__dict__.get("_settled")
        if settled is None:
            settled = self._made, content(self.params, self.grid)
            leaves = jax.tree.leaves((self.params, self.grid))
            if all(isinstance(x, jax.Array) or _is_settled(x) for x in leaves):
                object.__setattr__(self, "_settled", settled)
        return settled

    @functools.cached_property
    def _made(self) -> Hashable:
        """What the task is apart from its parameters; those of members are always arguments."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return content({n: x for n, x in own.items() if n not in ("params", "grid", "members")})

    @functools.cached_property
    def _program(self) -> Hashable:
        """What a program of the task is made of whose parameters are arguments."""
        shown = self.observation_size, self.action, self.behaviour_size
        return content(self.env, self.encode, self.trace, self.summarise, *shown)

    def __str__(self) -> str:
        return self.name

    @property
    def config(self) -> dict[str, Any]:
        """Name and options, enough to make the task again."""
        return {"name": self.name, **dict(self.options)}

    @property
    def static(self) -> Hashable:
        """Equal for tasks that share compiled programs if their parameters are arguments."""
        if self.shape is None:
            return self
        return self.shape, self.max_steps, self.discount, self._program

    @property
    def tabular(self) -> bool:
        """Whether the environment is a bare `TabularMDP`, as `tabular_task` makes it."""
        return isinstance(self.env, TabularEnv)

    @property
    def num_states(self) -> int | None:
        """S, where there are exact tables, in a grid or a tabular task; None elsewhere."""
        tables = self._tables
        return None if tables is None else tables.num_states

    @property
    def num_actions(self) -> int | None:
        """U, where there are exact tables; None elsewhere."""
        tables = self._tables
        return None if tables is None else tables.num_actions

    @property
    def _tables(self) -> Any:
        return self.params if self.tabular else self.grid

    def replace(self, **changes: Any) -> "Task":
        """Returns a copy with some attributes exchanged.

        The options follow ``max_steps`` and ``discount``, and so do ``static``, exact tables, an
        environment's own clock, and ``members`` with them. New ``params`` are those of all agents
        unless new ``members`` come along, and with new ``members`` come the first one's. Any
        attribute beside these four is something that name and options would no longer tell, so
        that it takes a new ``name`` or new ``options``.

        Args:
          **changes: attributes and their new values.

        Raises:
          ValueError: If a value is out of its range, or the copy would be mistaken for this task.
        """
        # Results and saved configurations know a task by its name and options alone.
        unnamed = changes.keys() - {"params", "members", "max_steps", "discount"}
        if unnamed and not unnamed & {"name", "options"}:
            raise ValueError(
                f"{', '.join(sorted(unnamed))} is changed under an old name; allowed: together "
                "with a new name or options, by which tasks are told apart"
            )
        episode = {k: v for k, v in changes.items() if k in ("max_steps", "discount")}
        check_episode(**{"max_steps": self.max_steps, "discount": self.discount, **episode})
        changes.setdefault("options", tuple(sorted((dict(self.options) | episode).items())))
        if "params" in changes:
            changes.setdefault("members", None)
        elif changes.get("members") is not None:
            changes["params"] = jax.tree.map(lambda leaf: leaf[0], changes["members"](1))
        if "discount" in episode and self.grid is not None and "grid" not in changes:
            changes["grid"] = self.grid.with_discount(episode["discount"])
            if self.params is self.grid:
                # One object for both: a program then holds the tables once.
                changes.setdefault("params", changes["grid"])
        if "discount" in episode and self.tabular:
            # A part of a function of the module: the copy can be pickled, too.
            change = functools.partial(_with_discount, discount=episode["discount"])
            self._adapt(changes, change)
        if "max_steps" in episode and hasattr(self.env, "limit"):
            change = functools.partial(_limited, self.env, max_steps=episode["max_steps"])
            self._adapt(changes, change)
        return dataclasses.replace(self, **changes)

    def _adapt(self, changes: dict[str, Any], change: Callable[[Any], Any]) -> None:
        """Changes the parameters, and those of the members, that a copy is going to have."""
        changes["params"] = change(changes.get("params", self.params))
        members = changes.get("members", self.members)
        if members is not None:
            changes["members"] = functools.partial(_changed, change, members)


def _with_discount(mdp: Any, discount: float) -> Any:
    return mdp.replace(discount=np.full_like(mdp.discount, discount))


def _limited(env: Any, params: Any, max_steps: int) -> Any:
    return env.limit(params, max_steps)


def _changed(change: Callable, members: Callable, num_agents: int) -> Any:
    return change(members(num_agents))


def check_episode(max_steps: int, discount: float) -> None:
    """Checks what every task has.

    Args:
      max_steps: T.
      discount: of the return.

    Raises:
      ValueError: If ``max_steps`` is no whole number of at least 1 or ``discount`` is not in
        [0, 1].
    """
    fields.check("max_steps", max_steps, fields.COUNT)
    fields.check("discount", discount, DISCOUNT)


def _is_settled(leaf: Any) -> bool:
    """Whether a leaf is a number or an array that nobody can write to."""
    return not isinstance(leaf, np.ndarray) or not (leaf.flags.writeable or leaf.base is not None)


# For adapters of environments that were written for the default settings of JAX -----------------


@contextlib.contextmanager
def foreign() -> Iterator[None]:
    """Promotes dtypes and ranks as JAX does by default, whatever the caller has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def cast(tree: Any, dtypes: Any) -> Any:
    """Returns a pytree of arrays of definite dtypes, so that a loop can carry it.

    Args:
      tree: of arrays or numbers.
      dtypes: of the same structure.
    """
    return jax.tree.map(lambda leaf, dtype: jnp.asarray(leaf, dtype), tree, dtypes)
