"""What a value is: known or traced, a number or not, and how Python has it."""

from __future__ import annotations

import numbers

import jax
import numpy as np

from fedjax_rl.fields.functions import ByAgents, Schedule

# Programs compute in float32: beyond, a finite number becomes infinite, and below, where numbers
# lose their digits first, a positive one becomes zero.
LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
# Counters of agents and steps are int32 on the device.
WHOLE_LIMIT = 2**31 - 1


def is_concrete(value) -> bool:
    """Whether a value is known now rather than under a trace."""
    try:
        leaves = jax.tree.leaves(value)
    except Exception:  # no pytree, such as a dict whose keys cannot be sorted
        return True
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def is_number(*values) -> bool:
    """Whether all values are known already: not traced, and no function of N or of time."""
    return not any(isinstance(value, ByAgents | Schedule) for value in values) and is_concrete(
        values
    )


def plain(value):
    """A number or switch without axes as Python has it; anything else as it is."""
    single = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    kinds = (np.number, np.bool_)
    if not single or not any(jax.numpy.issubdtype(value.dtype, kind) for kind in kinds):
        return value
    return value.item() if is_concrete(value) else value


def plain_tuple(values) -> tuple:
    """A list or tuple as a tuple, its entries as Python has them."""
    return tuple(plain(value) for value in values)


def real_array(value) -> np.ndarray | None:
    """A value as float64 if it consists of real numbers, else None; a bool or a word is none."""
    try:
        if isinstance(value, bool | np.bool_ | str | bytes) or value is None:
            return None
        # Python's integers may be larger than any of NumPy's.
        array = np.asarray(float(value) if isinstance(value, int) else value)
        if array.dtype.kind not in "iuf":
            # bfloat16 and its like are of no kind that NumPy knows.
            if not jax.numpy.issubdtype(array.dtype, np.floating):
                return None
        # NumPy has made numbers of the switches among numbers already.
        elif isinstance(value, list | tuple) and _has_bool(value):
            return None
        return array.astype(np.float64)
    except Exception:  # whatever an object does when it is read as an array
        return None


def _has_bool(values) -> bool:
    return any(
        _has_bool(x) if isinstance(x, list | tuple) else isinstance(x, bool | np.bool_)
        for x in values
    )


def is_whole(value) -> bool:
    """Whether a value is one whole number of an integer type, with an axis never."""
    # A whole number to Python, and a mistake where somebody gives one.
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, numbers.Integral):
        return True
    array = isinstance(value, np.ndarray | jax.Array) and np.ndim(value) == 0
    return bool(array and np.dtype(value.dtype).kind in "iu")
