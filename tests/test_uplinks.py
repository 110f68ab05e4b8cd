"""Uplinks by themselves, and on federated Q-learning: who sends, what arrives, what it costs."""

import dataclasses
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from federations import end_of, largest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl import federation as fed
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.uplinks import MessageSpec, View

few = settings(max_examples=20, deadline=None, derandomize=True)


def view(uplink, *, num_agents=1, numbers=1, spec=None, model=0.0, time=0, **params):
    """What an agent of a federation with this uplink sees."""
    own = jax.tree.map(jnp.asarray, uplink.resolve(num_agents, numbers))
    model = jnp.asarray(model)
    return View(spec or MessageSpec(), model, jnp.uint32(time), {"uplink": own, **params})


def drive(uplink, messages, *, seed=0, spec=None, models=None, **options):
    """Sends messages one after the other: what arrived, whether it was sent, the last state."""
    messages = [jnp.asarray(m, jnp.float32) for m in messages]
    models = [jnp.zeros(3)] * len(messages) if models is None else models
    spec = spec or MessageSpec()
    state = uplink.init(messages[0], models[0], spec)
    arrived, sent = [], []
    for t, (message, model) in enumerate(zip(messages, models, strict=True)):
        seen = view(uplink, spec=spec, model=model, time=t, **options)
        key = jax.random.fold_in(jax.random.key(seed), t)
        out, went, state = uplink.send(key, message, state, seen)
        arrived.append(np.asarray(out))
        sent.append(bool(went))
    return np.stack(arrived), np.asarray(sent), state


# Probabilistic


@pytest.mark.parametrize("n", [2, 5, 30, 50])
def test_the_probability_to_communicate_is_the_binomial_tail(n):
    m = np.arange(n + 1)[:, None]
    p = np.asarray([0.0, 1e-6, 0.1, 0.5, 0.9, 1.0])
    found = np.asarray(jax.jit(uplinks.communication_probability)(p[None], m, n))
    j = np.arange(n)
    law = scipy.stats.binom.pmf(j, n - 1, p[:, None])
    expected = np.stack([law[:, n - k :].sum(-1) if k else np.zeros(6) for k in range(n + 1)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[0] == 0).all()
    assert (found[-1] == 1).all()
    assert (np.diff(found, axis=0) >= -1e-6).all()
    assert (np.diff(found, axis=1) >= -1e-6).all()
    assert np.isfinite(found).all()


def test_it_is_differentiable_and_keeps_to_0_and_1():
    slope = jax.grad(lambda p: uplinks.communication_probability(p, 15, 50))(jnp.float32(0.6))
    law = scipy.stats.beta(35, 15).pdf(0.6)
    np.testing.assert_allclose(slope, law, rtol=1e-3)


@few
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=12), st.integers(1, 12))
def test_a_window_has_the_moments_of_its_last_entries(values, length):
    window, seen = np.zeros(32, np.float32), 0
    for value in values:
        window[seen % length] = value
        seen += 1
    mean, deviation = uplinks.window_moments(jnp.asarray(window), jnp.int32(min(seen, length)))
    last = np.asarray(values[-length:], np.float64)
    np.testing.assert_allclose(mean, last.mean(), rtol=1e-4, atol=1e-2)
    if last.std() > 1e-3 * (1 + abs(last.mean())):
        np.testing.assert_allclose(deviation, last.std(), rtol=1e-2)
    # The window holds the tested value, which bounds its own score.
    score = (last[-1] - float(mean)) / float(deviation)
    assert abs(score) <= math.sqrt(max(len(last) - 1, 1)) + 1e-2


def test_two_different_values_score_one_and_one_value_scores_nothing():
    window = jnp.asarray([3.0, 7.0, 0.0])
    mean, deviation = uplinks.window_moments(window, jnp.int32(2))
    assert (float(mean), float(deviation)) == (5.0, 2.0)
    for window in ([4.0, 4.0, 4.0], [1e6, 1e6, 1e6], [0.0, 0.0, 0.0]):
        values = jnp.asarray(window, jnp.float32)
        rank = uplinks.gaussian_rank(values, jnp.int32(3), values[0])
        assert float(rank) == 0.5


def test_the_empirical_rank_shares_ties():
    window = jnp.asarray([1.0, 2.0, 2.0, 5.0, 99.0])
    ranks = [float(uplinks.empirical_rank(window, jnp.int32(4), jnp.float32(u))) for u in (1, 2, 5)]
    assert ranks == [0.125, 0.5, 0.875]


