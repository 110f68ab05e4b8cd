"""The engine without any algorithm of ours: populations, exchanges, servers, uplinks, costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_rl import federation as fed
from fedjax_rl import streams
from fedjax_rl.federation.exchange import first_state
from fedjax_rl.federation.ledger import _wide_sum, line, wide_product
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Sent, per_agent
from fedjax_rl.names import check_known

few = settings(max_examples=10, deadline=None, derandomize=True)
groups = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=3)


def loop(population, x, reduction):
    """A reduction per federation, the long way round."""
    out, at = [], 0
    for federations, agents in population.groups:
        for _ in range(federations):
            out.append(reduction(x[at : at + agents], axis=0))
            at += agents
    assert at == len(x)
    return np.stack(out)


def start(population, agents, server, link, seed=0):
    """The first state of a toy algorithm."""
    keys = streams.agent_keys(np.full(population.num_agents, seed), population.member_of)
    agents = jax.tree.map(jnp.asarray, agents)
    state = first_state(
        population, fed.Exchange(lambda *_: (), server=link.server), params(), keys, agents, server
    )
    return dataclasses.replace(state, uplink_state=(states_of(link, agents),))


def states_of(link, agents):
    """The uplinks' states where the message is the whole agent or its entry x."""
    numbers = agents["x"] if isinstance(agents, dict) and "x" in agents else agents
    return jax.vmap(lambda x: link.uplink.init(x, None, link.spec))(numbers)


def params(agent=None, federation=None, shared=None):
    return fed.Params(agent or {}, federation or {}, shared or {})


