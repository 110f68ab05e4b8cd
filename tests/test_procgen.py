"""BigFish and CoinRun: rules by hand, levels and traces of the original, statistics, pictures.

The golden values are measurements of Procgen 0.10.7, in the reference file of the package.
"""

import functools
import itertools
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import envs
from fedjax_rl.envs import registry
from fedjax_rl.envs.procgen import (
    BigFishDynamics,
    CoinRunDynamics,
    Drawing,
    bigfish,
    bigfish_picture,
    bigfish_vector,
    coinrun,
    coinrun_picture,
    coinrun_vector,
    drawing,
    fish,
    generator,
    levels,
    maps,
    motion,
    normalised_score,
    play,
    procgen_env,
    procgen_params,
    raster,
    validate,
)
from fedjax_rl.envs.procgen.validate import load_reference, trace_share

LEFT, STAY, UP, RIGHT, UP_RIGHT, DOWN = 1, 4, 5, 7, 8, 3
REFERENCE = load_reference()
FLAT = Drawing(use_backgrounds=False, use_monochrome_assets=True)
step_bigfish = jax.jit(BigFishDynamics().advance)
step_coinrun = jax.jit(CoinRunDynamics().advance)


@functools.cache
def params(game, mode="easy", num_levels=0, start_level=0, source="native", pool=64):
    return jax.device_put(procgen_params(game, mode, num_levels, start_level, source, pool))


def begin(game, level, own):
    return _begin(game)(jnp.uint32(level), own)


@functools.cache
def _begin(game):
    return jax.jit(procgen_env(game).dynamics.begin)


@functools.partial(jax.jit, static_argnums=0)
def see(observe, state, own):
    return observe(state, own)


def bigfish_state(*shoal, level=3, **changes):
    """A state with given fish: (x, y, radius, velocity, born), of the first species."""
    state = begin("BigFish", level, params("BigFish"))
    slots = state.shoal
    for n, (x, y, radius, velocity, born) in enumerate(shoal):
        new = (x, y, radius, radius / fish.ASPECTS[0], velocity, 0, born)
        slots = bigfish.Shoal(
            *(old.at[n].set(value) for old, value in zip(slots, new, strict=True))
        )
    floats = {k: jnp.asarray(v, getattr(state, k).dtype) for k, v in changes.items()}
    return state._replace(shoal=slots, **floats)


def advance(state, action, mode="easy"):
    return step_bigfish(state, jnp.int32(action), params("BigFish", mode))


# Actions and motion ------------------------------------------------------------------------------


def test_actions():
    ax, ay = jax.vmap(motion.axes)(jnp.arange(15))
    assert [*zip(ax[:9].tolist(), ay[:9].tolist(), strict=True)] == [
        *itertools.product((-1, 0, 1), (-1, 0, 1))
    ]
    assert not np.any(jnp.stack([ax, ay])[:, 9:])


@pytest.mark.parametrize(
    ("place", "move", "half", "want", "hit"),
    [
        ((10.0, 10.0), (0.3, 0.0), 1.0, (10.3, 10.0), False),
        ((18.9, 10.0), (0.3, 0.0), 1.0, (19.0, 10.0), True),
        # The tested corner lies inside that of the box.
        ((18.9, 10.0), (0.115, 0.0), 1.0, (19.015, 10.0), False),
        ((1.1, 10.0), (-0.3, 0.0), 1.0, (1.0, 10.0), True),
        ((10.0, 18.9), (0.0, 0.3), 1.0, (10.0, 19.0), True),
        # Who sticks out on one axis is blocked on the other, and thrown back to a line there.
        ((19.5, 5.3), (0.0, 0.1), 1.0, (19.5, 5.0), True),
        # A move of zero counts as one downward, and can lift.
        ((19.5, 1.5), (0.0, 0.0), 0.7, (19.5, 1.7), True),
    ],
)
def test_moves_along_an_axis(place, move, half, want, hit):
    numbers = [jnp.float32(z) for z in (*place, *move, half, half)]
    x, y, blocked = motion.axis_move(*numbers, motion.inside(20, 20))
    assert (float(x), float(y)) == pytest.approx(want, abs=1e-5)
    assert bool(blocked) == hit


