"""What is gained is said in parts of the size of the first return, with a control beside it."""

import numpy as np
import pytest
import xarray as xr

from fedjax_rl.studies.gains import gains
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.runs import Stage

STAGE = Stage("made", lambda meter: None)


def returns(*values):
    return Number(lambda results: xr.DataArray(np.array(values), dims="seed"), (STAGE,))


@pytest.mark.parametrize("sign", [1, -1])
def test_three_times_the_first_return_is_a_gain_of_two(sign):
    first = sign * 10.0
    still = returns(first, first, first), returns(first + 1, first - 1, first)
    late = [returns(first + 20, first + 21, first + 22), returns(first + 5, first + 6, first + 7)]
    learned, nothing = (
        own.decide(None) for own in gains(("E", "E null"), "a, b", late, still, of="x: ")
    )
    assert learned["quantity"].startswith("x: return")
    assert learned["quantity"].endswith(": a, b")
    assert learned["measured"] == pytest.approx([2.1, 0.6])
    assert nothing["measured"] == pytest.approx(0.0)
    assert (learned["id"], nothing["id"]) == ("E", "E null")
    assert (learned["verdict"], nothing["verdict"]) == ("not reproduced", "reproduced")
