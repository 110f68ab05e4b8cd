"""Several processes, on this machine, that simulate together."""

import numpy as np
import processes
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import cli, hosts

HERE = processes.__file__


def together(count, names, directory):
    """The results of cases in so many processes, by name."""
    where = processes.address()
    lines = [[HERE, where, str(count), str(i), str(directory), *names] for i in range(count)]
    for code, words in processes.ended(processes.start(lines)):
        assert code == 0, words
    return {name: frl.load(directory / name) for name in names}


def check(name, result, count):
    """Against one process: bits with as many devices, and the last digits with one."""
    one, same = (processes.CASES[name](devices=n) for n in (1, count))
    if count == 2:  # of two numbers there is one sum
        xr.testing.assert_equal(result, same)
    for metric in result.data_vars:
        np.testing.assert_allclose(result[metric], same[metric], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result[metric], one[metric], rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_two_processes_are_one(tmp_path):
    result = together(2, ["one"], tmp_path)["one"]
    xr.testing.assert_equal(result, processes.one(devices=2))


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_are_one(tmp_path, count):
    for name, result in together(count, list(processes.CASES), tmp_path).items():
        check(name, result, count)


def test_a_process_alone_is_the_first_of_one():
    assert (hosts.count(), hosts.index()) == (1, 0)
    assert hosts.once(lambda: [1, (2,)]) == [1, (2,)]
    assert hosts.heard("x") == ["x"]
    assert hosts.decided(first=True) == (True, False)
    np.testing.assert_array_equal(hosts.fetched({"a": np.arange(3)})["a"], np.arange(3))
    with hosts.losses(), pytest.raises(ValueError, match="connection"):
        raise ValueError("connection")


BAD = {
    "--coordinator a:1": "--coordinator is a:1 without --distributed; allowed: with it",
    "--process-index 1": "--process-index is 1 without --distributed",
    "--wait 3": "--wait is 3.0 without --distributed",
    "--distributed": "--distributed is given where JAX has started",
    "--distributed --coordinator here": "--coordinator is 'here'; allowed: HOST:PORT",
    "--distributed --coordinator here:0": "--coordinator is 'here:0'; allowed: HOST:PORT",
    "--distributed --coordinator here:x": "--coordinator is 'here:x'; allowed: HOST:PORT",
    "--distributed --num-processes 0": "--num-processes is 0; allowed: at least 1",
    "--distributed --num-processes 2 --process-index 2": "--process-index is 2; allowed: 0 to 1",
    "--distributed --process-index -1": "--process-index is -1; allowed: 0 to",
    "--distributed --wait 0": "--wait is 0; allowed: 1 to 1e6 seconds",
    "--distributed --num-processes two": "--num-processes",
}


@pytest.mark.parametrize("words", BAD)
def test_what_no_cluster_has_is_refused(words, capsys, tmp_path):
    line = ["run", "fedq", "paper-mdp", "--num-steps", "20", "--out", str(tmp_path / "out")]
    assert cli.main([*line, *words.split()]) == 2
    assert BAD[words] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


LINE = "run fedq paper-mdp --num-agents 4 --sync-period 5 --num-steps 2000"
# A process that is slow to end, when it has said all that it has to say to the others.
SLOW = """
import os, runpy, time
end = os._exit
os._exit = lambda code: (time.sleep(2), end(code))
runpy.run_module("fedjax_rl", run_name="__main__", alter_sys=True)
"""


@pytest.mark.thorough
def test_processes_that_disagree_say_in_what(tmp_path):
    words = [*LINE.split(), "--out", str(tmp_path / "out")]
    lines = processes.commands(words, 2, p1=["--learning-rate", "0.3", "--num-steps", "3000"])
    assert lines[1][:2] == ["-m", "fedjax_rl"]
    lines[1][:2] = ["-c", SLOW]
    (first, said), (second, _) = processes.ended(processes.start(lines))
    assert (first, second) == (2, 2)
    assert "process 1 is given something else than process 0: num_steps is 3000, and " in said
    assert "learning_rate is 0.3, and there 0." in said
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_a_coordinator_that_does_not_answer_is_named(tmp_path):
    for index, words in (("1", "the coordinator at localhost"), ("0", "not all 2 processes came")):
        (line, _) = processes.commands([*LINE.split(), "--wait", "3"], 2)
        line[-1] = index
        ((code, said),) = processes.ended(processes.start([line]))
        assert code == 1, said
        assert words in said
        assert " within 3 s" in said


@pytest.mark.thorough
def test_devices_are_of_all_processes(tmp_path):
    for devices, words in (("3", "devices is 3; allowed: multiples of 2"), ("4", "saved in")):
        line = [*LINE.split(), "--devices", devices, "--out", str(tmp_path / devices)]
        running = processes.start(processes.commands(line, 2))
        out = running[0].stdout
        (code, said), _ = processes.ended(running)
        assert code == (2 if devices == "3" else 0), said
        assert words in said or devices == "4", out


@pytest.mark.thorough
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_others_and_both_go_on(tmp_path, victim):
    line = LINE.replace("2000", "200000").replace("period 5", "period 200").split()
    whole, out = tmp_path / "whole", tmp_path / "out"
    for code, words in processes.ended(
        processes.start(processes.commands([*line, "--out", str(whole)], 2))
    ):
        assert code == 0, words
    running = processes.start(processes.commands([*line, "--out", str(out)], 2))
    while not any(out.glob("checkpoints/job-*/*/manifest.json")):
        assert running[0].poll() is None, running[0].stderr.read()
    running[victim].kill()
    code, words = processes.ended(running, 90)[1 - victim]
    assert code != 0, words
    assert words.strip().endswith(f"`fedjax-rl resume {out} --distributed` goes on")
    again = processes.start(processes.commands(["resume", str(out)], 2))
    for code, words in processes.ended(again):
        assert code == 0, words
    assert (out / "result.nc").read_bytes() == (whole / "result.nc").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 4)])
def test_what_some_processes_began_others_go_on_with(tmp_path, first, then):
    """Each with a device of its own: what was made stays, and what is added is the same run's."""

    def done(words, count):
        alone = [["-m", "fedjax_rl", *words]]
        lines = alone if count == 1 else processes.commands(words, count)
        for code, said in processes.ended(processes.start(lines), 600):
            assert code == 0, said

    more, longer = ["--record-every", "100"], [*LINE.split()[:-1], "4000"]
    done([*LINE.split(), *more, "--out", str(tmp_path / "begun")], first)
    done(["resume", str(tmp_path / "begun"), "--num-steps", "4000", "--devices", str(then)], then)
    done([*longer, *more, "--out", str(tmp_path / "whole")], first)
    results = [frl.load(tmp_path / name) for name in ("begun", "whole")]
    # Sums over other devices, in programs compiled for others, whose last digits are others.
    xr.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
    began = [result["error_server"].isel(time=slice(20)) for result in results]
    xr.testing.assert_equal(*began)


@pytest.mark.thorough
def test_one_device_is_refused_to_two_processes(tmp_path):
    alone = [["-m", "fedjax_rl", *LINE.split(), "--out", str(tmp_path / "out")]]
    ((code, said),) = processes.ended(processes.start(alone))
    assert code == 0, said
    line = ["resume", str(tmp_path / "out"), "--num-steps", "4000", "--devices", "1"]
    (code, said), (other, _) = processes.ended(processes.start(processes.commands(line, 2)))
    assert (code, other) == (2, 2)
    assert "devices is 1; allowed: multiples of 2, as many of each process" in said
