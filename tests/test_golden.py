"""Numbers that do not move: every case of `golden_cases.py` against its record."""

import golden
import golden_cases
import numpy as np
import pytest

from fedjax_rl.algorithms import ALGORITHMS

# How far numbers may be apart on other processors, or where the order of a sum may change.
FAR = {"float64": 1e-9, "float32": 1e-6}
# Networks are float32 in both, and the loss of a policy is a sum in which nearly all cancels.
FAR_OF_NETWORKS = 1e-4
# A choice for every day: short to compile, and each with a branch of its own.
DAILY = [
    ("fedq", "importance, top-k"),
    ("es", "probabilistic"),
    ("ef-td", "plain"),
    ("scaffold-pg", "failures"),
    ("fedpg", "first two, partial"),
    ("afedpg", "asynchronous"),
    ("qavg", "plain"),
]


def held(name, title, precision):
    """Holds a case against its record."""
    before = golden.read(name, f"{title}, {precision}")
    case = golden_cases.cases(name)[title]
    found = golden.verdict(before, golden.attempt(name, case, precision))
    exact = precision == "float64" and case.devices == 1
    if exact and golden.machine() == golden.recorded()["machine"]:
        assert found.bits, f"{title}, {precision}: {found.text}"
    far = FAR_OF_NETWORKS if name in ("a3c", "fedppo", "feda2c") else FAR[precision]
    assert found.apart <= far, f"{title}, {precision}: {found.text}"


@pytest.mark.parametrize(("name", "title"), DAILY)
def test_some_numbers_do_not_move(name, title):
    held(name, title, "float64")


@pytest.mark.thorough
@pytest.mark.parametrize("precision", golden.PRECISIONS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_numbers_do_not_move(name, precision):
    for title in golden_cases.cases(name):
        if golden.is_recorded(name, title, precision):
            held(name, title, precision)


def test_a_record_is_of_cases_and_is_read_to_the_bit():
    for name, runs in golden.recorded()["runs"].items():
        keys = {f"{t}, {p}" for t in golden_cases.cases(name) for p in golden.PRECISIONS}
        assert runs
        assert runs.keys() <= keys
    for dtype in (np.float32, np.float64):
        numbers = np.asarray([0.1, -0.0, 1 / 3, 1e20, np.inf, np.nan, 3.0], dtype)
        again = np.asarray(golden.shortest(numbers)).astype(dtype)
        assert again.tobytes() == numbers.tobytes()


def test_what_moved_is_told():
    before = golden.outcome({"a": np.ones((2, 1)), "b": np.ones((2, 1)), "c": np.ones((2, 1))})
    now = {"a": np.ones((2, 1)), "b": np.full((2, 1), 1.25)}
    found = golden.verdict(before, now)
    assert (found.bits, found.apart) == (False, np.inf)
    assert found.text == "max relative difference 2.0e-01 (1 moved: b 2.0e-01); missing: c"
    assert golden.verdict(before, dict.fromkeys("abc", np.ones((2, 1)))).bits
    assert golden.verdict("no", "no, too").bits
    assert golden.verdict("no", now).apart == np.inf
    assert golden.verdict(None, now).text == "not recorded"
