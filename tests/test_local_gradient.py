"""Policy gradients with local steps: exact behaviour, ablations, the ledger, divergence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from federations import end_of

import fedjax_rl as frl
from fedjax_rl.envs import objective
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

ALL = {
    "fedpg": frl.fedpg,
    "scaffold": frl.scaffold_pg,
    "fedprox": frl.fedprox_pg,
    "fedavgm": frl.fedavgm_pg,
    "fedadam": frl.fedadam_pg,
    "fast": frl.fast_fedpg,
    "svrpg": frl.fedsvrpg_m,
    "hapg": frl.fedhapg_m,
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def m1(kernels=0.0, rewards=1.0, steps=25):
    mdps = frl.envs.dirichlet_mdps(8, rewards=rewards, kernels=kernels)
    return frl.envs.tabular_task(mdps, max_steps=steps)


def run(algorithm, rounds, num_agents=8, every=None, seed=0):
    """Metrics [records] and the last state."""
    return end_of(algorithm, num_agents, rounds, every=every, seed=seed)


def records(algorithm, rounds, *cells, num_agents=8):
    """Last metrics of federations that share a program, a line per cell of properties."""
    cells = [Cell(num_agents, 0, cell) for cell in cells]
    out = run_cells(algorithm, cells, num_steps=rounds, record_every=rounds)
    return out.isel(time=-1)


EXACT = {"gradient": "exact", "entropy": 0.3, "local_steps": 10, "learning_rate": 0.5}


def test_correction_leaves_no_bias_and_its_absence_does(double):
    """A2, A3: 3e-6, 4.8e-9 and 1.2e-14 at rounds 50, 100, 200; a plateau of 3.25e-3 without."""
    fast, _ = run(frl.fast_fedpg(m1(), **EXACT), 200, every=50)
    assert fast["gap"][[0, 1]] == pytest.approx([3e-6, 4.8e-9], rel=0.1)
    assert abs(fast["gap"][-1]) < 1e-13
    assert fast["gradient_norm"][-1] < 1e-6
    plain, _ = run(frl.fedpg(m1(), **EXACT), 200, every=50)
    assert plain["gap"] == pytest.approx(np.full(4, 3.25e-3), rel=0.01)
    assert plain["gradient_norm"][-1] == pytest.approx(2.63e-2, rel=0.01)


def test_different_kernels_do_not_matter_to_the_correction(double):
    """A6."""
    fast, _ = run(frl.fast_fedpg(m1(0.7), **EXACT), 400)
    plain, _ = run(frl.fedpg(m1(0.7), **EXACT), 400)
    assert fast["gradient_norm"] < 1e-12
    assert plain["gradient_norm"] == pytest.approx(2.6e-2, rel=0.02)
    assert fast["objective"] - plain["objective"] == pytest.approx(3.6e-3, rel=0.02)


@pytest.mark.thorough
def test_bias_grows_with_local_steps_and_heterogeneity(double):
    """A4: slope 1 in eta (H - 1), 2 in the scale of heterogeneity."""

    def norm(rewards=1.0, **changes):
        algorithm = frl.fedpg(m1(0.0, rewards), **{**EXACT, "learning_rate": 0.1, **changes})
        return float(records(algorithm, 1500, {})["gradient_norm"][0])

    steps = [norm(local_steps=h) for h in (3, 9)]
    slopes = np.diff(np.log(steps)) / np.diff(np.log([2, 8]))
    assert np.all((slopes > 0.9) & (slopes < 1.05))
    apart = [norm(rewards=z, local_steps=9) for z in (0.25, 0.5, 1.0)]  # one program
    assert np.diff(np.log2(apart)) == pytest.approx([2, 2], abs=0.1)


def test_control_variates_kept_from_round_to_round_do_as_well(double):
    """4.66e-9 after 100 rounds, where Fast-FedPG has 4.76e-9."""
    scaffold, _ = run(frl.scaffold_pg(m1(), **EXACT), 100)
    assert scaffold["gap"] == pytest.approx([4.66e-9], rel=0.02)


@pytest.mark.thorough
def test_bias_of_the_momentum_methods_does_not_depend_on_beta(double):
    """A11: proportional to eta at a fixed server step, the same for every beta (to 4 %)."""
    algorithm = frl.fedsvrpg_m(m1(0.5), **{**EXACT, "server_learning_rate": 1.0})
    cells = ({"momentum": 1.0, "learning_rate": 0.1}, {"momentum": 0.2, "learning_rate": 0.1})
    half = {"momentum": 1.0, "learning_rate": 0.05}
    first, other, small = records(algorithm, 2500, *cells, half)["gradient_norm"].values
    assert other == pytest.approx(first, rel=0.1)
    assert first / small == pytest.approx(2, rel=0.05)


def test_the_momentum_is_what_the_model_moved_by(double):
    """A12."""
    algorithm = frl.fedhapg_m(m1(), **EXACT, server_learning_rate=0.7)
    _, state = run(algorithm, 5)
    move = (state.server.parameters - state.server.previous) / 0.7
    assert np.max(np.abs(move - state.server.direction)) < 1e-12


@pytest.mark.thorough
def test_without_momentum_and_with_one_step_all_are_the_same(double):
    """A13, with sampled gradients and the same keys."""
    values = {"local_steps": 1, "learning_rate": 0.1, "episodes_per_step": 2, "entropy": 0.3}
    momentum = {"momentum": 1.0, "server_learning_rate": 0.1}
    each = [
        frl.fedpg(m1(), **values),
        frl.fast_fedpg(m1(), **values, reuse_first=True),
        frl.fedsvrpg_m(m1(), **values, **momentum),
        frl.fedhapg_m(m1(), **values, **momentum, two_trajectories=True),
    ]
    ends = [run(algorithm, 4)[1].server.parameters for algorithm in each]
    assert np.max(np.abs(ends[0])) > 0.01
    for end in ends[1:]:
        assert np.max(np.abs(end - ends[0])) < 1e-12


@pytest.mark.parametrize("name", ["scaffold", "fedprox", "fedavgm", "fedadam"])
def test_exact_gradient_of_one_agent_is_plain_ascent(double, name):
    """One agent, one step: every method is gradient ascent, but for its optimiser."""
    values = {**EXACT, "local_steps": 1}
    if name == "fedprox":
        values["proximal"] = 3.0  # no pull at the server's model
    _, state = run(ALL[name](m1(), **values), 1, num_agents=1)
    mdp = jax.tree.map(lambda x: x[0], frl.envs.dirichlet_mdps(8))
    uphill = jax.grad(lambda x: objective.value(mdp, x, 0.3))(jnp.zeros((5, 3)))
    move = state.server.parameters.reshape(5, 3)
    if name == "fedadam":
        assert np.all(np.sign(move) == np.sign(uphill))
    else:
        assert np.max(np.abs(move - 0.5 * uphill)) < 1e-12


def moved(rule, gradient, moments):
    """The move of an optimiser of 0.8 and 1e-3, and its moments after."""
    count, first, second = moments
    count += 1
    if rule == "momentum":
        first = 0.8 * first + 0.2 * gradient
        return first, (count, first, second)
    if rule == "rmsprop":
        second = 0.8 * second + 0.2 * gradient**2
        return gradient / np.sqrt(second + 1e-3), (count, first, second)
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    root = np.sqrt(second / (1 - 0.999**count)) + 1e-3
    return first / (1 - 0.9**count) / root, (count, first, second)


@pytest.mark.parametrize(
    ("rule", "kept"), [("adam", "reset"), ("momentum", "local"), ("rmsprop", "local")]
)
def test_local_and_server_optimisers_are_a_plain_loop(double, rule, kept):
    """Two rounds of Fast-FedPG: three steps of two agents, and a server with momentum."""
    algorithm = frl.fast_fedpg(
        m1(),
        **{**EXACT, "local_steps": 3, "learning_rate": 0.1, "server_learning_rate": 0.8},
        local_optimizer={"name": rule, "decay": 0.8, "epsilon": 1e-3},
        local_moments=kept,
        optimizer={"name": "momentum", "momentum": 0.5},
    )
    metrics, state = run(algorithm, 2, num_agents=2)
    assert "estimator_error" not in metrics
    mdps = frl.envs.dirichlet_mdps(8, rewards=1.0, kernels=0.0)
    slope = jax.jit(jax.grad(lambda x, mdp: objective.value(mdp, x.reshape(5, 3), 0.3)))
    slopes = [
        functools.partial(slope, mdp=jax.tree.map(lambda x, i=i: x[i], mdps)) for i in range(2)
    ]
    nothing = 0, np.zeros(15), np.zeros(15)
    theta, velocity, moments = np.zeros(15), np.zeros(15), [nothing, nothing]
    for _ in range(2):
        memories = [np.asarray(slope(theta)) for slope in slopes]
        moments = [nothing, nothing] if kept == "reset" else moments
        ends = [theta, theta]
        for i in range(2):
            for _ in range(3):
                move = np.asarray(slopes[i](ends[i])) + np.mean(memories, 0) - memories[i]
                move, moments[i] = moved(rule, move, moments[i])
                ends[i] = ends[i] + 0.1 * move
        velocity = 0.5 * velocity + np.mean(ends, 0) - theta
        theta = theta + 0.8 * velocity
    np.testing.assert_allclose(state.server.parameters[0], theta, rtol=1e-10)
    assert np.abs(theta).max() > 0.01


def test_level_zero_is_the_homogeneous_case():
    """Bit for bit; that of CartPole and brax is tested where families are made."""
    task = frl.envs.tabular_task(frl.envs.random_mdp(0), max_steps=10)
    algorithm = frl.fedpg(task, local_steps=2)
    same = algorithm.replace(heterogeneity={"level": 0.0, "seed": 5})
    other = algorithm.replace(heterogeneity=0.5)
    plain, zero, half = (
        records(one, 3, {}, num_agents=3)["objective"] for one in (algorithm, same, other)
    )
    assert np.array_equal(plain, zero)
    assert not np.array_equal(plain, half)


@functools.cache
def learned(name):
    """A run of 150 rounds in a task that is the same for all: 5 steps of 4 episodes."""
    rates = {
        "svrpg": {"server_learning_rate": 0.5, "momentum": 0.3},
        "hapg": {"server_learning_rate": 0.5, "momentum": 0.3},
    }
    values = {"local_steps": 5, "episodes_per_step": 4, "entropy": 0.3}
    values |= rates.get(name, {"learning_rate": 0.1})
    return run(ALL[name](m1(0.0, 0.0), **values), 150, every=50, num_agents=8)


# Up, down, in floats per parameter, agent and round; exchanges; episodes of a round, of the start.
COSTS = {
    "fedpg": (1, 1, 1, 20, 0),
    "scaffold": (2, 2, 1, 20, 0),
    "fast": (2, 2, 2, 40, 0),
    "svrpg": (1, 2, 1, 20, 20),
    "hapg": (1, 2, 1, 20, 20),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.thorough] if name == "hapg" else []) for name in COSTS],
)
def test_sampled_gradients_learn(name):
    """The gap shrinks to a fraction."""
    metrics, state = learned(name)
    start = 0.36
    assert metrics["gap"][-1] < 0.25 * start
    assert np.all(np.isfinite(state.server.parameters))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.thorough] if name == "hapg" else []) for name in COSTS],
)
def test_ledger_counts_both_exchanges(name):
    """Section 6.1 of the specification; the first momentum is sent once."""
    rounds, agents, size, horizon = 150, 8, 15, 25
    spent = {key: int(value[0]) for key, value in learned(name)[1].ledger.totals().items()}
    up, down, exchanges, episodes, begins = COSTS[name]
    first = begins > 0
    assert spent["communications"] == rounds * exchanges + first
    assert spent["floats_up"] == (rounds * up + first) * agents * size
    assert spent["floats_down"] == rounds * down * agents * size
    assert spent["env_steps"] == (rounds * episodes + begins) * agents * horizon


def test_a_federation_diverges_alone():
    """Its neighbours in the sweep have the numbers they have without it."""
    values = {"gradient": "exact", "entropy": 0.3, "server_learning_rate": 50.0}
    algorithm = frl.fedpg(m1(), local_steps=2, **values)
    rates = [0.1, 3e38, 0.2]  # infinite in float32 once the server has made its step
    three = frl.sweep(algorithm, num_agents=4, learning_rate=rates, num_steps=20, seeds=0)
    assert three.diverged.values.tolist() == [False, True, False]
    alone = frl.sweep(algorithm, num_agents=4, learning_rate=[0.1, 0.3, 0.2], num_steps=20, seeds=0)
    for place in (0, 2):
        assert np.array_equal(three.gap[place], alone.gap[place])


@pytest.mark.thorough
def test_a_second_exchange_in_which_agents_are_silent():
    half = frl.fast_fedpg(
        m1(steps=5), local_steps=2, learning_rate=0.1, uplink=frl.uplinks.partial(0.5)
    )
    metrics, state = run(half, 6, num_agents=4)
    assert np.isfinite(metrics["gap"][-1])
    assert 6 * 4 <= state.ledger.totals()["messages_up"][0] < 6 * 4 * 2


@pytest.mark.thorough
def test_weights_are_reported():
    """Their mean is 1 but for noise, and a bound on them does not show in the report."""
    values = {"local_steps": 5, "episodes_per_step": 16, "learning_rate": 0.05, "momentum": 0.3}
    free, tight, wild = {}, {"weight_clip": 1.0}, {"server_learning_rate": 1e4}
    cells = [{"server_learning_rate": 0.5, "weight_clip": 1e9, **c} for c in (free, tight, wild)]
    found = records(frl.fedsvrpg_m(m1(), **values), 6, *cells)
    assert found["weight_mean"][0] == pytest.approx(1, abs=0.1)
    assert found["weight_max"][0] > 1.05
    assert found["weight_max"][1] > 1.05
    assert found["overflows"][0] == 0
    assert found["overflows"][2] > 0


@pytest.mark.thorough
def test_authors_code_is_another_algorithm():
    """No momentum of the server's goes down, and averaging is plain."""
    values = {"local_steps": 3, "learning_rate": 0.1, "authors_code": True}
    _, state = run(frl.fedhapg_m(m1(steps=5), **values), 3, num_agents=4)
    assert state.ledger.totals()["floats_down"][0] == 3 * 4 * 15
    change = state.server.parameters - state.server.previous
    assert np.allclose(change, state.server.direction * 0.3, rtol=1e-5)


