"""Rounds of small agents in one kernel, for accelerators that wait for kernels to start.

As a program of array operations a local step is a handful of kernels, and an accelerator needs
longer to start these than a few thousand agents need to compute. Here a kernel takes a block of
agents through many rounds: what they keep, their random words and the mean over their federation
stay in registers and shared memory. The step is the one of the algorithm, with the same words; a
federation that does not fit into a block has its local steps in a kernel and exchanges outside.

A block is [f, n], so many federations by the members of each. Sizes of blocks are powers of two,
as Triton wants them; what fills them up is agents that are there twice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl.federation import debugging
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.rounds import LocalSteps, Rounds, charged, rounds, spent
from fedjax_rl.federation.state import Params, State

# Agents of a block, four warps: as many as one unit of the processor starts at a time.
_BLOCK = 128
# Members of the largest federation that a block holds: 1024 tables of a dozen entries, with the
# words of a step, are about all registers of a unit.
LARGEST = 1024
_WARP, _MOST_WARPS = 32, 16


def in_kernels(drive: Rounds, steps: LocalSteps, link: Exchange, whole: bool, how: str) -> Rounds:
    """The same algorithm with its rounds in kernels, where time passes in steps of traced number.

    Derivatives are those of the program without kernels, and so is what is driven round by round.

    Args:
      drive: the algorithm without kernels, of the two parts that follow.
      steps: its local steps, on scalars alone: with properties, an agent and a key that are
        scalars, and no operation that makes anything else of them.
      link: its exchange.
      whole: whether exchanges go into the kernel, too: plain means of all messages that become the
        model.
      how: of `backend.kernels`.

    Returns:
      The `Rounds`.
    """
    outside = rounds(steps._replace(local=_each(steps.local, how)), link).advance

    def advance(population, params, state, num_steps):
        if debugging.is_on():
            return drive.advance(population, params, state, num_steps)
        largest = max(agents for _, agents in population.groups)
        fits = whole and population.axis_name is None and largest <= LARGEST

        # A kernel has no derivative; the program that it stands for has.
        @jax.custom_jvp
        def called(params, state, num_steps):
            if fits:
                return _advanced(population, steps, link, params, state, num_steps, how)
            return outside(population, params, state, num_steps)

        @called.defjvp
        def _(primals, tangents):
            plain = functools.partial(drive.advance, population)
            return jax.jvp(plain, primals, tangents)

        return called(params, state, jnp.uint32(num_steps))

    return drive._replace(advance=advance)


def _each(local: Callable, how: str) -> Callable:
    """Local steps of one agent which for many agents are a kernel."""

    @jax.custom_batching.custom_vmap
    def steps(key, agent, params, time, num_steps):
        return local(key, agent, params, time, num_steps)

    @steps.def_vmap
    def _(size, batched, key, agent, params, time, num_steps):
        width = min(_BLOCK, _power(size))
        rows = -(-size // width)

        def blocks(leaf):
            leaf = jnp.pad(leaf, (0, rows * width - size), mode="edge")
            return leaf.reshape(rows, width)

        def laid(x, many):
            return blocks(x) if many else jnp.asarray(x)

        axes = batched[2]
        names = _scalars(params, jax.tree.map(int, axes))
        own = {name: jax.tree.map(laid, params[name], axes[name]) for name in names}
        agent = jax.tree.map(
            lambda x, many: x if many else jnp.broadcast_to(x, (size,)), agent, batched[1]
        )

        def function(agents, fixed):
            keys, own, time, num_steps = fixed
            return _learned(local, keys, agents, own, time, num_steps)

        fixed = jax.tree.map(blocks, _words(key)), own, time, num_steps
        agents = _call(function, jax.tree.map(blocks, agent), fixed, (1, width), how)
        agents = jax.tree.map(lambda x: x.reshape(-1)[:size], agents)
        return agents, jax.tree.map(lambda _: True, agents)

    return steps


def _advanced(
    population: Population,
    steps: LocalSteps,
    link: Exchange,
    params: Params,
    state: State,
    num_steps,
    how: str,
) -> State:
    """The state so many local steps later, with the exchanges that fall due in them."""
    start, end = state.time, state.time + num_steps
    shared = {n: params.shared[n] for n in _scalars(params.shared, 0)}
    federation = {n: params.federation[n] for n in _scalars(params.federation, 1)}
    agent = {n: params.agent[n] for n in _scalars(params.agent, 1)}
    of_agents = state.agents, _words(state.keys), agent
    of_federations = state.server, federation

    def cut(tree, first: int, many: int):
        return jax.tree.map(lambda x: x[first : first + many], tree)

    made, agents, servers = [], 0, 0
    for count, members in population.groups:
        own = cut(of_agents, agents, count * members), cut(of_federations, servers, count)
        of_all = shared, start, num_steps
        made.append(_group(steps.local, link, (count, members), *own, of_all, how))
        agents, servers = agents + count * members, servers + count
    agents, server = jax.tree.map(lambda *each: jnp.concatenate(each), *made)
    state = dataclasses.replace(state, agents=agents, server=server, time=end)
    state = spent(population, state, steps.env_steps, num_steps)
    return charged(population, link, params, state, start)


def _group(local, link, group, of_agents, of_federations, of_all, how: str):
    """Agents and servers of federations of one size, after so many steps.

    Args:
      local: as of `LocalSteps`.
      link: the exchange.
      group: federations, members of each.
      of_agents: agents, keys, properties: leaves [F N].
      of_federations: servers, properties: leaves [F].
      of_all: properties, uint32 time and number of steps: scalars.
      how: as of `in_kernels`.

    Returns:
      Agents, leaves [F N], and servers, leaves [F].
    """
    count, members = group
    width = _power(members)
    height = min(max(1, _BLOCK // width), _power(count))
    more = -count % height, width - members

    def by_federation(x):
        return jnp.pad(x.reshape(count, members), ((0, more[0]), (0, more[1])), mode="edge")

    agents, keys, own = jax.tree.map(by_federation, of_agents)
    server, federation = jax.tree.map(
        lambda x: jnp.pad(x, (0, more[0]), mode="edge"), of_federations
    )

    def function(changing, fixed):
        return _rounds_of(local, link, members, changing, *fixed)

    fixed = keys, own, federation, of_all
    agents, server = _call(function, (agents, server), fixed, (height, width), how)
    agents = jax.tree.map(lambda x: x[:count, :members].reshape(-1), agents)
    return agents, jax.tree.map(lambda x: x[:count], server)


def _rounds_of(local, link, members: int, changing, keys, own, federation, of_all):
    """Agents [f, n] and servers [f] of a block after so many steps; in the kernel."""
    shared, start, num_steps = of_all
    width = keys[0].shape[1]
    period = {**shared, **federation}["sync_period"]
    end = start + num_steps

    def spread(x):
        return jnp.broadcast_to(x[:, None], (x.shape[0], width))

    params = {**shared, **jax.tree.map(spread, federation), **own}

    def mean(x):
        if members == 1:
            return x.reshape(-1)
        if members < width:
            place = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
            x = jnp.where(place < members, x, jnp.zeros_like(x))
        return jnp.sum(x, axis=1) / members

    def turn(now):
        time, agents, server = now
        # Federations of many periods lie in a block: all work up to the next exchange of any.
        count = jnp.minimum(jnp.min(period - time % period), end - time)
        agents = _learned(local, keys, agents, params, time, count)
        time = time + count
        due = time % period == 0
        model = jax.tree.map(spread, server)
        message = _per_agent(link.message, params, agents, model)
        server = jax.tree.map(lambda x, old: jnp.where(due, mean(x), old), message, server)
        heard = _per_agent(link.receive, params, agents, jax.tree.map(spread, server))
        due = due if due.ndim == 0 else spread(due)
        agents = jax.tree.map(lambda new, old: jnp.where(due, new, old), heard, agents)
        return time, agents, server

    agents, server = changing
    now = jax.lax.while_loop(lambda now: now[0] != end, turn, (start, agents, server))
    return now[1:]


def _learned(local, keys, agents, params, time, num_steps):
    """The agents of a block [f, n] after local steps."""
    return _per_agent(
        lambda agent, key, own: local(key, agent, own, time, num_steps), params, agents, keys
    )


def _per_agent(function: Callable, params: dict, *each):
    """Applies `function(*each, params)` to every agent of a block, leaves [f, n]."""
    axes = jax.tree.map(lambda x: 0 if x.ndim else None, params)

    def one(params, *each):
        return function(*each, params)

    mapped = jax.vmap(jax.vmap(one, (axes, *(0 for _ in each))), (axes, *(0 for _ in each)))
    return mapped(params, *each)


def _call(function: Callable, changing, fixed, block: tuple[int, int], how: str):
    """`function(changing, fixed)` in a kernel, block by block.

    Args:
      function: of leaves [f, n], [f] and scalars; gives what changes.
      changing: leaves [F, N] and [F], whole blocks.
      fixed: leaves [F, N], [F] and scalars.
      block: f, n.
      how: as of `in_kernels`.

    Returns:
      As `changing`.
    """
    # Not at the top: it is slow to import, and of no use to a processor.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    height, width = block
    (going, into), (given, known) = _packed(changing), _packed(fixed)
    arrays = [*going.values(), *given.values()]
    rows = next(x.shape[1] for x in arrays if x.ndim > 1) // height

    def spec(x):
        shape = (x.shape[0], *block)[: x.ndim]
        at = lambda i: (0, i, 0)[: x.ndim]
        return pl.BlockSpec(shape, at)

    def kernel(*refs):
        inputs, outputs = refs[: len(arrays)], refs[len(arrays) :]
        first = dict(zip(going, inputs, strict=False))
        second = dict(zip(given, inputs[len(going) :], strict=True))
        read = jax.tree.map(lambda at: first[at.group][at.place], into)
        after = function(read, jax.tree.map(lambda at: second[at.group][at.place], known))
        last = dict(zip(going, outputs, strict=True))

        def write(at, x):
            last[at.group][at.place] = x

        jax.tree.map(write, into, after)

    warps = max(1, min(height * width // _WARP, _MOST_WARPS))
    made = pl.pallas_call(
        kernel,
        grid=(rows,),
        in_specs=[spec(x) for x in arrays],
        out_specs=[spec(x) for x in going.values()],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in going.values()],
        interpret=how == "interpret",
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        name="rounds",
    )(*arrays)
    after = dict(zip(going, made, strict=True))
    return jax.tree.map(lambda at: after[at.group][at.place], into)


@dataclasses.dataclass(frozen=True)
class _At:
    """Where a leaf lies: in the array of its group, at a place of the first axis."""

    group: tuple
    place: int


def _packed(tree):
    """Leaves of one rank and type as one array, {group: [leaves, ...]}; and an `_At` for each.

    A table of a dozen entries, and two of them for the environment, would be hundreds of arguments.
    """
    groups = {}

    def put(leaf):
        group = (leaf.ndim, jnp.result_type(leaf).name)
        own = groups.setdefault(group, [])
        own.append(leaf)
        return _At(group, len(own) - 1)

    places = jax.tree.map(put, jax.tree.map(jnp.asarray, tree))
    return {group: jnp.stack(leaves) for group, leaves in groups.items()}, places


def _scalars(params: dict, axes) -> list[str]:
    """Names of the properties that are one number, or a table of numbers, to an agent.

    Args:
      params: by name.
      axes: how many axes of each leaf are of the population: a number, or one for each leaf.
    """
    axes = jax.tree.map(lambda _: axes, params) if isinstance(axes, int) else axes

    def all_are(own, many):
        return all(
            x.ndim == n for x, n in zip(jax.tree.leaves(own), jax.tree.leaves(many), strict=True)
        )

    return [n for n in params if all_are(params[n], axes[n])]


def _words(keys) -> tuple:
    """Of typed keys [A], as arrays of their own."""
    data = jax.random.key_data(keys)
    return data[..., 0], data[..., 1]


def _power(size: int) -> int:
    """The power of two that is not below."""
    return 1 << (size - 1).bit_length()
