"""Federated TD learning against a plain loop over the same words, and against exact solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import streams

SEED, AGENTS, PERIOD, STEPS = 5, 3, 3, 12


def family(num_actions=2):
    """Three environments of three states, whose agents draw their first states."""
    mdps = frl.envs.dirichlet_mdps(AGENTS, num_states=3, num_actions=num_actions, seed=1)
    start = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]])
    return mdps.replace(initial_distribution=start)


POLICY = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
PHI = np.array([[1.0, 0.0], [0.5, -1.0], [0.3, 0.7]])


def drawn(probabilities, word):
    """The outcome at this word, of 31 bits."""
    return int(np.sum((int(word) >> 1) >= np.round(np.cumsum(probabilities)[:-1] * 2**31)))


def plain_loop(algorithm, rate):
    """Parameters [N, d] in NumPy, an agent and a step at a time."""
    c = algorithm.config
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], c.mdp) for i in range(AGENTS)]
    phi = np.eye(c.mdp.num_states) if c.features is None else c.features
    policy = np.full((3, 2), 0.5) if c.policy is None else c.policy
    keys = streams.agent_keys([SEED] * AGENTS, np.arange(AGENTS))
    first = jax.vmap(jax.random.bits)(streams.own_keys(keys, streams.Own.FIRST))
    stream = streams.own_keys(keys, streams.Own.STEP)
    state = [drawn(m.initial_distribution, w) for m, w in zip(members, first, strict=True)]
    theta = np.tile(np.broadcast_to(c.initial, phi.shape[1:]).astype(float), (AGENTS, 1))
    control, length = np.zeros_like(theta), 0.0

    def step(mdp, theta, s, words):
        action = drawn(policy[s], words[0])
        following = drawn(mdp.transition[s, action], words[1])
        reward = np.broadcast_to(mdp.reward, mdp.transition.shape)[s, action, following]
        error = reward + mdp.discount * phi[following] @ theta - phi[s] @ theta
        return error * phi[s], following

    for t in range(STEPS):
        length += rate(t)
        for i, mdp in enumerate(members):
            key = jax.random.fold_in(stream[i], t)
            if c.sampling == "markovian":
                words = jax.random.bits(key, (2,))
                g, state[i] = step(mdp, theta[i], state[i], words)
            elif c.sampling == "iid":
                words = jax.random.bits(key, (3,))
                met = frl.envs.stationary_distribution(mdp, policy)
                g, _ = step(mdp, theta[i], drawn(met, words[0]), words[1:])
            else:
                words = np.asarray(jax.random.bits(key, (3, 2)))
                g = np.mean([step(mdp, theta[i], s, words[s])[0] for s in range(3)], axis=0)
            theta[i] += rate(t) * (g + control[i])
        if (t + 1) % PERIOD == 0:
            mean = theta.mean(0)
            if c.control_variates:
                control += (mean - theta) / length
            theta[:], length = mean, 0.0
    return theta, control


@pytest.mark.parametrize(
    "properties",
    [
        {"policy": POLICY, "features": PHI, "initial": np.array([1.0, -1.0])},
        {"sampling": "iid", "policy": POLICY, "control_variates": True, "scheduled": True},
        {"sampling": "generative", "features": PHI, "control_variates": True},
    ],
    ids=lambda properties: properties.get("sampling", "markovian"),
)
def test_a_plain_loop_over_the_same_words(properties):
    properties = dict(properties)
    rate = lambda t: 0.4
    given = 0.4
    if properties.pop("scheduled", False):
        rate = lambda t: 0.4 / (1 + t)
        given = frl.schedule(lambda t: 0.4 / (1 + t.astype(float)))
    algorithm = frl.fedtd(family(), learning_rate=given, sync_period=PERIOD, **properties)
    run = frl.simulate(algorithm, num_agents=AGENTS, num_steps=STEPS, seed=SEED, record_every=STEPS)
    expected, control = plain_loop(algorithm, rate)
    agents = run.state.agents
    np.testing.assert_allclose(agents.parameters, expected, rtol=0, atol=1e-5)
    if algorithm.config.control_variates:
        np.testing.assert_allclose(agents.control, control, rtol=0, atol=1e-5)
        assert np.abs(control).max() > 0.01


def deterministic():
    """Environments without chance, in which a step from every state is its own expectation."""
    moves = ([1, 2, 0], [0, 0, 1], [2, 1, 2])
    rewards = ([1.0, 0.0, 2.0], [0.0, -1.0, 1.0], [3.0, 0.0, 0.0])
    return frl.envs.stack_mdps(
        [
            frl.envs.tabular_mdp(np.eye(3)[move][:, None], np.asarray(reward), 0.5)
            for move, reward in zip(moves, rewards, strict=True)
        ]
    )


def equations(mdps, phi):
    """A_i [N, d, d] and b_i [N, d] where every state counts alike."""
    chains = np.asarray(mdps.transition)[:, :, 0]
    earned = np.einsum("nst,nt->ns", chains, np.asarray(mdps.reward)[:, 0, 0])
    discount = np.asarray(mdps.discount)[:, None, None]
    return phi.T @ (phi - discount * (chains @ phi)) / 3, earned @ phi / 3


@pytest.mark.parametrize("corrects", [False, True])
def test_control_variates_take_the_bias_of_local_steps(corrects):
    """K steps of agent i: theta -> M_i theta + (1 - M_i) theta_i with M_i = (1 - rate A_i)^K."""
    mdps, rate, period = deterministic(), 0.8, 6
    matrix, vector = equations(mdps, PHI)
    exact = np.linalg.solve(matrix.mean(0), vector.mean(0))
    own = np.linalg.solve(matrix, vector[..., None])[..., 0]
    kept = np.stack([np.linalg.matrix_power(np.eye(2) - rate * a, period) for a in matrix])
    pulled = np.mean([(np.eye(2) - m) @ x for m, x in zip(kept, own, strict=True)], axis=0)
    biased = np.linalg.solve(np.eye(2) - kept.mean(0), pulled)
    assert np.linalg.norm(biased - exact) > 0.05

    options = {"sampling": "generative", "features": PHI, "learning_rate": rate}
    steps = 200 * period
    with jax.enable_x64(True):
        run = frl.simulate(
            frl.fedtd(mdps, control_variates=corrects, sync_period=period, **options),
            num_agents=3,
            num_steps=steps,
            record_every=steps,
        )
        end = np.asarray(run.state.server)
        error = float(np.ravel(run.metrics["error_server"])[-1])
    np.testing.assert_allclose(end[0], exact if corrects else biased, rtol=1e-8)
    distance = 0.0 if corrects else np.sum((biased - exact) ** 2)
    assert error == pytest.approx(distance, rel=1e-7, abs=1e-15)


def test_what_errors_are_measured_against():
    """The mean of the equations of the agents that there are, or what somebody gives."""
    mdps = family()
    uniform = np.full((3, 2), 0.5)
    systems = []
    for i in range(2):
        mdp = jax.tree.map(lambda leaf, i=i: leaf[i], mdps)
        visits = frl.envs.stationary_distribution(mdp, uniform)
        chain = mdp.transition.mean(1)
        reward = np.sum(mdp.transition * mdp.reward, axis=-1).mean(1)
        matrix = PHI.T @ (visits[:, None] * (PHI - mdp.discount * chain @ PHI))
        systems.append((matrix, PHI.T @ (visits * reward)))
    solution = np.linalg.solve(sum(a for a, _ in systems), sum(b for _, b in systems))
    for reference, expected in (("mean", solution), (np.array([2.0, -1.0]), [2.0, -1.0])):
        algorithm = frl.fedtd(mdps, features=PHI, reference=reference)
        params = algorithm.parameters(algorithm.config, 2)
        np.testing.assert_allclose(params.federation["reference"], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"sampling": "markovain"}, "did you mean markovian"),
        ({"policy": np.ones((3, 2))}, "policy is .*; allowed: rows of sum 1"),
        ({"policy": np.ones((2, 2)) / 2}, r"policy is an array \[2, 2\]; allowed: \[3, 2\]"),
        ({"features": np.ones((2, 4))}, r"features is an array \[2, 4\]; allowed: \[3, d\]"),
        ({"features": 1.0}, r"features is 1.0; allowed: an array \[S, d\]"),
        ({"reference": "median"}, "reference is 'median'; allowed: 'mean' or an array"),
        ({"reference": np.ones(2)}, r"reference is an array \[2\]; allowed: \[3\]"),
        (
            {"control_variates": True, "uplink": frl.uplinks.partial(0.5)},
            "uplink is .* with control variates",
        ),
        (
            {"control_variates": True, "clock": frl.Clock("asynchronous")},
            "clock is .* with control variates",
        ),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(properties, message):
    with pytest.raises(ValueError, match=message):
        frl.fedtd(family(), **properties)


def test_too_few_members_and_several_recurrent_classes_are_refused():
    with pytest.raises(ValueError, match="mdp is a family of 3 for num_agents 4"):
        frl.simulate(frl.fedtd(family()), num_agents=4, num_steps=1)
    apart = frl.envs.tabular_mdp(np.eye(2)[:, None], [0.0, 1.0], 0.5)
    with pytest.raises(ValueError, match="no unique stationary distribution"):
        frl.simulate(frl.fedtd(apart), num_agents=1, num_steps=1)
    # Nobody asks for it here.
    frl.fedtd(apart, reference=jnp.zeros(2)).at(1)
