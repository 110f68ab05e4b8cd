"""What a picture shows beside the rules: the options of Procgen that change how it is drawn."""

import dataclasses


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
