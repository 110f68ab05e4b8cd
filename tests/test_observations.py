"""What agents have seen, and policies that see it normalised, against NumPy in double precision."""

import dataclasses
import functools
import importlib
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.algorithms import fedppo_exchange
from fedjax_rl.algorithms.fedppo_resources import policy_of, settings_of
from fedjax_rl.algorithms.learned import Learned
from fedjax_rl.algorithms.observed import Observed, pooled, renewed, with_rollout
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.exchange import exchange, first_state
from fedjax_rl.federation.population import population
from fedjax_rl.learners import observations, optimizers
from fedjax_rl.learners.observations import Statistics, normalizer_of, normalizing
from fedjax_rl.rollouts import batches, vectorised
from fedjax_rl.saving.checkpoints import Checkpoints

CARTPOLE = frl.envs.gymnax_task("CartPole-v1")
# One update for each rollout, and steps that are seen in what is done.
NANO = {
    "num_envs": 2,
    "rollout_steps": 8,
    "minibatches": 1,
    "passes": 1,
    "learning_rate": 0.05,
    "network.hidden": (4,),
}


def moments(*parts):
    """Count, mean and sum of squares of observations [..., D], float64."""
    seen = np.concatenate([np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in parts])
    return len(seen), seen.mean(0), ((seen - seen.mean(0)) ** 2).sum(0)


def nothing(size):
    return 0, np.zeros(size), np.zeros(size)


def check(statistics, expected, index=...):
    for found, want in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(found[index], want, rtol=2e-5, atol=1e-5)


# Equations ----------------------------------------------------------------------------------------