@pytest.fixture
def lenient():
    """Optax itself mixes integer counts with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# Populations


@few
@given(groups, st.integers(0, 99))
def test_reductions_per_federation_are_plain_loops(shape, seed):
    population = fed.Population(tuple(shape))
    rng = np.random.default_rng(seed)
    x = {
        "a": rng.standard_normal(population.num_agents).astype(np.float32),
        "b": (rng.standard_normal((population.num_agents, 2, 3)).astype(np.float32),),
    }
    names = {"mean": np.mean, "sum": np.sum, "max": np.max}
    all_of_them = jax.jit(lambda x: {name: getattr(population, name)(x) for name in names})(x)
    for name, reduction in names.items():
        got = all_of_them[name]
        np.testing.assert_allclose(got["a"], loop(population, x["a"], reduction), rtol=1e-5)
        np.testing.assert_allclose(
            got["b"][0], loop(population, x["b"][0], reduction), rtol=1e-5, atol=1e-6
        )
    top = all_of_them["max"]
    np.testing.assert_array_equal(
        jax.jit(population.spread)(top)["b"][0], np.asarray(top["b"][0])[population.federation_of]
    )


def test_the_shape_of_a_mixed_population():
    population = fed.population([1, 1, 3, 2])
    assert population.groups == ((2, 1), (1, 3), (1, 2))
    assert (population.num_federations, population.num_agents) == (4, 7)
    np.testing.assert_array_equal(population.sizes, [1, 1, 3, 2])
    np.testing.assert_array_equal(population.federation_of, [0, 1, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(population.member_of, [0, 0, 0, 1, 2, 0, 1])
    assert fed.population(5).groups == ((1, 5),)


@pytest.mark.parametrize("sizes", [[], [2, 0], -1])
def test_a_population_without_agents_is_refused(sizes):
    with pytest.raises(ValueError, match="at least one"):
        fed.population(sizes)


# Aggregation

POPULATION = fed.population([1, 3, 3, 4])
values = st.lists(
    st.floats(-100, 100, width=32), min_size=POPULATION.num_agents, max_size=POPULATION.num_agents
)
masks = st.lists(st.booleans(), min_size=POPULATION.num_agents, max_size=POPULATION.num_agents)
amounts = st.lists(
    st.floats(0, 8, width=16), min_size=POPULATION.num_agents, max_size=POPULATION.num_agents
)


@jax.jit
def aggregated(message, sent, weight):
    return fed.mean(POPULATION, message, sent, weight)


@few
@given(values, masks, amounts)
def test_a_mask_equals_the_subset_and_a_weight_the_weighted_mean(x, mask, weight):
    x, mask, weight = np.float32(x), np.asarray(mask), np.float32(weight)
    total = aggregated(x, mask, jnp.asarray(weight))
    for f in range(POPULATION.num_federations):
        here = (POPULATION.federation_of == f) & mask
        norm = weight[here].sum(dtype=np.float64)
        assert bool(total.present[f]) == (norm > 0)
        expected = (weight * x)[here].sum(dtype=np.float64) / norm if norm > 0 else 0.0
        np.testing.assert_allclose(total.value[f], expected, rtol=1e-4, atol=1e-3)


@few
@given(values, masks, st.randoms(use_true_random=False))
def test_the_mean_is_convex_and_blind_to_the_order_of_members(x, mask, random):
    x, mask = np.float32(x), np.asarray(mask)
    total, present = aggregated(x, mask, None)
    order = np.arange(POPULATION.num_agents)
    for f in range(POPULATION.num_federations):
        here = np.flatnonzero(POPULATION.federation_of == f)
        order[here] = random.sample(list(here), len(here))
        inside = x[here][mask[here]]
        if present[f]:
            slack = 1e-5 * (1 + np.abs(inside).max())
            assert inside.min() - slack <= total[f] <= inside.max() + slack
    again, _ = aggregated(x[order], mask[order], None)
    np.testing.assert_allclose(again, total, rtol=1e-5, atol=1e-4)


def test_weights_by_hand_numpy_weights_and_weights_per_entry():
    population = fed.population([2, 2])
    x = jnp.asarray([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [7.0, 9.0]])
    for weight in (jnp.asarray([1.0, 3.0, 0.0, 2.0]), np.float32([1, 3, 0, 2])):
        value, present = fed.mean(population, x, None, weight)
        np.testing.assert_array_equal(value, [[2.5, 5.0], [7.0, 9.0]])
        assert present.all()
    entry = (jnp.asarray([[1.0, 0.0], [3.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),)
    value, present = fed.mean(population, (x,), None, entry)
    # Nobody has weight on the first entry of the second federation: zero, not NaN, and not there.
    np.testing.assert_array_equal(value[0], [[2.5, 6.0], [0.0, 7.0]])
    np.testing.assert_array_equal(present[0], [[True, True], [False, True]])


def test_a_weight_of_zero_has_a_derivative():
    """That of a weighted mean m with respect to w_i, (x_i - m) / sum w; here m is 10 / 3."""
    population, x = fed.population(3), jnp.asarray([1.0, 2.0, 4.0])
    found = jax.grad(lambda w: fed.mean(population, x, None, w).value[0])(jnp.asarray([0.0, 1, 2]))
    np.testing.assert_allclose(found, (np.asarray([1, 2, 4]) - 10 / 3) / 3, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_who_does_not_send_cannot_spoil_the_total(bad):
    population = fed.population([2, 2])
    x = jnp.asarray([1.0, bad, 2.0, 4.0])
    sent = jnp.asarray([True, False, True, True])
    np.testing.assert_array_equal(fed.mean(population, x, sent).value, [1.0, 3.0])
    silent = jnp.asarray([1.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(fed.mean(population, x, None, silent).value, [1.0, 3.0])
    weight = jnp.asarray([1.0, bad, 3.0, 1.0])
    np.testing.assert_array_equal(fed.mean(population, x, sent, weight).value, [1.0, 2.5])


def test_softmax_weights_do_not_overflow_and_sum_to_one():
    population = fed.population([1, 2, 2])
    logits = jnp.asarray([7.0, 1e4, 1e4 + np.log(3.0), -1e4, 1e4])
    weights = fed.softmax_weights(population, logits)
    np.testing.assert_allclose(weights, [1.0, 0.25, 0.75, 0.0, 1.0], rtol=2e-3)


# Servers

TOTALS = np.asarray([[1.0, -2.0], [0.5, 0.25], [2.0, 2.0], [-1.0, 0.0]], np.float32)


def serve(server_step, totals=TOTALS):
    """The models of one server after each of several totals."""
    model = jnp.zeros(2)
    memory, seen = server_step.init(model), []
    for total in totals:
        model, memory = server_step.step(model, memory, jnp.asarray(total), {})
        seen.append(np.asarray(model))
    return np.stack(seen)


def test_plain_averaging_is_sgd_with_rate_one():
    np.testing.assert_array_equal(serve(fed.replace()), TOTALS)
    got = serve(fed.optimizer_step(optax.sgd(1.0)))
    np.testing.assert_allclose(got, TOTALS, rtol=1e-6, atol=1e-7)


def test_fedavgm_by_hand():
    model, speed, expected = np.zeros(2), np.zeros(2), []
    for total in TOTALS.astype(float):
        speed = 0.9 * speed + (model - total)
        model = model - 0.5 * speed
        expected.append(model)
    got = serve(fed.optimizer_step(optax.sgd(0.5, momentum=0.9)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(got[1], [0.5 + 0.45, -1.0 - 0.9 + 0.625], rtol=1e-6)


@pytest.mark.usefixtures("lenient")
def test_fedadam_by_hand():
    model, first, second, expected = np.zeros(2), np.zeros(2), np.zeros(2), []
    for t, total in enumerate(TOTALS.astype(float), start=1):
        gradient = model - total
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        step = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.99**t)) + 1e-3)
        model = model - 0.1 * step
        expected.append(model)
    got = serve(fed.optimizer_step(optax.adam(0.1, b1=0.9, b2=0.99, eps=1e-3)))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


# The ledger


def test_counters_carry_past_32_bits():
    book = fed.empty_ledger(2)
    for amount in (2**32 - 1, 2**32 - 1, 3, 0):
        book = book.add(line(bytes_up=1), jnp.asarray([amount, 1], jnp.uint32))
    np.testing.assert_array_equal(book.totals()["bytes_up"], [2**33 + 1, 4])
    np.testing.assert_array_equal(book.totals()["bytes_down"], [0, 0])
    assert book.totals()["bytes_up"].dtype == np.int64


@few
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_product_of_words_is_exact(a, b):
    low, high = jax.jit(wide_product)(jnp.uint32(a), jnp.uint32(b))
    assert (int(high) << 32) + int(low) == a * b


def test_the_size_of_a_message_does_not_wrap():
    sent = Sent(*(jnp.asarray([1, 0], jnp.uint32) * x for x in (1, jnp.uint32(2**31), 9)))
    sizes = np.asarray(sent.bytes(fed.Wire(word_bytes=8, header_bytes=2**30)))
    np.testing.assert_array_equal(sizes, np.float32([2**34 + 2 + 2**30, 0]))


def test_a_long_wait_of_a_large_federation_does_not_wrap_the_counter():
    population = fed.Population(((1, 3000),))
    link = fed.Exchange(lambda agent, broadcast, p: agent, lambda agent, model, p: model)
    drive = fed.rounds(fed.LocalSteps(lambda key, agent, p, time, num_steps: agent), link)
    state = start(population, jnp.zeros(3000), jnp.zeros(1), link)
    steps = 2_000_000_000
    never = params(shared={"sync_period": jnp.uint32(2**32 - 1)})
    state = drive.advance(population, never, state, jnp.uint32(steps))
    assert state.ledger.totals()["env_steps"][0] == 3000 * steps
    assert state.ledger.totals()["messages_up"][0] == 0


@few
@given(st.sampled_from([3, 2**12, 2**20 - 1, 2**20, 2**28 + 5, 2**31]), st.data())
def test_a_sum_over_any_number_of_agents_is_exact(members, data):
    """Of members of which a few are there: no part of the sum may reach 2^32 if all were."""
    amounts = np.array(data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3)))
    parts = []

    class Many:
        num_federations, sizes = 1, np.array([members])

        def sum(self, x):
            parts.append(int(x.max()))
            return x.sum(dtype=jnp.uint32)[None]

    found = _wide_sum(Many(), jnp.asarray(amounts, jnp.uint32), 2**32 - 1)
    assert max(parts) * members < 2**32
    total = sum(int(amount[0]) * int(unit[0]) for amount, unit in found)
    assert total == amounts.sum()


def test_a_large_model_in_a_large_federation_does_not_wrap_the_counter():
    messages, times = jnp.asarray([1024], jnp.uint32), jnp.asarray([10**6], jnp.uint32)
    book = fed.empty_ledger(1).add(line(floats_up=2**21, bytes_up=2**23), times, messages)
    assert book.totals()["floats_up"][0] == 1024 * 10**6 * 2**21
    assert book.totals()["bytes_up"][0] == 1024 * 10**6 * 2**23


def test_small_lines_add_up_as_one_after_the_other():
    """Carried into the second word, too."""
    book = fed.empty_ledger(2)
    book = dataclasses.replace(book, low=book.low + jnp.uint32(2**32 - 50), high=book.high + 1)
    pairs = [
        (line(communications=1), jnp.asarray([1, 0], jnp.uint32)),
        (line(floats_up=1, bytes_up=4), jnp.asarray([77, 3], jnp.uint32)),
        (line(bytes_up=1), jnp.asarray([5, 0], jnp.uint32)),
    ]
    found, expected = book.add_small(*pairs), book
    for pair in pairs:
        expected = expected.add(*pair)
    for name, total in expected.totals().items():
        np.testing.assert_array_equal(found.totals()[name], total)


def test_communication_time_is_an_all_reduce_per_exchange():
    times = fed.communication_time([1000, 1000, 999, np.nan], [10, 1000, 1000, 1], [4, 16, 8, 2])
    np.testing.assert_array_equal(times, [1200, 1004, 999, np.nan])
    assert fed.communication_time(500, 1, 1) == 500  # nobody to talk to


# Exchanges


def test_a_federation_that_is_not_due_keeps_its_state_bit_for_bit():
    population = fed.population([2, 3])
    link = fed.Exchange(
        lambda agent, broadcast, p: agent["x"],
        lambda agent, model, p: {**agent, "x": model},
        uplink=fed.partial(),
        server=fed.optimizer_step(optax.sgd(0.5, momentum=0.9)),
    )
    rng = np.random.default_rng(0)
    agents = {"x": rng.standard_normal((5, 2)).astype(np.float32), "own": np.arange(5.0, dtype="f")}
    state = start(population, agents, jnp.ones((2, 2)), link)
    state = dataclasses.replace(state, uplink_state=((),))
    own = params(federation={"uplink": {"probability": jnp.asarray([1.0, 1.0])}})
    after = fed.exchange(population, link, own, state, jnp.asarray([False, True]))
    before, now = (
        jax.tree.map(np.asarray, (s.agents, s.server, s.server_state)) for s in (state, after)
    )
    np.testing.assert_array_equal(now[0]["x"][:2], before[0]["x"][:2])
    np.testing.assert_array_equal(now[1][0], before[1][0])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), now[2], before[2])
    expected = 1 - 0.5 * (1 - agents["x"][2:].mean(0))
    np.testing.assert_allclose(now[1][1], expected, rtol=1e-6)
    np.testing.assert_allclose(now[0]["x"][2:], np.tile(expected, (3, 1)), rtol=1e-6)
    np.testing.assert_array_equal(now[0]["own"], agents["own"])
    np.testing.assert_array_equal(after.ledger.totals()["messages_up"], [0, 3])


@pytest.mark.usefixtures("lenient")
def test_fedavg_of_a_linear_model_with_adam_as_the_local_step():
    """The agent holds its model and Adam's moments; only the model crosses the wire."""
    population, adam, period, rounds = fed.population([2, 2]), optax.adam(0.05), 5, 3
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((4, 8, 3)).astype(np.float32)
    labels = rng.standard_normal((4, 8)).astype(np.float32)

    def loss(model, x, y):
        return jnp.mean((x @ model["w"] + model["b"] - y) ** 2)

    def step(agent, x, y):
        gradient = jax.grad(loss)(agent["model"], x, y)
        updates, moments = adam.update(gradient, agent["moments"])
        return {"model": optax.apply_updates(agent["model"], updates), "moments": moments}

    def local(key, agent, p, time, num_steps):
        first, last = jnp.uint32(0), jnp.uint32(num_steps)
        return jax.lax.fori_loop(first, last, lambda _, a: step(a, p["x"], p["y"]), agent)

    link = fed.Exchange(
        lambda agent, broadcast, p: agent["model"],
        lambda agent, model, p: {**agent, "model": model},
    )
    model = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    one = {"model": model, "moments": adam.init(model)}
    agents = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), one)
    server = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), model)
    state = start(population, agents, server, link)
    own = params({"x": inputs, "y": labels}, shared={"sync_period": jnp.uint32(period)})
    drive = fed.rounds(fed.LocalSteps(local), link)
    round_ = jax.jit(lambda s: drive.round(population, own, s, period))
    for _ in range(rounds):
        state = round_(state)
    advanced = drive.advance(
        population, own, start(population, agents, server, link), jnp.uint32(rounds * period)
    )

    each, jitted = [one] * 4, jax.jit(step)
    for _ in range(rounds):
        for i in range(4):
            for _ in range(period):
                each[i] = jitted(each[i], inputs[i], labels[i])
        for pair in ((0, 1), (2, 3)):
            mean = jax.tree.map(lambda *leaves: sum(leaves) / 2, *(each[i]["model"] for i in pair))
            for i in pair:
                each[i] = {**each[i], "model": mean}
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    for got in (state, advanced):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            got.agents,
            expected,
        )
        totals = got.ledger.totals()
        np.testing.assert_array_equal(totals["floats_up"], [rounds * 2 * 4] * 2)
        np.testing.assert_array_equal(totals["env_steps"], [rounds * period * 2] * 2)
    losses = jax.vmap(loss)(state.agents["model"], inputs, labels)
    assert losses.mean() < jnp.mean(labels**2)


