"""Steps the original Procgen for its benchmark; run by a Python that has procgen 0.10.7.

    python3.10 -m venv P && P/bin/pip install procgen==0.10.7 "numpy<2"

    P/bin/python procgen_original.py [THREADS]

Reads lines "GAME STEPS" and answers each with the steps made, CPU seconds and wall seconds.
"""

import sys
import time
import warnings

import numpy as np

COPIES = 64


def main():
    """Answers until the input ends."""
    warnings.simplefilter("ignore")
    from procgen import ProcgenGym3Env

    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    made = {}
    rng = np.random.default_rng(0)
    for line in sys.stdin:
        game, steps = line.lower().split()
        if game not in made:
            made[game] = ProcgenGym3Env(
                num=COPIES, env_name=game, num_threads=threads, distribution_mode="easy"
            )
        env = made[game]
        actions = rng.integers(0, 15, (int(steps), COPIES), dtype=np.int32)
        cpu, wall = time.process_time(), time.perf_counter()
        for action in actions:
            env.act(action)
            env.observe()
        seconds = time.process_time() - cpu, time.perf_counter() - wall
        print(len(actions) * COPIES, *seconds, flush=True)


if __name__ == "__main__":
    main()
