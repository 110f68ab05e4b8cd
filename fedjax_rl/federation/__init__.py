"""Who talks to whom, when, and what it costs."""

from fedjax_rl.federation.aggregate import mean, optimizer_step, replace, softmax_weights
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, Params, Periodic, State, exchange, periodic
from fedjax_rl.federation.ledger import Ledger, communication_time, ledger
from fedjax_rl.federation.mesh import Layout, layout
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.uplink import Uplink, bernoulli, full

__all__ = [
    "Algorithm",
    "Exchange",
    "Functions",
    "Layout",
    "Ledger",
    "Params",
    "Periodic",
    "Population",
    "State",
    "Uplink",
    "bernoulli",
    "communication_time",
    "exchange",
    "full",
    "layout",
    "ledger",
    "mean",
    "optimizer_step",
    "periodic",
    "population",
    "replace",
    "softmax_weights",
]
