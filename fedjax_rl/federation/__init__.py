"""Who talks to whom, when, and what it costs."""

from fedjax_rl.federation.aggregate import (
    mean,
    of_changes,
    optimizer_step,
    replace,
    softmax_weights,
)
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import (
    Context,
    Exchange,
    Params,
    Periodic,
    Sent,
    State,
    exchange,
    periodic,
    rounds,
)
from fedjax_rl.federation.ledger import Ledger, Wire, communication_time, ledger
from fedjax_rl.federation.mesh import Layout, layout
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.uplink import Content, Uplink, View, full, partial

__all__ = [
    "Algorithm",
    "Content",
    "Context",
    "Exchange",
    "Functions",
    "Layout",
    "Ledger",
    "Params",
    "Periodic",
    "Population",
    "Sent",
    "State",
    "Uplink",
    "View",
    "Wire",
    "communication_time",
    "exchange",
    "full",
    "layout",
    "ledger",
    "mean",
    "of_changes",
    "optimizer_step",
    "partial",
    "periodic",
    "population",
    "replace",
    "rounds",
    "softmax_weights",
]
