"""Nothing that somebody may hand in ends in anything but a refusal by name or a valid run.

A hundred cases; `python benchmarks/torture.py fuzz` tries thirty thousand.
"""

import pathlib
import sys

import numpy as np
import pytest

from fedjax_rl import fields

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import torture_fuzz
from torture_targets import Target
from torture_values import VALUES, fits, wrapped


def wrong(cases):
    return [case for case in cases if case.outcome in torture_fuzz.WRONG]


def test_nothing_is_wrong_in_a_sample_of_cases():
    seed = int(np.random.default_rng().integers(2**31))
    cases = torture_fuzz.run(100, seed)
    assert len(cases) == 100, seed
    assert wrong(cases) == [], seed
    assert {case.outcome for case in cases} == {"refused", "accepted"}


@pytest.mark.thorough
def test_nothing_is_wrong_in_thirty_thousand_cases():
    assert wrong(torture_fuzz.run(30_000)) == []


@pytest.mark.thorough
def test_many_pairs_of_properties_fit_together_or_are_refused_by_name():
    assert wrong(torture_fuzz.run_pairs(15)) == []


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (lambda value: fields.check("x", value, fields.COUNT), "refused"),
        (lambda value: value, "nonsense"),
        (lambda value: value + 1, "raw"),
        (lambda value: int("a"), "raw"),  # a ValueError, but no sentence of ours
        (lambda value: fields.check("y", value, fields.COUNT), "unnamed"),
    ],
)
def test_faults_are_seen(call, outcome):
    case = torture_fuzz.tried(Target("f", "x", "count", call), "word", "word")
    assert case.outcome == outcome


def test_the_oracle_and_the_declarations_agree_without_sharing_code():
    pairs = {
        "count": fields.COUNT,
        "probability": fields.PROBABILITY,
        "positive": fields.POSITIVE,
        "natural": fields.NOT_NEGATIVE,
        "finite": fields.FINITE,
        "seed": fields.SEED,
        "switch": fields.switch(),
        "sizes": fields.sizes(),
        "word": fields.word(["known"]),
    }
    for kind, allowed in pairs.items():
        for label, value in VALUES.items():
            expected = fits(kind, value)
            if expected is None or wrapped(value):  # looked at once N is known
                continue
            try:
                fields.check("x", value, allowed)
                accepted = True
            except ValueError:
                accepted = False
            assert accepted == expected, (kind, label)