def test_averaging_baselines(double):
    """Alike, they find the optimum; apart, they end short of it."""
    alike = frl.envs.tabular_task(frl.envs.dirichlet_mdps(8, rewards=0.0), max_steps=25)
    apart = m1(0.7)
    for make, rate in ((frl.qavg, 1.0), (frl.pavg, 1.0)):
        algorithm = make(alike, learning_rate=rate)
        metrics, _ = run(algorithm, 60)
        assert abs(metrics["gap"][-1]) < 1e-8
        metrics, state = run(make(apart, learning_rate=rate), 60)
        assert metrics["gap"][-1] > 1e-3
        table = state.server.table[0]
        if make is frl.pavg:
            assert np.allclose(table.sum(-1), 1)


@pytest.mark.thorough
def test_gradient_through_a_run(double):
    """The learning rate's derivative, against a difference."""

    def end(rate):
        algorithm = frl.fast_fedpg(m1(), **{**EXACT, "learning_rate": rate, "local_steps": 2})
        out = frl.simulate(algorithm, num_agents=4, num_steps=5, record_every=5)
        return out.metrics["objective"][-1]

    slope = float(jax.jit(jax.grad(end))(0.1))
    up, down = (float(jax.jit(end)(0.1 + x)) for x in (1e-5, -1e-5))
    assert slope == pytest.approx((up - down) / 2e-5, rel=1e-7)