def test_a_window_follows_what_is_not_sent_too():
    uplink = uplinks.probabilistic(0, 3)
    _, sent, (window, count) = drive(uplink, [1.0, 2.0, 3.0, 4.0], num_agents=10)
    assert not sent.any()
    assert int(count) == 4
    np.testing.assert_array_equal(np.sort(window[:3]), [2, 3, 4])


def test_a_message_that_is_not_there_is_not_sent_and_not_remembered():
    spec = MessageSpec(items=lambda m: (jnp.abs(m)[None], (m > 0)[None]))
    uplink = uplinks.probabilistic(10, 3)
    _, sent, (window, count) = drive(uplink, [-1.0, 5.0, -1.0], spec=spec, num_agents=10)
    np.testing.assert_array_equal(sent, [False, True, False])
    assert int(count) == 1
    assert float(window[0]) == 5.0


@pytest.mark.parametrize("model", ["gaussian", "empirical", lambda window, count, u: u])
def test_the_share_of_senders_is_what_was_asked_for(model):
    """Exactly m / n where the model is the law of the utilities, close for a long window."""
    uplink = uplinks.probabilistic(6, 30, utility_model=model)
    rng = np.random.default_rng(0)
    draw = rng.standard_normal if isinstance(model, str) else rng.random
    values = jnp.asarray(draw((60, 400)), jnp.float32)
    own = view(uplink, num_agents=20).params

    @jax.jit
    def one(carry, inputs):
        value, key = inputs
        seen = View(MessageSpec(), None, jnp.uint32(0), own)
        keys = jax.random.split(key, 400)
        _, sent, carry = jax.vmap(uplink.send, (0, 0, 0, None))(keys, value, carry, seen)
        return carry, sent

    state = jax.vmap(lambda v: uplink.init(v, None, MessageSpec()))(values[0])
    keys = jax.random.split(jax.random.key(1), 60)
    _, sent = jax.lax.scan(one, state, (values, keys))
    rate = np.asarray(sent)[30:].mean()
    # Independent draws: a standard error of 0.004; a window adds its own small bias.
    assert abs(rate - 0.3) < 0.03


# Events


def test_an_event_is_large_absolutely_and_against_what_is_usual():
    uplink = uplinks.event_triggered(0.5, 0.9, 0.25)
    messages = [0.4, 1.0, 1.0, 0.3, 0.6, 2.0]
    _, sent, state = drive(uplink, messages)
    used_to, expected = 0.0, []
    for d in messages:
        expected.append(d >= max(0.9 * used_to, 0.5))
        used_to = 0.75 * used_to + 0.25 * d
    np.testing.assert_array_equal(sent, expected)
    np.testing.assert_allclose(state, used_to, rtol=1e-6)


def test_items_of_a_message_pass_one_by_one_and_gaps_leave_the_filter_alone():
    spec = MessageSpec(
        items=lambda m: (jnp.abs(m), m != 0),
        keep=lambda m, kept: jnp.where(kept, m, 0.0),
        size=lambda m: jnp.uint32(4) * jnp.sum(m != 0).astype(jnp.uint32),
    )
    uplink = uplinks.event_triggered(0.0, 1.0, 1.0)  # larger than the one before
    arrived, sent, state = drive(uplink, [[3.0, 0.0, -2.0, 5.0], [1.0, 6.0, 0.0, 0.0]], spec=spec)
    np.testing.assert_array_equal(arrived, [[3, 0, 0, 5], [0, 6, 0, 0]])
    assert sent.all()
    assert float(state) == 6.0
    fresh = uplinks.event_triggered(0.0, 1.0, 1.0, reset=True)
    arrived, _, _ = drive(fresh, [[9.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0]], spec=spec)
    np.testing.assert_array_equal(arrived[1], [1, 0, 0, 0])


def test_a_price_falls_to_its_value_in_the_last_round():
    uplink = uplinks.event_triggered(0.04, ratio=0.5, horizon=4)
    _, sent, _ = drive(uplink, [0.31, 0.33, 0.07, 0.04])
    np.testing.assert_array_equal(sent, [False, True, False, True])  # floors .32, .16, .08, .04
    _, silent, _ = drive(uplinks.event_triggered(math.inf), [1e15])
    assert not silent.any()
    # 0.1^-999 is beyond floats; what costs nothing is sent all the same.
    _, free, _ = drive(uplinks.event_triggered(0.0, ratio=0.1, horizon=1000), [0.0, 1.0])
    assert free.all()


