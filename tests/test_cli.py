"""The command line: what it prints, what it writes, what it refuses, how it goes on."""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import PIL.Image
import pytest
import xarray as xr
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import analysis, cli, memory, studies
from fedjax_rl.algorithms import ALGORITHMS, Entry
from fedjax_rl.cli import (
    config,
    listing,
    named,
    option,
    options,
    overview,
    parse,
    picture,
    process,
    report,
    settings,
    tables,
    work,
)
from fedjax_rl.cli import study as study_command
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.saving import results

ROOT = pathlib.Path(__file__).parent.parent
FILES = {"config.json", "result.nc", "summary.json", "figure.png", "figure.svg", "checkpoints"}
SMALL = "--num-agents 2 --sync-period 5 --learning-rate 0.05 --num-steps 2000 --seed 7"
# The same program for all the little runs of this file.
RUN = ["run", "fedq", "paper-mdp", *SMALL.split()]

# Kills itself, as a power cut would, at a moment that a timer could not hit.
_KILLED = """
import os, signal, sys, threading
from fedjax_rl import cli
from fedjax_rl.saving import checkpoints, results
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
moment, saved, save = sys.argv[1], [], checkpoints.Checkpoints.maybe_save
def eager(self, *arguments):
    self._seconds = self._last = 0
    saved.append(0)
    if moment == "during" and len(saved) == 4:
        threading.Timer(0.004, die).start()
    save(self, *arguments)
    if len(saved) == 5 and moment == "during":
        die()
checkpoints.Checkpoints.maybe_save = eager
if moment == "after":
    write = results.save
    results.save = lambda *a: (write(*a), die())
cli.main(sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command line sets for its process is undone."""
    for name in ("XLA_FLAGS", "MPLBACKEND"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "whole"
    assert cli.main([*RUN, "--out", str(out)]) == 0
    return out


def _python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_process_prints_help_without_arguments():
    done = _python("-m", "fedjax_rl")
    assert done.returncode == 0
    for command in ("list", "run", "sweep", "reproduce", "resume", "doctor", "completion"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["run", "sweep", "reproduce", "resume", "doctor", "completion"])
def test_help_has_examples_and_defaults(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"fedjax-rl {command} " in text.partition("Examples")[2]
    if command in ("run", "sweep", "doctor"):
        assert "--learning-rate" in text
        assert "(default: 0.1)" in text


def test_version_and_completion(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedjax-rl ")
    for shell in options.SHELLS:
        assert cli.main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert "--sync-period" in text


def test_list_is_a_line_each(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert {line.split()[0] for line in lines} >= {*ALGORITHMS, "paper-mdp", "top-k", "afedpg"}
    assert "2206.10185" not in text
    assert cli.main(["list", "algoritms"]) == 2
    assert "did you mean algorithms?" in capsys.readouterr().err


def test_lines_of_a_list_are_cut_where_the_terminal_ends(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "user_cache", lambda: tmp_path)
    # Only standard output itself is a terminal, not what the list is kept in meanwhile.
    real = sys.stdout
    monkeypatch.setattr(overview, "width", lambda: 60 if sys.stdout is real else 10_000)
    for _ in range(2):  # made, then read
        assert cli.main(["list", "algorithms"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines[:-1])) == 60


def test_long_lists_name_everything(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["list", "--long"]) == 0
    text = capsys.readouterr().out
    for word in ("fedq", "2206.10185", "paper-mdp", "--env.num-states", "linear-speedup:fig4"):
        assert word in text
    assert "runs on: paper-mdp, random-mdp\n" in text
    assert "runs on: simple-grid, windy-grid, frozen-lake, grid-world, lqr" in text
    for word in ("gymnax/NAME", "brax/NAME", "ant (brax/ant)", "top-k", "--uplink.utility-model"):
        assert word in text
    assert "--uplink.utility," not in text
    # Kept from then on, until it is damaged.
    (path,) = (tmp_path / "fedjax_rl").iterdir()
    whole, makes = path.read_text(), []
    monkeypatch.setattr(cli.overview, "_show", lambda *_: print("new", end=makes.append("") or ""))
    for said, expected in ((whole, text), (whole.replace("fedq", "fedx"), "new"), ("{", "new")):
        path.write_text(said)
        assert cli.main(["list", "--long"]) == 0
        assert capsys.readouterr().out == expected
    assert len(makes) == 2


def test_doctor(capsys):
    counts = ["--num-agents", "1", "1000", "--seeds", "0", "1"]
    assert cli.main(["doctor", "fedq", "paper-mdp", *counts]) == 0
    text = capsys.readouterr().out
    assert "jaxlib" in text
    assert "XLA_FLAGS" in text
    assert "4 federations, 2,002 agents" in text
    assert re.search(r"for (2 populations|1 population) at a time", text)
    # 54 bytes of state and parameters of an agent are there twice, before a chunk and after it.
    assert 100 < float(re.search(r"([\d,.]+) bytes an agent", text)[1].replace(",", "")) < 1000


def test_doctor_of_a_comparison_is_what_its_algorithms_need(capsys):
    few = ["--num-agents", "5", "--num-steps", "20", "--seeds", "0", "1"]
    found = {}
    for line in (["compare", "fedq", "slow=fedq", "paper-mdp"], ["fedq", "paper-mdp"]):
        assert cli.main(["doctor", *line, *few]) == 0
        text = capsys.readouterr().out
        found[line[0]] = [
            int(n) for n in re.search(r"(\d+) federations, (\d+) agents", text).groups()
        ]
        found[line[0]].append(re.search(r"([\d.]+) bytes an agent", text)[1])
    assert found == {"compare": [4, 20, found["fedq"][2]], "fedq": [2, 10, found["fedq"][2]]}


def test_doctor_says_when_a_run_does_not_fit(capsys, monkeypatch):
    """What a program takes is measured, the process itself counts too, and the exit code tells."""
    line = ["doctor", "fedq", "paper-mdp", "--num-agents", "1000", "--seeds", "0", "1", "2", "3"]
    own = memory.resident()
    assert own > 100 * 2**20
    for there, code, words in ((2**34, 0, "available: fits"), (2**10, 2, "does not fit")):
        monkeypatch.setattr(memory, "available", lambda devices=None, there=there: there + 2**19)
        assert cli.main(line) == code
        assert words in capsys.readouterr().out
    monkeypatch.setattr(memory, "available", lambda devices=None: 100)
    assert cli.main(line) == 2
    assert "--num-agents is 1000, which needs at least 250 KiB" in capsys.readouterr().err


@pytest.mark.thorough
def test_doctor_of_episodes(capsys):
    few = ["--num-agents", "4", "6", "--network.hidden", "4", "4", "--antithetic", "--evaluate"]
    assert cli.main(["doctor", "espc", *few, "--target-senders", "2", "3"]) == 0
    assert "4 federations, 20 agents" in capsys.readouterr().out
    refused = ["doctor", "fedq", "--uplink", "top-k", "--uplink.k", "13"]
    assert cli.main(refused) == 2
    assert "--uplink.k is 13 with messages of 12 numbers" in capsys.readouterr().err


def test_doctor_of_networks(capsys):
    assert cli.main(["doctor", "fedppo", "CartPole-v1", "--num-agents", "3"]) == 0
    text = capsys.readouterr().out
    assert "for the largest federation: parameters" in text
    # The towers take 9.1 thousand multiplications; 300 epochs of 2048 samples, each at most once
    # forward to act and once to value what follows, and about three times to learn.
    operations = float(re.search(r"at most ([\d.,]+) GFLOP", text)[1].replace(",", ""))
    assert operations == pytest.approx(3 * 300 * 2048 * 2 * 9.1e3 * (2 + 3) / 1e9, rel=0.1)
    # Three agents learn in turn from eight minibatches each, after 128 steps of a rollout and as
    # many back through them for the advantages.
    turns = re.search(r"([\d.,]+) updates one after the other in the longest run", text)[1]
    assert float(turns.replace(",", "")) == pytest.approx(300 * (3 * 8 + 2 * 128))


@pytest.mark.thorough
def test_doctor_of_a_study(capsys):
    assert cli.main(["doctor", "linear-speedup:8-13", "--scale", "paper"]) == 0
    text = capsys.readouterr().out
    assert "9 federations, 42 agents" in text  # of one K
    # 3999 epochs of 16,384 frames with 61 million operations forward and three times as many to
    # learn; at most, because every epoch counts a rollout.
    operations = float(re.search(r"at most ([\d,.]+) GFLOP", text)[1].replace(",", ""))
    assert operations == pytest.approx(42 * 3999 * 16384 * 61.2e6 * (1 + 3) / 1e9, rel=0.1)
    assert cli.main(["doctor", "linear-speedup:fig1"]) == 0
    assert "nothing" in capsys.readouterr().out
    assert cli.main(["doctor", "linear-speedup:fig99"]) == 2
    assert "'fig99' is no figure" in capsys.readouterr().err


def test_run_says_how_it_goes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(report.time, "perf_counter", lambda: now[0])
    said = report._Watched(["return", "simulated_time"])
    now[0] = 2.0
    values = {"return": 1.5, "env_steps": 4000.0, "bytes_up": 1e6, "bytes_down": 2e6}
    assert said.words(values, pictured=True) == (
        "return 1.5 ▁, 2e+03 environment steps/s, 3 MB sent"
    )
    now[0] = 3.0
    later = {"return": 3.0, "simulated_time": 7.0, "env_steps": 4000.0}
    assert said.words(later, pictured=True) == "return 3 ▁█, simulated time 7"
    assert said.words({"return": np.nan}, pictured=True) == "return nan ▁█ "


def test_run_writes_one_directory(finished):
    assert {p.name for p in finished.iterdir()} == FILES
    result = frl.load(finished)
    again = frl.sweep(
        frl.fedq(frl.envs.paper_mdp(), learning_rate=0.05, sync_period=5),
        num_agents=2,
        seeds=7,
        num_steps=2000,
    )
    np.testing.assert_array_equal(result["error_server"], again["error_server"])
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["diverged"] == []
    assert set(summary["seconds"]) == {"compile", "run"}
    assert summary["ledger"]["communications"] == 400
    final = summary["rows"][0]["metrics"]["error_server"]["final"]
    assert final == {"mean": float(result["error_server"][-1]), "low": None, "high": None}


def test_resuming_what_is_finished_changes_nothing(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert cli.main(["resume", str(finished)]) == 0
    assert "finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


@pytest.mark.thorough
def test_killed_and_resumed_gives_the_same_bytes(finished, tmp_path, capsys):
    out = tmp_path / "killed"
    first = [*RUN, "--out", str(out)]
    for moment, command in (("during", first), ("after", ["resume", str(out)])):
        done = _python("-c", _KILLED, moment, *command)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (out / "figure.png").exists()
    assert any((out / "checkpoints" / "job-0000").iterdir())
    (out / ".figure.png.abcdefgh").touch()
    assert cli.main(["resume", str(out)]) == 0
    capsys.readouterr()
    assert {p.name for p in out.iterdir()} == FILES
    for name in ("result.nc", "figure.png", "figure.svg"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_killed_while_the_directory_was_claimed(tmp_path, capsys):
    out = tmp_path / "claimed"
    out.mkdir()
    (out / ".config.json.abcdefgh").touch()
    assert cli.main(["resume", str(out)]) == 2
    assert "give the command itself again" in capsys.readouterr().err
    assert cli.main([*RUN, "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run fedq paper-mdp --num-agents 0", "--num-agents is 0; allowed: a whole number"),
        ("run fedq paper-mdp --num-agents two", "--num-agents is two; allowed: INT"),
        ("run fedq paper-mdp --num-agnts 2", "did you mean --num-agents"),
        ("run fedq paper-mdp --sync-period 0", "--sync-period is 0; allowed: a whole number"),
        ("run fedq paper-mdp --seed 4294967296", "--seed is 4294967296; allowed: whole numbers"),
        ("sweep fedq paper-mdp --seeds 1 1", "--seeds is [1, 1], which repeats some"),
        ("run fedq paper-mdp --num-steps 0", "--num-steps is 0; allowed: a whole number"),
        ("run fedq paper-mdp --record-every 0", "--record-every is 0; allowed"),
        ("run fedq paper-mdp --learning-rate 1.5", "--learning-rate is 1.5; allowed: in (0, 1]"),
        ("run fedq paper-mdp --learning-rate 0", "--learning-rate is 0.0; allowed: in (0, 1]"),
        ("run fedq paper-mdp --discount 1", "--discount is 1; allowed: in [0, 1)"),
        ("run fedq random-mdp --env.discount 1", "--env.discount is 1.0"),
        ("run fedq random-mdp --env.num-states 0", "--env.num-states is 0"),
        ("run fedq paper-mdp --env.num-states 5", "--env.num-states, 5"),
        ("run fedq paper-mdp --behaviour softmx", "did you mean softmax"),
        ("run fedq paper-mdp --metrics error_servr", "did you mean error_server"),
        ("run fedq paper-mdp --devices 99", "--devices is 99; allowed: whole numbers from 1"),
        ("run fdq paper-mdp", "did you mean fedq"),
        ("run fedq paper-mpd", "did you mean paper-mdp"),
        ("run es paper-mdp", "environment is paper-mdp; allowed with es: simple-grid, windy-grid"),
        ("run fedq ant", "environment is ant; allowed with fedq: paper-mdp, random-mdp"),
        ("run es CartPole-v2", "did you mean CartPole-v1"),
        ("run es gymnax/CartPole", "did you mean CartPole-v1"),
        ("run es brax/ant --env.backend warp", "--env.backend is 'warp'"),
        ("run espc simple-grid --num-agents 50 --target-senders 51", "is 51 with num_agents 50"),
        ("run espc simple-grid --target-senders 2.5", "is 2.5; allowed: a whole number"),
        ("run es simple-grid --network.hidden two", "--network.hidden is two; allowed: INT"),
        ("run es simple-grid --antithetic --num-agents 3", "--num-agents is 3 with antithetic"),
        ("run es simple-grid --env.size 1", "--env.size is 1; allowed"),
        ("run fedq paper-mdp --uplink topk", "did you mean top-k"),
        ("run fedq paper-mdp --uplink top-k", "--uplink.k is missing; top-k needs it"),
        ("run fedq paper-mdp --uplink top-k --uplink.k 0", "--uplink.k is 0; allowed: a whole"),
        ("run fedq paper-mdp --uplink top-k --uplink.k 13", "--uplink.k is 13 with messages of 12"),
        ("run fedq paper-mdp --uplink top-k --uplink.kk 3", "did you mean --uplink.k"),
        ("run fedq paper-mdp --uplink.k 3", "--uplink.k is 3; allowed with --uplink top-k"),
        (
            "run es ant --uplink probabilistic --uplink.target 2 --uplink.utility-model gaus",
            "did you mean gaussian",
        ),
        ("sweep fedq paper-mdp --uplink top-k --uplink.k 1 0", "--uplink.k is 0; allowed: a whole"),
        ("run fedq paper-mdp --scheduler asynchronus", "did you mean asynchronous"),
        ("run fedq paper-mdp --clock.latency 2", "--clock.latency is 2.0; allowed with"),
        ("run afedpg dirichlet-mdp --clock.compute-time 0", "--clock.compute-time is 0.0; allowed"),
        (
            "run fedq paper-mdp --scheduler semi-synchronous --clock.wait-for 5",
            "--clock.wait-for is 5 for num_agents 4; allowed: 1 to 4",
        ),
        ("run afedpg brax/swimmer --env.backend spring", "--env.backend is 'spring' for swimmer"),
        ("sweep fedq paper-mdp --num-agents 1 0", "--num-agents is 0"),
        (
            "sweep fedq paper-mdp --num-agents 64 --learning-rate-per-agent 1",
            "--learning-rate at num_agents 64",
        ),
        ("sweep fedq paper-mdp --learning-rate-per-agent -1", "--learning-rate-per-agent is -1"),
        ("reproduce linear-speedup:8-14", "'fig14' is no figure of linear-speedup"),
        ("run fedppo CartPole-v1 --minibatches 3", "--minibatches is 3"),
        ("run fedppo BigFish --env.mode medium", "'medium' is no mode. Known: easy, hard"),
        ("reproduce linear-speedu", "did you mean linear-speedup"),
        ("reproduce linear-speedup:fig99", "figure of linear-speedup"),
        ("reproduce linear-speedup:9-4", "'9-4' is no figure of linear-speedup"),
        ("reproduce linear-speedup:1-999999999999", "is no figure of linear-speedup"),
        ("rum fedq paper-mdp", "'rum' is no command; did you mean run"),
        ("reproduce linear-speedup --preset papr", "did you mean paper"),
        ("reproduce linear-speedup --scale huge", "huge"),
    ],
)
def test_refused_in_one_line_and_nothing_written(arguments, words, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert cli.main([*arguments.split(), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("play Pong", "'Pong' is no environment to play"),
        ("play BigFish --policy nothing", "policy is nothing; allowed: random, noop"),
        ("play BigFish --num-steps 0", "--num-steps is 0; allowed: a whole number of at least 1"),
        ("play BigFish --out fish.mp3", "--out is fish.mp3; allowed: a name that ends in .gif"),
        ("validate pong", "'pong' is no game"),
        ("validate bigfish --reference nowhere.json", "nowhere.json"),
    ],
)
def test_games_are_refused_in_one_line(line, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_a_game_is_played_into_a_moving_picture(tmp_path, capsys):
    out = tmp_path / "fish.gif"
    assert (
        cli.main(["play", "bigfish", "--policy", "circle", "--num-steps", "5", "--out", str(out)])
        == 0
    )
    assert "saved" in capsys.readouterr().out
    with PIL.Image.open(out) as picture:
        assert picture.n_frames == 6
        assert picture.size == (320, 320)


def test_commands_and_directories_that_are_not_known(tmp_path, capsys):
    assert cli.main(["rum"]) == 2
    assert "run" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path / "nowhere")]) == 2
    assert "not there" in capsys.readouterr().err
    (tmp_path / "thesis.tex").write_text("mine")
    assert cli.main([*RUN, "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_that_holds_a_run_is_left_alone(finished, capsys):
    before = (finished / "result.nc").stat().st_mtime_ns
    assert cli.main([*RUN, "--out", str(finished)]) == 2
    assert f"fedjax-rl resume {finished}" in capsys.readouterr().err
    assert (finished / "result.nc").stat().st_mtime_ns == before


def test_two_processes_do_not_share_a_directory(finished, tmp_path, capsys):
    results.claim(tmp_path / "o", {**results.read_config(finished)})
    with process.held(tmp_path / "o"):
        assert cli.main(["resume", str(tmp_path / "o")]) == 2
    assert "another process" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "summary.json", "result.nc"])
def test_full_disk(name, tmp_path, capsys, monkeypatch):
    replace = os.replace

    def full(source, target):
        if pathlib.Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    out = tmp_path / "out"
    monkeypatch.setattr(os, "replace", full)
    assert cli.main([*RUN, "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot write {out / name}: No space left on device" in error
    if name == "config.json":
        assert not out.exists()
        return
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    monkeypatch.undo()
    assert cli.main(["resume", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES


def test_a_period_longer_than_the_run_is_a_warning(tmp_path, capsys):
    arguments = [*RUN, "--sync-period", "5000", "--out", str(tmp_path / "o")]
    assert cli.main(arguments) == 0
    assert "warning: sync_period is 5000" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_and_says_how_to_go_on(
    finished, tmp_path, capsys, monkeypatch, hears_signals, name, code
):
    """What is saved is the state at the signal, not that of the last checkpoint before it."""
    out, done = tmp_path / "o", []
    advance = report.live

    @contextlib.contextmanager
    def live(*arguments):
        with advance(*arguments) as (progress, watch):

            def report_(at, total):
                progress(at, total)
                done.append(at)
                if len(done) == 7:
                    os.kill(os.getpid(), getattr(signal, name))
                    time.sleep(0.2)  # the signal is another thread's business

            yield report_, watch

    monkeypatch.setattr(work, "live", live)
    assert cli.main([*RUN, "--out", str(out)]) == code
    assert f"`fedjax-rl resume {out}` goes on" in capsys.readouterr().err
    steps = [int(p.name) for p in (out / "checkpoints" / "job-0000").iterdir()]
    # Of two agents, with a record every 20 steps.
    assert max(steps) * 40 == done[-1] < 4000
    monkeypatch.undo()
    assert cli.main(["resume", str(out)]) == 0
    assert (out / "result.nc").read_bytes() == (finished / "result.nc").read_bytes()


JUNK = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "junk": lambda data: b"\0junk" * 9,
    "another record": lambda data: b"{}",
}


@pytest.mark.parametrize("name", ["config.json", "summary.json", "result.nc", "figure.png"])
@pytest.mark.parametrize("damage", JUNK)
def test_junk_is_mended_and_never_finished(finished, tmp_path, capsys, name, damage):
    out = shutil.copytree(finished, tmp_path / "o")
    (out / name).write_bytes(JUNK[damage]((out / name).read_bytes()))
    assert cli.main(["resume", str(out)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    for whole in ("config.json", "result.nc", "figure.png"):
        assert (out / whole).read_bytes() == (finished / whole).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"properties": {"learning_rate": 0.5}}, "properties is {'learning_rate': 0.5}, there {"),
        ({"num_steps": 4000}, "num_steps is 4000, there 2000"),
        ({"seeds": 8}, "seeds is 8, there 7"),
    ],
)
def test_an_edited_configuration_is_refused_by_name(finished, tmp_path, capsys, changes, words):
    out = shutil.copytree(finished, tmp_path / "o")
    saved = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**saved, **changes}))
    assert cli.main(["resume", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "allowed: as it was, or a new directory" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": "rum"}, "command 'rum'; allowed: run, sweep, compare"),
        ({"num_steps": "abc"}, "num_steps 'abc'; allowed: a whole number of at least 1"),
        ({"num_agents": []}, "num_agents []; allowed"),
        ({"seeds": None}, "seeds None; allowed"),
        ({"properties": 3}, "properties 3; allowed: a record"),
        ({"properties": {"learnin_rate": 1}}, "did you mean learning_rate"),
        ({"environment_options": {"x": 1}}, "'x' is no option of paper-mdp"),
        ({"algorithm": "fedz"}, "did you mean fedq"),
        ({"uplink": "abc"}, "uplink 'abc'; allowed: null, or records with a name"),
        ({"uplink": {"name": "top-k"}}, "top-k needs k"),
        ({"uplink": {"name": "top-k", "k": [1]}}, "records with a name and single values"),
        ({"clock": {}}, "clock {}; allowed"),
        ({"metrics": "reward"}, "metrics 'reward'; allowed: null, or a list of words"),
        ({"devices": None}, "devices None; allowed"),
        ({"precision": "half"}, "precision 'half'; allowed: float32, float64"),
    ],
)
def test_a_configuration_by_hand_is_looked_at(finished, tmp_path, capsys, changes, words):
    config = {**results.read_config(finished), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli.main(["resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_configuration_without_a_copy_is_no_dead_end(finished, tmp_path, capsys):
    out = shutil.copytree(finished, tmp_path / "o")
    for name in ("config.json", "checkpoints/config.json"):
        (out / name).write_text("")
    assert cli.main(["resume", str(out)]) == 2
    assert "allowed: config.json as it was, or remove the directory" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_run_goes_on_in_the_precision_it_was_begun_in(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    jax.config.update("jax_enable_x64", True)
    try:
        assert cli.main([*RUN, "--out", str(tmp_path / "whole")]) == 0
        monkeypatch.setattr(sys.modules["fedjax_rl.sweeps.batches"], "execute_all", interrupted)
        assert cli.main([*RUN, "--out", str(tmp_path / "stopped")]) == 130
    finally:
        jax.config.update("jax_enable_x64", False)
    monkeypatch.undo()
    assert cli.main(["resume", str(tmp_path / "stopped")]) == 0
    assert frl.load(tmp_path / "stopped")["error_server"].dtype == np.float64
    one, two = ((tmp_path / name / "result.nc").read_bytes() for name in ("whole", "stopped"))
    assert one == two


def test_home_is_one_place(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, "--out=~/x"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "result.nc").read_bytes() == (finished / "result.nc").read_bytes()


def test_of_two_that_claim_a_directory_the_loser_leaves_nothing(tmp_path):
    """Whoever gets it, what is there is the winner's."""
    for trial in range(20):
        out, barrier, won, lost = tmp_path / str(trial), threading.Barrier(4), [], []

        def claim(place, out=out, barrier=barrier, won=won, lost=lost):
            barrier.wait()
            try:
                results.claim(out, {"command": "run", "place": place})
                won.append(place)
            except ValueError as error:
                lost.append(str(error))

        threads = [threading.Thread(target=claim, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert all("another process" in words or "already holds" in words for words in lost)
        assert results.read_config(out)["place"] == won[0]


@pytest.mark.thorough
def test_damaged_directories_end_with_the_same_bits(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    torture = importlib.import_module("torture")
    assert torture.main(["damage", "--times", "4"]) == 0
    assert "of 4 cases 0 are wrong" in capsys.readouterr().out


@pytest.mark.thorough
def test_killed_commands_end_with_the_same_bits(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    torture = importlib.import_module("torture")
    assert torture.main(["kill", "--times", "6"]) == 0
    assert "are wrong" in capsys.readouterr().out


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="num_agents is 0"):
        cli.main(["run", "fedq", "paper-mdp", "--num-agents", "0", "--debug"])


def test_words_of_time_are_the_algorithms(capsys, monkeypatch):
    fedq = frl.fedq(frl.envs.paper_mdp())
    other = dataclasses.replace(fedq, unit="generation")
    monkeypatch.setattr(options, "DURATIONS", {"generation": 20})
    entry = Entry(lambda mdp: other, ("mdp",))
    monkeypatch.setattr("fedjax_rl.algorithms.ALGORITHMS", {"fedq": entry})
    assert cli.main(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "T, generations of every agent. (default: 20)" in text
    assert "Generations between records" in text


def test_headline_is_the_first_metric_of_federations():
    fedq = frl.fedq(frl.envs.paper_mdp())
    assert fedq.headline == "error_server"
    agents_first = {"own": ("agent", ""), "all": ("federation", ""), "more": ("federation", "")}
    assert dataclasses.replace(fedq, headline=None, metrics=agents_first).headline == "all"


def test_help_of_an_algorithm_has_what_fits_and_imports_no_simulator():
    look = "import sys; from fedjax_rl import cli; cli.main(sys.argv[1:]); "
    look += "assert not {'gymnax', 'brax'} & set(sys.modules)"
    done = _python("-c", look, "run", "espc", "brax/anything", "--help")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for word in (
        "T, episodes of every agent. (default: 1000)",
        "--network.hidden INT ...",
        "(default: 8 8)",
        "--antithetic, --no-antithetic",
        "--target-senders",
        "--env.backend",
    ):
        assert word in text
    assert "paper-mdp" not in text.partition("positional arguments")[2]
    for word in ("--env.size", "--policy-", "--task"):
        assert word not in text


def test_types_of_options():
    kinds = {s.name: s.kind for s in settings.settings(named.algorithm("espc"))}
    assert kinds["sigma"] is float
    assert kinds["antithetic"] is bool
    assert kinds["network.hidden"] == tuple[int, ...]
    assert kinds["utility"] == str | None
    assert "task" not in kinds
    assert not {"mdp", "uplink", "policy", "weights", "server_optimizer", "derivative"} & {
        s.name for s in settings.settings(named.algorithm("fedq"))
    }
    of_lazy = {s.name: s.kind for s in settings.uplink_options("lazy")}
    assert of_lazy == {"weight": float, "depth": int, "variance": float, "step": float | None}


def test_switches_of_a_grid_need_no_value():
    line = ["sweep", "fedq", "paper-mdp", "--uplink", "event-triggered"]
    command = dataclasses.make_dataclass("sweep", options.of_command("sweep", line))
    typed = [*line, "--uplink.reset", "--uplink.no-below", "--seeds", "1"]
    done = option.spelled_out(typed, command)
    assert done[5:] == ["--uplink.reset", "True", "--uplink.below", "False", "--seeds", "1"]


def test_run_of_episodes(tmp_path, capsys):
    out = tmp_path / "o"
    line = (
        "run es simple-grid --evaluate --num-agents 4 --num-steps 5 --network.hidden 4 --antithetic"
    )
    silence = ["--uplink", "event-triggered", "--uplink.threshold", "inf"]
    assert cli.main([*line.split(), *silence, "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    assert "es on simple-grid" in printed
    assert "non_finite" not in printed
    saved = results.read_config(out)
    assert saved["properties"]["network.hidden"] == [4]
    assert saved["uplink"]["threshold"] == "inf"
    again = config.algorithm_of(saved)
    assert again.config.network.hidden == (4,)
    assert again.config.uplink.parameters["threshold"] == np.inf
    result = frl.load(out)
    assert result["frequency"].values.tolist() == [0.0] * 5
    assert result["reward_of_model"].notnull().all()
    figure = picture.picture(result, again, None)
    assert len(figure.axes) == 3
    assert len(picture.picture(result, again, ["frequency", "bytes"]).axes) == 1


def test_run_without_exact_objective(tmp_path, capsys):
    """On a table the headline of a policy gradient is the gap, elsewhere the return."""
    out = tmp_path / "o"
    line = "run fedpg simple-grid --num-agents 2 --num-steps 2 --local-steps 1"
    assert cli.main([*line.split(), "--evaluation-episodes", "2", "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    assert frl.load(out)["return"].notnull().all()
    assert "fedpg on simple-grid" in capsys.readouterr().out


def test_run_of_averaging(tmp_path, capsys):
    """Its headline is one of its own metrics."""
    out = tmp_path / "o"
    line = "run qavg dirichlet-mdps --num-agents 2 --num-steps 2"
    assert cli.main([*line.split(), "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    assert "qavg on dirichlet-mdps" in capsys.readouterr().out


@pytest.mark.thorough
def test_an_interrupted_run_of_episodes_goes_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "o"
    line = "run espc CartPole-v1 --num-agents 6 --target-senders 3 --num-steps 3"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fedjax_rl.sweeps.batches"], "execute_all", interrupted)
        assert cli.main([*line.split(), "--metrics", "reward", "--out", str(out)]) == 130
    assert cli.main(["resume", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    task = frl.envs.registry.make("CartPole-v1")
    recorded = ["reward", "non_finite"]  # the same program
    again = frl.sweep(frl.espc(task, target_senders=3), num_agents=6, num_steps=3, metrics=recorded)
    np.testing.assert_array_equal(frl.load(out)["reward"], again["reward"])
    assert "non_finite" in frl.load(out)
    assert cli.main(["resume", str(out)]) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.thorough
def test_sweep_over_uplinks(tmp_path, capsys):
    out = tmp_path / "o"
    line = "sweep fedq paper-mdp --num-agents 2 --num-steps 50 --sync-period 5 --uplink full top-k"
    assert cli.main([*line.split(), "--uplink.k", "1", "3", "--out", str(out)]) == 0
    result = frl.load(out)
    known = [uplinks.full(), uplinks.top_k(1), uplinks.top_k(3)]
    assert result["uplink"].values.tolist() == [str(one) for one in known]
    # 10 exchanges of 2 agents: 12 numbers, or k numbers and their places.
    assert result["bytes_up"].values.tolist() == [10 * 2 * 4 * n for n in (12, 2, 6)]
    again = config.lists_of(results.read_config(out))["uplink"]
    assert [one.config for one in again] == [one.config for one in known]
    assert "top-k" in capsys.readouterr().out
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert rows[1]["uplink"] == str(known[1])


def test_run_on_a_clock(tmp_path, capsys):
    line = "run afedpg dirichlet-mdp --num-agents 3 --num-steps 20 --scheduler asynchronous"
    out = tmp_path / "o"
    assert cli.main([*line.split(), "--clock.slow-factor", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "simulated time" in printed.err
    assert "staleness" in printed.err
    saved = results.read_config(out)
    assert saved["clock"] == {"scheduler": "asynchronous", "slow_factor": 2.0}
    made = config.algorithm_of(saved).config.clock
    assert (made.scheduler, made.slow_factor) == ("asynchronous", 2.0)
    row = json.loads((out / "summary.json").read_text())["rows"][0]
    assert row["metrics"]["simulated_time"]["final"]["mean"] == pytest.approx(7)
    assert row["ledger"]["messages_up"] == 20


def test_grid_of_clocks():
    line = "sweep fedq paper-mdp --scheduler synchronous semi-synchronous --clock.wait-for 2"
    saved = config.config_of(parse.read([*line.split(), "--clock.sigma", "0.1", "0.2"])[1])
    assert saved["clock"] == [
        {"scheduler": "synchronous", "sigma": 0.1},
        {"scheduler": "synchronous", "sigma": 0.2},
        {"scheduler": "semi-synchronous", "wait_for": 2, "sigma": 0.1},
        {"scheduler": "semi-synchronous", "wait_for": 2, "sigma": 0.2},
    ]
    assert config.first_of(saved).unit == "update"
    labels = [str(one) for one in config.lists_of(saved)["clock"]]
    assert labels[2] == "semi-synchronous (wait_for 2, sigma 0.1)"


def test_run_with_an_uplink(tmp_path):
    line = [*RUN, "--num-steps", "50", "--uplink", "top-k", "--uplink.k", "3"]
    assert cli.main([*line, "--uplink.no-feedback", "--out", str(tmp_path / "o")]) == 0
    saved = results.read_config(tmp_path / "o")
    assert saved["uplink"] == {"name": "top-k", "k": 3, "feedback": False}
    made = config.algorithm_of(saved).config.uplink
    assert made.config == uplinks.top_k(3, feedback=False).config
    assert frl.load(tmp_path / "o")["bytes_up"] == 10 * 2 * 4 * 6


def test_pictures_of_grids_of_episodes():
    times = ("time", np.arange(3))
    shape = (("num_agents", "window", "seed", "time"), np.ones((2, 2, 3, 3)))
    result = xr.Dataset(
        {"reward": shape, "frequency": shape, "size": shape},
        {"time": times, "num_agents": [2, 4], "window": [1, 5]},
    )
    es = named.algorithm("es")
    figure = picture.picture(result, es, None)
    assert len(figure.axes) == 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["N = 2, window = 1", "N = 2, window = 5"]
    near = xr.concat([result.assign_coords(window=[0.1, 0.1 + w]) for w in (1e-8,)], "window")
    figure = picture.picture(near.isel(num_agents=0, drop=True), es, None)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["window = 0.1", "window = 0.10000001"]
    many = xr.concat([result.assign_coords(num_agents=[n, n + 1]) for n in (2, 6, 8)], "num_agents")
    assert len(picture.picture(many, es, None).axes) == 1


def test_episodes_without_a_finite_return_are_a_warning(tmp_path, capsys):
    final = {"final": {"mean": 1.0, "low": None, "high": None}}
    ledger = {"communications": 1, "bytes_up": 4}
    summary = {
        "algorithm": "es",
        "environment": "brax/ant",
        "rows": [{"metrics": {"reward": final, "non_finite": final}, "ledger": ledger}],
        "diverged": [],
        "non_finite": 7,
        "seconds": {"compile": 1.0, "run": 1.0},
    }
    tables.report(summary, tmp_path)
    printed = capsys.readouterr()
    assert "7 episodes had a return that is not finite; they counted as 0" in printed.err
    assert "non_finite" not in printed.out


def test_sweep_and_its_summary(tmp_path, capsys):
    out = tmp_path / "grid"
    arguments = "--num-agents 1 2 --sync-period 1 10 --learning-rate-per-agent 0.05 --seeds 0 1 2"
    common = ["--num-steps", "500", "--out", str(out)]
    assert cli.main(["sweep", "fedq", "paper-mdp", *arguments.split(), *common]) == 0
    result = frl.load(out)
    assert dict(result["error_server"].sizes) == {
        "num_agents": 2,
        "sync_period": 2,
        "seed": 3,
        "time": 100,
    }
    np.testing.assert_allclose(result["learning_rate"], [0.05, 0.1])
    rows = json.loads((out / "summary.json").read_text())["rows"]
    assert [(r["num_agents"], r["sync_period"]) for r in rows] == [(1, 1), (1, 10), (2, 1), (2, 10)]
    final = rows[2]["metrics"]["error_server"]["final"]
    values = result["error_server"].sel(num_agents=2, sync_period=1).isel(time=-1).astype(float)
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    np.testing.assert_allclose(final["mean"], values.mean(), rtol=1e-6)
    np.testing.assert_allclose([final["low"], final["high"]], expected, rtol=1e-6)
    printed = capsys.readouterr().out
    assert "num_agents" in printed
    assert "mean of 3 seeds [95 % Student t interval]" in printed


def summary_of(reward, **coordinates):
    """The metric of the first row of a summary of runs with these rewards, [seed, time, ...]."""
    dims = ("seed", "time", "agent")[: reward.ndim]
    costs = {name: ("seed", np.zeros(len(reward))) for name in COLUMNS}
    result = xr.Dataset(
        {"reward": (dims, reward), "diverged": ("seed", np.zeros(len(reward), bool)), **costs},
        {"seed": range(len(reward)), "time": range(reward.shape[1]), **coordinates},
        {"seconds": json.dumps({"compile": 0, "run": 0})},
    )
    config = dict.fromkeys(("command", "algorithm", "environment", "environment_options"), "x")
    return report.summarise({**config, "num_steps": 1}, result)


def test_two_runs_have_no_interval(tmp_path, capsys):
    summary = summary_of(np.array([[0.0, 1.0], [0.0, 3.0]]))
    assert summary["rows"][0]["metrics"]["reward"]["final"] == {
        "mean": 2.0,
        "low": None,
        "high": None,
    }
    assert "fewer than 3" in summary["interval"]
    assert report.FEWEST == analysis.FEWEST
    tables.report(summary, tmp_path)
    assert "mean of 2 runs, too few for an interval" in capsys.readouterr().out


def test_rows_of_a_table_are_told_apart(tmp_path, capsys):
    summary = summary_of(np.ones((3, 2)), learning_rate=0.1)
    row = summary["rows"][0]
    summary["rows"] = [row, {**row, "learning_rate": 0.10000001}]
    tables.report(summary, tmp_path)
    printed = capsys.readouterr().out
    assert "0.1 " in printed
    assert "0.10000001 " in printed


def test_what_broke_is_not_skipped_in_a_summary():
    reward = np.ones((3, 11))
    reward[1, 9:] = np.nan
    broken = summary_of(reward)["rows"][0]["metrics"]["reward"]
    assert broken["final"]["mean"] is broken["second_half"]["mean"] is None
    # Agents past N are padding; an agent inside that broke is not.
    padded = np.ones((3, 4, 3))
    padded[:, :, 2] = np.nan
    whole = summary_of(padded, num_agents=2)["rows"][0]["metrics"]["reward"]
    assert whole["final"]["mean"] == whole["second_half"]["mean"] == 1
    padded[0, -1, 1] = np.nan
    broken = summary_of(padded, num_agents=2)["rows"][0]["metrics"]["reward"]
    assert broken["final"]["mean"] is None


def test_rows_have_what_their_configuration_has(tmp_path, capsys):
    """A metric that one configuration lacks, and None as a value on an axis of numbers."""
    line = "sweep fedq paper-mdp --mixing None 0.5 --num-steps 4"
    saved = config.config_of(parse.read(line.split())[1])
    one = config.algorithm_of(saved)
    result = frl.sweep(one, num_agents=4, num_steps=4, **config.lists_of(saved))
    only = np.where([[True], [False]], 1.0, np.nan) * np.ones((2, 4))
    result["only_here"] = ("mixing", "time"), only
    summary = report.summarise(saved, result)
    json.dumps(summary, allow_nan=False)
    assert [row["mixing"] for row in summary["rows"]] == [None, 0.5]
    assert ["only_here" in row["metrics"] for row in summary["rows"]] == [True, False]
    tables.report(summary, tmp_path)
    assert "only_here" in capsys.readouterr().out


def test_federations_that_diverge_are_named(tmp_path, capsys):
    start = ["--initial-q", "1e30", "--out", str(tmp_path / "o")]
    assert cli.main(["sweep", *RUN[1:-2], "--seeds", "0", "3", *start]) == 0
    printed = capsys.readouterr()
    assert "diverged: num_agents 2, seed 3" in printed.out
    assert len(json.loads((tmp_path / "o" / "summary.json").read_text())["diverged"]) == 2


def _fake(fail=()):
    targets = [
        ("T1", 1.0, 1.1, 1.0, 1.2, [0.9, 1.3], "reproduced"),
        ("T2", "falls", None, None, None, [None, 0.1], "not run"),
        ("T3", [1, 2], [1.5, 2.5], [1, 2], [2, 3], [[0, 1], [1, None]], "not reproduced"),
        ("T4", None, 0.5, -1.0, 2.0, [0, None], "undecided"),
    ]
    names = ("id", "published", "measured", "low", "high", "band", "verdict")
    more = {
        "T2": {"command": "fedjax-rl reproduce fake:fig2 --scale paper", "cost": 9000},
        "T3": {"why": "the step is too long", "reference": 1.75, "runs": 12},
        "T4": {"note": "about 70 runs would decide"},
    }

    def run(directory, figures, scale, preset, progress, devices):
        assert devices == 1
        if fail:
            raise fail.pop()
        progress(1, 2)
        summary = {
            "study": "fake",
            "scale": scale,
            "preset": preset,
            "targets": [
                {
                    **dict(zip(names, t, strict=True)),
                    **{"figure": figures[0], "quantity": "slope"},
                    **more.get(t[0], {}),
                }
                for t in targets
            ],
        }
        (directory / "fig1.png").touch()
        return results.write_sealed(directory / "summary.json", summary)

    figures = [studies.figure(name, "nothing")(lambda size: iter(())) for name in ("fig1", "fig2")]
    fake = studies.Study("fake", "Nobody (2000)", figures, studies.scales(trials=(1, 1, 1)))
    fake.run = run
    return fake


def test_reproduce_and_resume(tmp_path, capsys, monkeypatch):
    fake = _fake(fail=[KeyboardInterrupt()])
    monkeypatch.setattr("fedjax_rl.studies.STUDIES", {"fake": fake})
    out = tmp_path / "o"
    assert cli.main(["reproduce", "fake:fig2,fig1", "--scale", "smoke", "--out", str(out)]) == 130
    assert results.read_config(out)["figures"] == ["fig2", "fig1"]
    assert cli.main(["resume", str(out)]) == 0
    text = capsys.readouterr().out
    for word in (
        "✓ reproduced",
        "✗ not reproduced",
        "? undecided",
        "\u2013 not run",
        "≤ 0.1",
        "[0.9, 1.3]",
        "1.75",
        "fig1.png",
    ):
        assert word in text
    unfolded = " ".join(re.sub(r"[│┃]", " ", text).split())
    assert "of 4 claims: 1 reproduced, 1 not run, 1 undecided, 1 not reproduced" in unfolded
    lines = {line["id"]: line for line in results.read_sealed(out / "summary.json")["targets"]}
    notes = [study_command.note(line) for line in lines.values()]
    assert notes == [
        "",
        "fedjax-rl reproduce fake:fig2 --scale paper takes 2.5 h",
        "the step is too long",
        "about 70 runs would decide",
    ]
    assert cli.main(["resume", str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_figures_are_named_as_the_paper_counts_them():
    known = ["fig4-5", "fig4-6", "fig5a", "fig5b", "fig8", "fig9", "speedup"]
    rows = {
        "4.5": ["fig4-5"],
        "4-5": ["fig4-5"],
        "fig4-5": ["fig4-5"],
        "5": ["fig5a", "fig5b"],
        "5b": ["fig5b"],
        "8-9": ["fig8", "fig9"],
        "5-8": ["fig5a", "fig5b", "fig6", "fig7", "fig8"],
        "speedup,4.6": ["speedup", "fig4-6"],
        "9-4": ["9-4"],
    }
    for words, names in rows.items():
        assert study_command._named(words, known) == names


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=true")
    cli.prepare(devices=2)
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0].endswith("=true")
    assert flags[1:] == ["--xla_force_host_platform_device_count=2"]


# Defaults

_PLACES = {"mdp": "paper-mdp", "tabular": "dirichlet-mdps", "grid": "simple-grid"}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_without_options_the_defaults_are_those_of_python_in_every_kind_of_environment(name):
    for kind in ALGORITHMS[name].environments:
        place = _PLACES.get(kind, "lqr" if name == "fedapg" else "CartPole-v1")
        arguments = parse.read(["run", name, place])[1]
        found = config.algorithm_of(config.config_of(arguments))
        own = ALGORITHMS[name].make(frl.envs.registry.make(place))
        assert found.describe(found.config) == own.describe(own.config), place


def test_defaults_are_those_of_the_policy_whatever_was_set_first():
    table, network = frl.envs.simple_grid(max_steps=8), frl.envs.gymnax_task("CartPole-v1")
    for make, name, values in (
        (frl.fedpg, "learning_rate", (0.05, 0.005)),
        (frl.fedsvrpg_m, "server_learning_rate", (0.5, 0.05)),
    ):
        for one, value in (
            (make(table), values[0]),
            (make(table).replace(policy="mlp"), values[1]),
            (make(table).replace(policy="mlp").replace(policy="table"), values[0]),
            (make(table).replace(task=network), values[1]),
            (make(network).replace(task=table), values[0]),
            (make(table, **{name: 0.25}).replace(policy="mlp"), 0.25),
        ):
            assert one.describe(one.config)[name] == value
            assert float(one.parameters(one.config, 2).federation[name]) == value


@pytest.mark.thorough
def test_a_run_gets_more_steps_and_seeds(tmp_path, capsys):
    out = tmp_path / "o"
    line = "run fedq paper-mdp --num-agents 2 --sync-period 5 --num-steps 100 --seed 3"
    assert cli.main([*line.split(), "--out", str(out)]) == 0
    for bad, said in (
        (["--num-steps", "50"], "num-steps is 50; allowed: whole numbers from 100"),
        (["--seeds", "4", "4"], "seeds is [4, 4], which repeats some"),
        (["--seeds", "-1"], "seeds is -1; allowed"),
    ):
        assert cli.main(["resume", str(out), *bad]) == 2
        assert said in capsys.readouterr().err
        assert frl.load(out).sizes["time"] == 100
    assert cli.main(["resume", str(out), "--num-steps", "150", "--seeds", "5", "3", "4"]) == 0
    one = frl.fedq(frl.envs.paper_mdp(), sync_period=5)
    options = {"num_agents": 2, "num_steps": 150, "record_every": 1}
    whole = frl.sweep(one, seeds=[3, 5, 4], **options)
    np.testing.assert_array_equal(frl.load(out)["error_server"], whole["error_server"])
    np.testing.assert_array_equal(frl.load(out)["seed"], [3, 5, 4])
    assert {p.name for p in out.iterdir()} == FILES
    # It is finished, and says so with the same words as before.
    assert cli.main(["resume", str(out)]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.thorough
def test_what_is_infinite_is_saved_and_goes_on(tmp_path, capsys):
    """JSON has no such number; a bound that bounds nothing is one that a property allows."""
    line = "sweep ef-td simple-grid --radius 1 inf --num-steps 4"
    out = tmp_path / "o"
    assert cli.main([*line.split(), "--out", str(out)]) == 0, capsys.readouterr().err
    text = (out / "config.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["properties"]["radius"][1] == "inf"
    assert config.lists_of(results.read_config(out))["radius"] == [1.0, np.inf]
    with xr.open_dataset(out / "result.nc") as saved:
        assert saved["radius"].values.tolist() == [1.0, np.inf]


def test_a_rate_per_agent_is_refused_by_its_own_name(capsys):
    line = ["sweep", "fedq", "paper-mdp", "--num-agents", "4", "--learning-rate-per-agent", "2"]
    assert cli.main(line) == 2
    refused = "--learning-rate-per-agent is 2.0: --learning-rate at num_agents 4 is 8.0; allowed"
    assert refused in capsys.readouterr().err