def test_a_velocity_keeps_the_share_of_its_free_moves():
    body = motion.Body(*map(jnp.float32, (18.85, 10.0, 0.4, 0.2)), jnp.array(False))
    one, zero = jnp.float32(1), jnp.float32(0)
    after = motion.step_body(body, one, zero, jnp.array(True), one, one, motion.inside(20, 20))
    # At 18.95 it is free, and at 19.05 it is not; the next candidate is 19.1, not from there.
    assert float(after.x) == pytest.approx(19.0, abs=1e-5)
    assert float(after.vx) == pytest.approx(0.4 / 4, abs=1e-6)
    assert (float(after.y), float(after.vy)) == pytest.approx((10.2, 0.2), abs=1e-5)


def test_the_nearest_of_many():
    far = jnp.array([3.0, jnp.inf, 1.0, 1.0, 2.0])
    rows = motion.nearest(far, (jnp.arange(5.0), far), 3)
    np.testing.assert_array_equal(rows, [[2, 1], [3, 1], [4, 2]])
    np.testing.assert_array_equal(
        motion.nearest(far[:2], (jnp.arange(2.0) + 5,), 3), [[5], [0], [0]]
    )


# BigFish -----------------------------------------------------------------------------------------


def test_velocity_of_the_player():
    state, seen = bigfish_state(x=5.0, y=5.0), []
    for action in (UP_RIGHT,) * 30 + (STAY,):
        state = advance(state, action)[0]
        seen.append((float(state.vx), float(state.vy)))
    assert seen[0] == pytest.approx((0.225, 0.225))
    assert seen[1] == pytest.approx((0.32625, 0.32625))
    assert seen[-2] == pytest.approx((0.225 / 0.55,) * 2, abs=1e-6)
    assert seen[-1] == pytest.approx((0.45 * 0.225 / 0.55,) * 2, abs=1e-6)


def test_a_tie_is_eaten_and_growth_counts_at_once():
    newer, older = (5.0, 5.0, 1.0, 0.0, 8), (5.5, 5.0, 1.02, 0.0, 7)
    state, reward, over, _, info = advance(bigfish_state(newer, older, x=5.0, y=5.0), STAY)
    assert (float(reward), bool(over), int(state.eaten)) == (2, False, 2)
    assert float(state.radius) == pytest.approx(1 + 2 / 30)
    assert not info["level_complete"]

    # The other way round the larger one comes first: deadly, and the rest still pays.
    newer, older = (5.0, 5.0, 1.02, 0.0, 8), (5.5, 5.0, 1.0, 0.0, 7)
    state, reward, over, *_ = advance(bigfish_state(newer, older, x=5.0, y=5.0), STAY)
    assert (float(reward), bool(over), int(state.eaten)) == (1, True, 1)


def test_only_width_decides_and_boxes_touch_strictly():
    height = 1.3 / fish.ASPECTS[0]
    near = bigfish_state((5.0, 6 + height - 0.01, 1.3, 0.0, 1), x=5.0, y=5.0)
    far = bigfish_state((5.0, 6 + height + 0.01, 1.3, 0.0, 1), x=5.0, y=5.0)
    assert [bool(advance(state, STAY)[2]) for state in (near, far)] == [True, False]


def test_the_thirtieth_fish_completes_the_level():
    state = bigfish_state((5.0, 5.0, 0.5, 0.0, 1), x=5.0, y=5.0, radius=1.9, eaten=29)
    state, reward, over, cut, info = advance(state, STAY)
    assert (float(reward), bool(over), bool(cut)) == (11, True, False)
    assert (bool(info["level_complete"]), bool(info["timeout"])) == (True, False)


def test_the_time_limit():
    state = bigfish_state(x=5.0, y=19.0, clock=5998)
    state, _, over, *_ = advance(state, STAY)
    assert not over
    _, _, over, cut, info = advance(state, STAY)
    assert (bool(over), bool(cut), bool(info["timeout"])) == (True, False, True)
    dynamics = BigFishDynamics(truncate=True)
    _, _, over, cut, _ = jax.jit(dynamics.advance)(state, jnp.int32(STAY), params("BigFish"))
    assert (bool(over), bool(cut)) == (False, True)


