"""How long agents take: times that each draws from a stream of its own.

Attempt j of agent i takes as long whatever the scheduler, the number of agents or the rest of the
population, so that runs that differ in them share their randomness.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.federation.clock.config import Rules

# Words of an agent's stream for one attempt: how long it takes, when it would fail, when the agent
# would return.
# All three are counted even where nobody fails, so that failures change no duration.
_WORDS = 3
_DURATION, _FAILURE, _RETURN = range(_WORDS)


def stream_of_times(keys) -> jax.Array:
    """Data of the keys of the agents' times.

    Args:
      keys: typed keys [A], of the agents.

    Returns:
      uint32 [A, 2].
    """
    return jax.random.key_data(streams.keys_of(keys, streams.Engine.CLOCK))


def durations(rules: Rules, transfer: int, own: dict, stream, attempt, dtype) -> jax.Array:
    """Time from when an agent is dispatched a model until its message arrives.

    Args:
      rules: of the clock.
      transfer: bytes of a message up and its answer down.
      own: `Clock.parameters` of these agents, leaves of the shape of `attempt` (times of a trace
        have one more axis, of length J).
      stream: uint32 [..., 2], `stream_of_times`; () where nothing is random.
      attempt: uint32 [...], how often each has begun before.
      dtype: of the times.

    Returns:
      [...], in units of the clock: compute time + 2 latency + transfer / bandwidth.
    """
    if rules.distribution == "trace":
        length = own["time"].shape[-1]
        place = (attempt % jnp.uint32(length)).astype(jnp.int32)
        time = jnp.take_along_axis(own["time"], place[..., None], axis=-1)[..., 0]
    elif rules.distribution == "exponential":
        time = _exponential(_word(stream, attempt, _DURATION), own["time"], dtype)
    elif rules.distribution == "log_normal":
        sigma = own["sigma"]
        normal = streams.normal(_word(stream, attempt, _DURATION), dtype)
        # Less half the variance: the mean is `time`, not the median.
        time = own["time"] * jnp.exp(sigma * (normal - sigma / 2))
    else:
        time = own["time"]
    time = time + 2 * own["latency"]
    if rules.limited:
        time = time + transfer / own["bandwidth"]
    return time.astype(dtype)


def work(rules: Rules, transfer: int, own: dict, stream, attempt, start):
    """When work that begins now ends, and how.

    Args:
      rules: of the clock.
      transfer: as of `durations`.
      own: likewise.
      stream: likewise.
      attempt: likewise.
      start: [...], when it begins.

    Returns:
      The end [...]; whether it is a failure, bool [...]; and when the agent would be back from it
      [...]. The last two are () where nobody fails.
    """
    dtype = start.dtype
    end = start + durations(rules, transfer, own, stream, attempt, dtype)
    if not rules.fails:
        return end, (), ()

    def exponential(place: int, name: str):
        return _exponential(_word(stream, attempt, place), own[name], dtype).astype(dtype)

    failure = start + exponential(_FAILURE, "failure_time")
    failing = failure < end
    end = jnp.where(failing, failure, end)
    return end, failing, end + exponential(_RETURN, "return_time")


def _word(stream, attempt, place: int):
    counter = attempt * jnp.uint32(_WORDS) + jnp.uint32(place)
    return streams.threefry((stream[..., 0], stream[..., 1]), counter)


def _exponential(word, mean, dtype):
    # A uniform is below 1, so that the logarithm is finite.
    return -jnp.log1p(-streams.uniform(word, dtype)) * mean
