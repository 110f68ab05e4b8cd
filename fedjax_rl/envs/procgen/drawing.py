"""What a picture shows beside the rules, by options of Procgen, and how many are drawn at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax

from fedjax_rl import turns

# Pictures in the making that stay in the caches of two cores, with their words and canvas 5 MB: XLA
# divides them where it has two threads. One thread is as fast with 32 of them, two lose a sixth.
AT_A_TIME = 64


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a game is drawn.

    Attributes:
      paint_vel_info: whether two grey squares in the top left tell the player's velocity.
      use_backgrounds: whether there is a background; otherwise it is black.
      restrict_themes: whether every kind of thing has one look; in BigFish all fish are then of
        the first species, which is a matter of the rules too.
      use_monochrome_assets: whether things are rectangles of one colour.
    """

    paint_vel_info: bool = False
    use_backgrounds: bool = True
    restrict_themes: bool = False
    use_monochrome_assets: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool):
                raise ValueError(f"{field.name} is {value!r}; allowed: True or False")


@dataclasses.dataclass(frozen=True)
class InTurns:
    """Draws the pictures of a batch so many at a time, see `AT_A_TIME`; they stay the same.

    Attributes:
      picture: draws a state, as `BigFishPicture`.
    """

    picture: Callable[[Any, Any], chex.Array]

    def __call__(self, state: Any, params: Any) -> chex.Array:
        """Returns the picture, uint8 [64, 64, 3]; nothing can be differentiated by way of it."""
        draw = turns.in_parts(self.picture, 1, AT_A_TIME)
        return draw(*jax.lax.stop_gradient((state, params)))