def test_fish_leave_and_are_born_out_of_sight():
    leaving = bigfish_state((20.9, 19.0, 1.0, 0.2, 1), (-0.9, 19.0, 1.0, -0.05, 1), x=5.0, y=3.0)
    shoal = advance(leaving, STAY)[0].shoal
    assert (int(shoal.born[0]), int(shoal.born[1])) == (0, 1)

    state = bigfish_state(x=5.0, y=3.0)
    for _ in range(100):
        before, state = state, advance(state, STAY)[0]
        if state.next_birth > before.next_birth:
            break
    n = int(jnp.argmax(state.shoal.born))
    _, birth = fish.native_birth(state.seed, state.clock)
    rim = -birth.radius if birth.velocity > 0 else 20 + birth.radius
    assert float(state.shoal.x[n]) == float(rim)
    moved = advance(state, STAY)[0].shoal.x[n]
    assert float(moved) == pytest.approx(float(rim + birth.velocity))


def test_births_follow_their_law():
    seeds, clocks = jnp.arange(256, dtype=jnp.uint32), jnp.arange(1, 2049)
    draw = jax.jit(jax.vmap(jax.vmap(fish.native_birth, (None, 0)), (0, None)))
    tie, birth = jax.tree.map(np.asarray, draw(seeds, clocks))
    born = birth.born
    radius, y, speed = birth.radius[born], birth.y[born], np.abs(birth.velocity[born])
    size = born.sum()
    assert born.mean() == pytest.approx(0.1, abs=4 * 0.3 / born.size**0.5)
    assert tie.mean() == pytest.approx(0.5, abs=4 * 0.5 / tie.size**0.5)
    assert radius.mean() == pytest.approx(0.979, abs=4 * 0.535 / size**0.5 + 2e-4)
    assert (radius > 1).mean() == pytest.approx(0.454, abs=4 * 0.5 / size**0.5 + 5e-4)
    assert speed.mean() == pytest.approx(0.275, abs=4 * 0.0722 / size**0.5)
    for values, low, high in ((radius, 0.25, 2), (speed, 0.15, 0.4)):
        assert np.all((values >= low) & (values < high))
    # The rim above is a refuge: centres end at 20 - 2 r, and begin at 0.
    assert np.all(y < 20 - 2 * radius)
    assert y.min() < 0.1
    assert (y / (20 - 2 * radius)).mean() == pytest.approx(0.5, abs=4 * 0.289 / size**0.5)
    for share in (np.bincount(birth.species[born]) / size, [(birth.velocity[born] > 0).mean()]):
        np.testing.assert_allclose(share, 1 / 3 if len(share) == 3 else 0.5, atol=0.01)


def test_the_schedule_of_a_level_is_its_own():
    """Neither actions nor copies have a part in it."""
    idle, busy = bigfish_state(level=11, y=19.0), bigfish_state(level=11, y=19.0)
    other = bigfish_state(level=12, y=19.0)
    for t in range(60):
        idle, busy, other = (
            advance(state, action)[0]
            for state, action in ((idle, STAY), (busy, t % 15), (other, STAY))
        )
    assert idle.next_birth == busy.next_birth
    assert int(idle.next_birth) > 0
    assert {*idle.shoal.born.tolist()} != {*other.shoal.born.tolist()}


def test_the_vector_of_bigfish():
    near, far = (6.0, 5.0, 0.5, 0.2, 1), (5.0, 9.0, 1.5, -0.3, 2)
    state = bigfish_state(far, near, x=5.0, y=5.0, vx=0.1)
    vector = see(bigfish_vector.features, state, params("BigFish"))
    assert (vector.shape, vector.dtype) == ((37,), jnp.float32)
    np.testing.assert_allclose(vector[:5], [5, 5, 1, 0.1, 0])
    np.testing.assert_allclose(vector[5:13], [1, 0, 0.5, 0.2, 0, 4, 1.5, -0.3])
    assert not np.any(vector[13:])


def test_restricted_themes_give_all_fish_one_shape():
    env = procgen_env("BigFish", drawing=Drawing(restrict_themes=True))
    step, state = jax.jit(env.dynamics.advance), bigfish_state()
    for _ in range(60):
        state = step(state, jnp.int32(UP), params("BigFish"))[0]
    shoal = jax.tree.map(lambda leaf: leaf[state.shoal.born > 0], state.shoal)
    assert shoal.born.size
    np.testing.assert_allclose(shoal.radius / shoal.half_height, 78 / 46, rtol=1e-5)


# CoinRun -----------------------------------------------------------------------------------------


