r"""From the messages of a federation's members to one aggregate.

An aggregator is a function `(population, message, sent, weight, context) -> Aggregate`, and one
of your own is an argument of the `Exchange`. `message` is a pytree of [A, ...]; `sent` bool [A],
or None when everybody counts; `weight` None (all members count alike), a leaf [A], a pytree like
the message (a weight per entry), or the logarithms of either, `LogWeights`; `context` has the
servers' models and the properties. A robust rule has the same signature.

A server that keeps a state which every agent keeps a part of, c = 1/N \sum_i c_i, must not take
the mean of the changes that came in: what the silent ones keep has not changed. `part_of_all` is
what such a state moves by.
"""

from __future__ import annotations

from fedjax_rl.federation.aggregators.mean import Aggregate, mean, part_of_all
from fedjax_rl.federation.aggregators.weights import LogWeights, softmax_weights

__all__ = ["Aggregate", "LogWeights", "mean", "part_of_all", "softmax_weights"]