def test_an_event_triggered_uplink_with_a_state():
    """An agent speaks when it moved by more than a threshold; its last word counts till then."""
    population, threshold, rounds = fed.population([3, 1]), 0.55, 12
    drift = np.float32([0.1, 0.3, -0.6, 0.2])

    def send(key, message, memory, view):
        sent = jnp.abs(message - memory) > threshold
        heard = jnp.where(sent, message, memory)
        return heard, sent, heard

    link = fed.Exchange(
        lambda agent, broadcast, p: agent["x"],
        lambda agent, model, p: {**agent, "heard": model},
        uplink=fed.Uplink("toy", lambda message, model, spec: message, send, silent="absent"),
        aggregate=lambda population, message, *_: fed.mean(population, message),
    )
    own = params({"drift": drift}, shared={"sync_period": jnp.uint32(1)})
    drive = fed.rounds(
        fed.LocalSteps(
            lambda key, agent, p, time, num_steps: {**agent, "x": agent["x"] + p["drift"]}
        ),
        link,
    )
    agents = {"x": np.zeros(4, np.float32), "heard": np.zeros(4, np.float32)}
    state = start(population, agents, jnp.zeros(2), link)
    round_ = jax.jit(lambda s: drive.round(population, own, s, 1))

    x, memory, heard, messages = np.zeros(4, "f"), np.zeros(4, "f"), np.zeros(4, "f"), 0
    for _ in range(rounds):
        state = round_(state)
        x = x + drift
        sent = np.abs(x - memory) > np.float32(threshold)
        sent[3] = True  # alone it talks to itself, and keeps nothing back
        memory = np.where(sent, x, memory)
        model = np.float32([memory[:3].mean(), memory[3]])
        heard = np.where(sent, model[[0, 0, 0, 1]], heard)
        messages += sent[:3].sum()
        np.testing.assert_allclose(state.agents["heard"], heard, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.server, model, rtol=1e-5, atol=1e-6)
    assert 0 < messages < 3 * rounds
    totals = state.ledger.totals()
    np.testing.assert_array_equal(totals["messages_up"], [messages, 0])  # N = 1 talks to nobody
    np.testing.assert_array_equal(totals["bytes_up"], [4 * messages, 0])