BAD = [
    (frl.fedpg, {"local_steps": 0}, "local_steps"),
    (frl.fedpg, {"episodes_per_step": 0}, "episodes_per_step"),
    (frl.fedpg, {"learning_rate": 0.0}, "learning_rate"),
    (frl.fedpg, {"gradient": "exactly"}, "gradient"),
    (frl.fedpg, {"baseline": "batch_mean"}, "baseline"),
    (frl.fedpg, {"correction": "scafold"}, "correction"),
    (
        frl.scaffold_pg,
        {"local_optimizer": "adam"},
        "local_optimizer.name is adam with correction scaffold, whose control variates",
    ),
    (frl.fedsvrpg_m, {"local_optimizer": "adam"}, "local_optimizer"),
    (frl.afedpg, {"local_optimizer": "adam"}, "local_optimizer"),
    (frl.fast_fedpg, {"local_moments": "average"}, "local_moments is 'average'; allowed"),
    (frl.fedpg, {"heterogeneity": -1.0}, "heterogeneity"),
    (frl.fedpg, {"heterogeneity.of": ("gravity",)}, "heterogeneity.of"),
    (frl.fedsvrpg_m, {"momentum": 0.0}, "momentum"),
    (frl.fedsvrpg_m, {"momentum": 1.5}, "momentum"),
    (frl.fedsvrpg_m, {"weight_clip": 0.0}, "weight_clip"),
    (
        frl.fedhapg_m,
        {"authors_code": True, "weight_clip": 0.5},
        r"weight_clip is 0\.5 with authors_code; allowed: at least 1",
    ),
    (frl.fedsvrpg_m, {"anchor": "next"}, "anchor"),
    (frl.fedhapg_m, {"first_episodes": -1}, "first_episodes"),
    (frl.fast_fedpg, {"memory_episodes": 0}, "memory_episodes"),
    (frl.fast_fedpg, {"memory_episodes": 3, "reuse_first": True}, "memory_episodes"),
    (frl.qavg, {"learning_rate": 1.5}, "learning_rate"),
    (frl.pavg, {"local_steps": 0}, "local_steps"),
]


