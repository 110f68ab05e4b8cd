"""What is promised of every algorithm."""

import functools
import json

import golden
import numpy as np
import pytest

from fedjax_rl.algorithms import ALGORITHMS

GOLDEN = json.loads(golden.PATH.read_text())

everybody = pytest.mark.parametrize("name", ALGORITHMS)


@functools.cache
def baseline(name):
    """The short run that everything is held against."""
    return golden.run(name)


@everybody
def test_numbers_do_not_move(name):
    now, before = golden.last(baseline(name)), GOLDEN[name]
    assert now["ledger"] == before["ledger"]
    for metric, value in before["metrics"].items():
        np.testing.assert_allclose(
            now["metrics"][metric], value, rtol=1e-6, atol=1e-6, err_msg=metric
        )