@pytest.mark.parametrize("local_steps", [1, 4])
def test_a_round_of_two_exchanges(local_steps):
    """Gradients first, models second, with the drift correction of SCAFFOLD and Fast-FedPG.

    The corrections g - g_i sum to zero, so the mean model of agents with equal curvature moves as
    gradient descent on the mean loss does; and the optimum of the mean loss is a fixed point,
    which plain local steps miss.
    """
    population, rate = fed.population([4]), 0.1
    curvature, centre = np.float32([1, 2, 3, 4]), np.float32([3, -1, 0.5, 2])
    optimum = (curvature * centre).sum() / curvature.sum()

    def gradient(agent, broadcast, p):
        return p["curvature"] * (agent["x"] - p["centre"])

    up_gradient = fed.Exchange(
        gradient,
        lambda agent, mean, p: {**agent, "correction": mean - gradient(agent, mean, p)},
        server=_keep("gradient"),
        broadcast=lambda server: server["gradient"],
    )
    up_model = fed.Exchange(
        lambda agent, broadcast, p: agent["x"],
        lambda agent, mean, p: {**agent, "x": mean},
        server=_keep("model"),
        broadcast=lambda server: server["model"],
    )

    def local(agent, p):
        def step(_, agent):
            moved = agent["x"] - rate * (gradient(agent, None, p) + agent["correction"])
            return {**agent, "x": moved}

        return jax.lax.fori_loop(0, local_steps, step, agent)

    def round_(own, state):
        state = fed.exchange(population, up_gradient, own, state)
        corrections = state.agents["correction"]
        agents = per_agent(local, population, own, state.agents)
        state = dataclasses.replace(state, agents=agents)
        return fed.exchange(population, up_model, own, state), corrections

    def run(curvature, x, rounds):
        own = params({"curvature": jnp.asarray(curvature), "centre": jnp.asarray(centre)})
        agents = {"x": np.full(4, x, np.float32), "correction": np.zeros(4, np.float32)}
        server = {"model": jnp.zeros(1), "gradient": jnp.zeros(1)}
        state = start(population, agents, server, up_model)
        step = jax.jit(lambda s: round_(own, s))
        for _ in range(rounds):
            state, corrections = step(state)
        return state, corrections

    state, corrections = run(np.float32([2, 2, 2, 2]), 5.0, 3)
    assert abs(float(corrections.sum())) < 1e-5
    expected = centre.mean() + (5.0 - centre.mean()) * (1 - rate * 2) ** (3 * local_steps)
    np.testing.assert_allclose(state.server["model"], [expected], rtol=1e-5)
    totals = state.ledger.totals()
    # Two exchanges a round, one float up and one down in each, of each of four agents.
    assert totals["communications"][0] == 6
    assert totals["floats_up"][0] == totals["floats_down"][0] == 6 * 4

    state, corrections = run(curvature, optimum, 1)
    assert np.abs(corrections).min() > 0.1
    np.testing.assert_allclose(state.agents["x"], np.full(4, optimum), rtol=1e-5)


