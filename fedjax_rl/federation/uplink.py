"""What of a message crosses the wire, and whether anything does.

An uplink is a part that fits any algorithm. It is written for one agent; the engine vmaps it:
`init(message, model, content) -> memory` and
`send(key, message, memory, view) -> (message, sent, memory)`.
What it has to know of an algorithm's messages (which numbers are in them, what makes one worth
sending, how large it is) the algorithm says once, in a `Content`.

| uplink | who sends | source |
|---|---|---|
| `full` | everybody | |
| `partial` | a random part | McMahan et al., arXiv 1602.05629 |
| `event_triggered` | whoever is surprised | Jarne Ornia and Mazo, arXiv 2109.01417; Gatsis, arXiv 2112.05908 |
| `probabilistic` | whoever believes to be among the m best | Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023) |
| `lazy` | whoever has changed since it last sent | Chen et al., arXiv 1812.03239 |
| `top_k`, `scaled_sign` | everybody, a compressed message | Mitra, Pappas and Hassani, arXiv 2301.00944 |
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_rl import fields
from fedjax_rl.federation import ledger as ledgers
from fedjax_rl.names import check_known


def norm_squared(tree) -> jax.Array:
    """Sum of the squares of all numbers in a pytree, a scalar."""
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))


def _norm(tree) -> jax.Array:
    return jnp.sqrt(norm_squared(tree))


def _real(value):
    """A number as a float, whatever was typed; a tracer, or a function of N, as it is."""
    return float(value) if fields.is_number(value) else value


def _identity(message):
    return message


@dataclasses.dataclass(frozen=True)
class Content:
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
      size: words in the message, uint32; as many as there are numbers by default.
      owed: `numbers -> numbers`, what of the numbers that were left out of a message is to be added
        to the next; all by default. A change of what the agent keeps count of by itself, see
        `Exchange.acknowledge`, is not: it is part of the next change anyway.
      rest: words of the message besides the numbers, which cross the wire whatever the uplink
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
            return jnp.uint32(ledgers.tree_floats(numbers(message)) + self.rest)

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
      content: how to read its message.
      model: what the server sent down last.
      time: uint32 scalar, of the run.
      params: the agent's properties; those of the uplink under "uplink".
    """

    content: Content
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
      init: `(message, model, content) -> memory`, from a message and the first model.
      send: `(key, message, memory, view) -> (message, sent, memory)`, or None when every message
        crosses as it is, at every exchange: then nothing is computed at all.
      parameters: values by name, traced: federations that differ in them share a program.
      shape: what else makes the program, hashable.
      silent: what becomes of an agent that does not send: "absent", it does not count and hears
        nothing; "skipped", it does not count; "remembered", its last message counts.
      size: `(numbers, params) -> (words, bits)` where the uplink changes the size of a message.
      check: `(values, num_agents, numbers) -> None`, raises ValueError where values by name do
        not fit a federation of `num_agents` or messages of so many numbers.
      continuous: whether what is sent changes continuously with the message, the random words
        held fixed. Where it does not, a derivative leaves out the jumps, and is refused.
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

    @property
    def on_changes(self) -> bool:
        """Whether it is to act on changes of a model where agents would else send models."""
        return self.send is not None and self.silent != "absent"

    @property
    def alters(self) -> bool:
        """Whether what counts may be another message than any agent has now: compressed, or old."""
        return self.size is not None or self.silent == "remembered"

    @property
    def static(self) -> tuple:
        """Equal for uplinks that share a program."""
        return (self.name, self.shape, self.silent)

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

        Raises:
          ValueError: values that do not fit.
        """
        allowed = getattr(UPLINKS.get(self.name), "allowed", {})
        values = {
            name: fields.evaluated(name, value, allowed.get(name, fields.ANYTHING), num_agents)
            for name, value in self.parameters.items()
        }
        self.check(values, num_agents, numbers)
        return {**values, "members": num_agents}

    def __str__(self) -> str:
        """Name and the values that are not the default, as a label."""
        known = inspect.signature(UPLINKS[self.name]).parameters if self.name in UPLINKS else {}
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


# What the factories below are given, by the kind of number.
_NOT_NEGATIVE = fields.number(0)
_PROBABILITY = fields.number(0, 1)


@fields.checked()
def full() -> Uplink:
    """Everybody sends everything."""
    return Uplink("full", lambda message, model, content: (), None, continuous=True)


@fields.checked(probability=_PROBABILITY, absent=fields.switch())
def partial(probability=0.5, absent: bool = True) -> Uplink:
    """Every agent takes part in an exchange with some probability, independently.

    Args:
      probability: in [0, 1].
      absent: whether who does not send also receives nothing, and goes on from its own model.
        Agents that have no model of their own, and act on what is broadcast, always hear it.
    """

    def send(key, message, memory, view):
        # A uniform below the probability: at 1 everybody sends.
        return message, jax.random.bernoulli(key, view.own["probability"]), memory

    return Uplink(
        "partial",
        lambda message, model, content: (),
        send,
        {"probability": _real(probability)},
        (("absent", absent),),
        "absent" if absent else "skipped",
        continuous=True,
    )


@fields.checked(
    threshold=fields.number(0, infinite=True),
    factor=_NOT_NEGATIVE,
    decay=_PROBABILITY,
    reset=fields.switch(),
    ratio=fields.number(0, 1, above=True),
    horizon=fields.whole(0, follows=True, traced=True),
    below=fields.switch(),
)
def event_triggered(
    threshold=0.0,
    factor=0.0,
    decay=0.1,
    reset: bool = False,
    ratio=1.0,
    horizon=0,
    below: bool = False,
) -> Uplink:
    r"""An item is sent when it is large, absolutely and against what the agent is used to.

    With d the magnitude of an item, one after the other in the message,

        send  iff  d >= max(factor L, threshold / ratio^(horizon - 1 - time))
        L     <-   (1 - decay) L + decay d          after the test, whether sent or not

    The filter L starts at 0. Jarne Ornia and Mazo, arXiv 2109.01417, with `ratio` 1; the price that
    falls towards the end of a run is that of Gatsis, arXiv 2112.05908.

    Args:
      threshold: absolute floor, at least 0; infinite for silence.
      factor: relative to the filter, at least 0.
      decay: of the filter, in [0, 1].
      reset: whether the filter starts anew with every message.
      ratio: in (0, 1].
      horizon: rounds of the run, where `ratio` is below 1.
      below: sends what is *at most* the threshold instead, to show what that does.
    """

    def send(key, message, memory, view):
        del key
        own = view.own
        horizon, time = (x.astype(own["ratio"].dtype) for x in (own["horizon"], view.time))
        left = jnp.maximum(horizon - 1 - time, 0)
        # The power may overflow; a threshold of 0 stays one.
        free = own["threshold"] == 0
        floor = jnp.where(free, 0.0, own["threshold"] * own["ratio"] ** -left)
        magnitude, valid = view.content.items(message)

        def test(used_to, item):
            d, there = item
            passes = d <= floor if below else d >= jnp.maximum(own["factor"] * used_to, floor)
            following = (1 - own["decay"]) * used_to + own["decay"] * d
            return jnp.where(there, following, used_to), there & passes

        memory = jnp.zeros_like(memory) if reset else memory
        if magnitude.shape[0] == 1:
            memory, kept = test(memory, (magnitude[0], valid[0]))
            kept = kept[None]
        else:
            memory, kept = jax.lax.scan(test, memory, (magnitude, valid))
        return view.content.keep(message, kept), jnp.any(kept), memory

    return Uplink(
        "event-triggered",
        lambda message, model, content: jnp.zeros(()),
        send,
        {
            "threshold": _real(threshold),
            "factor": _real(factor),
            "decay": _real(decay),
            "ratio": _real(ratio),
            "horizon": horizon,
        },
        (("reset", reset), ("below", below)),
    )


def window_moments(window, count) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the first `count` entries of a window [C].

    The population's deviation; 1 where all entries are equal, up to rounding.
    """
    weight = (jnp.arange(window.shape[0], dtype=jnp.int32) < count).astype(window.dtype)
    weight = weight / jnp.maximum(count, 1).astype(window.dtype)
    mean = jnp.sum(weight * window)
    variance = jnp.sum(weight * (window - mean) ** 2)
    constant = variance <= 1e-12 * mean**2  # a share, whatever the unit
    return mean, jnp.sqrt(jnp.where(constant, 1.0, variance))