def coinrun_state(level, mode="easy", **changes):
    state = begin("CoinRun", level, params("CoinRun", mode, 200, 0, "classic"))
    return state._replace(
        **{k: jnp.asarray(v, getattr(state, k).dtype) for k, v in changes.items()}
    )


def run(state, actions, mode="easy"):
    """Yields (state, reward, over, info) of every step."""
    for action in actions:
        state, reward, over, _, info = step_coinrun(
            state, jnp.int32(action), params("CoinRun", mode, 200, 0, "classic")
        )
        yield state, float(reward), bool(over), info


def test_running_and_jumping():
    seen = [state for state, *_ in run(coinrun_state(0), [UP, *[STAY] * 16])]
    height = np.array([float(state.y) for state in seen]) - 1.5787
    np.testing.assert_allclose(height[:8], np.cumsum(np.arange(15, -1, -2) / 10), atol=1e-5)
    assert height.max() == pytest.approx(6.4, abs=1e-5)
    # Touch-down only scales the velocity, so that it stands one step later.
    down = int(np.argmax((height < 1e-4) & (np.arange(17) > 5)))
    assert float(seen[down].vy) != 0
    assert float(seen[down + 1].vy) == 0
    assert not bool(seen[down + 1].supported)

    speeds = [float(state.vx) for state, *_ in run(coinrun_state(0), [RIGHT] * 4)]
    np.testing.assert_allclose(speeds, [0.1, 0.18, 0.244, 0.2952], atol=1e-6)
    # In the air there is little grip, and up does nothing.
    _, (flying, *_) = run(coinrun_state(0), [UP_RIGHT, UP_RIGHT])
    assert float(flying.vx) == pytest.approx(0.97 * 0.1 + 0.015, abs=1e-6)
    assert float(flying.vy) == pytest.approx(1.3, abs=1e-6)


def test_standing_takes_a_velocity_of_exactly_zero():
    (after, *_), *_ = run(coinrun_state(0, vy=1e-7), [UP])
    assert not bool(after.supported)
    assert float(after.vy) < 0.5


def test_crates_hold_from_above_unless_down_is_pressed():
    crate = generator.make_level(0, "easy", "classic").crates[0]
    level = crate[1] + 1 + 0.5787
    above = coinrun_state(0, x=crate[0] + 0.5, y=level + 0.1, vy=-0.1)
    (held, *_), *_ = run(above, [STAY])
    assert float(held.y) == pytest.approx(level, abs=1e-5)
    assert bool(held.on_crate)
    (stood, *_), *_ = run(held, [STAY])
    assert (bool(stood.supported), float(stood.y)) == (True, float(held.y))
    (dropped, *_), *_ = run(held, [DOWN])
    assert float(dropped.y) < float(held.y) - 0.1
    # From below, and from inside, it does not.
    (inside, *_), *_ = run(above._replace(y=above.y - 0.2), [STAY])
    assert not bool(inside.on_crate)


def test_dangers_and_the_coin():
    level = generator.make_level(0, "easy", "classic")
    (column, row), (coin_x, coin_y) = level.saws[0], level.coin
    for apart, deadly in ((0.98, True), (1.02, False)):
        state = coinrun_state(0, x=column + 0.5 - apart, y=row + 0.5787)
        ((_, reward, over, info),) = run(state, [STAY])
        assert (reward, over) == (0, deadly)
    state = coinrun_state(0, x=coin_x - 0.4, y=coin_y + 0.5787)
    ((_, reward, over, info),) = run(state, [RIGHT])
    assert (reward, over, bool(info["level_complete"])) == (10, True, True)
    ((_, _, over, info),) = run(coinrun_state(0, clock=999), [STAY])
    assert (over, bool(info["timeout"])) == (True, True)


def test_enemies_turn_at_the_ends_of_their_walk():
    # Between columns 5 and 8, surface on the left, inner ground on the right.
    enemy = jnp.array([[6.5, 1.5, 0.15, 5.0, 8.0, 4.0]])
    x, vx, seen = enemy[:, 0], enemy[:, 2], []
    for _ in range(40):
        x, vx = coinrun._walk(x, vx, enemy, jnp.array([False]))
        seen.append((float(x[0]), float(vx[0])))
    assert seen[5] == pytest.approx((7.4, 0.15), abs=1e-5)
    # 7.4 + 0.0375 k: the third move is 7.5125, back to 7.4875; the fourth goes left.
    assert seen[6] == pytest.approx((7.45, -0.15 * 3 / 4), abs=1e-5)
    places = np.array([x for x, _ in seen])
    assert np.all((places > 5.49) & (places < 7.51))
    # The edge on the left has taken nothing, the wall a quarter each time.
    assert {round(abs(v), 5) for _, v in seen} <= {0.15, 0.1125, 0.08437, 0.06328}