def _keep(name):
    """The server step that puts the total into one entry of the server's model."""
    return ServerStep(
        lambda model: (), lambda model, memory, total, p: ({**model, name: total}, memory)
    )


def test_a_server_driven_by_arrivals():
    """One agent arrives at a time; its server mixes it in and sends it off with the new model."""
    population, mixing = fed.population([2, 3]), 0.25
    link = fed.Exchange(
        lambda agent, broadcast, p: agent,
        lambda agent, model, p: model,
        uplink=fed.Uplink(
            "arrival",
            lambda message, model, spec: (),
            lambda key, m, memory, view: (m, view.params["arrives"], memory),
            silent="absent",
        ),
        server=fed.optimizer_step(optax.sgd(mixing)),
    )
    rng = np.random.default_rng(3)
    arrivals = rng.integers(0, 5, 40)
    noise = rng.standard_normal((40, 5)).astype(np.float32)
    federation_of = population.federation_of

    def event(state, now):
        arrives, work = now
        state = dataclasses.replace(state, agents=state.agents + work)
        own = params({"arrives": jnp.arange(5) == arrives})
        due = population.max((jnp.arange(5) == arrives).astype(jnp.int32)) > 0
        return fed.exchange(population, link, own, state, due), state.server

    state = start(population, jnp.zeros(5), jnp.zeros(2), link)
    state, _ = jax.jit(lambda s: jax.lax.scan(event, s, (jnp.asarray(arrivals), noise)))(state)

    agents, server = np.zeros(5), np.zeros(2)
    for who, work in zip(arrivals, noise, strict=True):
        agents += work
        home = federation_of[who]
        server[home] += mixing * (agents[who] - server[home])
        agents[who] = server[home]
    np.testing.assert_allclose(state.server, server, rtol=1e-4)
    np.testing.assert_allclose(state.agents, agents, rtol=1e-4, atol=1e-6)
    counts = np.bincount(federation_of[arrivals], minlength=2)
    np.testing.assert_array_equal(state.ledger.totals()["messages_up"], counts)