def gaussian_rank(window, count, utility) -> jax.Array:
    r"""`\Phi((u - mean) / deviation)`: where the utility stands among Gaussians like the window."""
    mean, deviation = window_moments(window, count)
    return jax.scipy.stats.norm.cdf((utility - mean) / deviation)


def empirical_rank(window, count, utility) -> jax.Array:
    """Mid-rank of the utility in the window, (smaller + equal / 2) / count."""
    there = jnp.arange(window.shape[0], dtype=jnp.int32) < count
    smaller = jnp.sum(there & (window < utility))
    equal = jnp.sum(there & (window == utility))
    return (2 * smaller + equal).astype(window.dtype) / (
        2 * jnp.maximum(count, 1).astype(window.dtype)
    )


UTILITY_MODELS = {"gaussian": gaussian_rank, "empirical": empirical_rank}


def communication_probability(p, target, members) -> jax.Array:
    """Probability of being among the `target` best of `members` when one beats another with p.

    The upper tail of a binomial law, `P(Bin(n-1, p) >= n-m)`, as the regularised incomplete beta
    function `I_p(n-m, m)`; 0 for m = 0 and 1 for m = n. Differentiable in p.

    Args:
      p: in [0, 1], any shape.
      target: m, a number in 0..n.
      members: n, a number of at least 1.
    """
    p = jnp.asarray(p)
    m, n = (jnp.asarray(x).astype(p.dtype) for x in (target, members))
    inside = (m > 0) & (m < n)
    tail = jax.scipy.special.betainc(
        jnp.where(inside, n - m, 1), jnp.where(inside, m, 1), jnp.clip(p, 0, 1)
    )
    return jnp.where(inside, tail, (m >= n).astype(p.dtype))