def test_the_vector_of_coinrun():
    state = coinrun_state(0)
    vector = see(coinrun_vector.features, state, params("CoinRun", "easy", 200, 0, "classic"))
    assert (vector.shape, vector.dtype) == ((coinrun_vector.VECTOR_SIZE,), jnp.float32)
    np.testing.assert_allclose(vector[:5], [1.5, 1.5787, 0, 0, 1])
    window = vector[5 : 5 + 169].reshape(13, 13)
    level = generator.make_level(0, "easy", "classic")
    assert [window[6, 6], window[6, 5], window[5, 6]] == [0, 1, 1]
    solid = np.isin(level.grid[1:8, 1:8], (generator.INTERIOR, generator.SURFACE))
    np.testing.assert_array_equal(window[6:, 6:] == 1, solid)


# Levels ------------------------------------------------------------------------------------------


def test_the_classic_words_are_those_of_the_twister():
    words = levels.twister_words(np.array([0, 2**31 - 2]), 4)
    want = [
        np.random.RandomState(seed).randint(2**32, size=4, dtype=np.uint32)
        for seed in (0, 2**31 - 2)
    ]
    np.testing.assert_array_equal(words, want)


def test_bits_are_read_as_they_are_packed():
    bits = np.random.default_rng(0).random((2, 100)) < 0.5
    packed = jnp.asarray(levels.pack_bits(bits))
    assert packed.shape == (2, 4)
    read = jax.vmap(lambda place: levels.read_bit(packed[1], place))(jnp.arange(100))
    np.testing.assert_array_equal(read, bits[1])


@pytest.mark.parametrize("game", levels.GAMES)
def test_levels_are_drawn_from_their_range(game):
    dynamics, own = procgen_env(game).dynamics, params(game, "easy", 5, 7)
    draw = jax.jit(jax.vmap(lambda key: dynamics.begin(dynamics.draw(key, own), own).seed))
    assert {*np.asarray(draw(jax.random.split(jax.random.key(0), 200)))} == {*range(7, 12)}


def test_all_levels():
    draw = jax.jit(jax.vmap(lambda key: BigFishDynamics().draw(key, params("BigFish"))))
    seeds = np.asarray(draw(jax.random.split(jax.random.key(0), 200)), np.float64)
    assert len({*seeds}) == 200
    assert seeds.max() < levels.UNLIMITED
    assert seeds.mean() == pytest.approx(2**30, rel=0.15)


# What the original does --------------------------------------------------------------------------


@pytest.mark.parametrize("key", REFERENCE["golden"]["traces"])
def test_traces_of_the_original(key):
    game = {name.lower(): name for name in levels.GAMES}[key.partition("/")[0]]
    assert trace_share(game, key, REFERENCE["golden"]["traces"][key]) == 1


def test_the_levels_of_the_original():
    from fedjax_rl.envs.procgen.validate import _bigfish_levels, _coinrun_levels

    golden = REFERENCE["golden"]
    for _, share, *_ in (*_bigfish_levels(golden["bigfish"]), *_coinrun_levels(golden["coinrun"])):
        assert share == 1


@pytest.mark.parametrize(("game", "thinned"), [("BigFish", 40), ("CoinRun", 100)])
def test_episodes_of_the_original(game, thinned):
    """Length and return of its first levels under blind policies."""
    dynamics = {"BigFish": BigFishDynamics(), "CoinRun": CoinRunDynamics()}[game]
    order = np.arange(thinned)[:, None]
    for run in REFERENCE["runs"]:
        if run["game"] == game.lower() and run.get("per_level") and run["policy"] != "up":
            own = params(game, run["mode"], 200, 0, "classic")
            seen = play(dynamics, own, run["policy"], thinned, 1, levels=order)
            got = np.stack([seen.length[:, 0], seen.gain[:, 0]], axis=1)
            np.testing.assert_array_equal(got, run["per_level"][:thinned])


