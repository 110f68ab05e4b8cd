"""Tuned settings: the table, the preset of that name, and that every entry can be run."""

import importlib.resources
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import cli, presets
from fedjax_rl.cli import config, parse
from fedjax_rl.presets import table

ENTRIES = presets.entries()
IDS = [f"{one.algorithm}-{one.environment.replace('/', '-')}" for one in ENTRIES]
ONE = presets.find("fedpg", "CartPole-v1")


def configured(line):
    """What the command line makes of a line."""
    code, arguments = parse.read(shlex.split(line))
    assert code == 0
    return config.config_of(arguments)


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_every_entry_is_what_its_command_runs(entry):
    own = configured(entry.command.removeprefix("fedjax-rl "))
    assert own["num_agents"] == entry.num_agents
    assert own["num_steps"] == entry.num_steps
    assert own["seeds"] == list(entry.seeds)
    if entry.environment.startswith("brax/"):  # whose models take seconds to make
        written = json.loads(json.dumps(entry.properties))
        same = {name: own["properties"].get(name, value) for name, value in written.items()}
        assert same == written
        assert own["environment_options"].items() >= entry.options.items()
        return
    made, command = entry.make(), config.algorithm_of(own)
    assert made.config == command.config
    assert made.config != entry.make(learning_rate=0.123).config


@pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
def test_what_it_reaches_was_measured_with_these_settings(entry):
    got = entry.reached
    assert got is not None, "python benchmarks/tuned.py measures it"
    assert len(entry.seeds) >= 3
    assert got.low <= got.mean <= got.high
    assert got.low > got.start
    flags = f"fedjax-rl run {entry.algorithm} {entry.environment} {entry.flags}"
    tuned = f"fedjax-rl run {entry.algorithm} {entry.environment} --preset tuned"
    assert configured(flags[10:]) == configured(tuned[10:])


def test_what_is_given_wins_over_the_preset():
    line = "run fedpg CartPole-v1 --preset tuned"
    tuned = configured(line)
    assert tuned["num_agents"] == ONE.num_agents
    given = configured(f"{line} --learning-rate 0.5 --num-agents 7 --num-steps 3")
    assert (given["num_agents"], given["num_steps"]) == (7, 3)
    assert given["properties"] == {**tuned["properties"], "learning_rate": 0.5}
    # Also what is given as it is without the preset.
    default = frl.fedpg(frl.envs.gymnax_task("CartPole-v1")).config
    steps = configured(f"{line} --local-steps {default.local_steps}")
    assert "local_steps" not in steps["properties"]
    assert configured("run fedpg CartPole-v1 --preset=tuned") == tuned
    each = configured("sweep fedpg CartPole-v1 --preset tuned --learning-rate 0.1 0.2")
    assert each["properties"] == {**tuned["properties"], "learning_rate": [0.1, 0.2]}
    per = configured("sweep fedpg CartPole-v1 --preset tuned --learning-rate-per-agent 0.1")
    assert "learning_rate" not in per["properties"]


def test_an_algorithm_with_presets_of_its_own_has_this_one_too():
    entry = next(one for one in ENTRIES if one.algorithm == "fedppo")
    own = configured(f"run fedppo {entry.environment} --preset tuned")
    assert own["properties"].get("preset") == entry.properties.get("preset")
    assert configured("run fedppo CartPole-v1 --preset paper")["properties"]["preset"] == "paper"


def test_what_is_not_there_is_refused(capsys):
    for line, words in (
        ("run fedq paper-mdp --preset tuned", "--preset is tuned for fedq on paper-mdp; allowed: "),
        ("run fedpg paper-mdp --preset tuned", "allowed: with fedpg: CartPole-v1"),
        ("run fedpg CartPole-v1 --preset best", "--preset is best; allowed: tuned"),
        ("sweep fedppo CartPole-v1 --preset tuned clean", "allowed: tuned, or others without it"),
        ("list nothing", "'nothing' is no list; did you mean everything? Known: algorithms,"),
    ):
        assert cli.main(line.split()) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(ValueError, match="preset is tuned for fedq on paper-mdp; allowed: with "):
        frl.tuned("fedq", "paper-mdp")
    with pytest.raises(ValueError, match="'fedpgg' is no algorithm; did you mean fedpg"):
        frl.tuned("fedpgg", "CartPole-v1")
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        frl.tuned("fedpg", "CartPole-v2")
    with pytest.raises(ValueError, match="environment is 3; allowed: a name, or a Task"):
        frl.tuned("fedpg", 3)


def test_python_finds_it_by_name_function_and_task():
    task = frl.envs.gymnax_task("CartPole-v1", max_steps=20)
    best = frl.tuned(frl.fedpg, task)
    assert best is frl.tuned("fedpg", "gymnax/CartPole-v1") is ONE
    one = best.make(task, local_steps=1, episodes_per_step=2)
    assert one.config.task == task
    result = frl.sweep(one, num_agents=2, num_steps=1, metrics=("return",))
    assert np.isfinite(result["return"]).all()
    assert best.run == {"num_agents": best.num_agents, "num_steps": best.num_steps}


def test_list_prints_the_table(capsys):
    assert cli.main(["list", "tuned"]) == 0
    text = capsys.readouterr().out
    for one in ENTRIES:
        assert f"{one.algorithm} {one.environment}\n" in text
        assert f"  {one.command}\n" in text
    assert len(re.findall(r"\[95 % Student t interval\]", text)) == len(ENTRIES)


def test_numbers_ship_and_are_of_entries():
    data = importlib.resources.files("fedjax_rl") / "presets"
    assert {"settings.toml", "reached.json"} <= {entry.name for entry in data.iterdir()}
    rows = json.loads(pathlib.Path(table.REACHED).read_text())
    assert list(rows) == [f"{one.algorithm} {one.environment}" for one in ENTRIES]