@pytest.mark.parametrize(("make", "values", "name"), BAD)
def test_bad_properties(make, values, name):
    with pytest.raises(ValueError, match=name) as error:
        make(m1(), **values)
    assert any(word in str(error.value) for word in ("allowed", "Known"))


@pytest.mark.parametrize("make", [frl.fedsvrpg_m, frl.fedhapg_m])
def test_the_authors_code_needs_no_clip(make):
    """Without one nothing is truncated; with one their weights lie in [2 - clip, clip]."""
    assert make(m1(), authors_code=True).config.weight_clip is None
    assert make(m1(), authors_code=True, weight_clip=1.0).config.weight_clip == 1.0


def test_policies_and_environments_have_to_match():
    cartpole = frl.envs.gymnax_task("CartPole-v1")
    with pytest.raises(ValueError, match="policy"):
        frl.fedpg(cartpole, policy="table")
    with pytest.raises(ValueError, match="gradient"):
        frl.fedpg(cartpole, gradient="exact")
    with pytest.raises(ValueError, match="tabular"):
        frl.qavg(cartpole)
    with pytest.raises(ValueError, match="heterogeneity"):
        frl.fedpg(frl.envs.simple_grid(), heterogeneity=0.5)
    with pytest.raises(ValueError, match="num_agents"):
        frl.sweep(frl.fedpg(m1()), num_agents=9, num_steps=2)


