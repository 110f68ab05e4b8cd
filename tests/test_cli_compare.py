"""The command line: comparisons, more seeds of what is there, and a config.json that runs again."""

import io
import json
import sys

import numpy as np
import pytest
import rich.console
import rich.text
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import cli
from fedjax_rl.cli import compare, config, parse, tables
from fedjax_rl.saving import results

# Programs that compile in a second.
LINE = ["--num-agents", "2", "--num-steps", "40", "--record-every", "20", "--sync-period", "5"]
PAIR = ["small=fedq", "large=fedq", "paper-mdp", *LINE, "--small.learning-rate", "0.01"]


def thorough(line):
    """A case for those who wait."""
    return pytest.param(line, marks=pytest.mark.thorough)


def config_of(line):
    """What a line asks for."""
    code, arguments = parse.read(line.split() if isinstance(line, str) else line)
    assert code == 0
    make = compare.config_of if type(arguments).__name__ == "compare" else config.config_of
    return make(arguments)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "o"
    assert cli.main(["compare", *PAIR, "--seeds", "0", "1", "2", "--out", str(out)]) == 0
    return out


def test_a_comparison_is_the_same_sweep_in_python(compared):
    assert {p.name for p in compared.iterdir()} >= {"config.json", "result.nc", "summary.json"}
    assert (compared / "figure.png").stat().st_size > 5_000
    mdp = frl.envs.paper_mdp()
    algorithms = {"small": frl.fedq(mdp, learning_rate=0.01), "large": frl.fedq(mdp)}
    again = frl.sweep(
        algorithms, num_agents=2, sync_period=5, seeds=range(3), num_steps=40, record_every=20
    )
    result = frl.load(compared)
    np.testing.assert_array_equal(result["error_server"], again["error_server"])
    summary = json.loads((compared / "summary.json").read_text())
    assert [row["algorithm"] for row in summary["rows"]] == ["small", "large"]
    final = summary["rows"][0]["metrics"]["error_server"]["final"]
    assert final["low"] < final["mean"] < final["high"]
    # Of three runs the middle half is all of them; they are compared in pairs.
    last = result["error_server"].isel(time=-1).values
    found = [row["over_runs"] for row in summary["rows"]]
    assert found[0]["above"] is None
    assert found[1]["interquartile_mean"]["value"] == pytest.approx(last[1].mean(), rel=1e-6)
    share = np.mean(last[1][:, None] > last[0])
    assert found[1]["above"]["value"] == pytest.approx(share)
    assert (found[1]["above"]["of"], found[1]["above"]["runs"]) == ("small", 3)


@pytest.mark.thorough
def test_a_comparison_is_finished_and_takes_more_seeds(compared, tmp_path, capsys):
    assert cli.main(["resume", str(compared)]) == 0
    assert "is finished" in capsys.readouterr().out
    out = tmp_path / "o"
    line = ["compare", *PAIR, "--out", str(out), "--seeds"]
    assert cli.main([*line, "0", "1"]) == 0
    assert cli.main([*line, "2"]) == 0
    one, two = frl.load(out), frl.load(compared)
    assert one["error_server"].equals(two["error_server"])
    # Means over agents may be summed in another order, three seeds at once or two and then one.
    xr.testing.assert_allclose(one, two, rtol=1e-6)
    assert results.read_config(out)["command"] == "compare"


