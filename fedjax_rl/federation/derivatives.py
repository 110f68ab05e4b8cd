r"""Derivatives through a simulation: right, or refused.

With the random words held fixed a simulation is a function that can be differentiated, and that
derivative has the right mean exactly where no draw and no choice depends on what is
differentiated. Where actions are drawn from what is learned,

    d/dx E[f(x, a)] = E[df/dx + f d log p(a; x)/dx],

the second term is lost: sampling is a comparison with a random word, whose derivative is 0. The
same happens to whatever only decides what is drawn or who is heard. An algorithm says of its
configuration whether that is so (`Algorithm.sampled`, `Algorithm.draws`), and what goes into its
functions and comes out of them then passes a guard: an identity whose derivative is an error, in
both modes and under every transformation, and which costs nothing in a compiled program.

Which term is to be had is the property `derivative` of every algorithm:

* None: none where one would be missing.
* "pathwise": the first alone, biased where something is drawn from what is learned.
* "score": both. An algorithm sums up the logarithms of the probabilities of all that it draws
  (`Functions.drawn`); their derivative is the score, and whoever knows the outcome multiplies
  (`sweeps.differentiate`). So the metrics themselves stay behind the guard.
* "relaxed": draws whose derivative is that of a continuous relaxation. Biased, of little variance.

* Heess, Wayne, Silver, Lillicrap, Erez and Tassa, *Learning Continuous Control Policies by
  Stochastic Value Gradients*, arXiv 1510.09142: the two terms.
* Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing and Whiteson, *DiCE: The Infinitely
  Differentiable Monte-Carlo Estimator*, arXiv 1802.05098: outcomes times what was drawn.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import backend, fields

# What the property `derivative` may be.
DERIVATIVE = fields.word(["pathwise", "score", "relaxed"]).or_none()
# Those that an algorithm has to bring along.
ESTIMATORS = ("score", "relaxed")

# What of a federation decides who is heard and when, under these names in every algorithm.
_DECIDES = ("participation", "uplink", "clock")


# Asked for by every federation of a sweep, and the same for all that are refused alike.
@functools.lru_cache(maxsize=256)
def undifferentiated(reason: str) -> Callable:
    """An identity of pytrees that refuses to be differentiated.

    Args:
      reason: why there is no derivative, and what is allowed instead.

    Returns:
      `tree -> tree`; whoever differentiates a float of it gets a ValueError with the reason.
    """

    # A rule of forward mode alone: reverse mode transposes what that one makes, and meets it too.
    @jax.custom_jvp
    def guard(floats):
        return floats

    @guard.defjvp
    def refuse(primals, tangents):
        raise ValueError(reason)

    def guarded(tree):
        leaves, structure = jax.tree.flatten(tree)
        places = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
        if not places:
            return tree
        for i, leaf in zip(places, guard([leaves[i] for i in places]), strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(structure, leaves)

    return guarded


def _is_float(leaf) -> bool:
    """Whether a leaf can have a derivative: an array of floats, not a number or a key."""
    # Numbers of Python are constants of the trace: nobody can differentiate by them.
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


@dataclasses.dataclass(frozen=True)
class Guards:
    """What refuses the derivatives of one configuration.

    Attributes:
      everything: for all that goes in and comes out; None where that has a derivative.
      draws: name -> guard, for what only decides draws; of a record, for all that is in it.
    """

    everything: Callable | None
    draws: dict[str, Callable]

    def of_config(self, config):
        """The configuration with what is traced in it guarded, tasks and uplinks included."""
        old = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        each = {name: self.draws.get(name, self.everything) for name in old}
        new = {n: _guarded(x, each[n]) for n, x in old.items() if each[n] is not None}
        return _with(config, {n: x for n, x in new.items() if x is not old[n]})

    def of_params(self, params):
        """`Params` with the entries that decide draws guarded, or all of them."""

        def each(entries):
            heads = {n: n.partition(".")[0] for n in entries}
            own = {n: self.draws[h](entries[n]) for n, h in heads.items() if h in self.draws}
            return {**entries, **own}

        changed = {f.name: each(getattr(params, f.name)) for f in dataclasses.fields(params)}
        return self.of_state(dataclasses.replace(params, **changed))

    def of_state(self, state):
        """A state, or what is measured of it, guarded if everything is."""
        return state if self.everything is None else self.everything(state)


def _with(value, changed: dict):
    """A copy of a dataclass with some fields changed, which have been checked already."""
    if not changed:
        return value
    value = copy.copy(value)
    for name, new in changed.items():
        object.__setattr__(value, name, new)
    return value


def _guarded(value, guard: Callable):
    """What somebody has given, with every tracer in it guarded; the same object if there is none.

    Tracers in the closure of a function are out of reach; they are met where they come out.
    """
    # What is known is not differentiated, and stays the same object: see `algorithm.common`.
    if isinstance(value, jax.core.Tracer):
        return guard(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        new = _guarded(fields, guard)
        return _with(value, {n: x for n, x in new.items() if x is not fields[n]})
    if type(value) is dict:
        new = {n: _guarded(x, guard) for n, x in value.items()}
        return new if any(new[n] is not value[n] for n in value) else value
    if isinstance(value, tuple | list):
        new = [_guarded(x, guard) for x in value]
        if all(x is y for x, y in zip(new, value, strict=True)):
            return value
        return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
    return value


def check(algorithm) -> None:
    """Refuses a property `derivative` that is not allowed.

    Raises:
      ValueError: naming its value and what is allowed.
    """
    config = algorithm.config
    accepted = getattr(config, "derivative", None)
    fields.check("derivative", accepted, DERIVATIVE)
    if accepted in ESTIMATORS and accepted not in algorithm.estimators(config):
        there = ", ".join(map(repr, ("pathwise", *algorithm.estimators(config))))
        raise ValueError(
            f"derivative is {accepted!r}, which {algorithm.name} does not estimate with these "
            f"properties; allowed: None, {there}"
        )
    task = getattr(config, "task", None)
    if accepted is not None and not getattr(getattr(task, "env", None), "reversible", True):
        raise ValueError(
            f"derivative is {accepted!r} on {task.name}, whose physics has loops that cannot be "
            "differentiated in reverse; allowed: None"
        )


@dataclasses.dataclass(frozen=True)
class Contract:
    """What an algorithm says of its derivatives.

    Attributes:
      name: of the algorithm.
      sampled: as in `Algorithm`.
      draws: as in `Algorithm`.
      scoreless: as in `Algorithm`.
      counted: whether what comes out is multiplied with the score by whoever asks.
    """

    name: str
    sampled: Callable
    draws: tuple[str, ...]
    scoreless: tuple[str, ...] = ()
    counted: bool = False

    def guards(self, config) -> Guards:
        """What refuses the derivatives of a configuration."""
        accepted = getattr(config, "derivative", None)
        # What decides draws is guarded even where a bias is accepted: its derivative would be 0. Of
        # an estimate it is a part, as their probabilities depend on it.
        decides = {"score": self.scoreless, "relaxed": ()}.get(accepted, self.draws)
        decides = (*decides, *_DECIDES)
        draws = {name: self._no_derivative(name) for name in decides}
        reason = self.wrong(config)
        if reason is not None:
            return Guards(undifferentiated(self._refusal(config, reason)), draws)
        reason = self.sampled(config) if accepted == "score" and not self.counted else None
        if reason is not None:
            return Guards(undifferentiated(self._to_be_counted(reason)), draws)
        return Guards(None, draws)

    def wrong(self, config) -> str | None:
        """Why a derivative would be wrong in the way it is asked for; None where it would not."""
        accepted = getattr(config, "derivative", None)
        if accepted == "pathwise":
            return None
        reason = None if accepted in ESTIMATORS else self.sampled(config)
        return _jumps(config) if reason is None else reason

    def _refusal(self, config, reason: str) -> str:
        accept = hasattr(config, "derivative") * (
            ", or derivative='pathwise', which accepts the bias"
        )
        return (
            f"derivative is {getattr(config, 'derivative', None)!r} for {self.name}, where "
            f"{reason}: a derivative through the simulation leaves out how the draws change, and "
            f"would be wrong; allowed: values that are not differentiated{accept}"
        )

    def _to_be_counted(self, reason: str) -> str:
        return (
            f"derivative is 'score' for {self.name}, where {reason}: a derivative through the "
            "simulation alone leaves out the score; allowed: frl.differentiate, which has it"
        )

    def _no_derivative(self, name: str) -> Callable:
        return undifferentiated(
            f"{name} of {self.name} is differentiated, and it only decides what is drawn, who is "
            "heard or when: the simulation has no derivative with respect to it; allowed: a value "
            "that is not differentiated"
        )


def _jumps(config) -> str | None:
    """Why a derivative is wrong whatever is done about draws: something is decided by comparing."""
    # As it is used: some algorithms have one of their own, made of other properties.
    uplink = config.transmits()
    if not uplink.continuous:
        return f"the uplink {uplink.name} decides by the numbers in a message what is sent"
    for each in config.properties():
        if isinstance(each.value, fields.OnPlateau):
            return f"{each.name} falls when {each.value.metric} has stopped improving"
    return None


@dataclasses.dataclass(frozen=True)
class GuardedParameters:
    """`Algorithm.parameters` behind guards.

    Attributes:
      own: without guards.
      contract: what the algorithm says.
    """

    own: Callable
    contract: Contract

    def __call__(self, config, num_agents: int):
        """As `Algorithm.parameters`."""
        own = self.contract.guards(config).of_config(config)
        return backend.exact(self.own)(own, num_agents)


@dataclasses.dataclass(frozen=True)
class GuardedFunctions:
    """`Algorithm.functions` behind guards.

    Attributes:
      own: without guards.
      contract: what the algorithm says.
    """

    own: Callable
    contract: Contract

    def __call__(self, config):
        """As `Algorithm.functions`."""
        guard = self.contract.guards(config)
        own = self.own(guard.of_config(config))

        def init(population, params, keys):
            return guard.of_state(own.init(population, guard.of_params(params), keys))

        def round_(population, params, state, period):
            params, state = guard.of_params(params), guard.of_state(state)
            return guard.of_state(own.round(population, params, state, period))

        def advance(population, params, state, num_steps):
            params, state = guard.of_params(params), guard.of_state(state)
            return guard.of_state(own.advance(population, params, state, num_steps))

        def measure(population, params, state):
            params, state = guard.of_params(params), guard.of_state(state)
            return guard.of_state(own.measure(population, params, state))

        guarded = {"init": init, "round": round_, "advance": advance, "measure": measure}
        guarded |= {"act": own.act, "model": own.model}
        # Every program of an algorithm is traced through these.
        exact = {n: None if one is None else backend.exact(one) for n, one in guarded.items()}
        return own._replace(**exact)


def counted(algorithm):
    """The same algorithm for whoever multiplies outcomes with the score of what was drawn.

    Args:
      algorithm: of the number of agents that it runs with, as what is made of it is guarded anew.

    Returns:
      An `Algorithm`.
    """
    out = copy.copy(algorithm)
    for name in ("parameters", "functions"):
        own = getattr(algorithm, name)
        contract = dataclasses.replace(own.contract, counted=True)
        object.__setattr__(out, name, dataclasses.replace(own, contract=contract))
    return out


def without_guards(function: Callable) -> Callable:
    """The parameters or functions of an algorithm as they were given."""
    guarded = isinstance(function, GuardedParameters | GuardedFunctions)
    return function.own if guarded else function