def test_below_sends_what_is_small():
    _, sent, _ = drive(uplinks.event_triggered(0.5, below=True), [0.4, 0.6])
    np.testing.assert_array_equal(sent, [True, False])


# Lazy


def test_a_lazy_agent_speaks_when_it_changed_more_than_the_model_moves():
    uplink = uplinks.lazy(0.5, depth=2, variance=0.0, step=0.1)
    rng = np.random.default_rng(0)
    messages = rng.normal(size=(30, 3)).astype(np.float32).cumsum(axis=0)
    models = [jnp.asarray(m) for m in rng.normal(size=(30, 3)).cumsum(axis=0).astype(np.float32)]
    arrived, sent, _ = drive(uplink, messages, models=[m * 0.4 for m in models])
    last, expected = np.zeros(3), []
    moved = [0.0, *(float(np.sum((0.4 * (b - a)) ** 2)) for a, b in itertools.pairwise(models))]
    for t, message in enumerate(messages):
        bound = 0.5 / 0.01 * sum(moved[max(0, t - 1) : t + 1])
        speaks = t == 0 or np.sum((message - last) ** 2) >= bound
        expected.append(speaks)
        last = message if speaks else last
        np.testing.assert_allclose(arrived[t], last, rtol=1e-6)
    np.testing.assert_array_equal(sent, expected)
    assert 1 < sent.sum() < 30


def test_without_thresholds_a_lazy_agent_always_speaks():
    _, sent, _ = drive(uplinks.lazy(0.0, variance=0.0), [[1.0, 2.0, 3.0]] * 4)
    assert sent.all()


# Compression

vectors = st.lists(st.integers(-64, 64), min_size=6, max_size=6)


@few
@given(st.lists(vectors, min_size=1, max_size=6), st.sampled_from(["k1", "k4", "k6", "sign"]))
def test_what_was_sent_and_what_is_left_add_up_to_what_there_was(messages, kind):
    """Exactly: small integers, and means of six of them times 60, are exact in float32."""
    uplink = uplinks.scaled_sign() if kind == "sign" else uplinks.top_k(int(kind[1:]))
    messages = np.asarray(messages, np.float32) * 60
    arrived, _, left = drive(uplink, messages, numbers=6, models=[jnp.zeros(6)] * len(messages))
    total = arrived.astype(np.float64).sum(axis=0) + np.asarray(left, np.float64)
    if kind == "sign":  # the scales are means: no longer exact after the first
        np.testing.assert_allclose(total, messages.sum(axis=0), rtol=1e-5, atol=1e-2)
    else:
        np.testing.assert_array_equal(total, messages.sum(axis=0))
    if kind == "k6":
        np.testing.assert_array_equal(arrived, messages)


@few
@given(vectors, st.integers(1, 6))
def test_compressors_contract(x, k):
    x = np.asarray(x, np.float32)
    kept = np.asarray(uplinks.largest(jnp.asarray(x), jnp.int32(k)))
    assert np.sum(kept != 0) <= k
    assert np.sum((kept - x) ** 2) <= (1 - k / 6) * np.sum(x**2) + 1e-3
    signs = np.asarray(uplinks.scaled_signs(jnp.asarray(x)))
    assert np.sum((signs - x) ** 2) <= (1 - 1 / 6) * np.sum(x**2) + 1e-2


@few
@given(vectors, st.integers(1, 6), st.randoms(use_true_random=False))
def test_who_is_largest_is_not_a_matter_of_rounding(x, k, random):
    """Of magnitudes that are equal the earlier stays, whatever their last bits are."""
    x = np.asarray(x, np.float32)
    off = np.array([random.randint(-3, 3) for _ in x], np.float32) * np.float32(2.0**-23)
    exact, near = (np.asarray(uplinks.largest(jnp.asarray(own), k)) for own in (x, x * (1 + off)))
    order = np.argsort(-np.abs(x), kind="stable")[:k]
    np.testing.assert_array_equal(exact, np.where(np.isin(np.arange(6), order), x, 0))
    np.testing.assert_array_equal(near != 0, exact != 0)


