"""What is declared is checked: by name, value and what is allowed, whatever somebody hands in."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smallest import smallest

import fedjax_rl as frl
from fedjax_rl import fields
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.federation import uplinks
from fedjax_rl.fields import record

NONSENSE = [
    None, True, "1", b"1", "", [], (), {}, {1: 2, "a": 3}, {3}, object(), object, len, 1j, 1 + 0j,
    np.nan, [1, "a"], [True], np.array([]), np.array("x"), np.array([1j]), np.array(None),
    range(0), Ellipsis, jax.random.key(0), np.datetime64("2020"), "nan",
]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    "allowed",
    [
        fields.POSITIVE,
        fields.number(per_agent=True),
        fields.COUNT,
        fields.word(["a", "b"]),
        fields.words(["a", "b"]),
        fields.instance(fields.Allowed),
    ],
    ids=["positive", "per agent", "count", "word", "words", "instance"],
)
def test_nonsense_of_any_type_is_refused_in_a_sentence(value, allowed):
    with pytest.raises(ValueError, match=r"^x is .*; allowed: .*\S"):
        fields.check("x", value, allowed)


def test_switches_are_bools_and_sizes_are_tuples_of_whole_numbers():
    for good in (True, False, np.True_):
        fields.check("x", good, fields.switch())
    for bad in (1, 0, "no", "False", None, np.nan, []):
        with pytest.raises(ValueError, match=r"x is .*allowed: True or False"):
            fields.check("x", bad, fields.switch())
    for good in ((), (8,), [8, 4], (np.int64(3),)):
        fields.check("x", good, fields.sizes())
    for bad in (8, (8.0,), (0,), ("8",), (True,), np.nan, None):
        with pytest.raises(ValueError, match=r"x is .*allowed: a tuple"):
            fields.check("x", bad, fields.sizes())


@pytest.mark.parametrize(
    ("value", "allowed", "good"),
    [
        (1e-300, fields.POSITIVE, False),  # zero in float32
        (1e39, fields.POSITIVE, False),  # infinite in float32
        (1e-37, fields.POSITIVE, True),
        (0, fields.POSITIVE, False),
        (0, fields.PROBABILITY, True),
        (1 + 1e-12, fields.PROBABILITY, False),
        (np.inf, fields.number(0), False),
        (np.inf, fields.number(0, infinite=True), True),
        (-np.inf, fields.number(0, infinite=True), False),
        (jnp.float32(0.5), fields.PROBABILITY, True),
        (jnp.bfloat16(0.5), fields.PROBABILITY, True),
        (np.array([0.5]), fields.PROBABILITY, False),  # an axis where there is none
        (np.array([0.5, 0.1]), fields.number(0, 1, per_agent=True), True),
        ([0.5, 2.0], fields.number(0, 1, per_agent=True), False),
        (5, fields.COUNT, True),
        (np.uint8(5), fields.COUNT, True),
        (jnp.int32(5), fields.COUNT, True),
        (np.array(5), fields.COUNT, True),
        (5.0, fields.COUNT, False),
        (0, fields.COUNT, False),
        (2**31, fields.COUNT, False),
        (10**400, fields.COUNT, False),
    ],
)
def test_ranges(value, allowed, good):
    if good:
        fields.check("x", value, allowed)
    else:
        with pytest.raises(ValueError, match=r"^x is "):
            fields.check("x", value, allowed)


def test_a_function_says_what_it_is_a_function_of():
    rate = fields.number(0, 1, above=True, scheduled=True)
    fields.check("rate", frl.by_agents(lambda n: 0.1 * n), rate)
    fields.check("rate", frl.schedule(lambda t: 0.1), rate)
    with pytest.raises(ValueError, match=r"rate is a bare function.*by_agents.*frl\.schedule"):
        fields.check("rate", lambda n: 0.1, rate)
    with pytest.raises(ValueError, match=r"rate is schedule\(.*allowed: in \[0, 1\]"):
        fields.check("rate", frl.schedule(lambda t: 0.1), fields.PROBABILITY)
    for nothing in (3, None, float, frl.by_agents(len)):
        with pytest.raises(ValueError, match="by_agents is given"):
            frl.by_agents(nothing)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda n: 5.0, "rate at num_agents 4 is 5.0; allowed: in"),
        (lambda n: np.nan, "rate at num_agents 4 is nan"),
        (lambda n: None, "rate at num_agents 4 is None"),
        (lambda n: np.ones(3), "for each of 4 agents"),
        (lambda n: 1 / (n - 4), "fails at num_agents 4 with ZeroDivisionError"),
        (lambda: 1.0, "fails at num_agents 4 with TypeError"),
        (lambda n: frl.by_agents(len), "rate at num_agents 4 is by_agents"),
    ],
)
def test_what_a_function_gives_is_looked_at_again(function, text):
    allowed = fields.number(0, 1, per_agent=True)
    with pytest.raises(ValueError, match=text):
        fields.evaluated("rate", frl.by_agents(function), allowed, 4)


def test_traced_numbers_pass_and_traced_words_do_not():
    def inside(x):
        fields.check("x", x, fields.POSITIVE)
        with pytest.raises(ValueError, match=r"n is traced.*allowed: .*a whole number"):
            fields.check("n", x, fields.COUNT)
        with pytest.raises(ValueError, match="x is"):
            fields.check("x", x[None], fields.POSITIVE)
        fields.check("record", Record(x), fields.instance(Record))
        with pytest.raises(ValueError, match=r"record is .*allowed: a Record"):
            fields.check("record", x, fields.instance(Record))
        return x

    jax.jit(inside)(1.0)


@dataclasses.dataclass(frozen=True)
class Record:
    rate: object = fields.declared(0.1, fields.POSITIVE)
    depth: object = fields.declared(None, fields.COUNT.or_none())
    free: object = fields.declared(None)


def test_what_single_precision_makes_of_a_number_is_said():
    with pytest.raises(ValueError, match="x is 1e-50, 0 in float32; allowed: finite and above 0"):
        fields.check("x", 1e-50, fields.POSITIVE)
    with pytest.raises(ValueError, match=r"x is 1e.39, inf in float32; allowed"):
        fields.check("x", 1e39, fields.POSITIVE)
    with pytest.raises(ValueError, match=r"x is 0.999999999, 1 in float32; allowed: in \[0, 1\)"):
        fields.check("x", 1 - 1e-9, fields.number(0, 1, below=True))
    fields.check("x", 1e-50, fields.number(0, single=False))


def test_records_and_functions_are_checked_where_they_are_declared():
    fields.check_config(Record())
    for changes in ({"rate": -1}, {"rate": None}, {"depth": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(changes))} is"):
            fields.check_config(Record(**changes))

    @fields.checked(size=fields.COUNT)
    def make(size=3, seed=0):
        return size, seed

    assert make(4, seed=1) == (4, 1)
    with pytest.raises(ValueError, match="size is 0; allowed: a whole number of at least 1"):
        make(0)
    with pytest.raises(ValueError, match="did you mean size"):
        make(sise=4)
    size, _ = make(np.int64(4), jnp.int32(2))
    assert type(size) is int  # so that it can be written down


# Every algorithm


def fits(name, value):
    """What of the nonsense is none for some properties."""
    switches = value is True
    sizes = name in ("hidden", "network", "network.hidden", "critic", "critic.hidden")
    empty = sizes and isinstance(value, list | tuple) and len(value) == 0
    rank = name == "utility_model" and callable(value) and not isinstance(value, type)
    return switches or empty or rank


def declared(kind):
    """What each property may be, those of records within included."""
    return {name: kind.allowed(name) for name in kind.names()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_property_is_declared_and_refuses_nonsense_by_name(algorithm):
    one = smallest(algorithm)
    known = declared(type(one.config))
    assert set(known) == set(one.properties)
    for name, allowed in known.items():
        # A record is refused for its first property, a dict for what it names.
        within = isinstance(getattr(one.config, name, None), record.Record)
        whose = rf"{name}\.\w+" if within else name
        words = rf"(?s)^{whose} is .*allowed: \S"
        for value in NONSENSE:
            if (value is None and allowed.optional) or fits(name, value):
                continue
            if within and isinstance(value, dict):
                if value:
                    with pytest.raises(ValueError, match=f"no property of {name}"):
                        one.replace(**{name: value})
                continue
            with pytest.raises(ValueError, match=words):
                one.replace(**{name: value})
        if name != "utility_model":
            bare = rf"{name}(\.\w+)? is a bare function.*allowed"
            with pytest.raises(ValueError, match=bare) as refused:
                one.replace(**{name: lambda x: x})
            assert ("frl.by_agents(f)" in str(refused.value)) == allowed.follows
            assert ("frl.schedule(f)" in str(refused.value)) == (allowed.scheduled is not None)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_functions_of_n_give_is_refused_before_anything_compiles(algorithm):
    one = smallest(algorithm)
    for name, _, field in one.config.properties():
        allowed = type(one.config).allowed(name)
        if field.metadata.get("environment"):
            continue
        if not allowed.follows:
            with pytest.raises(ValueError, match=rf"^{name} is by_agents\(.*allowed"):
                one.replace(**{name: frl.by_agents(lambda n: 1)})
            continue
        if name == "weights":  # of other aggregations
            one = one.replace(aggregation="learned", weights=frl.by_agents(np.ones))
        for value in (np.nan, "x", np.array([]), len):
            with pytest.raises(ValueError, match=rf"(?s)^{name} at num_agents 2 is .*allowed"):
                # The function speaks for every N, of which this is one.
                frl.sweep(
                    one.replace(**{name: frl.by_agents(lambda n, value=value: value)}),
                    num_agents=2,
                    num_steps=2,
                )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_numbers_of_any_library_make_the_same_configuration(algorithm):
    one = smallest(algorithm)
    numbers = {
        own.name: own.value
        for own in one.config.properties()
        if isinstance(own.value, int | float) and not isinstance(own.value, bool)
    }
    for read in (np.asarray, jnp.asarray):
        kept = {n: v for n, v in numbers.items() if float(read(v)) == v}
        other = one.replace(**{n: read(v) for n, v in kept.items()})
        assert other.static(other.config) == one.static(one.config)
        assert other.describe(other.config) == one.describe(one.config)


# Uplinks and clocks


@pytest.mark.parametrize("kind", uplinks.UPLINKS)
def test_every_argument_of_an_uplink_is_declared_and_refuses_nonsense(kind):
    make = uplinks.UPLINKS[kind]
    needed = {"probabilistic": {"target": 1}, "top-k": {"k": 1}}.get(kind, {})
    assert set(make.allowed) == set(inspect.signature(make).parameters)
    for name, allowed in make.allowed.items():
        for value in NONSENSE:
            if (value is None and allowed.optional) or fits(name, value) or name == "utility":
                continue
            with pytest.raises(ValueError, match=rf"(?s)^{name} is .*allowed: \S"):
                make(**{**needed, name: value})


def test_every_property_of_a_clock_is_declared_and_refuses_nonsense():
    known = fields.declarations(frl.Clock)
    assert set(known) == {field.name for field in dataclasses.fields(frl.Clock)}
    for name, allowed in known.items():
        for value in NONSENSE:
            if (value is None and allowed.optional) or fits(name, value):
                continue
            with pytest.raises(ValueError, match=rf"(?s)^{name} is .*allowed: \S"):
                frl.Clock(**{name: value})
        if allowed.follows:
            values = {
                "bandwidth": 1e3,
                "failure_time": 9.0,
                "scheduler": "semi-synchronous",
                "wait_for": 1,
                "distribution": "two_class" if name.startswith("slow") else "log_normal",
                name: frl.by_agents(lambda n: np.nan),
            }
            with pytest.raises(ValueError, match=rf"^{name} at num_agents 3 is nan; allowed"):
                frl.timetable(frl.Clock(**values), num_agents=3, num_steps=1)
    order = frl.timetable(frl.Clock(), num_agents=np.uint8(2), num_steps=jnp.int32(1))
    assert sorted(order.agent[0, 0].tolist()) == [0, 1]


def test_functions_of_n_are_the_values_that_they_give():
    mdp = frl.envs.paper_mdp()
    base = {"epsilon": 1.0, "sync_period": 2, "learning_rate": 0.1}
    follow = {
        "learning_rate": lambda n: 0.05 * n,
        "sync_period": lambda n: n,
        "uplink": lambda n: uplinks.partial(1 / n),
        "clock": lambda n: frl.Clock("semi-synchronous", wait_for=n // 2, compute_time=1.0 * n),
    }
    given = {
        "learning_rate": frl.by_agents(follow["learning_rate"]),
        "sync_period": frl.by_agents(follow["sync_period"]),
        "uplink": uplinks.partial(frl.by_agents(lambda n: 1 / n)),
        "clock": frl.Clock(
            "semi-synchronous",
            wait_for=frl.by_agents(lambda n: n // 2),
            compute_time=frl.by_agents(lambda n: 1.0 * n),
        ),
    }
    for name, function in follow.items():
        for n in (2, 4):
            one = frl.fedq(mdp, **{**base, name: given[name]}).at(n)
            alone = frl.fedq(mdp, **{**base, name: function(n)})
            found, expected = (a.parameters(a.config, n) for a in (one, alone))
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert given["clock"].rules.arrivals(4) == 2
    run = {"num_steps": 2, "num_agents": [2, 4]}
    swept = frl.sweep(frl.fedq(mdp, **base), **run, learning_rate=given["learning_rate"])
    np.testing.assert_array_equal(swept.learning_rate, [0.1, 0.2])
    assert swept.learning_rate.dims == ("num_agents",)


def test_a_schedule_is_no_constant_and_its_range_is_looked_at():
    mdp = frl.envs.paper_mdp()
    with pytest.raises(ValueError, match=r"learning_rate at time 0 is 9.0; allowed: in \[0, 1\]"):
        frl.fedq(mdp, learning_rate=frl.schedule(lambda time: 9.0))
    late = frl.fedq(mdp, learning_rate=frl.schedule(lambda time: time.astype(float) / 10))
    with pytest.raises(ValueError, match=r"learning_rate at time 11 is 1.1"):
        frl.sweep(late, num_steps=40)
    with pytest.raises(ValueError, match=r"learning_rate at time 11 is 1.1"):
        frl.simulate(late, num_agents=1, num_steps=40)
    once = frl.schedule(lambda time: jnp.where(time == 7, -1.0, 0.5))
    with pytest.raises(ValueError, match=r"learning_rate at time 7 is -1.0"):
        frl.sweep(frl.fedq(mdp, learning_rate=once), num_steps=21)
    with pytest.raises(ValueError, match=r"entropy is schedule\(.*allowed"):
        smallest("fedpg", entropy=frl.schedule(lambda time: 0.1))


def test_weights_that_are_all_zero_among_the_agents_there_are_are_refused():
    one = frl.fedq(frl.envs.paper_mdp(), aggregation="fixed", weights=[0.0, 0.0, 1.0])
    one.parameters(one.config, 3)
    for bad in (one, one.replace(weights=frl.by_agents(np.zeros))):
        with pytest.raises(ValueError, match=r"weights is .*allowed: at least 0 and not all 0"):
            frl.sweep(bad, num_agents=2, num_steps=2)


def test_tables_and_parameters_that_were_replaced_are_looked_at():
    mdp = frl.envs.random_mdp(seed=0)
    cart = frl.envs.gymnax_task("CartPole-v1")
    for part, value in {
        "transition": mdp.transition * 2,
        "reward": mdp.reward * np.nan,
        "discount": np.float64(1.5),
        "initial_state": np.int32(99),
        "initial_distribution": np.ones(4),
    }.items():
        for make in (frl.fedq, frl.qavg, frl.pavg, frl.fedpg, frl.fast_fedpg, frl.afedpg):
            with pytest.raises(ValueError, match=rf"mdp\.{part}.* is .*allowed"):
                make(mdp.replace(**{part: value}))
    with pytest.raises(ValueError, match=r"task\.params\.gravity is nan; allowed"):
        frl.es(cart.replace(params=dataclasses.replace(cart.params, gravity=np.nan)))
    for name, value in {"policy": np.full((3, 4), 0.25), "initial_q": np.zeros(12)}.items():
        behaviour = {"behaviour": "policy"} if name == "policy" else {}
        with pytest.raises(ValueError, match=rf"{name} is an array .*allowed: \[4, 3\]"):
            frl.fedq(frl.envs.paper_mdp(), **{name: value}, **behaviour)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("initial_q", 12, r"initial_q is an array \[12\].*allowed: \[4, 3\]"),
        ("learning_rate", 2, r"learning_rate is a traced array of 2 entries; .* 3 agents"),
    ],
)
def test_the_shape_of_what_is_traced_is_looked_at(name, size, message):
    def run(value):
        one = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, **{name: value})
        return frl.simulate(one, num_agents=3, num_steps=1).metrics["error_server"][-1]

    with pytest.raises(ValueError, match=message):
        jax.grad(run)(jnp.full(size, 0.1))


@pytest.mark.parametrize("algorithm", ["fedpg", "afedpg", "fedsvrpg-m", "dql", "fedppo"])
def test_defaults_are_filled_in_once_and_follow_what_is_replaced(algorithm):
    config = smallest(algorithm).config
    once = config.resolved()
    assert config.resolved() is once
    assert once == config.with_defaults()
    assert once.resolved() == once
    # What is kept is no property: not compared, not handed on.
    fresh = dataclasses.replace(config)
    assert fresh == config
    assert fresh.resolved() is not once


def test_defaults_of_a_changed_record_are_its_own():
    config = frl.reinforce(frl.envs.simple_grid(max_steps=4), episodes_per_round=2).config
    assert config.resolved().baseline == "state_mean"
    assert config.replace(episodes_per_round=1).resolved().baseline == "none"
