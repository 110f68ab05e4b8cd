"""Who talks to whom, when, and what it costs."""

from fedjax_rl.federation.aggregators import mean, softmax_weights
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, exchange
from fedjax_rl.federation.ledger import Ledger, Wire, communication_time, empty_ledger
from fedjax_rl.federation.mesh import Layout, layout
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.rounds import LocalSteps, Rounds, rounds
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
    "LocalSteps",
    "MessageSpec",
    "Params",
    "Population",
    "Rounds",
    "Sent",
    "State",
    "Uplink",
    "View",
    "Wire",
    "communication_time",
    "empty_ledger",
    "exchange",
    "full",
    "layout",
    "mean",
    "of_changes",
    "optimizer_step",
    "partial",
    "population",
    "replace",
    "rounds",
    "softmax_weights",
]
