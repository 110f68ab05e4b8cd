"""Grid worlds of one's own: known optima, steps by hand, starts, identity, and who takes them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.algorithms.ef_td import basis, fixed_point
from fedjax_rl.envs import registry
from fedjax_rl.rollouts.grids import sample_on_grid

ROOMS = ("S.#.S", "..#..", ".W...", "..#.G")
MOVES = ("left", "right", "up", "down")


def best(task):
    """The largest value of every cell, [S]."""
    return envs.optimal_q(task.grid.mdp).max(-1)


def after(task, row, column, action):
    """Where a step leads: probabilities by cell."""
    columns = task.grid.columns
    chances = np.asarray(task.grid.mdp.transition)[row * columns + column, action]
    return {divmod(int(s), columns): pytest.approx(chances[s]) for s in np.flatnonzero(chances)}


def steps_of(value, discount):
    """How many steps of reward -1 come before one of reward 0."""
    return round(float(np.log(1 + value * (1 - discount)) / np.log(discount)))


def test_known_optima():
    """Of Sutton and Barto, 15 steps with wind by column and 13 along the cliff; 7 without wind."""
    rows = [".........."] * 7
    rows[3] = "S......G.."
    by_column = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
    windy = envs.grid_world(rows, wind={"up": by_column}, discount=0.99, clip="twice")
    assert steps_of(best(windy)[30], 0.99) == 15 - 1
    assert steps_of(best(envs.grid_world(rows, discount=0.99))[30], 0.99) == 7 - 1
    cliff = ("." * 12, "." * 12, "." * 12, "S" + "C" * 10 + "G")
    task = envs.grid_world(cliff, rewards={"C": -100.0}, terminal="GC", discount=0.95)
    assert steps_of(best(task)[36], 0.95) == 13 - 1
    edge = np.asarray(task.grid.mdp.reward)[24 + 3, 0, 36 + 3]
    assert edge == -100


def test_walls_are_gone_round():
    task = envs.grid_world(ROOMS, rewards={"W": -1.0}, discount=0.9)
    assert steps_of(best(task)[0], 0.9) == 7 - 1  # 2 down, 3 right, 1 down, 1 right
    assert after(task, 0, 1, 1) == {(0, 1): 1.0}
    assert after(task, 0, 0, 2) == {(0, 0): 1.0}
    assert np.asarray(task.grid.terminal)[[2, 7, 17, 19]].all()
    assert best(task)[2] == pytest.approx(0)


def test_the_other_grids_are_cases_of_it():
    lake = dict(actions=("left", "down", "right", "up"), slip=2 / 3, rewards={".": 0, "G": 1})
    square = ("S..", "...", "..G")
    five = (*MOVES, "stay")
    for case, own in (
        (envs.frozen_lake("4x4"), envs.grid_world("4x4", **lake)),
        (envs.frozen_lake("4x4", slippery=False), envs.grid_world("4x4", **lake | {"slip": 0})),
        (envs.simple_grid(3), envs.grid_world(square, five)),
        *(
            (
                envs.windy_grid(3, 0.3, clip),
                envs.grid_world(square, five, wind={"up": 0.3, "left": 0.3}, clip=clip),
            )
            for clip in ("once", "twice")
        ),
    ):
        for one, other in zip(*map(jax.tree.leaves, (case.grid, own.grid)), strict=True):
            np.testing.assert_array_equal(one, other)
        assert case != own  # by name


def test_slips_and_gusts_by_hand():
    task = envs.grid_world(("S.#.", "....", "...G"), slip=0.2)
    assert after(task, 1, 1, 1) == {(1, 2): 0.8, (0, 1): 0.1, (2, 1): 0.1}
    assert after(task, 1, 2, 2) == {(1, 2): 0.8, (1, 1): 0.1, (1, 3): 0.1}
    blown = dict(map=("S.#..G",), actions=("right", "stay"), wind={"right": 1.5})
    once, twice = (envs.grid_world(**blown, clip=clip) for clip in ("once", "twice"))
    assert after(once, 0, 0, 0) == {(0, 0): 0.5, (0, 3): 0.5}  # 2 cells into the wall, or 3 over it
    assert after(twice, 0, 0, 0) == {(0, 1): 1.0}
    assert after(once, 0, 3, 1) == after(twice, 0, 3, 1) == {(0, 4): 0.5, (0, 5): 0.5}
    by_row = envs.grid_world(("S..", "..G"), ("down", "stay"), wind={"right": (2, 0.25)})
    assert after(by_row, 0, 0, 1) == {(0, 2): 1.0}
    assert after(by_row, 1, 0, 1) == {(1, 0): 0.75, (1, 1): 0.25}


def test_steps_are_drawn_from_the_tables():
    task = envs.grid_world(ROOMS, slip=0.3, wind={"up": 0.4})
    keys = jax.random.split(jax.random.key(0), 4000)
    step = jax.vmap(task.env.step, (0, None, None, None))
    ends, _, reward, over, *_ = jax.jit(step)(keys, jnp.int32(14), jnp.int32(3), task.params)
    found = np.bincount(np.asarray(ends), minlength=20) / 4000
    want = np.asarray(task.grid.mdp.transition)[14, 3]
    assert np.abs(found - want).max() < 4 * np.sqrt(0.25 / 4000)
    np.testing.assert_array_equal(np.asarray(over), np.asarray(ends) == 19)
    np.testing.assert_array_equal(np.asarray(reward), np.where(np.asarray(ends) == 19, 0, -1))


# Starts ----------------------------------------------------------------------------------------


def test_episodes_begin_in_any_of_the_starts():
    task = envs.grid_world(ROOMS)
    np.testing.assert_array_equal(
        task.grid.mdp.initial_distribution, np.isin(np.arange(20), (0, 4)) / 2
    )
    more = envs.grid_world(ROOMS, starts=[(3, 0), (3, 0), (0, 0), (1, 3)])
    want = np.zeros(20)
    want[[15, 0, 8]] = 0.5, 0.25, 0.25
    np.testing.assert_array_equal(more.grid.mdp.initial_distribution, want)
    alone = envs.grid_world(ROOMS, starts=[(3, 1)])
    assert alone.grid.mdp.initial_distribution is None
    assert alone.grid.mdp.initial_state == 16

    keys = jax.random.split(jax.random.key(1), 2000)
    first = jax.jit(jax.vmap(more.env.reset, (0, None)))(keys, more.params)[1]
    trail = jax.jit(
        lambda keys: (
            sample_on_grid(
                more.replace(max_steps=1),
                lambda step, _: step.state,
                keys,
                jnp.zeros((2000, 80)),
                epsilon=jnp.ones(2000),
                first=jnp.zeros(2000, bool),
            ).notes
        )
    )(keys)[:, 0]
    for drawn in (first, trail):
        shares = np.bincount(np.asarray(drawn), minlength=20) / 2000
        assert np.abs(shares - want).max() < 4 * np.sqrt(0.25 / 2000)
        assert not shares[want == 0].any()


@pytest.mark.parametrize("mode", ["step", "episode"])
def test_where_td_learning_goes_from_several_starts(mode):
    """In steps, the value of a chain that begins anew; features of a cell leave it exact."""
    task = envs.grid_world(ROOMS)
    config = frl.ef_td(task, features="onehot", mode=mode).config
    limit = fixed_point(config)
    assert limit.weight.sum() == pytest.approx(1)
    np.testing.assert_allclose(limit.weight[[2, 7, 17]], 0, atol=1e-12)
    if mode == "episode":
        return
    world = task.grid
    chain = np.asarray(world.mdp.transition).mean(1)
    gain = np.where(np.arange(20) == 19, 0.0, -1.0)
    reward = chain @ gain
    chain[19], reward[19] = np.asarray(world.mdp.initial_distribution), 0.0
    want = np.linalg.solve(np.eye(20) - 0.9 * chain, reward)
    rooms = [s for s in range(20) if s not in (2, 7, 17)]
    np.testing.assert_allclose((basis(config) @ limit.parameters)[rooms], want[rooms], atol=1e-8)


def test_td_learning_finds_it():
    task = envs.grid_world(("S.S", ".#.", "..G"), discount=0.5)
    algorithm = frl.ef_td(task, features="onehot", mode="step", learning_rate=0.05)
    error = frl.sweep(algorithm, num_agents=40, num_steps=4000, record_every=4000).value_error
    assert float(error.squeeze()) < 0.05


# Identity --------------------------------------------------------------------------------------


def test_a_grid_is_what_is_in_it():
    task = envs.grid_world(ROOMS)
    assert task == envs.grid_world("/".join(ROOMS)) == envs.grid_world(list(ROOMS))
    assert hash(task) == hash(envs.grid_world(ROOMS))
    for change in (
        {"rewards": {"W": -5.0}},
        {"wind": {"up": 0.1}},
        {"slip": 0.1},
        {"starts": [(0, 0)]},
        {"terminal": "GW"},
        {"actions": ("right", "left", "up", "down")},
        {"discount": 0.8},
        {"max_steps": 5},
    ):
        assert envs.grid_world(ROOMS, **change) != task
    full = envs.grid_world(
        ROOMS,
        (*MOVES, "stay"),
        slip=0.1,
        wind={"down": [0, 1, 0, 0.5, 0]},
        rewards={"W": np.float32(-2)},
        starts=np.array([[0, 0], [1, 1]]),
    )
    config = json.loads(json.dumps(full.config))
    assert config["name"] == "grid-world"
    again = registry.make(config.pop("name"), **config)
    assert again == full
    assert again.config == full.config
    assert registry.make("grid-world") == envs.grid_world()


@pytest.mark.thorough
def test_two_grids_are_two_programs():
    """In one process, in either order: the rewards of one are not those of the other."""
    for goal in (1.0, 7.0, 1.0):
        task = envs.grid_world(("SG",), rewards={"G": goal})
        own = frl.dql(task, epsilon=1.0)
        run = frl.sweep(own, num_agents=20, num_steps=1, metrics=["return", "episode_steps"])
        assert float(run["return"].squeeze()) == pytest.approx(
            goal + 1 - float(run.episode_steps.squeeze()), rel=1e-5
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": 3}, "map is 3; allowed: 5x5, 4x4, 8x8, or rows"),
        ({"map": "5x6"}, "no map; did you mean 5x5"),
        ({"map": ("S.", "G")}, r"map has rows of lengths \[1, 2\]"),
        ({"map": ("S ", " G")}, "map has the letters  ; allowed: letters, digits"),
        ({"map": ("..", ".G")}, "map has 0 cells S, the start; allowed: at least one, or starts"),
        ({"actions": ("left", "jump")}, "actions is .*; allowed: a tuple of different words of"),
        ({"slip": 1.5}, r"slip is 1.5; allowed: in \[0, 1\]"),
        ({"wind": 0.3}, "wind is 0.3; allowed: a dictionary from directions to numbers"),
        ({"wind": {"north": 1}}, "'north' is no direction of wind"),
        ({"wind": {"up": -1}}, r"wind\['up'\] is -1; allowed: in \[0, 1000\]"),
        ({"wind": {"up": [1, 2]}}, r"wind\['up'\] is \[1, 2\]; allowed: a number, or 5, one a col"),
        ({"wind": {"left": [0, 0, 0, "a"]}}, r"wind\['left'\]\[3\] is 'a'; allowed"),
        ({"clip": "never"}, "clip is 'never'; allowed: 'once' or 'twice'"),
        ({"rewards": [1]}, r"rewards is \[1\]; allowed: a dictionary from letters to numbers"),
        ({"rewards": {"S": 1}}, "rewards has the letter 'S'; allowed"),
        ({"rewards": {"G": "much"}}, r"rewards\['G'\] is 'much'; allowed: finite"),
        ({"terminal": "S"}, "terminal is 'S'; allowed: a word of letters of a map"),
        ({"starts": [(0, 9)]}, r"starts is \[\(0, 9\)\]; allowed: pairs"),
        ({"starts": [(0, 2)]}, r"starts is \[\(0, 2\)\]; allowed: pairs .* no walls"),
        ({"starts": []}, r"starts is \[\]; allowed: pairs"),
        ({"starts": [(3, 4)]}, r"starts has \(3, 4\), a cell G where an episode ends"),
        ({"encoding": "rows"}, "'rows' is no encoding of a grid"),
        ({"discount": 1.1}, "discount is 1.1"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_bad_grids(options, message):
    with pytest.raises(ValueError, match=message):
        envs.grid_world(**{"map": ROOMS, **options})


@pytest.mark.thorough
@pytest.mark.parametrize("name", [n for n, e in ALGORITHMS.items() if "grid" in e.environments])
def test_every_algorithm_of_grids_takes_it(name):
    task = envs.grid_world(ROOMS, slip=0.1, wind={"up": 0.2}, max_steps=8)
    result = frl.sweep(ALGORITHMS[name].make(task), num_agents=2, num_steps=2, record_every=2)
    for metric in result.data_vars:
        assert metric == "phase" or np.isfinite(result[metric].values.astype(float)).all(), metric
