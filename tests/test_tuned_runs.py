"""Runs whose steps are chosen by one rule: which are chosen, and that the others are as ever."""

import shutil

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.studies.runs import STILL, Results, runs
from fedjax_rl.studies.study import Meter
from fedjax_rl.studies.tuned import FIRST, chosen, tuned


def test_the_best_of_the_last_quarter_is_chosen():
    times, steps = 8, [0.1, 0.2, 0.3]
    values = np.zeros((2, 3, 2, times))  # method, step, seed, time
    values[0, 0, :, :6] = 100.0  # only early
    values[0, 1, :, -2:] = [[1.0], [2.0]]
    values[0, 2, :, -2:] = [[9.0], [np.nan]]  # one run of two diverges
    values[1, 0, :, -2:], values[1, 2, :, -2:] = -1.0, -2.0
    values[1, 1, :, -2:] = -3.0
    array = xr.DataArray(
        values, {"method": ["a", "b"], "step": steps, "seed": [0, 1], "time": range(times)}
    )
    assert chosen(array) == {"a": 0.2, "b": 0.1}
    assert chosen(array.transpose()) == {"a": 0.2, "b": 0.1}
    assert chosen(array * np.nan) == {"a": 0.1, "b": 0.1}


@pytest.mark.thorough
def test_each_method_is_judged_at_its_own_step_on_other_seeds(tmp_path):
    task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(2), max_steps=20)
    one = frl.fedpg(task, local_steps=1, gradient="exact")
    # At the second method's server the longer step overshoots into a corner.
    methods = {"plain": one, "far": (one, {"server_learning_rate": 1000.0})}
    steps = {"short": {"learning_rate": 0.02}, "long": {"learning_rate": 2.0}}
    every = {"num_agents": 2, "record_every": 2}
    stage = tuned(
        "both",
        methods,
        steps,
        num_steps=8,
        trials=2,
        choosing={"num_steps": 6, "trials": 3},
        metrics=("objective", "direction_norm"),
        fixed={"still": (one, {"learning_rate": STILL})},
        **every,
    )
    meter = lambda: Meter(None, {"both-tries": 1.0, "both": 1.0})
    first = Results(tmp_path, meter())
    made = first[stage]
    assert made["method"].values.tolist() == ["plain", "far", "still"]
    assert made["seed"].values.tolist() == [0, 1]
    tries = runs(
        "tries",
        methods,
        {"step": steps},
        num_steps=6,
        trials=3,
        first_seed=FIRST,
        metrics=("objective",),
        **every,
    ).make(Meter(None, {"tries": 1.0}))
    worth = tries["objective"].isel(time=-1).mean("seed")
    best = worth["step"].values[worth.argmax("step").values].tolist()
    assert made["chosen"].values.tolist() == [*best, ""]
    own = {
        name: (one, {**(methods[name][1] if name == "far" else {}), **steps[label]})
        for name, label in zip(methods, best, strict=True)
    }
    alone = runs(
        "alone", own, num_steps=8, trials=2, metrics=("objective", "direction_norm"), **every
    ).make(Meter(None, {"alone": 1.0}))
    for name in ("objective", "direction_norm"):
        np.testing.assert_array_equal(made[name].sel({"method": list(own)}), alone[name])
    # Read again it is the same, and grids that differ are other runs.
    again = Results(tmp_path, meter())[stage]
    xr.testing.assert_identical(made.drop_attrs(), again.drop_attrs())
    assert stage.decides["tries"]["first_seed"] == FIRST >= 2
    sets = [own for part in stage.whole for own in part.plan()]
    assert [(sum(own.values()), number) for _, own, number in sets] == [(12, 6), (6, 8)]
    # One that was stopped between the two goes on with what was chosen.
    shutil.rmtree(tmp_path / "both")
    results = Results(tmp_path, meter())
    xr.testing.assert_identical(made.drop_attrs(), results[stage].drop_attrs())
    assert results.seconds["both-tries"] == first.seconds["both-tries"]
    other = tuned(
        "both",
        methods,
        {**steps, "longer": {"learning_rate": 4.0}},
        num_steps=8,
        trials=2,
        choosing={"num_steps": 6, "trials": 3},
        metrics=("objective", "direction_norm"),
        fixed={"still": (one, {"learning_rate": STILL})},
        **every,
    )
    with pytest.raises(ValueError, match="are others"):
        Results(tmp_path, meter())[other]
