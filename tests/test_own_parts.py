"""Parts that a script brings along, without touching the package: an uplink, an aggregator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import federation as fed
from fedjax_rl import fields, streams


# The example of `federation/uplinks/protocol.py`.
@frl.uplinks.uplink(factor=fields.NOT_NEGATIVE)
def growing(factor=1.0):
    """Sends what is at least `factor` times as large as what was sent last."""

    def init(message, model, spec):
        return jnp.zeros(())

    def send(key, message, state, view):
        size = jnp.sqrt(frl.uplinks.norm_squared(view.spec.numbers(message)))
        grown = size >= view.own["factor"] * state
        return message, grown, jnp.where(grown, size, state)

    return frl.uplinks.Uplink("growing", init, send, {"factor": factor})


def test_an_own_uplink_does_what_it_says():
    uplink = growing(2.0)
    own = uplink.resolve(1, 2)
    state, sent = uplink.init(jnp.zeros(2), None, fed.MessageSpec()), []
    for message in ([3.0, 4.0], [6.0, 7.9], [6.0, 8.0], [0.0, 0.0]):
        view = fed.View(fed.MessageSpec(), None, jnp.uint32(0), {"uplink": own})
        _, now, state = uplink.send(None, jnp.asarray(message), state, view)
        sent.append(bool(now))
    assert sent == [True, False, True, False]
    assert str(growing(2.0)) == "growing(factor=2)"
    with pytest.raises(ValueError, match=r"factor is -1; allowed: finite and at least 0"):
        growing(-1)


def test_an_average_is_of_models_or_moves_the_servers_model():
    """Of changes both are one number but for rounding, the second as exact as the mean is."""
    models, model = np.float32([1.0000001, 1.0000004]), np.float32(1)
    for uplink in (None, frl.uplinks.top_k(1)):
        config = frl.fedq(frl.envs.paper_mdp(), uplink=uplink).config
        for moves in (False, True):
            link = frl.define.average(config, moves=moves)
            each = [link.message(agent, model, {}) for agent in models]
            np.testing.assert_array_equal(each, models if uplink is None else models - model)
            total = np.mean([link.decode(x, model) for x in each], dtype=np.float32)
            found, _ = link.server.step(model, (), total, {})
            expected = model + np.mean(models - model) if moves and uplink else np.mean(models)
            np.testing.assert_allclose(found, expected, rtol=1e-7)
            changes = uplink is not None and moves
            assert link.server.nothing(model) == (0 if changes else model)


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda **own: frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, learning_rate=0.1, **own),
        pytest.param(
            lambda **own: frl.es(frl.envs.simple_grid(max_steps=8), **own),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["fedq", "es"],
)
def test_an_own_uplink_goes_with_every_algorithm_and_is_swept(algorithm):
    out = frl.sweep(
        algorithm(uplink=growing()),
        uplink=[growing(0.0), growing(1e9), frl.uplinks.partial(1.0, absent=False)],
        num_agents=3,
        num_steps=6,
    )
    always, once, reference = (out.isel(uplink=place) for place in range(3))
    # Nothing is smaller than 0 times the last; nothing follows a first message that is not 0.
    assert int(always.messages_up) == int(reference.messages_up) == 18
    assert 0 < int(once.messages_up) <= 3
    name = "error_server" if "error_server" in out else "reward"
    np.testing.assert_array_equal(always[name], reference[name])


@pytest.mark.thorough
def test_own_uplinks_of_one_name_do_not_share_a_program():
    """Such as one that was written anew in a notebook."""

    def named(sends):
        return frl.uplinks.Uplink(
            "mine", lambda *_: (), lambda key, message, state, view: (message, sends > 0, state)
        )

    assert named(1).static == named(1).static
    both = frl.sweep(
        frl.es(frl.envs.simple_grid(max_steps=8)),
        uplink=[named(1), named(0)],
        num_agents=3,
        num_steps=2,
    )
    np.testing.assert_array_equal(both.messages_up, [6, 0])


def test_uplinks_of_other_values_share_a_program():
    for make, one, other in (
        (frl.uplinks.partial, 0.1, 0.2),
        (frl.uplinks.event_triggered, 0.1, 0.2),
        (frl.uplinks.top_k, 1, 2),
        (frl.uplinks.probabilistic, 1, 2),
        (lambda step: frl.uplinks.lazy(step=step), 0.1, 0.2),
        (growing, 1.0, 2.0),
    ):
        assert make(one).static == make(other).static


def median(population, message, sent, weight, context):
    """The median of every entry over a federation's members."""
    del sent, weight, context
    shape = population.num_federations, -1
    value = jax.tree.map(lambda x: jnp.median(x.reshape(*shape, *x.shape[1:]), axis=1), message)
    return fed.Aggregate(value, None)


def test_an_own_aggregator_is_an_argument_of_the_exchange():
    link = fed.Exchange(
        message=lambda agent, broadcast, params: agent,
        receive=lambda agent, broadcast, params: broadcast,
        aggregate=median,
    )
    population, params = fed.population([3, 3]), fed.Params({}, {}, {})
    agents = jnp.asarray([1.0, 2.0, 900.0, -5.0, 7.0, 8.0])
    keys = streams.agent_keys(np.zeros(6, int), population.member_of)
    state = fed.first_state(population, link, params, keys, agents, jnp.zeros(2))
    after = jax.jit(lambda state: fed.exchange(population, link, params, state))(state)
    np.testing.assert_array_equal(after.server, [2.0, 7.0])
    np.testing.assert_array_equal(after.agents, [2.0, 2.0, 2.0, 7.0, 7.0, 7.0])


def test_a_round_with_local_steps_has_one_exchange_after_them():
    link = fed.Exchange(lambda agent, broadcast, params: agent)
    steps = fed.LocalSteps(lambda key, agent, params, time, num_steps: agent)
    for parts in ((steps,), (link, steps), (steps, link, link)):
        with pytest.raises(ValueError, match=r"parts is .*; allowed: LocalSteps and one Exchange"):
            fed.rounds(*parts)
