"""More steps or seeds of what is in a directory already."""

from __future__ import annotations

from fedjax_rl.cli.process import held
from fedjax_rl.cli.report import PROGRAM
from fedjax_rl.cli.written import check

# Of a configuration what may differ where seeds are added: who has run it, and on what.
_ASIDE = ("command", "seeds", "made_by", "versions", "devices", "configuration")


def with_more(config: dict, arguments) -> dict:
    """A configuration with the steps and seeds that are asked for, recorded as it was.

    Args:
      config: of a directory.
      arguments: with `num_steps` and `seeds`, None where nothing is asked for.

    Raises:
      ValueError: a study, fewer steps than there are, or seeds that are none.
    """
    from fedjax_rl.sweeps.arguments import count, seeds

    if config["command"] == "reproduce":
        given = {name: value for name, value in vars(arguments).items() if value is not None}
        name = next(name for name in ("num_steps", "seeds") if name in given)
        raise ValueError(f"{name} is {given[name]}; allowed: none for a study, whose scale says it")
    config = {**config, "record_every": _every(config)}
    if arguments.num_steps is not None:
        config["num_steps"] = count("num_steps", arguments.num_steps, low=config["num_steps"])
    if arguments.seeds is not None:
        there = _listed(config["seeds"])
        union = list(dict.fromkeys([*there, *seeds(list(arguments.seeds))]))
        if len(union) > len(there):
            config["seeds"] = union
            config["command"] = "sweep" if config["command"] == "run" else config["command"]
    return config


def is_more(out: str, config: dict) -> bool:
    """Whether a directory holds what is asked for, of fewer seeds: these are added to it.

    Args:
      out: the directory.
      config: what is asked for.

    Returns:
      False where it holds nothing of ours, or nothing is added.

    Raises:
      ValueError: it holds another configuration, by name, or somebody is at work there.
    """
    from fedjax_rl.saving import results

    path = results.place(out)
    if config["command"] == "run" or not path.is_dir():
        return False
    with held(path):
        there = results.read_config(path)
    if there is None or {*_listed(config["seeds"])} <= {*_listed(there.get("seeds"))}:
        return False
    check(there, path / "config.json")
    differ = [] if there["command"] == "reproduce" else _differences(there, config)
    if there["command"] == "reproduce" or differ:
        words = f"another configuration: {'; '.join(differ[:4])}" if differ else "a study"
        raise ValueError(
            f"out is {path}, which holds {words}; allowed: the same one, whose seeds are added to, "
            f"or another directory (`{PROGRAM} resume {path} --seeds` repeats nothing)"
        )
    return True


def _differences(there: dict, config: dict) -> list[str]:
    """What differs between two configurations, by the names that options have."""
    one, other = ({**c, "record_every": _every(c)} for c in (there, config))
    found = []
    for name in dict.fromkeys([*one, *other]):
        a, b = one.get(name), other.get(name)
        if name in _ASIDE or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
            # Of properties that are not there the default holds.
            found += [f"{key} is {_said(b, key)}, there {_said(a, key)}" for key in keys]
        else:
            found.append(f"{name} is {_said(other, name)}, there {_said(one, name)}")
    return found


def _said(values: dict, name: str) -> str:
    return str(values[name]) if values.get(name) is not None else "the default"


def _every(config: dict) -> int:
    return config["record_every"] or max(1, config["num_steps"] // 100)


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]
