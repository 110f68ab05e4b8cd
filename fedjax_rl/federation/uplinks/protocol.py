"""What of a message crosses the wire, and whether anything does: what every uplink is made of.

An uplink is a part that fits any algorithm. It is written for one agent; the engine vmaps it:
`init(message, model, spec) -> state` and
`send(key, message, state, view) -> (message, sent, state)`.
What it has to know of an algorithm's messages (which numbers are in them, what makes one worth
sending, how large it is) the algorithm says once, in a `MessageSpec`. One of your own, that sends
what is at least `factor` times as large as what was sent last:

    @frl.uplinks.uplink(factor=fields.NOT_NEGATIVE)
    def growing(factor=1.0):
        def init(message, model, spec):
            return jnp.zeros(())

        def send(key, message, state, view):
            size = jnp.sqrt(frl.uplinks.norm_squared(view.spec.numbers(message)))
            grown = size >= view.own["factor"] * state
            return message, grown, jnp.where(grown, size, state)

        return frl.uplinks.Uplink("growing", init, send, {"factor": factor})

`frl.fedq(mdp, uplink=growing(2.0))` then runs it, as every algorithm with an uplink does, and
`frl.sweep(..., uplink=[growing(1.0), growing(2.0)])` does both in one program.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, identity
from fedjax_rl.federation.ledger import tree_floats


def norm_squared(tree) -> jax.Array:
    """Sum of the squares of all numbers in a pytree, a scalar."""
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))


def _norm(tree) -> jax.Array:
    return jnp.sqrt(norm_squared(tree))


def real(value):
    """A number as a float, whatever was typed; a tracer, or a function of N, as it is."""
    return float(value) if fields.is_number(value) else value


def _identity(message):
    return message


@dataclasses.dataclass(frozen=True)
class MessageSpec:
    """How an uplink reads the messages of an algorithm; every function takes one message.

    A message may carry more than what crosses the wire, such as the perturbation that the server
    of evolution strategies draws again from a shared seed. By default a message is nothing but
    the numbers it consists of.

    Attributes:
      numbers: the numbers to measure or compress, a pytree of floats.
      replaced: `(message, numbers) -> message` with other numbers.
      items: `message -> (magnitude [I], valid bool [I])`, of the parts that can be sent one by
        one; one part with the norm of the numbers by default. No valid part, nothing to send.
      keep: `(message, bool [I]) -> message` with these parts only.
      utility: how much it is worth to send the message, a scalar; its norm by default.
      variance: estimated variance of the numbers, summed over them; 0 if unknown.
      step: `params -> scalar`, what the server multiplies a message with; 1 by default.
      moving: `broadcast -> what of it messages move`, all of it by default.
      size: floats in the message, uint32; as many as there are numbers by default.
      owed: `numbers -> numbers`, what of the numbers that were left out of a message is to be added
        to the next; all by default. A change of what the agent keeps count of by itself, see
        `Exchange.acknowledge`, is not: it is part of the next change anyway.
      rest: floats of the message besides the numbers, which cross the wire whatever the uplink
        makes of these.
    """

    numbers: Callable = _identity
    replaced: Callable = lambda message, numbers: numbers
    items: Callable | None = None
    keep: Callable = lambda message, kept: message
    utility: Callable | None = None
    variance: Callable = lambda message: 0.0
    step: Callable = lambda params: 1.0
    moving: Callable = _identity
    size: Callable | None = None
    owed: Callable = _identity
    rest: int = 0

    def __post_init__(self) -> None:
        """Fills in what follows from the numbers."""
        numbers = self.numbers

        def items(message):
            return _norm(numbers(message))[None], jnp.ones(1, bool)

        def size(message):
            return jnp.uint32(tree_floats(numbers(message)) + self.rest)

        for name, default in (
            ("items", items),
            ("utility", lambda message: _norm(numbers(message))),
            ("size", size),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)


class View(NamedTuple):
    """What an agent knows when it decides what to send.

    Attributes:
      spec: how to read its message.
      model: what the server sent down last.
      time: uint32 scalar, of the run.
      params: the agent's properties; those of the uplink under "uplink".
    """

    spec: MessageSpec
    model: object
    time: jax.Array
    params: dict

    @property
    def own(self) -> dict:
        """The uplink's own properties."""
        return self.params["uplink"]