def test_the_gates(tmp_path):
    """On a thinned reference; a wrong number in it is found."""
    thin = json.loads(json.dumps(REFERENCE))
    thin["golden"]["traces"] = {}
    thin["runs"] = [thin["runs"][0], json.loads(json.dumps(thin["runs"][0]))]
    thin["runs"][1]["episode_return"]["mean"] = 3.0
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(thin))
    seen = []
    rows = validate("BigFish", "smoke", path, progress=seen.append)
    assert rows == seen
    assert [row["gate"] for row in rows if row["verdict"] == "fail"] == [
        "easy/unlimited/random: mean return"
    ]
    assert len(rows) == 1 + 4 + 2 * 4
    for row in rows:
        low, high = row["band"]
        assert row.keys() == {"gate", "measured", "expected", "band", "verdict"}
        assert low <= row["expected"] <= high or row["verdict"] == "fail" or row["expected"] == 0
    with pytest.raises(ValueError, match="no scale"):
        validate("BigFish", "huge")


# The protocol ------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", levels.GAMES)
def test_a_copy_is_the_same_alone_and_among_others(game):
    own = params(game, "easy", 200, 0, "classic") if game == "CoinRun" else params(game)
    env, alone = procgen_env(game), step_coinrun if game == "CoinRun" else step_bigfish
    actions = jnp.array([UP, RIGHT, 12])
    states = [begin(game, level, own) for level in (3, 4, 5)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    together, wide = jax.jit(jax.vmap(env.step, (None, 0, 0, None))), stack(states)
    for _ in range(12):
        obs, wide, *rest = together(None, wide, actions, own)
        single = [alone(*both, own) for both in zip(states, actions, strict=True)]
        states = [out[0] for out in single]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), stack(states), wide)
    for mine, theirs in zip(stack([out[1:] for out in single]), rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    for n, state in enumerate(states):
        np.testing.assert_allclose(obs[n], see(env.observe, state, own), atol=2e-6)

    draw = procgen_env(game, "pixels").observe
    pictures = jax.jit(jax.vmap(draw, (0, None)))(stack(states), own)
    assert (pictures.shape, pictures.dtype) == ((3, 64, 64, 3), jnp.uint8)
    for picture, state in zip(pictures, states, strict=True):
        np.testing.assert_array_equal(picture, see(draw, state, own))


def test_a_step_is_the_same_compiled_and_not():
    state, action = bigfish_state((6.2, 5.0, 0.5, 0.2, 1), x=5.0, y=5.0), jnp.int32(UP_RIGHT)
    compiled = step_bigfish(state, action, params("BigFish"))
    plain = BigFishDynamics().advance(state, action, params("BigFish"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), plain, compiled)


def test_an_automatic_reset_shows_the_next_level():
    env, own = procgen_env("BigFish", "pixels"), params("BigFish", "easy", 3, 4)
    key, reset, step = jax.random.key(5), jax.jit(env.reset), jax.jit(env.auto_step)
    first, state = reset(key, own)
    late = state._replace(clock=jnp.int32(5999), seed=jnp.uint32(77))
    obs, new, _, over, _, info = step(key, late, jnp.int32(STAY), own)
    assert (bool(over), bool(info["timeout"]), int(new.clock)) == (True, True, 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), new, state)
    np.testing.assert_allclose(obs, first, atol=2e-6)
    assert (int(info["prev_level_seed"]), int(info["level_seed"])) == (77, int(state.seed))
    assert not bool(info["prev_level_complete"])
    _, new, _, over, *_ = step(key, state, jnp.int32(STAY), own)
    assert (bool(over), int(new.clock)) == (False, 1)


def test_vectors_draw_nothing():
    key, action = jax.random.key(0), jnp.int32(0)
    for game in levels.GAMES:
        own, programs = params(game), {}
        for observation in ("vector", "pixels"):
            env = procgen_env(game, observation)
            state = jax.eval_shape(env.reset, key, own)[1]
            programs[observation] = str(jax.make_jaxpr(env.step)(key, state, action, own))
        assert "u8[64,64,3]" in programs["pixels"]
        assert "64,64" not in programs["vector"].replace("64,64,64", "")


# Pictures ----------------------------------------------------------------------------------------


def paint(picture, left, top, width, height, colour):
    """Fills the pixels whose centres lie in a rectangle."""
    centres = np.arange(64) + 0.5
    columns = (centres >= left) & (centres < left + width)
    rows = (centres >= top) & (centres < top + height)
    picture[np.ix_(rows, columns)] = colour