def test_the_objective_is_told_with_and_without_the_entropy_bonus():
    """Both from the policy of the run, by a linear solve in NumPy."""
    mdp, tau = frl.envs.dirichlet_mdp(num_states=3, num_actions=2), 0.3
    algorithm = frl.fedpg(mdp, gradient="exact", entropy=tau, local_steps=2, learning_rate=0.5)
    run = frl.simulate(algorithm, num_agents=1, num_steps=2)
    logits = np.asarray(run.state.server.parameters, np.float64).reshape(3, 2)
    policy = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kernel = np.einsum("su,sut->st", policy, mdp.transition)
    reward = np.sum(mdp.transition * mdp.reward, axis=-1)

    def value(reward):
        system = np.eye(3) - float(mdp.discount) * kernel
        return mdp.initial_distribution @ np.linalg.solve(system, np.sum(policy * reward, axis=-1))

    got = {name: float(x[-1]) for name, x in run.metrics.items() if x.ndim == 1}
    assert got["plain_objective"] == pytest.approx(value(reward), rel=1e-5)
    assert got["objective"] == pytest.approx(value(reward - tau * np.log(policy)), rel=1e-5)
    best = frl.envs.optimal_q(mdp).max(-1) @ mdp.initial_distribution
    assert got["plain_gap"] == pytest.approx(best - got["plain_objective"], abs=1e-5)
    assert got["gap"] == pytest.approx(frl.envs.optimum(mdp, tau) - got["objective"], abs=1e-5)


def test_a_network_on_a_table_is_measured_exactly_too():
    """The probabilities of all states, and one linear system for each agent in NumPy."""
    task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(2, num_states=3), max_steps=4)
    given = {"policy": "mlp", "network": (4,), "local_steps": 1, "learning_rate": 0.1}
    algorithm = frl.fedpg(task, entropy=0.2, **given)
    state, metrics = frl.round(algorithm, frl.init(algorithm, num_agents=2))
    theta, policy = state.state.server.parameters[0], algorithm.config.make_policy()
    states, actions = np.arange(task.num_states), np.arange(task.num_actions)
    log = jax.vmap(jax.vmap(policy.log_prob, (None, None, 0)), (None, 0, None))
    log = np.asarray(log(theta, jnp.asarray(states), jnp.asarray(actions)), float)
    assert np.ptp(np.exp(log), axis=0).max() > 1e-3  # it looks at the state
    mdps = task.members(2)
    for i, (kernel, reward) in enumerate(zip(mdps.transition, mdps.reward, strict=True)):
        start = np.full(3, 1 / 3)
        if mdps.initial_distribution is not None:
            start = np.broadcast_to(mdps.initial_distribution, (2, 3))[i]
        chain = np.einsum("su,sut->st", np.exp(log), kernel)
        gains = np.sum(kernel * np.broadcast_to(reward, kernel.shape), axis=-1) - 0.2 * log
        gains = np.sum(np.exp(log) * gains, axis=1)
        value = start @ np.linalg.solve(np.eye(3) - task.discount * chain, gains)
        assert metrics["objective_of_agent"][i] == pytest.approx(value, rel=1e-5)
