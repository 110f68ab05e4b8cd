"""What a configuration needs of memory and time, before it runs."""

from __future__ import annotations

import itertools
import os

from fedjax_rl.cli.config import algorithms_of, lists_of
from fedjax_rl.cli.report import plural
from fedjax_rl.sweeps.costs import Costs, Operations, costs_of

# Federations of more agents are measured by one of so many, and larger in proportion.
_MEASURED = 2**14
# What compiling leaves in a process beside JAX itself, measured for networks of PPO on a CPU.
_COMPILING = 400 * 2**20


class Needs:
    """Adds up what federations need; nothing is simulated."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.federations = self.agents = self.total = self.kept = 0
        self.largest: tuple[int, dict] = 0, {}
        self.peak: tuple[int, int] | None = None
        self.operations = Operations()
        self.turns = 0.0
        self.compiled = True
        self.devices = 1
        self._of_agent: dict = {}
        self._costs: dict = {}

    def add(self, algorithm, num_agents: int, federations: int, steps: int, records: int) -> None:
        """So many federations alike, which make so many steps and are measured so many times.

        Args:
          algorithm: of the federations.
          num_agents: N.
          federations: how many.
          steps: in the algorithm's unit of time.
          records: how often metrics are computed.
        """
        each, costs = self.each(algorithm, num_agents), self.costs(algorithm, num_agents)
        parts = costs.kept
        if algorithm.memory is not None:
            parts = algorithm.memory(algorithm.config, num_agents)
        self.federations += federations
        self.agents += num_agents * federations
        self.total += federations * each
        self.largest = max(self.largest, (each, parts), key=lambda pair: pair[0])
        self.operations = self.operations.plus(costs.step, federations * steps)
        self.operations = self.operations.plus(costs.record, federations * records)
        own = steps * costs.step.turns + records * costs.record.turns
        self.turns = max(self.turns, own)

    def keep(self, numbers: int) -> None:
        """Notes so many numbers of records on the host."""
        self.kept += 4 * numbers

    def costs(self, algorithm, num_agents: int) -> Costs:
        """What the program of a federation computes and keeps, in proportion as in `each`.

        Args:
          algorithm: of the federation.
          num_agents: N.
        """
        key = algorithm.name, algorithm.static(algorithm.config)
        if key not in self._costs:
            self._costs[key] = num_agents, costs_of(algorithm, num_agents)
        n, found = self._costs[key]
        # On a clock a step of the server is one arrival's, whatever N is.
        times = 1 if algorithm.on_clock else num_agents / n
        kept = {name: int(size * num_agents / n) for name, size in found.kept.items()}
        # More agents do more at a time, not more often.
        step = Operations().plus(found.step, times)._replace(turns=found.step.turns)
        return Costs(step, found.record, kept)

    def each(self, algorithm, num_agents: int) -> int:
        """Bytes of a federation: what its algorithm says, or else its compiled program.

        Programs that differ in the number of agents alone are compiled for the first one asked
        for, best the largest, and take memory in proportion.

        Args:
          algorithm: of the federation.
          num_agents: N.
        """
        if algorithm.memory is not None:
            self.compiled = False
            return algorithm.memory(algorithm.config, num_agents)["total"]
        key = algorithm.name, algorithm.static(algorithm.config)
        if key not in self._of_agent:
            n = min(num_agents, _MEASURED)
            try:
                self._of_agent[key] = _bytes(algorithm, n) / n
            except ValueError:  # such as a server that waits for more agents than these
                self._of_agent[key] = _bytes(algorithm, num_agents) / num_agents
        return int(self._of_agent[key] * num_agents)

    def together(self, populations, workers: int, devices: int) -> None:
        """Notes which federations run together.

        Args:
          populations: of each, its configurations and agents: [(algorithm, num_agents)].
          workers: populations at a time.
          devices: over which they go.
        """
        sizes = sorted((sum(self.each(*one) for one in own) for own in populations), reverse=True)
        self.peak, self.devices = (min(workers, len(sizes)), sum(sizes[:workers])), devices

    def show(self) -> bool:
        """Prints it, with the time that a device like this one takes.

        Returns:
          Whether it fits into what there is; true where nobody knows.
        """
        import jax

        from fedjax_rl import memory

        each = self.total / self.agents
        print("Memory")
        print(
            f"  {plural(self.federations, 'federation')}, {plural(self.agents, 'agent')}, "
            f"{each:,.0f} bytes an agent"
        )
        print(f"  {memory.words(self.total)} if all ran at once")
        needed = self.largest[0]
        if self.peak is not None:
            count, needed = self.peak
            print(f"  {memory.words(needed)} for {plural(count, 'population')} at a time")
        print(f"  {memory.words(self.kept)} of records on the host")
        most, parts = self.largest
        if parts:
            rest = ", ".join(f"{n} {memory.words(x)}" for n, x in parts.items() if n != "total")
            print(f"  {memory.words(most)} for the largest federation: {rest}")
        own, there = memory.resident(), memory.available(devices=self.devices)
        base = own + (0 if self.compiled else _COMPILING)
        print(f"  {memory.words(base)} of the process itself: Python, JAX and its compiler")
        fits = True
        if there is not None:
            if jax.default_backend() == "cpu":
                # Records are put together from their chunks; what is resident is there already.
                there, aside = there + own, base + 2 * self.kept
            else:
                aside = 0
            fits = needed + aside < there
            text = "fits" if fits else "does not fit"
            if fits and self.total + aside >= there:
                text = "does not fit at once; federations take turns"
            print(f"  {memory.words(there)} available: {text}")
        _time(self.operations, self.turns)
        return fits


def of_configuration(config: dict) -> Needs:
    """What a run, a sweep or a comparison needs.

    Args:
      config: as `config_of` gives it.

    Raises:
      ValueError: what cannot be run.
    """
    import jax

    from fedjax_rl.saving.checkpoints import Machine
    from fedjax_rl.sweeps import arguments, run_arguments
    from fedjax_rl.sweeps.cells import Cell, federations
    from fedjax_rl.sweeps.jobs import at_once, plan, recording_of

    rate, lists = config["learning_rate_per_agent"], lists_of(config)
    counts, seeds = (
        value if isinstance(value, list) else [value]
        for value in (config["num_agents"], config["seeds"])
    )
    asked = {name: config[name] for name in ("num_steps", "record_every")}
    recording = recording_of(run_arguments.Run.taken(asked))
    algorithms = algorithms_of(config)
    algorithms = algorithms if isinstance(algorithms, dict) else {None: algorithms}
    cells = []
    sizes = map(arguments.num_agents, counts)
    for label, n, *values in itertools.product(algorithms, sizes, *lists.values()):
        own = dict(zip(lists, values, strict=True))
        own |= {} if rate is None else {"learning_rate": rate * n}
        cells += [Cell(n, seed, own, label) for seed in seeds]
    length = int(recording.times[-1])
    several = federations(algorithms, cells, length)
    needs = Needs()
    for cell, one in sorted(several[:: len(seeds)], key=lambda own: -own.cell.num_agents):
        sides = [cell.num_agents if side == "agent" else 1 for side, _ in one.metrics.values()]
        kept = sum(sides) if config.get("metrics") else len([n for n in sides if n == 1])
        needs.add(one, cell.num_agents, len(seeds), config["num_steps"], recording.count)
        needs.keep(len(seeds) * recording.count * kept)
    devices = config["devices"]
    alone = jax.default_backend() == "cpu" and devices == 1
    cores = (os.cpu_count() or 1) if alone else 1
    parts, _ = plan(several, length, (), Machine(cores, None, devices))
    populations = [
        [(several[own.first].algorithm, several[own.first].cell.num_agents) for own in part.members]
        for part in parts
    ]
    of_each = [(own[0][0], [n for _, n in own]) for own in populations]
    needs.together(populations, at_once(of_each, min(len(parts), cores)), devices)
    return needs


def _bytes(algorithm, num_agents: int) -> int:
    """Bytes that a federation's program takes while it runs, as its compiler says."""
    from fedjax_rl.sweeps.lowering import job_of
    from fedjax_rl.sweeps.programs import bytes_of

    return bytes_of(job_of(algorithm, num_agents))