@pytest.mark.parametrize("window", [3, 32, 40])
def test_a_traced_window_is_one_that_is_kept(window):
    """What is longer than the program keeps counts as 32."""
    messages = jnp.asarray(np.random.default_rng(0).normal(size=(70, 3)), jnp.float32)

    def sent(window):
        uplink = uplinks.probabilistic(2, window)
        seen = view(uplink, num_agents=4, spec=MessageSpec(), model=jnp.zeros(3), time=0)

        def one(state, both):
            key, message = both
            _, went, state = uplink.send(key, message, state, seen)
            return state, went

        state = uplink.init(messages[0], jnp.zeros(3), MessageSpec())
        return jax.lax.scan(one, state, (jax.random.split(jax.random.key(0), 70), messages))[1]

    np.testing.assert_array_equal(jax.jit(sent)(window), sent(min(window, 32)))


def test_without_feedback_nothing_is_kept():
    _, _, left = drive(uplinks.top_k(1, feedback=False), [[1.0, 5.0, 2.0]] * 2, numbers=3)
    np.testing.assert_array_equal(left, [0, 0, 0])


@pytest.mark.parametrize("q", [1, 2, 7, 12, 32])
def test_what_sorts_and_what_compares_choose_the_same(q, monkeypatch):
    """Of ties, zeros and numbers that are none, too; of scalars, a vector, and with a sort."""
    module = importlib.import_module("fedjax_rl.federation.uplinks.top_k")
    rng = np.random.default_rng(q)
    x = rng.choice([0.0, 1.0, -1.0, 1.0 + 5e-7, 2.0, np.nan, *rng.normal(size=4)], size=(60, q))
    x, k = jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(1, q + 1, 60), jnp.int32)
    few = jax.vmap(lambda x, k: module.largest(x, k))
    one_by_one = jax.vmap(lambda x, k: jnp.stack(module.largest(list(x), k)))
    found = [np.asarray(jax.jit(way)(x, k)) for way in (few, one_by_one)]
    monkeypatch.setattr(module, "_FEW", 0)
    plain = np.asarray(jax.jit(jax.vmap(lambda x, k: module.largest(x, k)))(x, k))
    for way in found:
        np.testing.assert_array_equal(way.view(np.uint32), plain.view(np.uint32))
    sent = np.where(np.isnan(x), 0, x)
    for row, kept, count in zip(sent, np.nan_to_num(plain), np.asarray(k), strict=True):
        np.testing.assert_array_equal(np.abs(kept), np.abs(largest(row, count, np.float32)))


# On federated Q-learning

MDP = envs.paper_mdp()
SIZE = MDP.num_states * MDP.num_actions
ALL = {
    "full": uplinks.full(),
    "partial": uplinks.partial(0.5),
    "partial, present": uplinks.partial(0.5, absent=False),
    "event-triggered": uplinks.event_triggered(0.05, 0.5),
    "probabilistic": uplinks.probabilistic(2),
    "lazy": uplinks.lazy(0.1, 3),
    "top-k": uplinks.top_k(3),
    "scaled-sign": uplinks.scaled_sign(),
}


@pytest.fixture(scope="module")
def learned():
    """Four agents for 4000 steps with an exchange after every 10, by uplink."""
    algorithm = frl.fedq(MDP, learning_rate=0.05, sync_period=10, epsilon=1.0)
    result = frl.sweep(
        algorithm, num_agents=4, seeds=[0, 1, 2], num_steps=4000, uplink=list(ALL.values())
    )
    return result.assign_coords(uplink=list(ALL))


@pytest.mark.thorough
def test_every_uplink_carries_federated_q_learning(learned):
    end = learned["error_server"].isel(time=slice(-20, None)).mean(("time", "seed"))
    start = float(np.sum(envs.optimal_q(MDP) ** 2))
    for name in ALL:
        assert float(end.sel(uplink=name)) < 0.2 * start, name
    assert not learned["diverged"].any()