def test_a_round_and_an_advance_of_one_period_are_the_same():
    """Static and traced trip counts, one period for all and one per federation."""
    population = fed.population([2, 3])
    link = fed.Exchange(lambda agent, broadcast, p: agent, lambda agent, model, p: model)

    def local(key, agent, p, time, num_steps):
        def step(i, x):
            return x + p["rate"] * (time.astype(jnp.float32) + jnp.float32(i) - x)

        return jax.lax.fori_loop(jnp.uint32(0), jnp.uint32(num_steps), step, agent)

    drive = fed.rounds(fed.LocalSteps(local), link)
    rate = {"rate": jnp.asarray([0.1, 0.2, 0.3, 0.4, 0.5])}

    def run(period, gaps):
        own = params(rate, **period)
        state = start(population, jnp.arange(5.0), jnp.zeros(2), link)
        for gap in gaps:
            state = drive.advance(population, own, state, jnp.uint32(gap))
        return state

    one = run({"shared": {"sync_period": jnp.uint32(6)}}, [24])
    state = start(population, jnp.arange(5.0), jnp.zeros(2), link)
    for _ in range(4):
        state = drive.round(population, params(rate), state, 6)
    np.testing.assert_allclose(state.agents, one.agents, rtol=1e-6)
    # Records in the middle of a round change nothing.
    cut = run({"shared": {"sync_period": jnp.uint32(6)}}, [5, 1, 7, 0, 11])
    np.testing.assert_allclose(cut.agents, one.agents, rtol=1e-6)
    assert cut.ledger.totals()["communications"].tolist() == [4, 4]
    mixed = run({"federation": {"sync_period": jnp.asarray([6, 4], jnp.uint32)}}, [24])
    np.testing.assert_allclose(mixed.agents[:2], one.agents[:2], rtol=1e-6)
    four = run({"shared": {"sync_period": jnp.uint32(4)}}, [24])
    np.testing.assert_allclose(mixed.agents[2:], four.agents[2:], rtol=1e-6)
    assert mixed.ledger.totals()["communications"].tolist() == [4, 6]
    assert int(mixed.time) == 24