_MESSAGE_UTILITY = fields.anything(
    "a function of a message", lambda x: callable(x) and not isinstance(x, type), optional=True
)
UTILITY_MODEL = fields.anything(
    "'gaussian', 'empirical' or a function (window, count, utility) -> p",
    lambda x: x in UTILITY_MODELS if isinstance(x, str) else _MESSAGE_UTILITY.fine(x),
    words=tuple(UTILITY_MODELS),
)

# Windows up to this length share a program.
_WINDOW_CAPACITY = 32


@fields.checked(
    target=fields.whole(0, follows=True, traced=True),
    window=fields.whole(1, traced=True),
    utility=_MESSAGE_UTILITY,
    utility_model=UTILITY_MODEL,
)
def probabilistic(
    target: int,
    window: int = 5,
    utility: Callable | None = None,
    utility_model: str | Callable = "gaussian",
) -> Uplink:
    r"""An agent sends with the probability that its sample is among the m best of all n.

    It keeps the utilities of its own last k samples, the present one included and whether sent or
    not; where the utility stands in that window is the probability p to beat somebody else's, and
    `communication_probability(p, m, n)` the probability to send. Gunn (2023), section 4.

    Args:
      target: m, senders wanted per exchange, a whole number from 0 to the number of agents.
      window: k, at least 1.
      utility: `message -> scalar`; the algorithm's own measure by default.
      utility_model: "gaussian", "empirical" or `(window [C], count, utility) -> p`.
    """
    rank = utility_model if callable(utility_model) else UTILITY_MODELS[utility_model]
    longest = _WINDOW_CAPACITY
    if not isinstance(window, jax.core.Tracer) and window > longest:
        longest = 2 ** math.ceil(math.log2(window))

    def init(message, model, content):
        return jnp.zeros(longest), jnp.int32(0)

    def send(key, message, memory, view):
        past, count = memory
        own = view.own
        there = jnp.any(view.content.items(message)[1])
        value = (utility or view.content.utility)(message)
        length = own["window"].astype(jnp.int32)
        place = count % length
        newer = past.at[place].set(value)
        seen = jnp.minimum(count + 1, length)
        p = rank(newer, seen, value)
        chance = communication_probability(p, own["target"], own["members"])
        sent = there & (jax.random.uniform(key) < chance)
        past, count = jax.tree.map(
            lambda new, old: jnp.where(there, new, old), (newer, count + 1), memory
        )
        return message, sent, (past, count)

    def check(values, num_agents, numbers):
        wanted = values["target"]
        if not isinstance(wanted, jax.core.Tracer) and wanted > num_agents:
            raise ValueError(
                f"target is {wanted} with num_agents {num_agents}; allowed: a whole number from 0 "
                "to num_agents"
            )

    return Uplink(
        "probabilistic",
        init,
        send,
        {"target": target, "window": window},
        (("utility", utility), ("utility_model", utility_model), ("capacity", longest)),
        check=check,
    )


@fields.checked(
    weight=_NOT_NEGATIVE, depth=fields.COUNT, variance=_NOT_NEGATIVE, step=fields.POSITIVE.or_none()
)
def lazy(weight=0.1, depth: int = 10, variance=2.0, step: float | None = None) -> Uplink:
    r"""An agent sends when its message has changed by more than the model moves anyway.

    With delta the change since the last message that was sent,

        send  iff  |delta|^2 >= weight / step^2 \sum_{d=1..depth} |model_{t+1-d} - model_{t-d}|^2
                                + variance v

    and v the estimated variance of the message. The server goes on with the last message of who
    is silent. Chen et al., arXiv 1812.03239, with the mean over agents instead of the sum. Where
    messages are changes of a model rather than gradients, an old one acts again in every round, and
    a large weight can diverge.

    Args:
      weight: xi, at least 0; the same for all terms of the history.
      depth: D, models remembered, at least 1.
      variance: factor of v, at least 0.
      step: what the server multiplies a message with; the algorithm's learning rate by default.
    """

    def init(message, model, content):
        nothing = jax.tree.map(jnp.zeros_like, message)
        return nothing, jnp.asarray(False), content.moving(model), jnp.zeros(depth)

    def send(key, message, memory, view):
        del key
        last, sent_before, model, history = memory
        own = view.own
        now = view.content.moving(view.model)
        moved = norm_squared(jax.tree.map(jnp.subtract, now, model))
        history = jnp.concatenate([moved[None], history[:-1]])
        # The whole message is remembered, with what the learner knows of it besides its numbers.
        numbers = view.content.numbers
        delta = jax.tree.map(jnp.subtract, numbers(message), numbers(last))
        rate = view.content.step(view.params) if step is None else own["step"]
        bound = own["weight"] / rate**2 * jnp.sum(history)
        bound = bound + own["variance"] * view.content.variance(message)
        sent = (norm_squared(delta) >= bound) | ~sent_before
        sent = sent & jnp.any(view.content.items(message)[1])
        last = jax.tree.map(lambda new, old: jnp.where(sent, new, old), message, last)
        return last, sent, (last, sent_before | sent, now, history)

    values = {"weight": _real(weight), "variance": _real(variance)}
    return Uplink(
        "lazy",
        init,
        send,
        values if step is None else {**values, "step": _real(step)},
        (("depth", depth),),
        "remembered",
    )


