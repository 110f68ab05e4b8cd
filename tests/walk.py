"""An environment without chance, whose episodes end, or are cut off."""

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_rl import envs


class Nothing(NamedTuple):
    unit: float = 1.0


class Walk:
    """Two steps to the right end it, three of any kind are all that there is time for."""

    num_actions = 2
    default_params = Nothing()

    def _seen(self, place, time):
        return jnp.stack([place, time * time]).astype(jnp.float32) / 2

    def reset(self, key, params):
        del key, params
        return self._seen(jnp.int32(0), jnp.int32(0)), (jnp.int32(0), jnp.int32(0))

    def step(self, key, state, action, params):
        del key
        place, time = state[0] + action, state[1] + 1
        reward = params.unit * (0.5 + place.astype(jnp.float32))
        return self._seen(place, time), (place, time), reward, place >= 2, False, {}


WALK = envs.as_task(Walk(), max_steps=3)