@pytest.mark.thorough
def test_two_runs_of_a_comparison_say_so(tmp_path, capsys):
    out = tmp_path / "o"
    assert cli.main(["compare", *PAIR, "--seeds", "0", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mean of 2 runs, too few for an interval" in printed
    assert "(2 runs)" in printed
    assert "above small: how probably a run lies above one of these" in printed


def test_nearer_options_win_and_all_take_what_is_common():
    line = "compare a=fedq b=fedq paper-mdp --learning-rate 0.05 --b.learning-rate 0.1 --epsilon 1"
    found = config_of(line)["algorithms"]
    assert found["a"]["properties"] == {"learning_rate": 0.05, "epsilon": 1.0}
    # Said of one alone, though it is the default.
    assert found["b"]["properties"] == {"learning_rate": 0.1, "epsilon": 1.0}
    deep = config_of("compare es espc CartPole-v1 --network.hidden 4 4 --espc.target-senders 3")
    assert deep["algorithms"]["es"]["properties"] == {"network.hidden": [4, 4]}
    assert deep["algorithms"]["espc"]["properties"]["target_senders"] == 3
    sent = config_of("compare fedq b=fedq paper-mdp --uplink top-k --uplink.k 3")["algorithms"]
    assert [own["uplink"]["k"] for own in sent.values()] == [3, 3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("compare fedq paper-mdp", "compare is given 'fedq paper-mdp'; allowed: two algorithms"),
        ("compare fedq fedq paper-mdp", "fedq is named twice; allowed: LABEL=ALGORITHM"),
        ("compare fedq fdq paper-mdp", "'fdq' is no algorithm; did you mean fedq"),
        ("compare fedq es paper-mdp", "environment is paper-mdp; allowed with es"),
        ("compare fedq b=fedq paper-mpd", "did you mean paper-mdp"),
        ("compare fedq b=fedq paper-mdp --b.learning-rate 2", "--b.learning-rate is 2.0; allowed"),
        ("compare fedq b=fedq paper-mdp --learnin-rate 2", "did you mean --learning-rate"),
        ("compare fedq fedtd paper-mdp --epsilon 1", "--fedq.epsilon"),
        ("compare fedq b=fedq paper-mdp --seeds 1 1", "--seeds is [1, 1], which repeats some"),
        ("compare fedq b=fedq paper-mdp --preset best", "--preset is best; allowed: tuned"),
        ("compare fedpg es simple-grid", "allowed: one unit of time in a sweep"),
        ("fedq paper-mdp", "fedq is no command but an algorithm; allowed: run fedq paper-mdp"),
    ],
)
def test_refused_in_one_line_and_nothing_written(line, words, tmp_path, capsys):
    out = tmp_path / "o"
    assert cli.main([*line.split(), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.thorough
def test_more_seeds_in_a_directory_are_as_if_at_once(compared, tmp_path, capsys, monkeypatch):
    """Those that are there are not run again, and another configuration is refused by name."""
    out, ran = tmp_path / "o", []
    line = ["sweep", "fedq", "paper-mdp", *LINE, "--learning-rate", "0.05", "--out", str(out)]
    assert cli.main([*line, "--seeds", "0", "1"]) == 0
    run = sys.modules["fedjax_rl.sweeps.run"]
    begin = run._begin

    def counting(job, *rest):
        found = begin(job, *rest)
        ran.append((sorted({*job.seeds.tolist()}), found[0]))
        return found

    monkeypatch.setattr(run, "_begin", counting)
    assert cli.main([*line, "--seeds", "0", "1", "2", "3"]) == 0
    # Of those that were there all two records are, of the others none.
    assert sorted(ran) == [([0, 1], 2), ([2, 3], 0)]
    whole = ["sweep", *line[1:-1], str(tmp_path / "whole"), "--seeds", "0", "1", "2", "3"]
    assert cli.main(whole) == 0
    one, two = (frl.load(path) for path in (out, tmp_path / "whole"))
    assert one.equals(two)
    assert results.read_config(out)["seeds"] == [0, 1, 2, 3]
    before = (out / "result.nc").read_bytes()
    capsys.readouterr()
    other = [*line, "--seeds", "0", "7", "--num-steps", "60", "--epsilon", "1"]
    assert cli.main(other) == 2
    said = capsys.readouterr().err
    assert "num_steps is 60, there 40" in said
    assert "epsilon is 1.0, there the default" in said
    assert cli.main([*line, "--seeds", "0", "1"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (out / "result.nc").read_bytes() == before


def test_a_configuration_runs_again_to_the_same_bytes(compared, tmp_path, capsys):
    again = tmp_path / "again"
    assert cli.main(["run", "--config", str(compared), "--out", str(again)]) == 0
    assert (again / "result.nc").read_bytes() == (compared / "result.nc").read_bytes()
    capsys.readouterr()
    for line, words in (
        (f"run fedq paper-mdp --config {compared}", "fedq stands beside --config"),
        (f"sweep --config {compared}", "of a compare; allowed: `fedjax-rl run --config`"),
        (f"run --config {tmp_path}/nowhere.json", "which is not there; allowed: a config.json"),
        (f"run --config {compared}/result.nc", "which is damaged, or none of ours"),
        (f"run --config {compared} --num-agents 0", "--num-agents is 0; allowed"),
    ):
        assert cli.main(line.split()) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "run fedq paper-mdp --num-agents 3 --learning-rate 0.05 --seed 4 --metrics error_server",
        thorough(
            "run fedq random-mdp --env.num-states 7 --reward-noise 0.5 --uplink top-k --uplink.k 3"
        ),
        "sweep fedq paper-mdp --num-agents 1 2 --learning-rate-per-agent 0.01 --seeds 0 1",
        "sweep fedq paper-mdp --mixing None 0.5 --uplink full top-k --uplink.k 1 3",
        thorough(
            "run espc CartPole-v1 --network.hidden 4 4 --antithetic --num-agents 4 "
            "--target-senders 2"
        ),
        thorough("sweep es simple-grid --antithetic True False --uplink event-triggered"),
        "run afedpg dirichlet-mdp --scheduler asynchronous --clock.slow-factor 2",
        thorough(
            "run fedq paper-mdp --scheduler synchronous --clock.bandwidth inf --clock.latency 1"
        ),
        "compare fedq b=fedq paper-mdp --b.epsilon 1 --seeds 3 --uplink top-k --uplink.k 2",
        thorough("run fedppo CartPole-v1 --preset tuned --num-agents 2"),
    ],
)
def test_a_configuration_is_its_own_again(line, tmp_path):
    """A line -> config.json -> `run --config` -> the same config.json."""
    whole = config_of(line)
    file = tmp_path / "config.json"
    results.write_json(file, {"made_by": "fedjax_rl", **whole})
    assert config_of(["run", "--config", str(file)]) == whole
    longer = config_of(["run", f"--config={file}", "--num-steps", "77", "--record-every", "7"])
    assert longer == {**whole, "num_steps": 77, "record_every": 7}


def test_what_stands_beside_a_configuration_holds(tmp_path):
    file = tmp_path / "config.json"
    line = (
        "run fedq paper-mdp --learning-rate 0.05 --uplink top-k --uplink.k 3 --metrics error_server"
    )
    results.write_json(file, {"made_by": "fedjax_rl", **config_of(line)})
    # Back to the default, and another uplink.
    other = config_of(["run", "--config", str(file), "--learning-rate", "0.1", "--uplink", "full"])
    assert other["properties"] == {}
    assert other["uplink"] == {"name": "full"}
    grid = config_of(["sweep", "--config", str(file), "--seeds", "1", "2"])
    assert (grid["command"], grid["seeds"], grid["uplink"]["k"]) == ("sweep", [1, 2], 3)


def test_help_has_only_what_applies(capsys):
    line = ["run", "fedq", "paper-mdp", "--help"]
    shown = []
    for more in ([], ["--uplink", "top-k"], ["--scheduler", "asynchronous"]):
        assert cli.main([*line, *more]) == 0
        shown.append(capsys.readouterr().out.partition("show this help")[2])
    for word in ("--uplink.", "--clock.", "--env.", "--coordinator", "--preset"):
        assert word not in shown[0]
    assert "--uplink.k" in shown[1]
    assert "--uplink.threshold" not in shown[1]
    assert "--clock.latency" in shown[2]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_tables_fit_the_terminal(width, tmp_path, monkeypatch, capsys):
    """No line is wider than the terminal, and no number is broken in two."""
    ledger = {"communications": 123456, "bytes_up": 1e9, "env_steps": 1e6}
    final = {"final": {"mean": 0.123456, "low": 0.0123, "high": 0.2345}}
    rows = [
        {"num_agents": n, "sync_period": 10, "metrics": {"error_server": final, "gap": final}}
        for n in (1, 1000)
    ]
    summary = {
        "algorithm": "fedq",
        "environment": "paper-mdp",
        "command": "sweep",
        "seeds": 3,
        "rows": [{**row, "ledger": ledger} for row in rows],
        "diverged": [],
        "seconds": {"compile": 1.0, "run": 1.0},
    }
    monkeypatch.setenv("NO_COLOR", "1")
    text = io.StringIO()
    console = rich.console.Console(file=text, width=width, force_terminal=True)
    monkeypatch.setattr(tables, "_console", lambda: console)
    tables.report(summary, tmp_path)
    lines = text.getvalue().splitlines()
    # Of escape sequences there are none of colours.
    assert "\x1b[3" not in text.getvalue().replace("\x1b[3m", "")
    plain = [rich.text.Text.from_ansi(line).plain for line in lines]
    assert max(map(len, plain)) <= width
    joined = "\n".join(plain)
    assert joined.count("0.1235 [0.0123, 0.2345]") >= 2
    assert joined.count("1,000,000,000") == 2
    capsys.readouterr()