def test_the_geometry_of_bigfish():
    env = procgen_env("BigFish", "pixels", drawing=FLAT)
    step = jax.jit(env.step)
    state = bigfish_state()
    for t in range(90):
        obs, state, *_ = step(
            None, state, jnp.int32((RIGHT, UP, LEFT, UP)[t // 9 % 4]), params("BigFish")
        )
    want = np.zeros((64, 64, 3), np.uint8)
    shoal = jax.tree.map(np.asarray, state.shoal)
    for n in np.argsort(shoal.born):
        if shoal.born[n]:
            x, y, r, h = (float(part[n]) for part in shoal[:4])
            colour = bigfish_picture._FLAT[shoal.species[n]]
            paint(want, 3.2 * (x - r), 3.2 * (20 - y - h), 6.4 * r, 6.4 * h, colour)
    x, y, r = float(state.x), float(state.y), float(state.radius)
    paint(want, 3.2 * (x - r), 3.2 * (20 - y - r), 6.4 * r, 6.4 * r, (127, 255, 127))
    assert (shoal.born > 0).sum() > 4
    assert np.mean(np.any(np.asarray(obs) != want, axis=-1)) < 0.002  # float32 at an edge


def test_newer_fish_are_drawn_over_older_ones_and_the_player_on_top():
    state = bigfish_state((10.0, 10.0, 1.0, 0.1, 5), (10.2, 10.0, 1.5, 0.1, 3), x=10.9, y=10.0)
    species = state.shoal.species.at[1].set(1)
    state = state._replace(shoal=state.shoal._replace(species=species))
    picture = np.asarray(see(bigfish_picture.BigFishPicture(FLAT), state, params("BigFish")))
    assert picture[32, 30].tolist() == [127, 127, 255]
    assert picture[32, 37].tolist() == [127, 255, 127]
    assert picture[32, 28].tolist() == [255, 127, 127]


def test_fish_face_where_they_swim():
    draw = bigfish_picture.BigFishPicture(Drawing(use_backgrounds=False))
    right, left = (
        np.asarray(see(draw, bigfish_state((10.0, 10.0, 1.9, v, 1), x=-9.0), params("BigFish")))
        for v in (0.2, -0.2)
    )
    assert right.any()
    np.testing.assert_array_equal(right, left[:, ::-1])
    assert not np.array_equal(right, left)


def test_colours_do_not_tell_size():
    draw = bigfish_picture.BigFishPicture(FLAT)
    colours = set()
    for radius in (0.6, 1.0, 1.9):
        picture = see(draw, bigfish_state((10.0, 10.0, radius, 0.1, 1), x=-9.0), params("BigFish"))
        colours |= {tuple(c) for c in np.asarray(picture).reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), (127, 127, 255)}


def test_backgrounds():
    waters = bigfish_picture.backgrounds()
    assert (waters.shape, waters.dtype) == ((7, 64, 115), np.uint32)
    assert len({water.tobytes() for water in waters}) == 7
    draw = bigfish_picture.BigFishPicture(Drawing())
    left, right = (
        np.asarray(see(draw, bigfish_state(x=-9.0, background=0, offset=share), params("BigFish")))
        for share in (0.0, 1.0)
    )
    shift = round(7 / 9 * 64)
    np.testing.assert_array_equal(left[:, shift:], right[:, : 64 - shift])
    colours, shapes = coinrun_picture.scenes()
    assert len({row.tobytes() for row in colours}) == len({row.tobytes() for row in shapes}) == 62


def test_velocity_is_painted():
    words = raster.paint_velocity(jnp.zeros((64, 64), jnp.uint32), jnp.float32(0), jnp.float32(1))
    picture = np.array(raster.picture(words))
    assert picture[:13, :13].min() == picture[:13, :13].max() == 127
    assert picture[:13, 13:26].min() == 255
    picture[:13, :26] = 0
    assert not picture.any()


def test_the_geometry_of_coinrun():
    drawing = Drawing(use_backgrounds=False, use_monochrome_assets=True, restrict_themes=True)
    own = params("CoinRun", "easy", 200, 0, "classic")
    state = coinrun_state(0, x=9.37, y=5.81)
    picture = np.asarray(see(coinrun_picture.CoinRunPicture(drawing), state, own))
    centres = (np.arange(64) + 0.5) * 13 / 64 - 6.5
    columns = np.floor(9.37 + centres).astype(int) + maps.MARGIN
    rows = np.floor(5.81 - centres).astype(int) + maps.MARGIN
    codes = own.table.cells[0][columns[None], rows[:, None]]
    want = coinrun_picture._FLAT[np.minimum(codes, maps.CODES["crate"])]
    height = 1.7415 * 2 * 0.5787
    top = (6.5 + 0.5787 - height) * 64 / 13
    paint(want, 6 * 64 / 13, top, 64 / 13, height * 64 / 13, (127, 255, 127))
    np.testing.assert_array_equal(picture, want)


@pytest.mark.parametrize("game", levels.GAMES)
def test_pictures_of_many_copies_are_those_of_each(monkeypatch, game):
    monkeypatch.setattr(drawing, "AT_A_TIME", 3)
    own, env = params(game), procgen_env(game, "pixels")
    keys = jax.vmap(jax.random.split, (0, None))(jax.random.split(jax.random.key(5), 2), 7)
    every = jax.vmap(jax.vmap(env.reset, (0, None)), (0, None))
    found, states = jax.jit(every)(keys, own)
    alone = jax.jit(env.observe.picture)
    for place in np.ndindex(2, 7):
        state = jax.tree.map(operator.itemgetter(place), states)
        np.testing.assert_array_equal(found[place], alone(state, own))


# Tasks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", levels.GAMES)
def test_tasks(game):
    task = envs.procgen_task(game, pool=8)
    assert task == registry.make(game.lower(), **dict(task.options))
    assert task.static == envs.procgen_task(game, "hard", pool=8).static
    assert task.config["name"] == game
    assert task.action == envs.Discrete(15)
    obs, state = jax.jit(task.env.reset)(jax.random.key(0), task.params)
    seen = task.encode(obs)
    assert (seen.shape, seen.dtype) == ((task.observation_size,), jnp.float32)
    trace = task.trace(state)
    behaviour = task.summarise(trace, trace, jnp.int32(1))
    assert behaviour.shape == (task.behaviour_size,)
    assert np.all((behaviour >= 0) & (behaviour <= 1))
    pixels = envs.procgen_task(game, observation="pixels", pool=8, max_steps=9)
    assert (pixels.observation_size, pixels.max_steps) == (64 * 64 * 3, 9)
    assert pixels.encode(jnp.full((64, 64, 3), 255, jnp.uint8)).max() == 1


def test_agents_with_levels_of_their_own():
    task = envs.procgen_task("BigFish", num_levels=10, start_level=5, own_levels=True)
    members = task.members(3)
    np.testing.assert_array_equal(members.start_level, [5, 15, 25])
    assert jax.tree.structure(members) == jax.tree.structure(task.params)
    reset = jax.jit(jax.vmap(task.env.reset, (None, 0)))
    seeds = np.asarray(reset(jax.random.key(0), members)[1].seed)
    assert [seed // 10 for seed in seeds - 5] == [0, 1, 2]
    tables = envs.procgen_task("CoinRun", num_levels=2, own_levels=True).members(2).table
    np.testing.assert_array_equal(tables.seeds, [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "BigFsh"}, "no game; did you mean BigFish"),
        ({"mode": "medium"}, "no mode"),
        ({"observation": "pixel"}, "no observation; did you mean pixels"),
        ({"source": "clasic"}, "no source of levels; did you mean classic"),
        ({"timeout": "ends"}, "no timeout; did you mean end"),
        ({"num_levels": -1}, "num_levels is -1"),
        ({"num_levels": 2.5}, "num_levels is 2.5"),
        ({"start_level": 4}, "start_level is 4 with num_levels 0"),
        ({"num_levels": 5, "start_level": 2**31 - 3}, "start_level . num_levels is"),
        ({"pool": 0}, "pool is 0"),
        ({"own_levels": True}, "own_levels is True with num_levels 0"),
        ({"discount": 2.0}, "discount is 2.0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"use_backgrounds": 1}, "use_backgrounds is 1"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        envs.procgen_task(**options)


def test_normalised_scores():
    assert normalised_score("BigFish", "easy", 40) == 1
    assert normalised_score("CoinRun", "hard", 5) == 0
    assert normalised_score("BigFish", "easy", 0.86) < 0
