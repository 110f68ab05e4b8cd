"""Numbers on the command lines of benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def above_zero(most: int) -> Callable[[str], float]:
    """Reads a number that is more than 0 and at most `most`; anything else argparse refuses."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: more than 0, at most {most}")
        return value

    return read
