"""Examples in docstrings give what they say, and what is public has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import fedjax_rl as frl
from fedjax_rl.fields.record import Record

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def is_alone(value):
    """Whether a public name has an example of its own: rooms have those of what is in them."""
    if inspect.ismodule(value):
        return False
    # The record of an algorithm is met through the function of the same name.
    return not (inspect.isclass(value) and issubclass(value, Record) and hasattr(value, "uplink"))


PUBLIC = [name for name in frl.__all__ if is_alone(getattr(frl, name))]
PUBLIC += [f"uplinks.{make.__name__}" for make in frl.uplinks.UPLINKS.values()]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_has_an_example_that_runs(name):
    value = frl
    for part in name.split("."):
        value = getattr(value, part)
    found = doctest.DocTestFinder(recurse=False).find(value, name, globs={})
    assert sum(len(one.examples) for one in found) > 0
    for one in found:
        assert doctest.DocTestRunner(optionflags=FLAGS).run(one).failed == 0


def modules(*rooms):
    found = []
    for room in rooms:
        path = importlib.import_module(f"fedjax_rl.{room}").__path__
        found += [each.name for each in pkgutil.walk_packages(path, f"fedjax_rl.{room}.")]
    return found


@pytest.mark.parametrize("name", modules("envs", "federation", "learners", "networks", "rollouts"))
def test_examples_of_a_module_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0
