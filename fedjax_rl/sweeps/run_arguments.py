"""The arguments of every run: how long, how often and where, looked at before anything compiles."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_rl import fields, hosts
from fedjax_rl.fields import FUNCTION, Allowed, check, declared
from fedjax_rl.names import brief
from fedjax_rl.sweeps.arguments import COUNT, between


def _is_path(value) -> bool:
    """Whether a value can be the name of a file: none that a file system refuses."""
    if not isinstance(value, str | os.PathLike) or str(value) == "" or "\0" in str(value):
        return False
    # Bytes, as file systems count them.
    return all(len(part.encode()) <= 255 for part in pathlib.PurePath(value).parts)


def _called_with(of: str, text: str = "a function of ") -> Allowed:
    return Allowed(f"{text}{of}", callable, optional=True)


_PROGRESS = _called_with("(done, total)", "True for a bar, or a function of ")._replace(
    fine=lambda value: callable(value) or isinstance(value, bool)
)
_CHECKPOINTS = Allowed(
    "a directory, or a function that returns one",
    lambda value: FUNCTION.fine(value) or _is_path(value),
    optional=True,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """How long, how often and where something is run: the one list of these arguments.

    `sweep` explains each of them, and takes them by these names.
    """

    num_steps: int = declared(allowed=COUNT)
    record_every: int | None = declared(None, COUNT.or_none())
    first_record: int | None = declared(None, COUNT.or_none())
    metrics: Sequence[str] | None = None
    agents: Sequence[int] | None = None
    devices: int | None = declared(None, COUNT.or_none())
    workers: int | None = declared(None, COUNT.or_none())
    chunk: int | None = declared(None, COUNT.or_none())
    stop: Callable | None = declared(None, _called_with("(times, records, cells)"))
    checkpoints: str | os.PathLike | Callable | None = declared(None, _CHECKPOINTS)
    progress: bool | Callable[[int, int], None] | None = declared(None, _PROGRESS)
    watch: Callable[[dict[str, float]], None] | None = declared(
        None, _called_with("the last values by name")
    )
    cache: bool = declared(True, fields.switch())
    debug: bool = declared(False, fields.switch())

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Run:
        """Takes the arguments of a run out of others, checked.

        Args:
          options: by name; what belongs to a run is removed.

        Raises:
          TypeError: without `num_steps`.
          ValueError: naming the argument, its value and what is allowed.
        """
        if "num_steps" not in options:
            raise TypeError("num_steps is missing; allowed: whole numbers of steps from 1")
        names = [field.name for field in dataclasses.fields(cls) if field.name in options]
        run = fields.check_config(cls(**{name: options.pop(name) for name in names}))
        devices = run.devices or (1 if hosts.count() == 1 else jax.device_count())
        check("devices", devices, between(1, jax.device_count()))
        if devices % hosts.count():
            raise ValueError(
                f"devices is {devices}; allowed: multiples of {hosts.count()}, as many of each "
                "process"
            )
        if run.debug and hosts.count() > 1:
            raise ValueError(
                f"debug is True in {hosts.count()} processes; allowed: False, or one process"
            )
        for name in ("record_every", "first_record"):
            within = between(1, run.num_steps, "num_steps ").or_none()
            check(name, getattr(run, name), within)
        # About 100 records, and 50 returns to the host.
        every = run.record_every or max(1, run.num_steps // 100)
        first = run.first_record or every
        chunk = run.chunk or int(np.clip(((run.num_steps - first) // every + 1) // 50, 1, 256))
        return dataclasses.replace(
            run, record_every=every, first_record=first, chunk=chunk, devices=devices
        )


def taking_run(function: Callable) -> Callable:
    """Shows the arguments of `Run`, which a function takes by name, in its signature."""
    own = inspect.signature(function)
    *named, rest = own.parameters.values()
    run = inspect.signature(Run).parameters.values()
    rest = [rest] if rest.name == "properties" else []
    function.__signature__ = own.replace(parameters=[*named, *run, *rest])
    return function


def directory(checkpoints) -> Any:
    """Where checkpoints lie: what is given, or what it returns when called.

    Raises:
      ValueError: what cannot be called with nothing, or returns no directory.
    """
    text = "a directory, or a function of nothing that returns one"
    if callable(checkpoints):
        try:
            given = checkpoints()
        except TypeError as error:
            raise ValueError(
                f"checkpoints is {brief(checkpoints)}, which fails with TypeError: {brief(error)}; "
                f"allowed: {text}"
            ) from error
        check("what checkpoints returns", given, Allowed(text, _is_path))
        return given
    return checkpoints
