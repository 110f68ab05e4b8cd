"""The table of derivatives in the docs: made from the code, and every row of it tried."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


def pages():
    spec = importlib.util.spec_from_file_location("docs_make", DOCS / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = pages()


def test_the_page_says_what_the_algorithms_declare():
    assert (DOCS / "derivatives.md").read_text() == PAGES.page(), "run python docs/make.py"


def sizes_of(algorithm):
    period = algorithm.config.sync_period if algorithm.periodic else 1
    return {"num_agents": 2, "num_steps": 2 * period, "seeds": [0, 1]}


def traced(algorithm, names):
    """Traces the derivatives by these properties, at their values."""
    config = algorithm.config.resolved()
    values = {each.name: each.value for each in config.properties() if each.name in names}

    def found(values):
        own = algorithm.replace(**values)
        return frl.differentiate(own, by=tuple(values), **sizes_of(algorithm)).derivatives

    return jax.eval_shape(found, {n: jnp.asarray(x, float) for n, x in values.items()})


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:derivative is")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_of_the_page_is_so(name):
    """What is said to be there is; what is refused is, in a sentence that names it."""
    for own in PAGES.columns(name).values():
        kinds, declared = frl.differentiable(own), frl.differentiable(own, unset=True)
        there = [n for n, kind in kinds.items() if not kind.startswith("refused")]
        if there:
            assert traced(own, there).keys() == set(there)
        for n, kind in kinds.items():
            if n in there or kind != declared[n]:
                continue
            with pytest.raises(ValueError, match=rf"{n.split('.')[0]}|derivative is"):
                frl.differentiate(own, by=n, **sizes_of(own))
