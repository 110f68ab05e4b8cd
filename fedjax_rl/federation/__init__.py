"""Who talks to whom, when, and what it costs."""

from fedjax_rl.federation.aggregators import mean, softmax_weights
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, exchange
from fedjax_rl.federation.ledger import Ledger, Wire, communication_time, ledger
from fedjax_rl.federation.mesh import Layout, layout
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.rounds import Periodic, periodic, rounds
from fedjax_rl.federation.server import of_changes, optimizer_step, replace
from fedjax_rl.federation.state import Context, Params, Sent, State
from fedjax_rl.federation.uplinks import MessageSpec, Uplink, View, full, partial

__all__ = [
    "Algorithm",
    "Context",
    "Exchange",
    "Functions",
    "Layout",
    "Ledger",
    "MessageSpec",
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