SILENCE = ("absent", "skipped", "remembered")


@dataclasses.dataclass(frozen=True, eq=False)
class Uplink:
    """One kind of uplink with the values of its properties.

    Attributes:
      name: as on the command line.
      init: `(message, model, spec) -> state`, from a message and the first model.
      send: `(key, message, state, view) -> (message, sent, state)`, or None when every message
        crosses as it is, at every exchange: then nothing is computed at all.
      parameters: values by name, traced: federations that differ in them share a program.
      shape: what else makes the program, hashable.
      silent: what becomes of an agent that does not send: "absent", it does not count and hears
        nothing; "skipped", it does not count; "remembered", its last message counts.
      size: `(numbers, params) -> (floats, bits)` where the uplink changes the size of a message.
      check: `(values, num_agents, numbers) -> None`, raises ValueError where values by name do
        not fit a federation of `num_agents` or messages of so many numbers.
      continuous: whether what is sent changes continuously with the message, the random words
        held fixed. Where it does not, a derivative leaves out the jumps, and is refused.
      factory: what has made it, see `uplink`; None for one that is made by hand.
    """

    name: str
    init: Callable
    send: Callable | None
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    shape: tuple = ()
    silent: str = "skipped"
    size: Callable | None = None
    check: Callable = lambda values, num_agents, numbers: None
    continuous: bool = False
    factory: Callable | None = None

    @property
    def on_changes(self) -> bool:
        """Whether it is to act on changes of a model where agents would else send models."""
        return self.send is not None and self.silent != "absent"

    @property
    def alters(self) -> bool:
        """Whether what counts may be another message than any agent has now: compressed, or old."""
        return self.size is not None or self.silent == "remembered"

    @functools.cached_property
    def static(self) -> tuple:
        """Equal for uplinks that share a program.

        A name says little: one's own uplink keeps it when its functions are written anew.
        """
        does = identity.content(self.init, self.send, self.size)
        return (self.name, self.shape, self.silent, does)

    @property
    def config(self) -> dict:
        """Plain values that make the uplink again with `make`."""
        named = {**self.parameters, **dict(self.shape)}
        return {"name": self.name, **{n: v for n, v in named.items() if n not in _DERIVED}}

    def resolve(self, num_agents: int, numbers: int) -> dict:
        """The traced values for one federation.

        Args:
          num_agents: N.
          numbers: floats in one message.

        Returns:
          Values by name, functions of N called, and "members", N.

        Raises:
          ValueError: values that do not fit.
        """
        allowed = getattr(self.factory, "allowed", {})
        values = {
            name: fields.evaluated(name, value, allowed.get(name, fields.ANYTHING), num_agents)
            for name, value in self.parameters.items()
        }
        self.check(values, num_agents, numbers)
        return {**values, "members": num_agents}

    def __str__(self) -> str:
        """Name and the values that are not the default, as a label."""
        known = inspect.signature(self.factory).parameters if self.factory else {}
        values = ", ".join(
            f"{n}={_short(v)}"
            for n, v in self.config.items()
            if n != "name" and (n not in known or v != known[n].default)
        )
        return f"{self.name}({values})" if values else self.name


# Worked out, not given.
_DERIVED = ("members", "capacity")


def _short(value) -> str:
    if isinstance(value, fields.ByAgents):
        return repr(value)
    return getattr(value, "__name__", None) or (
        f"{value:g}" if isinstance(value, float) else str(value)
    )


def uplink(**allowed: fields.Allowed) -> Callable:
    """Decorates a function that makes an `Uplink`; its arguments are checked before it is called.

    Args:
      **allowed: what each argument may be, see `fields`.
    """

    def wrap(function: Callable) -> Callable:
        make = fields.checked(**allowed)(function)

        @functools.wraps(make)
        def factory(*args, **kwargs) -> Uplink:
            # With `allowed`, which `wraps` hands on: by it `resolve` looks at functions of N.
            return dataclasses.replace(make(*args, **kwargs), factory=factory)

        return factory

    return wrap


UPLINK = fields.instance(Uplink, text="an uplink of frl.uplinks")
