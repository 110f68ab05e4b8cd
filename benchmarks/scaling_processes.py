"""The rows of the case `scaling` over several devices, of one process or of one process each.

As a script it is one process: `python scaling_processes.py HOST:PORT COUNT INDEX DEVICES SCALE
REPEATS` prints what it took as one line of JSON. A process has no device more than it uses, as XLA
has a thread for each, and splits small loops between its threads.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

# (processes, devices in all) by the part of the case.
COUNTS = {
    "processes": ((1, 1), (2, 2), (4, 4)),
    "devices": ((1, 1), (1, 2), (1, 4), (1, 8)),
}
# Agents of a federation that is only there to exchange, of every device.
FEW = 8
# Rounds of such a federation.
ROUNDS = 200


def rows(part: str, scale: float, repeats: int) -> Iterator[dict]:
    """What a federation costs over devices, and what a round of almost no work takes.

    Args:
      part: of `COUNTS`.
      scale: of the steps of a call.
      repeats: calls.

    Yields:
      For each number of them: agent-steps per second of the CPU time of all of them (median,
      low, high) and per second of wall time, seconds of a round, and of one that only exchanges.
    """
    for count, devices in COUNTS[part]:
        found = _together(count, devices, scale, repeats)
        work, rounds = found[0]["work"], found[0]["rounds"]
        cpu = [work / sum(turn) for turn in zip(*(own["cpu"] for own in found), strict=True)]
        wall = [max(turn) for turn in zip(*(own["wall"] for own in found), strict=True)]
        yield {
            "name": f"{max(count, devices)} {part}",
            "processes": count,
            "devices": devices,
            "agents": found[0]["agents"],
            "median": statistics.median(cpu),
            "low": min(cpu),
            "high": max(cpu),
            "wall": work / statistics.median(wall),
            "round_seconds": statistics.median(wall) / rounds,
            "exchange_seconds": statistics.median(found[0]["exchange"]),
            "cores": os.cpu_count(),
        }
        print(f"{max(count, devices)} {part}: timed", file=sys.stderr, flush=True)


def _together(count: int, devices: int, scale: float, repeats: int) -> list[dict]:
    with socket.socket() as own:
        own.bind(("localhost", 0))
        where = f"localhost:{own.getsockname()[1]}"
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
    if devices > count:
        flags.append(f"--xla_force_host_platform_device_count={devices // count}")
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    line = [sys.executable, __file__, where, str(count)]
    started = [
        subprocess.Popen(
            [*line, str(index), str(devices), str(scale), str(repeats)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    said = [own.communicate()[0] for own in started]
    if any(own.returncode for own in started):
        raise SystemExit(f"{count} processes: exit codes {[own.returncode for own in started]}")
    # The transport may have said something before.
    return [json.loads(words.splitlines()[-1]) for words in said]


def main(argv: list[str]) -> None:
    """One of several processes."""
    import jax

    where, count, index, devices, scale, repeats = argv
    count, devices, scale, repeats = int(count), int(devices), float(scale), int(repeats)
    if count > 1:
        jax.distributed.initialize(where, count, int(index))
    import scaling_fedjax as ours

    agents = min(ours.SPREAD, max(ours.sizes(scale)))
    steps = ours.steps_of(agents, scale)
    work = ours.call(agents, scale, devices)
    cpu, wall = _timed(work.run, repeats)
    rounds = max(round(scale * ROUNDS), 1)
    alone = ours.call(FEW * devices, scale, devices, period=1, steps=rounds)
    exchange = [seconds / rounds for seconds in _timed(alone.run, repeats)[1]]
    out = {"work": work.units, "rounds": steps / ours.PERIOD, "agents": agents}
    print(json.dumps({**out, "cpu": cpu, "wall": wall, "exchange": exchange}))


def _timed(run, repeats: int) -> tuple[list[float], list[float]]:
    """CPU seconds and seconds of each call, after one that is not timed."""
    import jax

    jax.block_until_ready(run())
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, start = time.process_time(), time.perf_counter()
        jax.block_until_ready(run())
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - start)
    return cpu, wall


if __name__ == "__main__":
    main(sys.argv[1:])
