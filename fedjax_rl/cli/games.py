"""`validate` and `play`: the games of Procgen against their reference, and as moving pictures."""

from __future__ import annotations

import pathlib

from fedjax_rl.cli.process import prepare, quiet
from fedjax_rl.cli.report import number, say
from fedjax_rl.cli.tables import print_table
from fedjax_rl.saving.directory import place

# Sides of a picture's pixel in the file, and pictures per second.
ZOOM, RATE = 5, 15
# Colours of a frame, those of the smallest things among them: a third of the bytes of all.
COLOURS = 64


def validate(arguments) -> int:
    """The command `validate`; its exit code is 1 where a gate fails."""
    from rich.table import Table

    from fedjax_rl.envs import procgen

    prepare(1)
    quiet()
    game = _game(arguments.game, "game")

    def report(row: dict) -> None:
        say(f"{row['gate']}: {row['verdict']}")

    reference = arguments.reference and place(arguments.reference)
    rows = procgen.validate(game, arguments.scale, reference, progress=report)
    table = Table(title=f"{game}, scale {arguments.scale}")
    for name in ("gate", "measured", "expected", "band", "verdict"):
        table.add_column(name)
    for row in rows:
        band = ", ".join(number(end) for end in row["band"])
        mark = "[green]✓ pass" if row["verdict"] == "pass" else "[red]✗ fail"
        table.add_row(
            row["gate"], number(row["measured"]), number(row["expected"]), f"[{band}]", mark
        )
    print_table(table)
    failed = sum(row["verdict"] != "pass" for row in rows)
    print(f"of {len(rows)} gates {len(rows) - failed} pass")
    return 1 if failed else 0


def _game(word: str, what: str) -> str:
    """The game of that name, however it is spelled."""
    from fedjax_rl.envs.procgen.levels import GAMES
    from fedjax_rl.names import check_known

    game = {name.lower(): name for name in GAMES}.get(word.lower(), word)
    check_known(game, GAMES, what)
    return game


def play(arguments) -> int:
    """The command `play`: one copy of a game, every step a picture."""
    from fedjax_rl import fields
    from fedjax_rl.envs import procgen

    fields.check("num_steps", arguments.num_steps, fields.COUNT)
    fields.check("seed", arguments.seed, fields.SEED)
    out = place(arguments.out or f"{arguments.environment}-{_stem(arguments.policy)}.gif")
    if out.suffix != ".gif" or not out.absolute().parent.is_dir():
        raise ValueError(f"out is {out}; allowed: a name that ends in .gif, in a directory")
    game = _game(arguments.environment, "environment to play")
    prepare(1)
    quiet()
    if arguments.policy in procgen.POLICIES:
        task, rule = procgen.procgen_task(game, mode=arguments.mode), arguments.policy

        def act(state, observation, word):
            return procgen.POLICIES[rule](state.clock, word)

    else:
        task, act = _learned(place(arguments.policy), game)
    show(task, act, game, arguments.num_steps, arguments.seed, out)
    return 0


def show(task, act, game: str, num_steps: int, seed: int, out: pathlib.Path) -> None:
    """Plays so many steps of a game by `(state, observation, word) -> action`, and saves them.

    Args:
      task: of the game.
      act: the policy.
      game: "BigFish" or "CoinRun".
      num_steps: each a picture.
      seed: of levels and actions.
      out: the file to write.
    """
    import jax
    import numpy as np

    from fedjax_rl import streams
    from fedjax_rl.envs import procgen

    drawing = {n: v for n, v in task.options if n in procgen.Drawing.__dataclass_fields__}
    # A picture is drawn whatever the policy sees.
    seen = procgen.procgen_env(game, "pixels", drawing=procgen.Drawing(**drawing))

    @jax.jit
    def step(state, observation, tick, key):
        # Even places of the stream are for actions, odd ones for keys of levels.
        word = streams.threefry(jax.random.key_data(key), 2 * tick)
        action = act(state, observation, word)
        new = jax.random.fold_in(key, 2 * tick + 1)
        observation, state, reward, terminated, truncated, _ = task.env.auto_step(
            new, state, action, task.params
        )
        picture = seen.observe(state, task.params)
        return state, observation, picture, reward, terminated | truncated

    key = jax.random.key(seed, impl=streams.IMPLEMENTATION)
    observation, state = jax.jit(task.env.reset)(key, task.params)
    pictures, total, returns = [np.asarray(seen.observe(state, task.params))], 0.0, []
    for tick in range(num_steps):
        state, observation, picture, reward, ends = step(
            state, observation, jax.numpy.uint32(tick), key
        )
        pictures.append(np.asarray(picture))
        total += float(reward)
        if bool(ends):
            returns.append(total)
            total = 0.0
    save(pictures, out)
    ended = f", returns of episodes that ended: {number(returns)}" if returns else ""
    print(f"{num_steps} steps{ended}; saved {out}")


def save(pictures, path: pathlib.Path) -> None:
    """An animated GIF of pictures uint8 [64, 64, 3].

    Args:
      pictures: uint8 [64, 64, 3] each, in order.
      path: ends in .gif.
    """
    from PIL import Image

    frames = [
        Image.fromarray(picture)
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        .resize((ZOOM * picture.shape[1], ZOOM * picture.shape[0]), Image.Resampling.NEAREST)
        for picture in pictures
    ]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / RATE),
        loop=0,
        optimize=True,
    )


def _stem(policy: str) -> str:
    return pathlib.Path(policy).name


def _learned(directory: pathlib.Path, game: str):
    """The task of a run, and how its model acts: `(state, observation, word) -> action`."""
    import jax
    import numpy as np

    from fedjax_rl import streams
    from fedjax_rl.cli.config import algorithm_of
    from fedjax_rl.envs import procgen
    from fedjax_rl.federation import population
    from fedjax_rl.federation.algorithm import bind
    from fedjax_rl.saving import results
    from fedjax_rl.saving.checkpoints import Checkpoints

    config = results.read_config(directory) if directory.is_dir() else None
    if config is None:
        raise ValueError(
            f"policy is {directory}; allowed: {', '.join(procgen.POLICIES)}, or the directory of "
            "a run"
        )
    if config["command"] != "run" or config["environment"] != game:
        raise ValueError(
            f"policy is a {config['command']} of {config.get('environment')}; allowed: a run of "
            f"{game}"
        )
    algorithm = algorithm_of(config)
    functions = algorithm.functions(algorithm.config)
    if functions.act is None:
        raise ValueError(
            f"policy is of {algorithm.name}, whose server's model does not act by itself; allowed: "
            "fedppo, without personal statistics of observations"
        )
    n = config["num_agents"]
    one = population(n)
    params = bind([algorithm.parameters(algorithm.config, n)])
    keys = streams.agent_keys(np.full(n, config["seeds"]), one.member_of)
    # A checkpoint is read into arrays of its shapes, which the start has, too.
    like = jax.jit(lambda p, k: functions.init(one, p, k))(params, keys)
    manager = Checkpoints(directory / "checkpoints" / "job-0000")
    saved = manager.load(like, ())
    manager.close()
    if saved is None:
        raise ValueError(f"policy is {directory}, which has no checkpoint; allowed: a longer run")
    model = jax.tree.map(lambda x: x[0], functions.model(one, params, saved[1]))

    def act(state, observation, word):
        return functions.act(model, observation, word)

    return algorithm.config.task, act
