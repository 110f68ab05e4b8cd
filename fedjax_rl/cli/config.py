"""From arguments to plain values, as `config.json` has them, and back to an algorithm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fedjax_rl.cli.given import again
from fedjax_rl.cli.named import (
    algorithm,
    check_fits,
    environment,
    environment_options,
    made_in,
)
from fedjax_rl.cli.outside import is_outside
from fedjax_rl.cli.parts import (
    changed,
    clock,
    clock_config,
    finite,
    numbers,
    plain,
    prefixed,
    uplink,
    uplink_config,
)
from fedjax_rl.cli.process import MOST_DEVICES
from fedjax_rl.cli.settings import settings, takes_clocks, takes_uplinks


def config_of(arguments) -> dict:
    """The arguments of `run` or `sweep` as plain values, enough to run them again."""
    from fedjax_rl import fields
    from fedjax_rl.sweeps.arguments import seeds as check_seeds

    name = "seeds" if "seeds" in vars(arguments) else "seed"
    check_seeds(plain(vars(arguments)[name]), name)
    # By name, before either is made: an environment may take seconds, or a package.
    check_fits(arguments.algorithm, arguments.environment)
    one = algorithm(arguments.algorithm, arguments.environment)
    given, tuned = _preset_of(arguments, one)
    # What was not given is the algorithm's to say, as it may depend on the environment.
    properties = changed(settings(one), given)
    per_agent = given.get("learning_rate_per_agent")
    if per_agent is not None:
        if properties.get("learning_rate") == tuned.get("learning_rate"):
            properties.pop("learning_rate", None)
        if "learning_rate" in properties:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent} beside a learning_rate; allowed: one of "
                "the two"
            )
        fields.check("learning_rate_per_agent", per_agent, fields.POSITIVE)
    check_run(arguments)
    return again(
        arguments,
        {
            "command": type(arguments).__name__,
            "algorithm": arguments.algorithm,
            "environment": arguments.environment,
            "environment_options": environment_values(given, arguments.environment),
            "properties": finite(properties),
            "uplink": uplink_config(given) if takes_uplinks(one) else None,
            "clock": clock_config(given, one) if takes_clocks(one) else None,
            "learning_rate_per_agent": per_agent,
            **run_values(arguments),
        },
    )


def environment_values(given: dict, place: str) -> dict:
    """The options of an environment.

    Args:
      given: arguments by name.
      place: name of the environment.
    """
    env, known = vars(given["env"]) if "env" in given else {}, environment_options(place)
    # None where environments with defaults of their own share an option.
    return {o: known[o] if v is None else v for o, v in env.items() if o in known}


def run_values(arguments) -> dict:
    """How long, how often and where something is run, and with what."""
    from fedjax_rl.saving import results

    given = vars(arguments)
    return {
        "num_agents": plain(arguments.num_agents),
        "num_steps": arguments.num_steps,
        "seeds": plain(given["seeds"] if "seeds" in given else given["seed"]),
        "record_every": arguments.record_every,
        "metrics": list(given.get("metrics") or ()) or None,
        "agents": list(given.get("agents") or ()) or None,
        "devices": arguments.devices or 1,
        "precision": precision(),
        "versions": results.versions(),
    }


def _preset_of(arguments, one) -> tuple[dict, dict]:
    """The arguments without the preset "tuned", and its properties.

    Its settings are the defaults of the line, so that they stand among the arguments already.

    Raises:
      ValueError: another preset, or no tuned settings of the algorithm in the environment.
    """
    from fedjax_rl import presets

    given, own = vars(arguments), "preset" in one.properties
    preset = plain(given.get("preset"))
    values = preset if isinstance(preset, list) else [preset]
    if preset is None or (own and ("tuned" not in values or is_outside(arguments.algorithm))):
        return given, {}
    if preset != "tuned":
        allowed = "tuned, or others without it" if own else "tuned"
        raise ValueError(f"preset is {preset}; allowed: {allowed}")
    found = presets.find(arguments.algorithm, arguments.environment)
    if found is None:
        raise ValueError(presets.refusal(arguments.algorithm, arguments.environment))
    # Of an algorithm with presets of its own the tuned settings may be changes to one of them.
    instead = {"preset": found.properties.get("preset", one.config.preset)} if own else {}
    return {**given, **instead}, found.properties


def check_run(arguments) -> None:
    """What a run is made of, looked at alike by the commands that run it and those that do not.

    Without starting JAX, for which `devices` is still to be set.
    """
    from fedjax_rl import fields

    given = vars(arguments)
    for name, allowed in (
        ("num_agents", fields.COUNT),
        ("num_steps", fields.COUNT),
        ("seed", fields.SEED),
        ("seeds", fields.SEED),
        ("record_every", fields.COUNT.or_none()),
    ):
        if name in given:
            values = given[name] if isinstance(given[name], tuple) else (given[name],)
            for value in values:
                fields.check(name, value, allowed)
    if arguments.devices is not None:
        check_devices(arguments.devices)
    check_out(given.get("out"))


def check_out(out: str | None) -> None:
    """Refuses an empty name, as a variable of a shell leaves it that is not set."""
    if out is not None and not out.strip():
        raise ValueError(f"out is {out!r}; allowed: a directory, or none for a new one in runs/")


def check_devices(devices: int) -> None:
    """Checks a number of devices before anybody knows how many there are."""
    from fedjax_rl import fields

    fields.check("devices", devices, fields.whole(1, MOST_DEVICES))


def precision() -> str:
    """In what this process computes, found out without starting JAX."""
    import jax

    return "float64" if jax.config.jax_enable_x64 else "float32"


@contextlib.contextmanager
def nested_errors(config: dict) -> Iterator[None]:
    """While it runs, errors about values name the uplink, clock or option that they come of."""
    with contextlib.ExitStack() as stack:
        for own in compared(config).values():
            known = {*algorithm(own["algorithm"], own["environment"]).properties}
            for part in ("uplink", "clock"):
                given = own.get(part) or ()
                given = given if isinstance(given, list) else [given]
                names = {name for one in given for name in one} - {"scheduler"}
                stack.enter_context(prefixed(part, names - known))
        rate = config.get("learning_rate_per_agent")
        if rate is not None:
            # What was given is the rate of one agent, not the rate that is refused.
            own = prefixed(f"learning_rate_per_agent is {rate}", ("learning_rate",), ": ")
            stack.enter_context(own)
        yield


def resolved(one) -> dict:
    """Every property as it is used, defaults included, as JSON has them; of several by label."""
    if isinstance(one, dict):
        return {label: resolved(own) for label, own in one.items()}
    return finite(one.describe(one.config))


def algorithm_of(config: dict):
    """The algorithm in its environment, with every property that has one value."""
    options = config["environment_options"]
    with prefixed("env", options):
        place = environment(config["environment"], **options)
    one = made_in(config["algorithm"], place)
    return one.replace(**{n: each[0] for n, each in _values(config, one).items() if len(each) == 1})


def compared(config: dict) -> dict[str | None, dict]:
    """The configurations of each algorithm by label; of one by itself the label is None."""
    several = config.get("algorithms")
    return {None: config} if several is None else {n: {**config, **x} for n, x in several.items()}


def algorithms_of(config: dict):
    """What is swept: one algorithm, or several by label, whose errors begin with it."""
    if "algorithms" not in config:
        return algorithm_of(config)
    made = {}
    for label, own in compared(config).items():
        one = algorithm(own["algorithm"], own["environment"])
        with prefixed(label, {*one.properties}):
            made[label] = algorithm_of(own)
    return made


def first_of(config: dict):
    """The algorithm of the first federation of a grid, which says what time counts in all."""
    config = next(iter(compared(config).values()))
    return algorithm_of(config).replace(**{n: each[0] for n, each in lists_of(config).items()})


def headline_of(config: dict) -> str:
    """The metric that is looked at first: of several algorithms one that all of them have.

    Raises:
      ValueError: they have none in common.
    """
    if config["metrics"]:
        return config["metrics"][0]
    several = [algorithm_of(own) for own in compared(config).values()]
    known = [name for one in several for name in (one.headline, *one.metrics)]
    for name in known:
        if all(name in one.metrics and one.metrics[name][0] == "federation" for one in several):
            return name
    names = " and ".join(dict.fromkeys(one.name for one in several))
    raise ValueError(f"algorithm is {names}, which measure nothing alike; allowed: some that do")


def lists_of(config: dict) -> dict[str, list]:
    """The properties of a configuration that have several values."""
    if "algorithms" in config:
        return {}
    one = algorithm(config["algorithm"], config["environment"])
    return {name: each for name, each in _values(config, one).items() if len(each) > 1}


def _values(config: dict, one) -> dict[str, list]:
    """Every property that a configuration sets, with its one value or its several."""
    # JSON has lists alone: of these properties a list is one value, of all others it is several.
    tuples = [own.name for own in settings(one) if own.is_tuple]
    found = {}
    for name, value in numbers(config["properties"]).items():
        if name in tuples and isinstance(value, list):
            found[name] = [tuple(value)]
        else:
            found[name] = value if isinstance(value, list) else [value]
    for name, make in (("uplink", uplink), ("clock", clock)):
        given = config.get(name)
        if given is not None:
            found[name] = [make(own) for own in (given if isinstance(given, list) else [given])]
    return found
