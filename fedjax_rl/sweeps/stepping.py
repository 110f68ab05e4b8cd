"""A federation stepped by hand: what `simulate` and `sweep` are loops over."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, remembered, streams
from fedjax_rl.federation.algorithm import Algorithm, Functions, bind
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.state import Params, State
from fedjax_rl.sweeps import arguments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FederationState:
    """One federation between two rounds, a pytree.

    Attributes:
      params: the traced properties, as arrays; replace an entry to change it on the way.
      state: agents, server, uplinks, keys, time and ledger, a population of one federation.
    """

    params: Params
    state: State

    @property
    def costs(self) -> dict[str, int]:
        """What has been spent so far, by the ledger's columns; on the host."""
        return {name: int(total[0]) for name, total in self.state.ledger.totals().items()}


class Stepper(NamedTuple):
    """An algorithm on one federation of N agents.

    Attributes:
      population: of that federation.
      functions: of the algorithm.
      period: units of time in a round.
      sides: metric -> "federation" or "agent".
    """

    population: Population
    functions: Functions
    period: int
    sides: dict[str, str]

    def round(self, params: Params, state: State) -> State:
        """The state one communication round later.

        Args:
          params: traced properties.
          state: before it.

        Returns:
          The `State` after it.
        """
        return self.functions.round(self.population, params, state, self.period)

    def measure(self, params: Params, state: State) -> dict:
        """Every metric, a scalar of the federation or [N] of its agents.

        Args:
          params: traced properties.
          state: that is measured.

        Returns:
          The values by name.
        """
        found = self.functions.measure(self.population, params, state)
        return {n: x[0] if self.sides[n] == "federation" else x for n, x in found.items()}


def stepper(algorithm: Algorithm, num_agents: int) -> Stepper:
    """What steps an algorithm on one federation.

    Args:
      algorithm: with its functions of N evaluated.
      num_agents: N.

    Returns:
      The `Stepper`.

    Raises:
      ValueError: a period that is traced, where it is the length of a loop.
    """
    sides = {name: side for name, (side, _) in algorithm.metrics.items()}
    functions = algorithm.functions(algorithm.config)
    return Stepper(population(num_agents), functions, period_of(algorithm), sides)


def period_of(algorithm: Algorithm) -> int:
    """Units of time in a round.

    Raises:
      ValueError: a period that is traced, where it is the length of a loop.
    """
    period = algorithm.config.sync_period if algorithm.periodic else 1
    if not isinstance(period, int | np.integer):
        raise ValueError(
            f"sync_period is {period!r}, traced; allowed: a plain integer, as it is the length of "
            "a loop"
        )
    return int(period)