def _compressed(name, compress, size, parameters, feedback, check) -> Uplink:
    """Everybody sends compress(residual + numbers); the residual keeps what is left."""

    def init(message, model, content):
        return jax.tree.map(jnp.zeros_like, content.numbers(message))

    def send(key, message, memory, view):
        del key
        there = jnp.any(view.content.items(message)[1])
        numbers = view.content.numbers(message)
        wanted, restore = ravel_pytree(jax.tree.map(jnp.add, memory, numbers))
        short = compress(wanted, view.own)
        left = restore(wanted - short if feedback else jnp.zeros_like(wanted))
        left = view.content.owed(left)
        memory = jax.tree.map(lambda new, old: jnp.where(there, new, old), left, memory)
        return view.content.replaced(message, restore(short)), there, memory

    return Uplink(name, init, send, parameters, (("feedback", feedback),), size=size, check=check)


def largest(x, k) -> jax.Array:
    """The vector with all but its k entries of largest magnitude set to zero; ties by place."""
    order = jnp.argsort(-jnp.abs(x), stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(x.shape[0], dtype=order.dtype))
    return jnp.where(rank < k, x, jnp.zeros_like(x))


def scaled_signs(x) -> jax.Array:
    """`mean |x| sign(x)`, with sign(0) = 1: one number and one bit per coordinate."""
    return jnp.mean(jnp.abs(x)) * jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x))


@fields.checked(k=fields.whole(1, follows=True, traced=True), feedback=fields.switch())
def top_k(k: int, feedback: bool = True) -> Uplink:
    """The k numbers of largest magnitude are sent, with their places.

    Args:
      k: from 1 to the numbers in a message.
      feedback: whether what is left is added to the next message (error feedback; Mitra, Pappas
        and Hassani, arXiv 2301.00944).
    """

    def check(values, num_agents, numbers):
        kept = values["k"]
        if not isinstance(kept, jax.core.Tracer) and kept > numbers:
            raise ValueError(
                f"k is {kept} with messages of {numbers} numbers; allowed: a whole number from 1 "
                f"to {numbers}"
            )

    def size(numbers, params):
        return (2 * params["uplink"]["k"]).astype(jnp.uint32), jnp.uint32(0)

    return _compressed(
        "top-k", lambda x, own: largest(x, own["k"]), size, {"k": k}, feedback, check
    )


@fields.checked(feedback=fields.switch())
def scaled_sign(feedback: bool = True) -> Uplink:
    """One scale for all numbers and the sign of each are sent.

    Args:
      feedback: whether what is left is added to the next message.
    """

    def size(numbers, params):
        return jnp.uint32(1), jnp.uint32(ledgers.tree_floats(numbers))

    return _compressed(
        "scaled-sign",
        lambda x, own: scaled_signs(x),
        size,
        {},
        feedback,
        lambda values, num_agents, numbers: None,
    )


UPLINK = fields.instance(Uplink, text="an uplink of frl.uplinks")

UPLINKS: dict[str, Callable] = {
    "full": full,
    "partial": partial,
    "event-triggered": event_triggered,
    "probabilistic": probabilistic,
    "lazy": lazy,
    "top-k": top_k,
    "scaled-sign": scaled_sign,
}


def make(name: str, **values) -> Uplink:
    """The uplink of that name, for the command line and saved configurations.

    Raises:
      ValueError: an unknown name or property, with the nearest known ones, or a bad value.
    """
    check_known(name, UPLINKS, "uplink")
    known = inspect.signature(UPLINKS[name]).parameters
    for value in values:
        check_known(value, known, f"property of the uplink {name}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in values]
    if missing:
        raise ValueError(f"the uplink {name} needs {' and '.join(missing)}")
    return UPLINKS[name](**values)