def test_participation_of_a_federation_follows_its_probability():
    population = fed.population([200, 200, 200])
    link = fed.Exchange(
        lambda agent, broadcast, p: agent, lambda agent, model, p: model, uplink=fed.partial()
    )
    own = params(federation={"uplink": {"probability": jnp.asarray([0.0, 0.3, 1.0])}})
    drive = fed.rounds(fed.LocalSteps(lambda key, agent, p, time, num_steps: agent + 1.0), link)
    state = start(population, jnp.arange(600.0), jnp.asarray([5.0, 6.0, 7.0]), link)
    state = dataclasses.replace(state, uplink_state=((),))
    round_ = jax.jit(lambda s: drive.round(population, own, s, 1))
    for _ in range(50):
        state = round_(state)
    counts = state.ledger.totals()["messages_up"]
    assert counts[0] == 0
    assert counts[2] == 10_000
    # Binomial(10 000, 0.3) has a standard deviation of 46.
    assert abs(counts[1] - 3000) < 4 * 46
    assert float(state.server[0]) == 5.0  # nobody ever came: the server stays
    np.testing.assert_array_equal(state.agents[:200], jnp.arange(200.0) + 50)


# Names


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'epsilom' is no property.*did you mean epsilon"):
        check_known("epsilom", ["epsilon", "beta"], "property of fedq")