# Networks reach so much of the speed of a product of large matrices, `benchmarks/run.py ppo`.
_REACHED = (0.1, 0.5)


def _time(operations: Operations, turns: float) -> None:
    """Prints how much there is to compute, and how long this device takes of it at least.

    Args:
      operations: of everything.
      turns: of loops in the run that has most of them.
    """
    share = operations.products / max(operations.total, 1)
    bound = "at most" if operations.counted else "about"
    print("Time")
    print(
        f"  {bound} {_three(operations.total / 1e9)} GFLOP, {100 * share:.0f} % of them in "
        "products of matrices"
    )
    one, about = _turn(), "" if operations.counted else "at least "
    print(
        f"  {about}{_three(turns)} updates one after the other in the longest run, which take "
        f"{_duration(turns * one)} or more at {_three(1e6 * one)} microseconds each, measured"
    )
    if share < _MOSTLY:  # and then products of matrices tell nothing
        return
    rate = _product()
    low, high = (operations.total / rate / reached for reached in reversed(_REACHED))
    print(f"  {_three(rate / 1e9)} GFLOP/s in a product of matrices on this device, measured")
    shares = " to ".join(f"{100 * share:.0f}" for share in _REACHED)
    print(f"  {_duration(low)} to {_duration(high)} if networks reach {shares} % of that")
    print("  environments, small networks and compiling come on top")


# Share of products of matrices from which on they decide how long something takes.
_MOSTLY = 0.5


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds)} seconds"


def _three(number: float) -> str:
    """Three digits, all those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _turn() -> float:
    """Seconds of a turn of a loop of nothing much, which no larger device makes shorter."""
    import time

    import jax
    import jax.numpy as jnp

    count = 1000
    # Two operations that cannot be one: a sum over all is there before the next one begins.
    body = lambda _, x: x + 1e-6 * jnp.sum(x)
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, count, body, x))
    x = jnp.ones(64, jnp.float32)
    loop(x).block_until_ready()
    start = time.perf_counter()
    loop(x).block_until_ready()
    return (time.perf_counter() - start) / count


def _product() -> float:
    """Floating-point operations a second of a product of matrices, float32; best of five."""
    import time

    import jax
    import jax.numpy as jnp

    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
