"""The runs of a study: stages, each made once, saved, and shared by figures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.identity import parts
from fedjax_rl.saving import results as files
from fedjax_rl.saving.fingerprint import differences
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.study import Meter
from fedjax_rl.sweeps.axes import identity
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.compiling import compiled_quickly
from fedjax_rl.sweeps.sweep import run_cells

STILL = 1e-12  # a rate with which nothing is learned, where 0 is refused
SECONDS = "seconds.json"
CHECKPOINTS, SPENT = "checkpoints", "spent.json"
LONG = 600.0  # seconds of a stage that is saved as it is made; in a shorter one little is lost
LEDGER = ("env_steps", "messages_up", "bytes_up", "bytes_down", "diverged")


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """Runs that belong together, or whatever else takes time: a Dataset, made once and saved.

    Attributes:
      name: of its directory, unique in a study.
      make: `(meter, *Datasets of the stages before it) -> Dataset`; calls `meter.stage(name)` for
        its progress.
      seconds: roughly, at paper scale on two cores: for the time that is left, and for what is
        said where nothing was run.
      of: whatever decides its numbers, compared before a saved stage is believed; a function, where
        that takes long to make.
      there: whether the scale has it at all.
      after: stages whose results it takes, made and saved before it.
    """

    name: str
    make: Callable[..., xr.Dataset]
    seconds: float = 10.0
    of: Any = ()
    there: bool = True
    after: tuple[Stage, ...] = ()

    def __getitem__(self, variable: str) -> Number:
        """A variable of the Dataset."""
        return Number(lambda results: results[self][variable], (self,))

    @property
    def decides(self) -> Any:
        """`of`, made where it is a function."""
        return self.of() if callable(self.of) else self.of

    @property
    def whole(self) -> list[Stage]:
        """The stages before it, and itself, in the order in which they are made."""
        return [*(stage for first in self.after for stage in first.whole), self]

    def plan(self) -> list[tuple[Algorithm, dict[int, int], int]]:
        """Sets of runs `(algorithm, {N: federations}, steps)`, where they are known beforehand."""
        return []

    def identity(self) -> dict[str, list[str]]:
        """What decides its numbers, as plain values for a file."""
        return {name: list(leaf) for name, leaf in parts(self.name, self.decides).items()}


Values = Sequence | Mapping[Any, Mapping[str, Any]]
Own = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]
Methods = Mapping[str, Algorithm | tuple[Algorithm, Own]]


def runs(
    name: str,
    methods: Methods | Callable[[], Methods],
    axes: Mapping[str, Values] | None = None,
    *,
    num_steps: int,
    trials: int | None,
    metrics: Sequence[str],
    num_agents: int = 1,
    record_every: int | None = None,
    first_seed: int = 0,
    paired: bool = True,
    double: bool = False,
    seconds: float = 10.0,
    **options,
) -> Stage:
    """Methods x axes x seeds as one Dataset with the dimensions `method`, the axes, `seed`, `time`.

    Methods of one algorithm object share a program, which is compiled once. What is the same run
    under two names is run once.

    Args:
      name: of the stage.
      methods: what a legend says -> algorithm, or algorithm and the properties that it changes; a
        function makes them of {axis: value}, where a method needs others at every value. What takes
        seconds to make, as physics does, is made by a function when it is run or planned.
      axes: dimension -> values of the property of that name, `num_agents` included; or value ->
        properties, where several change at once or a value is no number.
      num_steps: of every run.
      trials: L, runs of every combination; None where the scale has none.
      metrics: of federations, or of agents; all methods have them.
      num_agents: N, where it is no axis.
      record_every: steps between two records; 60 records by default.
      first_seed: of the trials; runs that must be independent of others' have their own.
      paired: whether all methods and values see the same seeds, so that their differences are
        paired. Otherwise every run has a seed of its own, and `seed` counts them.
      double: whether to compute in double precision.
      seconds: as of `Stage`.
      **options: of `run_cells`.
    """
    axes = dict(axes or {})
    every = record_every or max(1, num_steps // 60)

    @functools.cache
    def known() -> tuple[dict, dict]:
        """The methods with their properties; of each algorithm the first method that has it."""
        made = with_properties(methods() if callable(methods) else methods)
        return made, {id(algorithm): k for k, (algorithm, _) in reversed(made.items())}

    def cells() -> tuple[list[Cell], list[int]]:
        """The runs that differ, and which of them each combination is."""
        (made, first), out = known(), []
        for algorithm, own in made.values():
            for place in itertools.product(*axes.values()):
                at = dict(zip(axes, place, strict=True))
                properties = {"num_agents": num_agents, **(own(at) if callable(own) else own)}
                for name, value in at.items():
                    several = isinstance(axes[name], Mapping)
                    properties |= axes[name][value] if several else {name: value}
                agents = properties.pop("num_agents")
                before = first_seed + (0 if paired else len(out))
                out += [
                    Cell(agents, before + trial, properties, first[id(algorithm)])
                    for trial in range(trials or 0)
                ]
        found: dict = {}
        index = [found.setdefault(_key(cell), (len(found), cell))[0] for cell in out]
        return [cell for _, cell in found.values()], index

    def algorithms() -> dict[str, Algorithm]:
        made, first = known()
        return {first[id(algorithm)]: algorithm for algorithm, _ in made.values()}

    def make(meter: Meter) -> xr.Dataset:
        (made, _), (different, index) = known(), cells()
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            flat = meter.count(
                run_cells(
                    algorithms(),
                    different,
                    num_steps=num_steps,
                    record_every=every,
                    metrics=metrics,
                    devices=meter.devices,
                    checkpoints=meter.checkpoints,
                    progress=meter.stage(name),
                    **options,
                )
            )
        names = ("method", *axes, "seed")
        trial = np.arange(trials or 0) + (first_seed if paired else 0)
        coordinates = {"method": list(made), "seed": trial}
        coordinates |= {axis: list(values) for axis, values in axes.items()}
        coordinates |= {"time": ("time", flat["time"].values, flat["time"].attrs)}
        shape = (len(made), *map(len, axes.values()), trials or 0)
        data = {}
        for variable in (*metrics, *LEDGER):
            array = flat[variable]
            dims = (*names, *array.dims[1:])  # of a metric of agents, `agent` before the time
            data[variable] = (dims, array.values[index].reshape(*shape, *array.shape[1:]))
        return xr.Dataset(data, coordinates, flat.attrs)

    def plan():
        count: dict = {}
        for cell in cells()[0]:
            own = count.setdefault(cell.algorithm, {})
            own[cell.num_agents] = own.get(cell.num_agents, 0) + 1
        own = algorithms()
        return [(own[label], agents, num_steps) for label, agents in count.items()]

    def of():
        return {
            "methods": {k: (a.name, a.config, p) for k, (a, p) in known()[0].items()},
            "axes": axes,
            "num_agents": num_agents,
            "num_steps": num_steps,
            "record_every": every,
            "trials": trials,
            "first_seed": first_seed,
            "paired": paired,
            "metrics": list(metrics),
            "double": double,
            "options": options,
        }

    return Planned(name, make, seconds, of, trials is not None, planned=plan)


def with_properties(methods: Methods) -> dict[str, tuple[Algorithm, Own]]:
    """Methods with the properties that they change, none where they are an algorithm alone."""
    return {k: v if isinstance(v, tuple) else (v, {}) for k, v in methods.items()}


def _key(cell: Cell) -> Hashable:
    rest = frozenset((name, identity(value)) for name, value in cell.properties.items())
    return cell.algorithm, cell.num_agents, cell.seed, rest


@dataclasses.dataclass(frozen=True, eq=False)
class Planned(Stage):
    """A stage that knows its runs beforehand.

    Attributes:
      planned: `() -> plan`, as of `Stage`; nothing is made before it is called.
    """

    planned: Callable = list

    def plan(self):
        """As of `Stage`."""
        return self.planned()


def work(stage: Stage) -> int:
    """Agents times steps of the runs of a stage."""
    return sum(
        n * federations * steps
        for _, counts, steps in stage.plan()
        for n, federations in counts.items()
    )


class Results:
    """The stages of a study as they are made: each when it is first asked for, and saved.

    A stage that was saved before is read again: a study that was stopped goes on where it was,
    within a sweep of `LONG` seconds or more, too. One that is damaged is made anew.
    """

    def __init__(self, directory: pathlib.Path, meter: Meter, *, quickly: bool = False) -> None:
        """Takes where the stages are saved, and who adds up their seconds.

        Args:
          directory: of the study.
          meter: of all stages.
          quickly: whether programs are compiled for longer than they run, see `compiled_quickly`.
        """
        self._directory, self._meter = pathlib.Path(directory), meter
        self._hurry = compiled_quickly if quickly else contextlib.nullcontext
        self._least = np.inf if quickly else LONG
        self._made: dict[str, xr.Dataset] = {}
        self._known: set[Stage] = set()  # whose identity has been compared
        self.seconds: dict[str, float] = {}  # that each stage took, whenever it was made
        self._of: dict[str, Hashable] = {}

    def __getitem__(self, stage: Stage) -> xr.Dataset:
        """The Dataset of a stage.

        Raises:
          ValueError: a saved stage of the name is of other runs.
        """
        if stage in self._known:
            return self._made[stage.name]
        of = stage.identity()
        if differ := differences(of, self._of.setdefault(stage.name, of)):
            raise ValueError(
                f"two stages are called {stage.name}: {'; '.join(differ[:3])}; allowed: a name each"
            )
        if stage.name not in self._made:
            made = self._saved(stage, of)
            if made is not None:
                self._meter.stage(stage.name)
                self._meter.count(made)
            else:
                first = [self[own] for own in stage.after]
                made = self._making(stage, of, first)
            self._made[stage.name] = made
        self._known.add(stage)
        return self._made[stage.name]

    def _making(self, stage: Stage, of: dict, first: Sequence[xr.Dataset]) -> xr.Dataset:
        """Makes a stage from those before it, or goes on with it, and saves it."""
        place = self._directory / stage.name
        place.mkdir(exist_ok=True)
        is_long = stage.seconds >= self._least
        self._meter.checkpoints = place / CHECKPOINTS if is_long else None
        earlier = (files.read_sealed(place / SPENT) or {}).get("all", 0.0) if is_long else 0.0
        before, start = self._spent(), time.perf_counter()
        try:
            with self._hurry():
                made = stage.make(self._meter, *first)
        except KeyboardInterrupt:
            # What goes on counts; what a process that is killed has spent nobody knows.
            if is_long and self._meter.checkpoints.is_dir():
                spent = earlier + time.perf_counter() - start
                files.write_sealed(place / SPENT, {"all": spent})
            raise
        self.seconds[stage.name] = earlier + time.perf_counter() - start
        said = made.attrs.get("seconds")
        seconds = json.loads(said) if said else _since(before, self._spent())
        self._meter.run_seconds += earlier
        # Seconds are not in the result: its bytes are the same again.
        seconds = {**seconds, "run": seconds["run"] + earlier, "all": self.seconds[stage.name]}
        files.write_sealed(place / SECONDS, {**seconds, "of": of})
        files.save(place, made)
        return made

    def _spent(self) -> dict[str, float]:
        return {"compile": self._meter.compile_seconds, "run": self._meter.run_seconds}

    def _saved(self, stage: Stage, of: dict) -> xr.Dataset | None:
        """A whole stage of these very runs, with the seconds it took; None where there is none."""
        place = self._directory / stage.name
        seconds = files.read_sealed(place / SECONDS)
        if seconds is None:
            return None
        if differ := differences(of, seconds.pop("of", {})):
            raise ValueError(
                f"runs in {place} are others: {'; '.join(differ[:3])}; allowed: the same scale and "
                "preset, or another directory"
            )
        with contextlib.suppress(OSError):
            made = files.load(place)
            self.seconds[stage.name] = seconds.pop("all", 0.0)
            return made.assign_attrs(seconds=json.dumps(seconds)) if seconds else made
        return None


def _since(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    return {name: now[name] - before[name] for name in now}
