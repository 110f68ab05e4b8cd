"""Functions and files of the package that one sweep passes through: `python benchmarks/walk.py`.

A newcomer who wants to know what happens in a sweep has to read these. Lambdas and functions
inside functions count, comprehensions do not, nor what runs once when a module is imported.
"""

import argparse
import collections
import inspect
import os
import sys
import threading

import fedjax_rl as frl

ROOT = os.path.dirname(frl.__file__)


def case(name: str):
    """An algorithm and the arguments of a short sweep of it."""
    if name == "fedq":
        mdp = frl.envs.random_mdp(seed=0)
        return frl.fedq(mdp, epsilon=1.0, sync_period=10), {"num_steps": 100}
    if name == "es":
        return frl.es(frl.envs.simple_grid()), {"num_steps": 4}
    if name == "fedppo":
        sizes = {"num_envs": 2, "rollout_steps": 8, "minibatches": 2, "hidden": (4,)}
        return frl.fedppo(frl.envs.gymnax_task("CartPole-v1"), **sizes), {"num_steps": 2}
    task = frl.envs.tabular_task(frl.envs.dirichlet_mdp(), max_steps=5)
    return frl.afedpg(task), {"num_steps": 4}


def walk(function) -> tuple[collections.Counter, int]:
    """Calls a function.

    Returns:
      The functions of the package that it passes through, by file, and the longest chain of them.
    """
    seen, deepest = set(), 0

    def called(frame, event, argument) -> None:
        nonlocal deepest
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ROOT):
            return
        own = code.co_name
        if code.co_flags & inspect.CO_OPTIMIZED and (own == "<lambda>" or own[0] != "<"):
            seen.add((os.path.relpath(code.co_filename, ROOT), code.co_qualname))
        depth = 0
        while frame is not None:
            depth += frame.f_code.co_filename.startswith(ROOT)
            frame = frame.f_back
        deepest = max(deepest, depth)

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return collections.Counter(file for file, _ in seen), deepest


def main() -> None:
    """Counts for one algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", nargs="?", default="fedq", choices=CASES)
    algorithm, options = case(parser.parse_args().algorithm)
    sweep = frl.sweep  # imported before it is looked at
    files, deepest = walk(lambda: sweep(algorithm, num_agents=4, workers=1, **options))
    print(f"{files.total()} functions in {len(files)} files, at most {deepest} deep")
    for file, count in sorted(files.items()):
        print(f"{count:5d}  {file}")


CASES = ("fedq", "es", "fedppo", "afedpg")

if __name__ == "__main__":
    main()
