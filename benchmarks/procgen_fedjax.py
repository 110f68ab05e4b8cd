"""The rows of the case `procgen`: our games with and without pictures, and the original.

As a script it reads lines "GAME STEPS" and answers each with steps made, CPU and wall seconds.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from harness import Timing

from fedjax_rl import streams
from fedjax_rl.envs import procgen
from fedjax_rl.sweeps.compiling import compiler_options

HERE = pathlib.Path(__file__)
COPIES = (64, 1024, 4096)
GAMES = ("BigFish", "CoinRun")
# Steps of a call, all copies together; pictures kept at a time.
STEPS = {"pixels": 8192, "rules": 131_072}
KEPT = 8192


class Row(NamedTuple):
    """An alternative.

    Attributes:
      run: makes so many steps: `() -> (steps, CPU seconds, wall seconds)`.
      compile_seconds: of wall time.
    """

    run: object
    compile_seconds: float


def ours(game: str, kind: str, copies: int, scale: float) -> Row:
    """Uniform actions and automatic resets; pictures are outputs of a scan."""
    env = procgen.procgen_env(game, "pixels" if kind == "pixels" else "vector")
    if kind == "rules":
        env = procgen.ProcgenEnv(env.dynamics, lambda state, params: jnp.zeros((), jnp.uint8))
    params = procgen.procgen_params(game)
    length = max(1, min(round(scale * STEPS[kind]), KEPT) // copies)
    turns = max(1, round(scale * STEPS[kind]) // (length * copies))

    def step(carry, tick):
        keys, state = carry
        words = jax.vmap(lambda key: streams.threefry(jax.random.key_data(key), tick))(keys)
        actions = jax.vmap(lambda word: streams.scaled(word, 15)[0])(words)
        fresh = jax.vmap(lambda key: jax.random.fold_in(key, tick))(keys)
        observation, state, reward, *_ = jax.vmap(env.auto_step, in_axes=(0, 0, 0, None))(
            fresh, state, actions, params
        )
        return (keys, state), (observation, reward)

    @jax.jit
    def go(keys, state, start):
        ticks = start + jnp.arange(length, dtype=jnp.uint32)
        return jax.lax.scan(step, (keys, state), ticks)

    keys = streams.agent_keys(jnp.zeros(copies, jnp.int32), jnp.arange(copies))
    state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)[1]
    began = time.perf_counter()
    program = go.lower(keys, state, jnp.uint32(0)).compile(compiler_options=compiler_options())
    compiled = time.perf_counter() - began
    now = [state, 0]

    def run():
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(turns):
            (_, now[0]), out = program(keys, now[0], jnp.uint32(now[1]))
            now[1] += length
            jax.block_until_ready(out)
        seconds = time.process_time() - cpu, time.perf_counter() - wall
        return turns * length * copies, *seconds

    return Row(run, compiled)


class Elsewhere:
    """Pictures of 64 copies in a process of its own, which is told "GAME STEPS" line by line."""

    def __init__(self, *command, **environment: str) -> None:
        """Starts the process.

        Args:
          *command: its words.
          **environment: what it has besides that of this one.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )

    def row(self, game: str, scale: float) -> Row:
        """Steps with pictures; there are no others."""
        steps = max(1, round(scale * 2 * STEPS["pixels"]) // COPIES[0])

        def run():
            self._process.stdin.write(f"{game} {steps}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().split()
            if len(answer) != 3:
                raise SystemExit(f"{self._process.args[:2]} ended; does that Python have the game?")
            return int(answer[0]), float(answer[1]), float(answer[2])

        return Row(run, 0.0)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def original(python: pathlib.Path, threads: int = 1) -> Elsewhere:
    """The original, with so many threads."""
    return Elsewhere(python, HERE.with_name("procgen_original.py"), str(threads))


def with_threads(threads: int) -> Elsewhere:
    """Ours, with so many of XLA's."""
    return Elsewhere(sys.executable, HERE, NPROC=str(threads))


def measure(rows: dict[str, Row], repeats: int) -> dict[str, Timing]:
    """Takes turns, as `harness.measure`, with the seconds that the rows themselves count."""
    for row in rows.values():
        row.run()
    rates: dict = {name: ([], []) for name in rows}
    for turn in range(repeats):
        for name in list(rows)[:: -1 if turn % 2 else 1]:
            steps, cpu, wall = rows[name].run()
            rates[name][0].append(steps / cpu)
            rates[name][1].append(steps / wall)
    return {name: Timing(tuple(cpu), tuple(wall), 0) for name, (cpu, wall) in rates.items()}


def main() -> None:
    """Answers until the input ends."""
    made: dict[str, Row] = {}
    for line in sys.stdin:
        game, steps = line.split()
        if game not in made:
            made[game] = ours(game, "pixels", COPIES[0], 1.0)
        wanted, done = int(steps) * COPIES[0], [0, 0.0, 0.0]
        while done[0] < wanted:
            done = [a + b for a, b in zip(done, made[game].run(), strict=True)]
        print(*done, flush=True)


if __name__ == "__main__":
    main()