@pytest.mark.thorough
def test_the_ledger_counts_what_each_uplink_sends(learned):
    messages = learned["messages_up"].sum("seed").to_series()
    size = learned["bytes_up"].sum("seed").to_series()
    total = 3 * 4 * 400
    for name in ("full", "top-k", "scaled-sign"):
        assert messages[name] == total
    assert size["full"] == total * SIZE * 4
    assert size["top-k"] == total * 3 * 8
    assert size["scaled-sign"] == total * (4 + math.ceil(SIZE / 8))
    for name in ("partial", "partial, present"):
        assert abs(messages[name] - total / 2) < 4 * math.sqrt(total / 4)
    for name in ("event-triggered", "probabilistic", "lazy"):
        assert 0 < messages[name] < total
        assert size[name] == messages[name] * SIZE * 4
    down = learned["messages_down"].sum("seed").to_series()
    assert down["partial"] == messages["partial"]
    assert down["partial, present"] == down["lazy"] == total


def test_uplinks_with_other_values_share_one_program():
    first, second = uplinks.top_k(1), uplinks.top_k(5)
    algorithm = frl.fedq(MDP)
    same = [algorithm.replace(uplink=one) for one in (first, second)]
    assert same[0].static(same[0].config) == same[1].static(same[1].config)
    other = algorithm.replace(uplink=uplinks.top_k(1, feedback=False))
    assert other.static(other.config) != same[0].static(same[0].config)


@pytest.mark.thorough
def test_keeping_every_number_is_sending_everything():
    algorithm = frl.fedq(MDP, learning_rate=0.1, sync_period=5)
    ends = [
        end_of(algorithm.replace(uplink=uplink), 3, 50, every=10)[0]
        for uplink in (None, uplinks.top_k(SIZE), uplinks.lazy(0.0, variance=0.0))
    ]
    for other in ends[1:]:
        np.testing.assert_allclose(other["error_server"], ends[0]["error_server"], rtol=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uplinks.partial(1.5), r"probability is 1\.5; allowed: in \[0, 1\]"),
        (lambda: uplinks.event_triggered(-1.0), r"threshold is -1\.0; allowed: at least 0"),
        (lambda: uplinks.event_triggered(0.1, -2), "factor is -2; allowed: finite and at least 0"),
        (lambda: uplinks.event_triggered(0.1, decay=2), r"decay is 2; allowed: in \[0, 1\]"),
        (lambda: uplinks.event_triggered(0.1, ratio=0), r"ratio is 0; allowed: in \(0, 1\]"),
        (lambda: uplinks.event_triggered(math.nan), "threshold is nan"),
        (lambda: uplinks.probabilistic(-1), "target is -1; allowed: a whole number of at least 0"),
        (lambda: uplinks.probabilistic(2.5), r"target is 2\.5; allowed: a whole number"),
        (lambda: uplinks.probabilistic(2, 0), "window is 0; allowed: a whole number of at least 1"),
        (lambda: uplinks.probabilistic(2, utility_model="gausian"), "did you mean gaussian"),
        (lambda: uplinks.lazy(-0.1), r"weight is -0\.1; allowed: finite and at least 0"),
        (lambda: uplinks.lazy(depth=0), "depth is 0; allowed: a whole number of at least 1"),
        (lambda: uplinks.top_k(0), "k is 0; allowed: a whole number of at least 1"),
        (lambda: fed.Wire(word_bytes=3), "word_bytes is 3; allowed: 2, 4, 8"),
        (lambda: fed.Wire(header_bytes=-1), "header_bytes is -1; allowed: a whole number"),
        (lambda: uplinks.make("topk"), "did you mean top-k"),
        (lambda: uplinks.make("top-k"), "the uplink top-k needs k"),
        (lambda: uplinks.make("top-k", kk=2), "did you mean k"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_values_that_do_not_fit_the_federation_are_refused():
    algorithm = frl.fedq(MDP, uplink=uplinks.top_k(SIZE + 1))
    with pytest.raises(ValueError, match=rf"k is 13 with messages of {SIZE} numbers"):
        frl.sweep(algorithm, num_agents=2, num_steps=10)
    algorithm = frl.fedq(MDP, uplink=uplinks.probabilistic(3))
    with pytest.raises(ValueError, match="target is 3 with num_agents 2; allowed: a whole number"):
        frl.sweep(algorithm, num_agents=2, num_steps=10)
    with pytest.raises(ValueError, match=r"participation is 0\.5 with uplink"):
        frl.fedq(MDP, participation=0.5, uplink=uplinks.full())


def test_an_uplink_can_be_made_again_from_its_configuration():
    for uplink in ALL.values():
        again = uplinks.make(**uplink.config)
        assert again.static == uplink.static
        assert dataclasses.asdict(again)["parameters"] == uplink.parameters
        assert str(again) == str(uplink)
