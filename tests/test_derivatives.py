"""The table of derivatives in the docs: made from the code, and every row of it tried."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import DOCS, MAKER

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS


def test_the_page_says_what_the_algorithms_declare():
    assert (DOCS / "derivatives.md").read_text() == MAKER.page(), "run python docs/make.py"


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
    for own in MAKER.columns(name).values():
        kinds, declared = frl.differentiable(own), frl.differentiable(own, unset=True)
        there = [n for n, kind in kinds.items() if not kind.startswith("refused")]
        if there:
            assert traced(own, there).keys() == set(there)
        for n, kind in kinds.items():
            if n in there or kind != declared[n]:
                continue
            with pytest.raises(ValueError, match=rf"{n.split('.')[0]}|derivative is"):
                frl.differentiate(own, by=n, **sizes_of(own))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ALGORITHMS)
def test_exact_ones_are_those_of_both_modes_and_of_differences(name):
    with jax.enable_x64(True):
        for own in MAKER.columns(name).values():
            exact = [n for n, kind in frl.differentiable(own).items() if kind == "exact"]
            values = {
                # Not at the end of a range, where there is a difference on one side alone.
                each.name: jnp.asarray(np.where(np.equal(each.value, 0), 0.1, each.value), float)
                for each in own.config.resolved().properties()
                if each.name in exact and np.all(np.isfinite(each.value))
            }
            if values:
                _agree(own, values)


def _agree(own, values):
    """Derivatives of the sum of all that is measured, against central differences."""
    sizes = {n: x for n, x in sizes_of(own).items() if n != "seeds"}
    metrics = frl.simulate(own, **sizes, seed=1).metrics
    finite = [n for n, x in metrics.items() if np.all(np.isfinite(x))]

    def end(values):
        run = frl.simulate(own.replace(**values), **sizes, seed=1)
        return sum(jnp.sum(run.metrics[n].astype(float)) for n in finite)

    value, reverse, forward = map(jax.jit, (end, jax.grad(end), jax.jacfwd(end)))
    backward, along = reverse(values), forward(values)
    for n, x in values.items():
        np.testing.assert_allclose(backward[n], along[n], rtol=1e-6, atol=1e-9)
        step = 1e-5 * float(jnp.max(jnp.abs(x)))
        for place in np.ndindex(x.shape):
            ends = [value({**values, n: x.at[place].add(s)}) for s in (step, -step)]
            difference = float(ends[0] - ends[1]) / (2 * step)
            rounding = 1e-14 * abs(float(ends[0])) / step
            assert float(backward[n][place]) == pytest.approx(
                difference, rel=1e-4, abs=1e-6 + rounding
            ), n
