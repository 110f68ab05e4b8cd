"""Who talks to whom, when, and what it costs."""

from fedjax_rl.federation.aggregators import (
    Aggregate,
    LogWeights,
    mean,
    part_of_all,
    softmax_weights,
)
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, exchange, first_state
from fedjax_rl.federation.ledger import Ledger, Wire, communication_time, empty_ledger, price
from fedjax_rl.federation.mesh import Layout, layout
from fedjax_rl.federation.population import Population, population
from fedjax_rl.federation.rounds import LocalSteps, Rounds, rounds
from fedjax_rl.federation.server import ServerStep, of_changes, optimizer_step, replace
from fedjax_rl.federation.state import Context, Params, Sent, State
from fedjax_rl.federation.uplinks import MessageSpec, Uplink, View, full, partial

__all__ = [
    "Aggregate",
    "Algorithm",
    "Context",
    "Exchange",
    "Functions",
    "Layout",
    "Ledger",
    "LocalSteps",
    "LogWeights",
    "MessageSpec",
    "Params",
    "Population",
    "Rounds",
    "Sent",
    "ServerStep",
    "State",
    "Uplink",
    "View",
    "Wire",
    "communication_time",
    "empty_ledger",
    "exchange",
    "first_state",
    "full",
    "layout",
    "mean",
    "of_changes",
    "optimizer_step",
    "part_of_all",
    "partial",
    "population",
    "price",
    "replace",
    "rounds",
    "softmax_weights",
]
