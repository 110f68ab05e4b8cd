"""What an algorithm computes and keeps, found out by looking at its program; nothing runs."""

from __future__ import annotations

import collections
import math
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from fedjax_rl import backend, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.ledger import message_costs
from fedjax_rl.sweeps.stepping import FederationState, Stepper, init, stepper

# What moves numbers, or makes them of others without arithmetic.
_FREE = {
    *("reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "copy"),
    *("dynamic_slice", "dynamic_update_slice", "gather", "scatter", "concatenate", "pad", "rev"),
    *("convert_element_type", "bitcast_convert_type", "select_n", "iota", "stop_gradient"),
    *("device_put", "split", "copy_p", "random_wrap", "random_unwrap"),
}


class Operations(NamedTuple):
    """Floating-point operations.

    Attributes:
      products: multiplications and additions of products of matrices and of convolutions.
      others: of everything else, one for each number that comes out.
      counted: whether all loops have a length that the program says; otherwise theirs count once.
      turns: of loops, that are made one after the other, the innermost ones.
    """

    products: float = 0.0
    others: float = 0.0
    counted: bool = True
    turns: float = 0.0

    def plus(self, other: Operations, times: float = 1) -> Operations:
        """These and so many times others.

        Args:
          other: to be added.
          times: how often they are carried out.

        Returns:
          The sum, counted where both are.
        """
        return Operations(
            self.products + times * other.products,
            self.others + times * other.others,
            self.counted and other.counted,
            self.turns + times * other.turns,
        )

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.others


class Costs(NamedTuple):
    """Of one federation.

    Attributes:
      step: in a unit of time, with every episode as long as it may be.
      record: when it is measured.
      kept: bytes between two rounds, {what: bytes}.
      messages: of an agent in a round at most, as it lies in memory, {column of the ledger: count}.
    """

    step: Operations
    record: Operations
    kept: dict[str, int]
    messages: dict[str, int] = MappingProxyType({})


def costs_of(algorithm: Algorithm, num_agents: int) -> Costs:
    """What a federation computes and keeps.

    Args:
      algorithm: any.
      num_agents: N.

    Returns:
      The `Costs`.

    Raises:
      ValueError: an algorithm whose rounds have no length that is known.
    """
    algorithm = algorithm.at(num_agents)
    steps = stepper(algorithm, num_agents)
    with jax.disable_jit(False):  # which programs are looked at for, not run
        first = jax.eval_shape(lambda: init(algorithm, num_agents, 0))
        # The round, not `advance`, whose loops have traced lengths that nothing could count.
        made = jax.make_jaxpr(steps.round)(first.params, first.state)
        measured = jax.make_jaxpr(steps.measure)(first.params, first.state)
    state = first.state
    kept = {
        "agents": memory.size((state.agents, state.sent, state.in_flight)),
        "servers": memory.size((state.server, state.server_state)),
        "uplinks": memory.size(state.uplink_state),
        "properties": memory.size(first.params),
    }
    round_ = Operations().plus(_one_turn(_count(made.jaxpr)), 1 / steps.period)
    kept = {n: size for n, size in kept.items() if size}
    return Costs(round_, _count(measured.jaxpr), kept, _messages(steps, first))


def _messages(steps: Stepper, first: FederationState) -> dict[str, int]:
    """What an agent sends and hears in a round if it sends all that there is."""
    found: collections.Counter = collections.Counter()

    def look(params, state):
        for link, times in steps.functions.links:
            each = message_costs(steps.population, link, params, state)
            found.update({name: times * count for name, count in each.items() if count})
        return ()

    jax.eval_shape(look, first.params, first.state)  # in which counts are whole numbers
    return dict(found)


def _one_turn(found: Operations) -> Operations:
    """Those of what is carried out once: a turn, unless it is made of several."""
    return found._replace(turns=max(1.0, found.turns))


def _count(jaxpr: core.Jaxpr) -> Operations:
    """The operations of a program, loops and all."""
    found = Operations()
    for equation in jaxpr.eqns:
        name, own = equation.primitive.name, equation.params
        if own.get("name") == backend.turn_of_once.__name__:  # which computes nothing
            continue
        inner = [_count(part) for part in _within(own)]
        if name == "scan":
            found = found.plus(_one_turn(inner[0]), own["length"])
        elif name == "while":
            for part in inner:
                # How often is not known: each counts once, and the whole says so.
                found = found.plus(part._replace(counted=False))
            found = found._replace(turns=found.turns + (max(x.turns for x in inner) == 0))
        elif name == "cond":  # at most
            most = max(inner, key=lambda part: part.total)
            found = found.plus(most._replace(turns=max(part.turns for part in inner)))
        elif inner:
            for part in inner:
                found = found.plus(part)
        else:
            found = found.plus(_of_one(equation))
    return found


def _within(params: dict) -> list[core.Jaxpr]:
    """The programs that an equation carries out."""
    found = []
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                found.append(each.jaxpr)
            elif isinstance(each, core.Jaxpr):
                found.append(each)
    return found


def _of_one(equation) -> Operations:
    """The operations of an equation that carries out no other program."""
    name = equation.primitive.name
    out = equation.outvars[0].aval
    if name in _FREE or not hasattr(out, "shape") or not jnp.issubdtype(out.dtype, jnp.inexact):
        return Operations()
    size = math.prod(out.shape)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return Operations(2.0 * size * math.prod(shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        shape = equation.invars[1].aval.shape
        # Each number that comes out is a sum over the weights of one output feature.
        features = shape[equation.params["dimension_numbers"].rhs_spec[0]]
        groups = equation.params["batch_group_count"]
        return Operations(2.0 * size * math.prod(shape) / features / groups)
    # These work on what goes in, of which little comes out.
    if name.startswith(("reduce", "cum", "arg", "sort")):
        size = max(math.prod(x.aval.shape) for x in equation.invars if hasattr(x.aval, "shape"))
    return Operations(0.0, float(size))
