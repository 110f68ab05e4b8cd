"""Signals that ask a process to stop, as exceptions, so that it can save what it has."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


class Stopped(KeyboardInterrupt):
    """A signal asks to stop.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        """Takes the number of the signal."""
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def as_exceptions(words: str = "") -> Iterator[list[int]]:
    """While it lasts, Ctrl-C, SIGTERM and SIGHUP raise `Stopped` in the main thread.

    A second signal ends the process at once. Signals that somebody else handles or ignores are
    left as they are.

    Args:
      words: said when a signal comes.

    Yields:
      The signals that came.
    """
    came: list[int] = []

    def stop(number: int, frame) -> None:
        if came:
            # Its own way of ending, so that whoever has started the process sees by what it ended.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        with contextlib.suppress(OSError):  # whoever read it may be gone
            # Not `print`: the signal may have come in the middle of one, which cannot be entered
            # twice.
            os.write(2, words.encode())
        raise Stopped(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    # Python lets nobody else set handlers.
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {n: signal.getsignal(n) for n in numbers if n and signal.getsignal(n) in usual}
    for number in before:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def saving(directory) -> Iterator[None]:
    """While it lasts, a process that is told to stop saves first, and then ends as it was told.

    Args:
      directory: where it saves, for the message.
    """
    came: list[int] = []
    try:
        with as_exceptions() as came:
            yield
    except KeyboardInterrupt:
        if came:
            print(f"stopped; checkpoints are in {directory}", file=sys.stderr, flush=True)
        # By the signal itself, as whoever sent it looks for that; of Ctrl-C Python makes the same.
        if came and came[0] != signal.SIGINT:
            signal.signal(came[0], signal.SIG_DFL)
            os.kill(os.getpid(), came[0])
        raise