def init(algorithm: Algorithm, num_agents: int, seed=0) -> FederationState:
    """A federation before its first round.

    Traceable like `simulate`.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), sync_period=10)
      >>> state = frl.init(algorithm, num_agents=4, seed=0)
      >>> state, metrics = frl.round(algorithm, state)
      >>> state.costs["messages_up"], state.costs["env_steps"]
      (4, 40)

    Args:
      algorithm: such as `frl.fedq(mdp)`.
      num_agents: N.
      seed: of the federation; may be traced.

    Returns:
      The `FederationState`, which `round` takes.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    arguments.check_algorithm(algorithm)
    num_agents = arguments.num_agents(num_agents)
    if not isinstance(seed, jax.core.Tracer):
        # Unsigned, as in a sweep: an int32 does not hold the upper half of the seeds.
        seed = np.uint32(arguments.seed("seed", seed))
    algorithm = algorithm.at(num_agents)
    return first_of(algorithm, stepper(algorithm, num_agents), seed)


def first_of(algorithm: Algorithm, steps: Stepper, seed) -> FederationState:
    """The state of a federation before its first round.

    Args:
      algorithm: with its functions of N evaluated.
      steps: of it.
      seed: of the federation; may be traced.
    """
    num_agents = steps.population.num_agents
    params = jax.tree.map(jnp.asarray, bind([algorithm.parameters(algorithm.config, num_agents)]))
    return _first(steps, params, seed)


def _first(steps: Stepper, params: Params, seed) -> FederationState:
    """The state of a federation with these properties before its first round."""
    keys = streams.agent_keys(
        jnp.full(steps.population.num_agents, seed), steps.population.member_of
    )
    return FederationState(params, steps.functions.init(steps.population, params, keys))


_STATE = fields.instance(FederationState, text="what frl.init or frl.round returned")


def round(algorithm: Algorithm, state: FederationState) -> tuple[FederationState, dict]:
    """One communication round: agents work, messages go up, servers step, models come down.

    Pure and traceable; called from Python it is compiled once for an algorithm and N.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), sync_period=10)
      >>> state = frl.init(algorithm, num_agents=4)
      >>> for _ in range(3):
      ...     state, metrics = frl.round(algorithm, state)
      >>> metrics["error_server"].shape, metrics["error_local"].shape, int(state.state.time)
      ((), (4,), 30)

    Args:
      algorithm: as given to `init`. Its traced properties are read from `state.params`.
      state: from `init` or an earlier round.

    Returns:
      The state after, and every metric of the algorithm: a scalar of the federation, or [N].

    Raises:
      ValueError: a period that is traced, what is no state, or the state of other properties that
        shape the program, such as a network or an uplink.
    """
    arguments.check_algorithm(algorithm)
    fields.check("state", state, _STATE)
    num_agents = state.state.keys.shape[0]
    # Kept with the algorithm itself: comparing contents would cost more than many a round.
    programs = vars(algorithm).setdefault("_rounds", {})
    if num_agents not in programs:
        # What is kept must not hold a tracer, if it is somebody's program that asks first.
        with remembered.now():
            own = algorithm.at(num_agents)
            steps = stepper(own, num_agents)
            params = own.parameters(own.config, num_agents)
            names, shapes = _names(params), _shapes(steps, params)

        def one(state: FederationState):
            # Read while it is traced, which is once for every shape: a round costs nothing more.
            _check_shapes(own, state, shapes)
            after = steps.round(state.params, state.state)
            return FederationState(state.params, after), steps.measure(state.params, after)

        programs[num_agents] = names, jax.jit(one)
    names, program = programs[num_agents]
    if _names(state.params) != names:
        raise ValueError(
            f"state is of another algorithm than {algorithm.name}, or of other properties; "
            "allowed: what frl.init of this one returned, and frl.round made of it"
        )
    return program(state)


def _shapes(steps: Stepper, params: Params) -> dict[str, tuple[int, ...]]:
    """The shape of every part of a federation's state, by name."""
    # Shapes alone: nothing is drawn or computed, not even from a seed that is known, and what is
    # kept is small.
    first = jax.eval_shape(
        lambda seed: _first(steps, jax.tree.map(jnp.asarray, bind([params])), seed),
        jax.ShapeDtypeStruct((), np.uint32),
    )
    return _shapes_of(first)


def _shapes_of(state: FederationState) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {f"state{jax.tree_util.keystr(path)}": jnp.shape(leaf) for path, leaf in leaves}


def _check_shapes(algorithm: Algorithm, state: FederationState, allowed: dict) -> None:
    """Refuses a state of the same algorithm with other static properties, or another environment.

    Raises:
      ValueError: naming the first part of another shape, and both shapes.
    """
    found, origin = _shapes_of(state), f"as frl.init of this {algorithm.name} makes it"
    for name in (*allowed, *found):
        if name not in allowed:
            raise ValueError(f"{name} is in the state; allowed: none, {origin}")
        if name not in found:
            raise ValueError(f"{name} is missing; allowed: a state {origin}")
        if found[name] != allowed[name]:
            raise ValueError(
                f"{name} is of shape {list(found[name])}; allowed: {list(allowed[name])}, {origin}"
            )


def _names(params: Params) -> set[str]:
    """Of everything that is traced."""
    return {*params.agent, *params.federation, *params.shared}
