"""The command line: what it prints, what it writes, what it refuses, how it goes on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import cli, results
from fedjax_rl.cli import options, process, report
from fedjax_rl.studies import study

ROOT = pathlib.Path(__file__).parent.parent
FILES = {"config.json", "result.nc", "summary.json", "figure.png", "figure.svg", "checkpoints"}
SMALL = "--num-agents 2 --sync-period 5 --learning-rate 0.05 --num-steps 2000 --seed 7"
# The same program for all the little runs of this file.
RUN = ["run", "fedq", "paper-mdp", *SMALL.split()]

# Kills itself, as a power cut would, at a moment that a timer could not hit.
_KILLED = """
import os, signal, sys, threading
from fedjax_rl import checkpoints, cli, results
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
moment, saved, save = sys.argv[1], [], checkpoints.Checkpoints.maybe_save
def eager(self, *arguments):
    self._seconds = self._last = 0
    if moment == "before":
        die()
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


def test_list_names_everything(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    for word in ("fedq", "2206.10185", "paper-mdp", "--env.num-states", "linear-speedup:fig4"):
        assert word in text


def test_doctor(capsys):
    counts = ["--num-agents", "1", "1000", "--seeds", "0", "1"]
    assert cli.main(["doctor", "fedq", "paper-mdp", *counts]) == 0
    text = capsys.readouterr().out
    assert "jaxlib" in text
    assert "XLA_FLAGS=" in text
    assert "4 federation(s), 2002 agents" in text


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


def test_killed_and_resumed_gives_the_same_bytes(finished, tmp_path, capsys):
    out = tmp_path / "killed"
    first = [*RUN, "--out", str(out)]
    for moment, command in (
        ("before", first),
        ("during", ["resume", str(out)]),
        ("after", ["resume", str(out)]),
    ):
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
        ("run fedq paper-mdp --num-agents 0", "--num-agents is 0; allowed: whole numbers"),
        ("run fedq paper-mdp --num-agents two", "--num-agents is two; allowed: INT"),
        ("run fedq paper-mdp --num-agnts 2", "did you mean --num-agents"),
        ("run fedq paper-mdp --sync-period 0", "--sync-period is 0; allowed: a whole number"),
        ("run fedq paper-mdp --num-steps 0", "--num-steps is 0; allowed: 1 to"),
        ("run fedq paper-mdp --record-every 0", "--record-every is 0; allowed"),
        ("run fedq paper-mdp --learning-rate 1.5", "--learning-rate is 1.5; allowed: in (0, 1]"),
        ("run fedq paper-mdp --learning-rate 0", "--learning-rate is 0.0; allowed: in (0, 1]"),
        ("run fedq paper-mdp --discount 1", "--discount is 1.0; allowed: in [0, 1)"),
        ("run fedq random-mdp --env.discount 1", "--env.discount is 1.0"),
        ("run fedq random-mdp --env.num-states 0", "--env.num-states is 0"),
        ("run fedq paper-mdp --env.num-states 5", "--env.num-states, 5"),
        ("run fedq paper-mdp --behaviour softmx", "did you mean softmax"),
        ("run fedq paper-mdp --metrics error_servr", "did you mean error_server"),
        ("run fedq paper-mdp --devices 99", "--devices is 99; allowed: 1 to"),
        ("run fdq paper-mdp", "did you mean fedq"),
        ("run fedq paper-mpd", "did you mean paper-mdp"),
        ("sweep fedq paper-mdp --num-agents 1 0", "--num-agents is 0"),
        ("sweep fedq paper-mdp --num-agents 64 --learning-rate-per-agent 1", "--learning-rate is"),
        ("sweep fedq paper-mdp --learning-rate-per-agent -1", "--learning-rate-per-agent is -1"),
        ("reproduce linear-speedu", "did you mean linear-speedup"),
        ("reproduce linear-speedup:fig99", "figure of linear-speedup"),
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


def test_interrupt_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "o"
    monkeypatch.setattr(sys.modules["fedjax_rl.sweep"], "execute_all", interrupted)
    assert cli.main([*RUN, "--out", str(out)]) == 130
    assert f"`fedjax-rl resume {out}` goes on" in capsys.readouterr().err
    assert results.read_config(out)["command"] == "run"


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="num_agents is 0"):
        cli.main(["run", "fedq", "paper-mdp", "--num-agents", "0", "--debug"])


def test_picture_and_words_of_time_are_the_algorithms(capsys, monkeypatch):
    fedq = frl.fedq(frl.envs.paper_mdp())
    assert (report.headline(fedq), report.unit(fedq)) == ("error_server", "step")
    own = {n: getattr(fedq, n) for n in ("name", "config", "metrics", "properties")}
    other = types.SimpleNamespace(**own, unit="generation", headline="sup_error_server")
    assert report.headline(other) == "sup_error_server"
    monkeypatch.setattr("fedjax_rl.algorithms.ALGORITHMS", {"fedq": lambda mdp: other})
    assert cli.main(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "T, generations of every agent." in text
    assert "Generations between records" in text


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
    assert final["low"] <= final["mean"] <= final["high"]
    expected = result["error_server"].sel(num_agents=2, sync_period=1).isel(time=-1).mean()
    np.testing.assert_allclose(final["mean"], expected, rtol=1e-6)
    assert "num_agents" in capsys.readouterr().out


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
    ]
    names = ("id", "published", "measured", "low", "high", "band", "verdict")

    def run(directory, figures, scale, preset, progress):
        if fail:
            raise fail.pop()
        progress(1, 2)
        summary = {
            "study": "fake",
            "scale": scale,
            "preset": preset,
            "targets": [
                {**dict(zip(names, t, strict=True)), "figure": figures[0], "quantity": "slope"}
                for t in targets
            ],
        }
        (directory / "fig1.png").touch()
        results.write_json(directory / "summary.json", summary)
        return summary

    return study.Study("fake", "Nobody (2000)", {"fig1": "a", "fig2": "b"}, ("paper",), run)


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
        "○ not run",
        "≤ 0.1",
        "[0.9, 1.3]",
        "fig1.png",
    ):
        assert word in text
    assert "1 reproduced, 1 not reproduced, 1 not run" in text
    assert cli.main(["resume", str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=true")
    cli.prepare(devices=2)
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0].endswith("=true")
    assert flags[1:] == ["--xla_force_host_platform_device_count=2"]