def test_moments_of_parts_are_those_of_the_whole():
    """Joined in turn, or pooled from members that may have been silent or have seen nothing."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(50, 2, (size, 3)).astype(np.float32) for size in (5, 1, 40)]
    joined = observations.nothing_seen(3)
    for part in parts:
        joined = observations.joined(joined, observations.moments_of(part))
    check(joined, moments(*parts))
    none = observations.nothing_seen(3)
    own = [none, *map(observations.moments_of, parts), none]
    together = jax.tree.map(lambda *x: jnp.stack(x), *own)
    two = population([2, 3])
    check(pooled(two, together), moments(parts[0]), 0)
    check(pooled(two, together), moments(*parts[1:]), 1)
    heard = jnp.asarray([True, False, True, False, True])
    check(pooled(two, together, heard), nothing(3), 0)
    check(pooled(two, together, heard), moments(parts[1]), 1)
    # What nothing is joined with keeps every bit.
    for pair in ((none, own[1]), (own[1], none)):
        jax.tree.map(np.testing.assert_array_equal, observations.joined(*pair), own[1])


def test_ten_million_observations_lose_no_digits():
    """Far from 0, where sums of squares would; the mean of batches varies, too."""
    rng = np.random.default_rng(1)
    base = rng.normal([0, 100, 1000], [1, 1, 0.1], (4096, 3)).astype(np.float32)
    shifts = rng.normal(0, 0.3, (2500, 3)).astype(np.float32)

    @jax.jit
    def run(shifts):
        def step(statistics, shift):
            new = observations.moments_of(base + shift[None])
            return observations.joined(statistics, new), None

        return jax.lax.scan(step, observations.nothing_seen(3), shifts)[0]

    count, mean, squares = run(shifts)
    wide, apart = base.astype(np.float64), shifts.astype(np.float64)
    assert count == 2500 * 4096
    deviation = np.sqrt(wide.var(0) + apart.var(0))
    np.testing.assert_allclose(np.sqrt(squares / count), deviation, rtol=1e-3)
    error = np.abs(mean - wide.mean(0) - apart.mean(0))
    assert np.all(error < 1e-6 * np.abs(mean) + 1e-4 * deviation)
    # Sums of squares in the same precision: of the third input nothing would be left.
    sums = np.sum(base, 0), np.sum(base**2, 0)
    naive = sums[1] / np.float32(4096) - (sums[0] / np.float32(4096)) ** 2
    assert abs(naive[2] - wide[:, 2].var()) > 0.5 * wide[:, 2].var()


def test_what_never_varies_is_divided_by_no_zero():
    """0 where it is what it always was, and as far as the clip goes where it is not."""
    seen = np.tile(np.float32([0.1, 3.0]), (64, 1))
    seen[:, 1] += np.arange(64) % 2
    statistics = observations.nothing_seen(2)
    for part in np.split(seen, 4):
        statistics = observations.joined(statistics, observations.moments_of(part))
    inputs = np.float32([[0.1, 3.0], [0.2, 4.0], [0.1, 1e9]])
    found = observations.normalized(inputs, normalizer_of(statistics), 10.0)
    np.testing.assert_allclose(found, [[0, -1], [10, 1], [0, 10]], rtol=1e-5)
    found = observations.normalized(inputs, normalizer_of(statistics), np.inf)
    np.testing.assert_allclose(found[1, 0], (0.2 - 0.1) / 1e-4, rtol=1e-4)
    first = normalizer_of(observations.nothing_seen(2))
    np.testing.assert_array_equal(observations.normalized(inputs[:2], first, 10.0), inputs[:2])


# Agents -------------------------------------------------------------------------------------------


@functools.cache
def program(kind):
    """The algorithm, first states from keys, and one epoch, of two agents with any period."""
    algorithm, two = frl.fedppo(CARTPOLE, **NANO, observations=kind), population(2)
    functions = algorithm.functions(algorithm.config)
    epoch = jax.jit(lambda params, state: functions.advance(two, params, state, jnp.uint32(1)))
    return algorithm, functions, epoch


def epochs(kind, period, count):
    """States after 0, 1, ... epochs."""
    algorithm, functions, epoch = program(kind)
    params = bind(
        [
            algorithm.replace(sync_period=period).parameters(
                algorithm.config.replace(sync_period=period), 2
            )
        ]
    )
    keys = streams.agent_keys(np.zeros(2, int), np.arange(2))
    states = [functions.init(population(2), params, keys)]
    for _ in range(count):
        states.append(epoch(params, states[-1]))
    return states


@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("kind", ["personal", pytest.param("shared", marks=pytest.mark.thorough)])
def test_agents_act_and_learn_by_what_was_seen_before_the_rollout(kind, period):
    """A loop over the same observations: who has seen what, and what the network makes of it."""
    algorithm, *_ = program(kind)
    policy = policy_of(algorithm.config.resolved())
    apply = jax.jit(jax.vmap(policy.apply))
    states = epochs(kind, period, 5)
    server, base, own = [], [[], []], [[], []]
    for time, (before, after) in enumerate(itertools.pairwise(states)):
        observed, batch = after.agents.observed, after.agents.batch
        seen = np.asarray(batch.observation).reshape(2, -1, 4)
        inputs = seen.copy()
        for i in range(2):
            if used := [*base[i], *own[i]]:
                count, mean, squares = moments(*used)
                check(observed.used, (count, mean, squares), i)
                inputs[i] = np.clip((seen[i] - mean) / np.sqrt(squares / count + 1e-8), -10, 10)
            own[i].append(seen[i])
        _, values = apply(before.agents.learned.parameters, inputs)
        np.testing.assert_allclose(batch.value.reshape(2, -1), values, rtol=1e-3, atol=1e-4)
        # The first minibatch, the only one, is of the policy that acted, with what it saw.
        diagnostics = after.agents.diagnostics
        np.testing.assert_allclose(diagnostics.kl, 0, atol=1e-6)
        np.testing.assert_array_equal(diagnostics.clip_fraction, 0)
        if kind == "shared" and time % period == 0:
            server += [x for each in own for x in each]
            base, own = [server.copy(), server.copy()], [[], []]
            check(after.server[1], moments(*server), 0)
        for i in range(2):
            check(observed.own, moments(*own[i]) if own[i] else nothing(4), i)
            if kind == "shared":
                check(observed.base, moments(*base[i]), i)
    moved = states[-1].agents.learned.parameters - states[0].agents.learned.parameters
    assert np.abs(moved).max() > 0.1
    floats = policy.num_parameters + (1 + 2 * 4 if kind == "shared" else 0)
    totals = states[-1].ledger.totals()
    times = 2 * (5 if period == 1 else 3)
    assert totals["floats_up"] == totals["floats_down"] == times * floats
    assert totals["bytes_up"] == totals["bytes_down"] == 4 * times * floats


@pytest.mark.thorough
def test_without_statistics_nothing_of_them_is_there():
    algorithm = frl.fedppo(CARTPOLE, **NANO)
    state = jax.eval_shape(lambda: frl.init(algorithm, 2).state)
    assert not jax.tree.leaves(state.agents.observed)
    assert isinstance(state.server, jax.ShapeDtypeStruct)


def test_values_at_time_limits_and_evaluations_see_the_same():
    """Every episode is cut off; against a network whose inputs are normalised before it."""
    task = dataclasses.replace(CARTPOLE, max_steps=3)
    config = frl.fedppo(task, **NANO, observations={"normalize": "personal", "clip": 2.0}).config
    config = config.resolved()
    policy, settings = policy_of(config), settings_of(config)
    assert settings.bootstrap_timeouts
    rng = np.random.default_rng(2)
    parameters = jnp.asarray(rng.normal(0, 1, (1, policy.num_parameters)), jnp.float32)
    mean, deviation = np.float32([0.02, -0.1, 0.03, 0.2]), np.float32([0.01, 0.2, 0.02, 0.3])
    statistics = Statistics(jnp.full(1, 50.0), mean[None], 50 * deviation[None] ** 2)

    def given(observation):
        return jnp.clip((observation - mean) / jnp.sqrt(deviation**2 + 1e-8), -2, 2)

    other = dataclasses.replace(policy, inputs=given)
    names = ("discount", "gae_lambda", "reward_scale", "normalization_discount")
    weights = dict(zip(names, jnp.full((4, 1), 0.9), strict=True))
    keys = streams.agent_keys(np.zeros(1, int), np.arange(1))
    batch = jax.tree.map(lambda x: x[None], batches.empty_batch(task, policy, 2, 8))

    def run(policy, parameters):
        first = vectorised.begin(task, keys, 2, scale=False, late=False)
        made = vectorised.collect(
            task, policy, keys, parameters, first, batch,
            environment=None, weights=weights, settings=settings,
        )  # fmt: skip
        return made[1], vectorised.evaluate(CARTPOLE, policy, keys, parameters, 8)

    ours = jax.jit(functools.partial(run, policy))(
        normalizing(parameters, normalizer_of(statistics))
    )
    theirs = jax.jit(functools.partial(run, other))(parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, theirs)


@pytest.mark.thorough
def test_evaluations_use_the_statistics_of_each_agent_and_of_all():
    values = {"held_out": {"members": 2, "episodes": 3}, "heterogeneity": 0.3}
    values |= {"evaluation_episodes": 3, "observations": "personal"}
    algorithm = frl.fedppo(CARTPOLE, **NANO, **values)
    run = frl.init(algorithm, 2)
    for _ in range(3):
        run, _ = frl.round(algorithm, run)
    functions, two = algorithm.functions(algorithm.config), population(2)
    params, state = bind([algorithm.parameters(algorithm.config, 2)]), run.state
    found = jax.jit(lambda state: functions.measure(two, params, state))(state)
    policy = policy_of(algorithm.config.resolved())
    average = state.agents.learned.parameters.mean(0, keepdims=True)
    evaluate = jax.jit(
        lambda keys, parameters, environment: vectorised.evaluate(
            CARTPOLE, policy, keys, parameters, 3, environment=environment
        )[0]
    )
    used = state.agents.observed.used
    own = normalizing(jnp.repeat(average, 2, 0), normalizer_of(used))
    keys = streams.keys_of(state.keys, streams.Epochs.EVALUATION, state.time)
    expected = evaluate(keys, own, params.agent["environment"])
    np.testing.assert_allclose(found["return_of_agent"], expected, rtol=1e-6)
    both = jax.tree.map(lambda x: jnp.repeat(x, 2, 0), normalizer_of(pooled(two, used)))
    key = streams.keys_of(state.keys[:1], streams.Epochs.HELD_OUT, state.time)[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2, dtype=jnp.uint32))
    environments = jax.tree.map(lambda x: x[0], params.federation["held_out"])
    expected = evaluate(keys, normalizing(jnp.repeat(average, 2, 0), both), environments)
    np.testing.assert_allclose(found["held_out_return"], expected.mean(keepdims=True), rtol=1e-6)


def test_a_model_acts_by_the_statistics_that_come_with_it():
    algorithm, functions, _ = program("shared")
    state = epochs("shared", 1, 2)[-1]
    model = jax.tree.map(lambda x: x[0], state.server)
    policy = policy_of(algorithm.config.resolved())
    seen = np.float32([0.1, -0.2, 0.05, 0.3])
    count, mean, squares = (np.asarray(x) for x in model[1])
    inputs = np.clip((seen - mean) / np.sqrt(squares / count + 1e-8), -10, 10)
    outputs, _ = policy.apply(model[0], inputs[None])
    for word in range(4):
        word = jnp.uint32(2**30 * word + 5)
        expected = policy.sample(model[0], outputs[0], word)
        assert functions.act(model, seen, word) == expected
    assert program("personal")[1].act is None


# Messages -----------------------------------------------------------------------------------------


class Holder(NamedTuple):
    """Of an agent what an exchange looks at."""

    learned: Learned
    observed: Observed


UPLINKS = {
    "partial": frl.uplinks.partial(0.5),
    "skipped": frl.uplinks.partial(0.5, absent=False),
    "lazy": frl.uplinks.lazy(weight=20.0, variance=0.0),
    "event-triggered": frl.uplinks.event_triggered(threshold=7.5),
    "probabilistic": frl.uplinks.probabilistic(1),
    "top-k": frl.uplinks.top_k(3),
    "scaled-sign": frl.uplinks.scaled_sign(),
}


@pytest.mark.parametrize("name", UPLINKS)
def test_what_was_seen_is_owed_until_it_is_heard_and_counts_once(name):
    """Whoever is silent, whatever is compressed: the server has what it heard, agents the rest."""
    agents, size = 3, 4
    algorithm = frl.fedppo(CARTPOLE, **NANO, observations="shared", uplink=UPLINKS[name])
    config, one = algorithm.config.resolved(), population(agents)
    params = bind([algorithm.parameters(algorithm.config, agents)])
    link = fedppo_exchange.exchange_of(config)._replace(uplink=config.transmits())
    numbers = policy_of(config).num_parameters
    none = jax.tree.map(lambda x: jnp.stack([x] * agents), observations.nothing_seen(size))
    zeros = jnp.zeros((agents, numbers), jnp.float32)
    learned = Learned(zeros, jax.vmap(optimizers.no_moments)(zeros))
    keys = streams.agent_keys(np.zeros(agents, int), np.arange(agents))
    first = Holder(learned, Observed(none, none, none))
    model = one.first((zeros, none))
    state = first_state(one, link, params, keys, first, model, detailed=True)

    @jax.jit
    def step(state, seen, moved):
        own = with_rollout(renewed(state.agents.observed), seen)
        parameters = state.agents.learned.parameters + moved
        learned = state.agents.learned._replace(parameters=parameters)
        state = dataclasses.replace(state, agents=Holder(learned, own))
        state = exchange(one, link, params, state, jnp.ones(1, bool))
        return dataclasses.replace(state, time=state.time + jnp.uint32(1))

    rng = np.random.default_rng(3)
    server, base, own, sent = [], [[]] * agents, [[] for _ in range(agents)], 0
    for _ in range(6):
        seen = rng.normal(3, 1, (agents, 5, size)).astype(np.float32)
        state = step(state, seen, rng.normal(size=zeros.shape).astype(np.float32))
        observed, heard = state.agents.observed, np.asarray(state.sent.messages) > 0
        for i in range(agents):
            used = [*base[i], *own[i]]
            check(observed.used, moments(*used) if used else nothing(size), i)
            own[i].append(seen[i])
        for i in np.flatnonzero(heard):
            server, own[i] = server + own[i], []
        listens = heard if config.transmits().silent == "absent" else np.ones(agents, bool)
        base = [list(server) if listens[i] else base[i] for i in range(agents)]
        check(state.server[1], moments(*server) if server else nothing(size), 0)
        for i in range(agents):
            check(observed.own, moments(*own[i]) if own[i] else nothing(size), i)
            check(observed.base, moments(*base[i]) if base[i] else nothing(size), i)
        sent += heard.sum()
    assert sent > 0
    assert (sent == 6 * agents) == (name in ("top-k", "scaled-sign"))
    floats = {"top-k": 2 * 3, "scaled-sign": 1}.get(name, numbers) + 1 + 2 * size
    totals = state.ledger.totals()
    assert totals["floats_up"] == sent * floats
    bits = numbers if name == "scaled-sign" else 0
    assert totals["bytes_up"] == sent * (4 * floats + -(-bits // 8))
    answers = sent if name == "partial" else 6 * agents
    assert totals["floats_down"] == answers * (numbers + 1 + 2 * size)


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shared", pytest.param("personal", marks=pytest.mark.thorough)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(kind, tmp_path, monkeypatch):
    # The package has a function of that name.
    jobs = importlib.import_module("fedjax_rl.sweeps.batches")
    monkeypatch.setattr(jobs, "Checkpoints", functools.partial(Checkpoints, seconds=0.0))
    uplink = frl.uplinks.partial(0.5) if kind == "shared" else None
    algorithm = frl.fedppo(CARTPOLE, **NANO, observations=kind, uplink=uplink)

    def go(checkpoints=None, progress=None):
        metrics = ("kl", "value_loss", "episode_return")
        return frl.sweep(
            algorithm, metrics=metrics, checkpoints=checkpoints, progress=progress,
            num_agents=3, seeds=5, num_steps=4, record_every=2, workers=1,
        )  # fmt: skip

    def stop(done, total):
        if done < total:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        go(tmp_path, stop)
    xr.testing.assert_equal(go(tmp_path), go())


@pytest.mark.thorough
def test_one_agent_that_shares_is_a_personal_one():
    found = [
        frl.sweep(
            frl.fedppo(CARTPOLE, **NANO, observations=kind),
            num_agents=1, num_steps=4, record_every=4, metrics=["value_loss"], workers=1,
        )
        for kind in ("personal", "shared")
    ]  # fmt: skip
    xr.testing.assert_equal(found[0]["value_loss"], found[1]["value_loss"])


@pytest.mark.thorough
def test_statistics_are_those_of_all_over_devices_and_single_in_double_precision():
    algorithm = frl.fedppo(CARTPOLE, **NANO, observations="shared")
    values = {"num_agents": 4, "num_steps": 3, "record_every": 3, "metrics": ["value_loss"]}
    with jax.debug_nans(True):
        one = frl.sweep(algorithm, **values, workers=1)
    two = frl.sweep(algorithm, **values, devices=2)
    np.testing.assert_allclose(one["value_loss"], two["value_loss"], rtol=1e-5)
    with jax.enable_x64(True):
        state = jax.eval_shape(lambda: frl.round(algorithm, frl.init(algorithm, 2))[0].state)
    assert {x.dtype for x in jax.tree.leaves(state.agents.observed)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sharde", "observations.normalize is 'sharde'; allowed: .*did you mean shared"),
        ({"clip": 0}, "observations.clip is 0; allowed: above 0"),
        ({"clip": "wide"}, "observations.clip is 'wide'; allowed: above 0"),
    ],
)
def test_mistakes_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        frl.fedppo(CARTPOLE, observations=given)


def test_pictures_are_not_normalised():
    words = r"observations.normalize is personal on .*, which shows pictures \(10, 10, 4\); "
    with pytest.raises(ValueError, match=words + "allowed: none"):
        frl.fedppo(frl.envs.make("gymnax/Breakout-MinAtar"), observations="personal")
