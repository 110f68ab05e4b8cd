"""The clock: who arrives when, against a plain simulation with a heap and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heap import attempts, by_heap
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_rl as frl
from fedjax_rl import analysis, streams
from fedjax_rl.federation import clock as clocks
from fedjax_rl.federation.ledger import communication_time
from fedjax_rl.federation.population import population


def listed(table, federation=0):
    """A timetable as the heap tells it."""
    out = []
    for place in range(table.time.shape[1]):
        here = table.present[federation, place]
        members = table.agent[federation, place][here].tolist()
        ages = table.staleness[federation, place][here].tolist()
        out.append((table.time[federation, place], sorted(zip(members, ages, strict=True))))
    return out


def same(found, expected):
    times, told = zip(*found, strict=True), zip(*expected, strict=True)
    np.testing.assert_allclose(next(times), next(told), rtol=1e-5)
    assert next(times) == next(told)


# Multiples of a power of two add up exactly in any order and precision.
EXACT = st.integers(1, 4096).map(lambda n: n / 256)


@settings(max_examples=40, deadline=None)
@given(
    trace=st.lists(st.lists(EXACT, min_size=3, max_size=3), min_size=5, max_size=5),
    wait_for=st.integers(1, 5),
)
def test_the_order_of_arrivals_is_that_of_a_heap(trace, wait_for):
    clock = frl.Clock(
        "semi-synchronous", wait_for=wait_for, distribution="trace", compute_time=np.asarray(trace)
    )
    table = frl.timetable(clock, num_agents=5, num_steps=80)
    expected, idle, *_ = by_heap(lambda i, j: (trace[i][j % 3], False, 0.0), 5, wait_for, 80)
    same(listed(table), expected)
    np.testing.assert_allclose(table.idle[0], idle, rtol=1e-5, atol=1e-5)
    other = {1: "asynchronous", 5: "synchronous"}.get(wait_for)
    if other:
        own = frl.Clock(other, distribution="trace", compute_time=np.asarray(trace))
        again = frl.timetable(own, num_agents=5, num_steps=80)
        for name in table._fields:
            np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wait_for", [1, 2, 5])
@pytest.mark.parametrize("failure_time", [0.5, 5.0])
def test_with_failures_too_and_no_event_is_lost(seed, wait_for, failure_time):
    clock = frl.Clock(
        "semi-synchronous",
        wait_for=wait_for,
        distribution="exponential",
        compute_time=[1.0, 1.0, 2.0, 2.0, 5.0],
        failure_time=failure_time,
        return_time=2.0,
    )
    with jax.enable_x64(True):  # in which no two times are equal by rounding
        table = frl.timetable(clock, num_agents=5, num_steps=150, seeds=[seed])
        draw = attempts(clock, 5, seed, 700)
    expected, idle, lost, _ = by_heap(draw, 5, wait_for, 150)
    same(listed(table), expected)
    np.testing.assert_allclose(table.idle[0], idle, rtol=1e-3, atol=1e-3)
    assert table.lost[0] == lost
    assert lost > 10
    assert table.uploads.sum() == table.present.sum()
    assert table.present.any(axis=-1).all()


# Closed forms


@pytest.mark.parametrize(
    "times",
    [[1.0] * 8, [1.0] * 4 + [4.0] * 4, list(np.linspace(1, 4, 8)), [1.0] * 7 + [10.0]],
    ids=["equal", "two classes", "linear", "one slow"],
)
def test_always_busy_agents_take_the_harmonic_mean(times):
    """A10: time per step 1 / sum 1/t_i, mean delay N - 1, and the largest delays of the spec."""
    largest = {1.0: 7, 4.0: None, 10.0: 70}
    table = frl.timetable(
        frl.Clock("asynchronous", compute_time=times), num_agents=8, num_steps=20_000
    )
    per_step = analysis.time_per_update(times, "asynchronous")
    np.testing.assert_allclose(table.time[0, -1] / 20_000, per_step, rtol=1e-3)
    np.testing.assert_allclose(per_step, 1 / np.sum(1 / np.asarray(times)))
    assert abs(table.staleness.mean() - 7) < 0.007 * 7
    top = largest[max(times)]
    if top is not None:
        assert table.staleness.max() == top
    else:
        assert table.staleness.max() in (18, 19)
    waits = frl.timetable(frl.Clock(compute_time=times), num_agents=8, num_steps=200)
    np.testing.assert_allclose(waits.time[0], max(times) * np.arange(1, 201), rtol=1e-5)
    np.testing.assert_allclose(waits.idle[0], 200 * (max(times) - np.asarray(times)), rtol=1e-4)
    ratio = analysis.time_ratio(times)
    np.testing.assert_allclose(
        ratio, (waits.time[0, -1] / (200 * 8)) / (table.time[0, -1] / 20_000), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [("exponential", 2.0, 2.0), ("log_normal", 2.0, 2.0 * np.sqrt(np.exp(0.25) - 1))],
)
def test_times_have_the_moments_that_they_should(distribution, mean, deviation):
    clock = frl.Clock(distribution=distribution, compute_time=2.0, sigma=0.5)
    table = frl.timetable(clock, num_agents=1, num_steps=20_000, seeds=[0, 1])
    drawn = np.diff(table.time, axis=1).ravel()
    error = deviation / np.sqrt(drawn.size)
    assert abs(drawn.mean() - mean) < 4 * error
    np.testing.assert_allclose(drawn.std(), deviation, rtol=0.05)


def test_latency_and_bandwidth_are_paid_both_ways():
    clock = frl.Clock(compute_time=1.0, latency=[0.25, 0.5], bandwidth=[8.0, 16.0])
    table = frl.timetable(clock, num_agents=2, num_steps=3, transfer=32)
    # 1 + 2 * 0.25 + 32 / 8 and 1 + 2 * 0.5 + 32 / 16.
    np.testing.assert_allclose(table.time[0], 5.5 * np.arange(1, 4))
    np.testing.assert_allclose(table.idle[0], [0, 3 * 1.5])


@pytest.mark.parametrize("num_agents", [1, 2, 8, 16])
@pytest.mark.parametrize(("period", "cost"), [(1, 1.0), (10, 0.1), (100, 10.0)])
def test_the_cost_model_of_linear_speedup_is_a_special_case(num_agents, period, cost):
    clock = frl.Clock(compute_time=period, latency=clocks.tree_latency(cost))
    table = frl.timetable(clock, num_agents=num_agents, num_steps=40)
    steps = period * np.arange(1, 41)
    expected = communication_time(steps, period, num_agents, cost)
    np.testing.assert_allclose(table.time[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_agents", "wait_for", "num_steps"),
    [(70, 1, 900), (2500, 1, 3000), (2500, 1200, 3), (7000, 3, 1100)],
)
def test_of_many_agents_too(num_agents, wait_for, num_steps):
    """Merged, where nobody waits; and only those whose work ends first, of very many.

    One agent is a hundred times as fast as the others, and ends coincide.
    """
    trace = np.random.default_rng(0).integers(100, 5000, (num_agents, 4)) / 256
    trace[num_agents // 3] /= 128
    clock = frl.Clock(
        "semi-synchronous", wait_for=wait_for, distribution="trace", compute_time=trace
    )
    with jax.enable_x64(True):  # in which these times add up exactly
        table = frl.timetable(clock, num_agents=num_agents, num_steps=num_steps)
    expected, idle, *_ = by_heap(
        lambda i, j: (trace[i, j % 4], False, 0.0), num_agents, wait_for, num_steps
    )
    same(listed(table), expected)
    np.testing.assert_array_equal(table.idle[0], idle)
    assert wait_for > 1 or (np.diff(table.time[0]) == 0).any()


def test_plans_of_any_number_of_steps_go_on_from_each_other():
    """Steps are merged in a block, and searched one by one where a single one is planned."""
    rng = np.random.default_rng(1)
    trace = rng.integers(100, 5000, (3 * 70, 4)) / 256
    clock = frl.Clock("asynchronous", distribution="trace", compute_time=trace[:70])
    timing = clocks.Timing(clock.rules, population([70] * 3))
    own = {
        name: jnp.asarray(np.concatenate([x] * 3), float)
        for name, x in clock.parameters(70).items()
    }
    own["time"] = jnp.asarray(trace, float)
    keys = streams.agent_keys(np.repeat(range(3), 70), np.tile(np.arange(70), 3))
    plan = jax.jit(timing.plan, static_argnums=5)

    def after(*lengths):
        in_flight, elapsed = timing.start(own, keys)
        told, done = [], 0
        for count, length in lengths:
            arrivals, in_flight, elapsed = plan(
                own, in_flight, elapsed, jnp.uint32(done), jnp.uint32(count), length
            )
            told.append(
                (arrivals.agent[:count], arrivals.upload[:count], arrivals.staleness[:count])
            )
            done += count
        told = [np.concatenate(parts) for parts in zip(*told, strict=True)]
        return told, in_flight._replace(end=in_flight.end - jnp.repeat(elapsed.now, 70)), elapsed

    whole, state, elapsed = after((100, 100))
    parts, other, passed = after((7, 100), *[(1, 1)] * 30, (60, 100), (3, 100))
    for one, two in zip(
        jax.tree.leaves((whole, state)), jax.tree.leaves((parts, other)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(elapsed.before + elapsed.now, passed.before + passed.now)
    np.testing.assert_array_equal(elapsed.histogram, passed.histogram)


def test_neither_the_company_nor_the_scheduler_changes_an_agents_times():
    clock = {"distribution": "exponential", "compute_time": 3.0}
    alone = frl.timetable(frl.Clock(**clock), num_agents=1, num_steps=30, seeds=[4])
    among = frl.timetable(
        frl.Clock("asynchronous", **clock), num_agents=6, num_steps=300, seeds=[9, 4]
    )
    first = among.time[1][among.agent[1, :, 0] == 0][:30]
    np.testing.assert_allclose(first, alone.time[0][: len(first)], rtol=1e-5)
    assert len(first) > 20


def test_long_runs_keep_their_digits():
    clock = frl.Clock("asynchronous", compute_time=0.1)
    table = frl.timetable(clock, num_agents=4, num_steps=200_000)
    np.testing.assert_allclose(table.time[0, -1], 5000.0, rtol=1e-5)


def test_ages_add_up_exactly_beyond_32_bits():
    """Four agents that were handed the first model come 3e9 steps later, and again at once."""
    rules = frl.Clock("asynchronous").rules
    timing = clocks.Timing(rules, population([4]))
    own = {name: jnp.ones(4) for name in ("time", "latency")}
    in_flight, elapsed = timing.start(own, streams.agent_keys(np.zeros(4, int), np.arange(4)))
    plan = jax.jit(timing.plan, static_argnums=5)
    total = 0
    for _ in range(2):
        arrivals, in_flight, elapsed = plan(
            own, in_flight, elapsed, jnp.uint32(3_000_000_000), jnp.uint32(4), 4
        )
        in_flight = in_flight._replace(version=jnp.zeros(4, jnp.uint32))
        total += int(np.asarray(arrivals.staleness, np.int64).sum())
    assert total == 8 * 3_000_000_000 + 2 * (1 + 2 + 3)
    assert int(elapsed.carries[0]) * 2**32 + int(elapsed.total[0]) == total
    np.testing.assert_allclose(timing.measure(in_flight, elapsed)["staleness_mean"], total / 8)


# Bad values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheduler": "asynchronus"}, "did you mean asynchronous"),
        ({"compute_time": 0.0}, "compute_time is 0.0; allowed: finite and above 0"),
        ({"compute_time": [1.0, -2.0]}, "compute_time"),
        ({"compute_time": np.nan}, "compute_time"),
        ({"latency": -1.0}, "latency is -1.0"),
        ({"bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"failure_time": 0.0}, "failure_time is 0.0"),
        ({"failure_time": 1.0, "return_time": np.inf}, "return_time is inf; allowed: finite"),
        ({"distribution": "normal"}, "distribution is 'normal'; allowed"),
        ({"distribution": "trace"}, r"\[N, J\] with trace"),
        ({"compute_time": np.ones((2, 2))}, r"\[N, J\] with trace"),
        ({"wait_for": 2}, "a number with semi-synchronous"),
        ({"scheduler": "semi-synchronous"}, "a number with semi-synchronous"),
        (
            {"scheduler": "semi-synchronous", "wait_for": 0},
            "wait_for is 0; allowed: a whole number",
        ),
        ({"sigma": -0.1}, "sigma is -0.1"),
        ({"slow_share": 1.5}, "slow_share is 1.5"),
    ],
)
def test_a_bad_value_is_refused_at_once(values, message):
    with pytest.raises(ValueError, match=message):
        frl.Clock(**values)


@pytest.mark.parametrize(
    ("num_agents", "share", "slow"), [(1, 0.5, 0), (3, 0.5, 1), (50, 0.29, 14), (10, 0.16, 2)]
)
def test_a_half_of_an_agent_is_not_slow(num_agents, share, slow):
    clock = frl.Clock("synchronous", distribution="two_class", slow_share=share, slow_factor=3.0)
    times = clock.parameters(num_agents)["time"]
    assert times.tolist() == [1.0] * (num_agents - slow) + [3.0] * slow


def test_what_depends_on_the_number_of_agents_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="wait_for is 9 for num_agents 4; allowed: 1 to 4"):
        frl.timetable(frl.Clock("semi-synchronous", wait_for=9), num_agents=4, num_steps=1)
    with pytest.raises(ValueError, match=r"compute_time is .* one for each of 4 agents"):
        frl.timetable(frl.Clock(compute_time=[1.0, 2.0]), num_agents=4, num_steps=1)
    with pytest.raises(ValueError, match="compute_time at num_agents 4 is 0"):
        frl.timetable(
            frl.Clock(compute_time=frl.by_agents(lambda n: n - 4)), num_agents=4, num_steps=1
        )
    with pytest.raises(ValueError, match="num_steps is 0"):
        frl.timetable(frl.Clock(), num_agents=4, num_steps=0)
