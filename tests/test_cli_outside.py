"""What a user has written runs as `module:name`, and is told what is wrong with it in one line."""

import json
import sys

import numpy as np
import pytest

from fedjax_rl import cli
from fedjax_rl.saving import results

# A module as somebody may have it in the current directory.
MINE = '''
"""Mine."""

import jax
import jax.numpy as jnp

import fedjax_rl as frl
from fedjax_rl import fields
from fedjax_rl.algorithms.define import Averaged, Learner, Steps, algorithm, average
from fedjax_rl.envs.tabular import TabularMDP
from fedjax_rl.fields.record import Record, environment, nested, record, static, traced

number = 3
FACTOR = 1.0


@record
class Start(Record):
    """Where a table starts.

    Attributes:
      value: of every entry.
      layers: of nothing.
    """

    value: float = traced(0.0, fields.FINITE)
    layers: tuple[int, ...] = static((3, 4), fields.sizes())


@record
class Towards(Averaged):
    """Properties of steps towards one.

    Attributes:
      mdp: whose states have an entry each.
      learning_rate: of a step.
      start: where it starts.
      breaks_at: the step after which an entry is no number; 0 for never.
    """

    mdp: TabularMDP = environment(fields.instance(TabularMDP), by="shared")
    learning_rate: float = traced(0.1, fields.POSITIVE, by="agent")
    start: Start = nested(Start)
    breaks_at: float = traced(0.0, fields.NOT_NEGATIVE)


METRICS = {"gap": ("federation", "distance to one")}


@algorithm(Towards, environments=("mdp",), metrics=METRICS, sampled=lambda config: None)
def my_algorithm(config) -> Learner:
    """Steps towards one."""
    states = config.mdp.num_states

    def first(key, params):
        return jnp.full(states, params["start.value"], float), jnp.int32(0)

    def step(key, agent, params):
        values, count = agent
        values = values + params["learning_rate"] * FACTOR * (1 - values)
        broken = (params["breaks_at"] > 0) & (count + 1 == params["breaks_at"].astype(int))
        print("a step from", values[0])
        return values.at[1].multiply(jnp.where(broken, jnp.nan, 1.0)), count + 1

    def measure(population, params, state):
        return {"gap": jnp.max(jnp.abs(1 - state.server), axis=1)}

    def adopt(agent, model, params):
        return model, agent[1]

    link = average(config, lambda agent: agent[0], adopt)
    return Learner(first, (Steps(step), link), measure, share=lambda agent: agent[0])


def my_environment(num_states: int = 3, seed: int = 0):
    """An MDP.

    Args:
      num_states: S.
      seed: of its numbers.
    """
    return frl.envs.random_mdp(seed=seed, num_states=num_states)


def my_uplink(k: int = 1):
    """Some entries.

    Args:
      k: how many.
    """
    return frl.uplinks.top_k(k)


def wrong(mdp):
    """Makes nothing of use."""
    return 3


def fails(mdp):
    """Makes nothing at all."""
    return mdp.nothing


def demanding(size):
    """Cannot be made without a size."""
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Bytecode is told from its source by whole seconds and the size: what is changed sooner is old.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("own_words", "own_broken", "own_quits"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "own_words.py").write_text(MINE)
    (tmp_path / "own_broken.py").write_text("import numpy\n\nx = undefined\n")
    (tmp_path / "own_quits.py").write_text("import sys\n\nsys.exit(3)\n")
    return tmp_path


def _changed(here, old: str, new: str) -> None:
    """The user goes on writing."""
    path = here / "own_words.py"
    path.write_text(path.read_text().replace(old, new))
    del sys.modules["own_words"]


def test_own_algorithm_environment_and_uplink_run_and_go_on(here, capsys):
    words = "--num-agents 2 --num-steps 20 --record-every 5 --sync-period 5 --out mine"
    line = f"run own_words:my_algorithm own_words:my_environment {words} --learning-rate 0.25"
    more = "--env.num-states 4 --start.value 0.5 --start.layers 7 8 9 --no-cache"
    assert cli.main([*line.split(), *more.split()]) == 0
    result = results.load("mine")
    # Everybody makes the same steps, so that averaging changes nothing.
    expected = 0.5 * 0.75 ** np.array([5, 10, 15, 20])
    np.testing.assert_allclose(result["gap"].values, expected, rtol=1e-5)
    config = json.loads((here / "mine" / "config.json").read_text())
    assert config["algorithm"] == "own_words:my_algorithm"
    assert config["environment"] == "own_words:my_environment"
    assert config["properties"]["start.value"] == 0.5
    assert config["properties"]["start.layers"] == [7, 8, 9]
    # What is not content may change; what is may not.
    (here / "mine" / "result.nc").unlink()
    _changed(here, '"""Mine."""', "# A comment.\n")
    assert cli.main(["resume", "mine"]) == 0
    np.testing.assert_array_equal(results.load("mine")["gap"].values, result["gap"].values)
    (here / "mine" / "result.nc").unlink()
    _changed(here, "FACTOR = 1.0", "FACTOR = 0.5")
    capsys.readouterr()
    assert cli.main(["resume", "mine"]) == 2
    assert "are of another run" in capsys.readouterr().err
    line = "sweep own_words:my_algorithm own_words:my_environment --num-steps 4 --seeds 0 1"
    more = "--start.value 0 0.5 --uplink own_words:my_uplink --uplink.k 2 --out grid"
    assert cli.main([*line.split(), *more.split()]) == 0
    assert results.load("grid")["gap"].sizes["start.value"] == 2
    assert cli.main(["doctor", "own_words:my_algorithm", "own_words:my_environment"]) == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("own_word:my_algorithm paper-mdp", "no module own_word; allowed: one in"),
        ("own_word:my_algorithm paper-mdp", "did you mean own_words"),
        ("own_words:my_algorthm paper-mdp", "did you mean own_words:my_algorithm"),
        ("own_words:number paper-mdp", "of type int; allowed: a function"),
        ("own_words:wrong paper-mdp", "returns a value of type int; allowed: a function"),
        ("own_words:fails paper-mdp", "has no attribute 'nothing' (own_words.py, line "),
        ("own_words: paper-mdp", "algorithm is 'own_words:'; allowed: module:name"),
        ("own_broken:x paper-mdp", "NameError: name 'undefined' is not defined (own_broken.py"),
        ("own_quits:x paper-mdp", "cannot be imported: SystemExit: 3"),
        ("own_words:my_algorithm simple-grid", "allowed with own_words:my_algorithm: paper-mdp"),
        ("es own_words:my_environment", "task is a TabularMDP; allowed: an episodic task"),
        ("fedq own_words:wrong", "environment is own_words:wrong, whose mdp has no default"),
        ("fedq own_words:demanding", "whose size has no default"),
        ("fedq own_words:my_enviroment", "did you mean own_words:my_environment"),
        ("fedq own_words:my_environment --env.num-states 0", "--env.num-states is 0"),
        ("own_words:my_algorithm paper-mdp --start.value inf", "--start.value is inf; allowed"),
        ("own_words:my_algorithm paper-mdp --start.valeu 1", "did you mean --start.value"),
        ("fedq paper-mdp --uplink own_words:my_uplnk", "did you mean own_words:my_uplink"),
    ],
)
def test_what_is_wrong_with_it_is_said_in_one_line(here, capsys, line, words):
    before = {*here.iterdir()}
    assert cli.main(["run", *line.split()]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert {p for p in here.iterdir() if p.name != "__pycache__"} == before


def test_debugging_prints_numbers_and_names_what_breaks(here, capsys):
    line = "run own_words:my_algorithm paper-mdp --num-agents 2 --num-steps 6 --sync-period 2"
    more = "--breaks-at 3 --debug --out broken"
    assert cli.main([*line.split(), *more.split()]) == 1
    printed = capsys.readouterr()
    assert "step 3, agent 0: agents[0][1] is nan after local work" in printed.err
    assert printed.out.count("a step from") == 6
    assert printed.out.startswith("a step from 0.1")
