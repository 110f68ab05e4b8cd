"""The same federations on one device and over eight."""

import warnings

import jax
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.federation.mesh import layout


@pytest.mark.thorough
def test_a_federation_spread_over_eight_devices_is_the_one_on_one():
    """Its exchanges, too: weights of entries, some silent. What lies whole is in the contract."""
    algorithm = frl.fedq(
        frl.envs.paper_mdp(),
        epsilon=1.0,
        aggregation="importance",
        participation=0.7,
        learning_rate=np.linspace(0.1, 0.4, 16),
    )
    cells = [frl.Cell(16, 0, {"sync_period": 3})]
    options = {"num_steps": 60, "record_every": 20, "metrics": ("error_server", "error_local")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said about a layout
        one, eight = (frl.run_cells(algorithm, cells, devices=d, **options) for d in (1, 8))
    for metric in options["metrics"]:
        np.testing.assert_allclose(eight[metric], one[metric], rtol=2e-5, atol=1e-7)
    assert np.isfinite(one["error_server"]).all()
    for column in ("communications", "messages_up", "bytes_down", "env_steps"):
        np.testing.assert_array_equal(eight[column], one[column])


def test_members_are_split_where_that_repeats_fewest():
    assert layout([16], 8).blocks == (1, 8)
    assert layout([3] * 16, 8).blocks == (8, 1)
    plan = layout([1, 2, 2, 4], 2)
    assert plan.blocks == (2, 1)
    assert sorted(set(plan.order)) == [0, 1, 2, 3]
    federation, member = plan.agents()
    sizes = np.asarray([1, 2, 2, 4])
    for f, n in enumerate(sizes):
        assert set(member[federation == f]) == set(range(n))
    places = plan.first_places(4)
    np.testing.assert_array_equal(np.asarray(plan.order)[places], range(4))


@pytest.mark.parametrize("devices", [0, -1, 9])
def test_more_devices_than_there_are_is_refused(devices):
    assert jax.device_count() == 8
    with pytest.raises(ValueError, match=f"devices is {devices}; allowed: 1 to 8"):
        layout([4], devices)
