r"""Agents of different speed: when each message arrives, and what its sender has been waiting for.

Every agent is dispatched the server's model, works on it for a time of its own, and sends a
message. The server makes a step whenever m of the messages in flight have arrived, and dispatches
its new model to their senders; the others go on with the model that they have. With m = 1 that is
asynchronous learning, with all N the synchronous rounds of everybody else's papers, and between the
two semi-synchronous learning:

    tau         = the m-th smallest end_i             the time of the step
    staleness_i = steps since i was dispatched        of those who have arrived
    idle_i     += tau - end_i
    end_i       = tau + duration_i                    they begin again

Nothing of that depends on what is learned, so that it is a program of its own, `timing`, with the
arrivals of the next steps as its result; `arrivals` is the learner's loop over them. Agents draw
their times from their own streams: upload j of agent i takes as long whatever the scheduler, the
number of agents or the rest of the population.

An agent may fail at work. What it was working on is lost, and it is dispatched a model again at the
first step after its return. A step waits for no agent that has failed: it is made when m messages
have arrived, or fewer and nobody is at work any more. Where nobody is at work and nothing has
arrived, whoever is back begins at once.

* Xie, Koyejo and Gupta, *Asynchronous Federated Optimization*, arXiv 1903.03934: every arrival.
* Nguyen et al., *Federated Learning with Buffered Asynchronous Aggregation*, arXiv 2106.06639: the
  first m.
* Lan, Han, Hashemi, Aggarwal and Brinton, *Asynchronous Federated Reinforcement Learning with
  Policy Gradient Updates*, arXiv 2404.08003: concurrency and delays of always busy agents.

The files: `config` is what a user says, `times` draws, `order` finds who is next (`asynchronous`
where nobody waits), `timing` joins federations of every size, `statistics` counts, `preview` is
`frl.timetable`, and `arrivals` drives an algorithm by a `step` at a time.
"""

from fedjax_rl.federation.clock.config import (
    CLOCK,
    DISTRIBUTIONS,
    SCHEDULERS,
    Clock,
    Rules,
    tree_latency,
)
from fedjax_rl.federation.clock.preview import Timetable, timetable
from fedjax_rl.federation.clock.statistics import METRICS
from fedjax_rl.federation.clock.timing import Timing, at_work

__all__ = [
    "CLOCK",
    "DISTRIBUTIONS",
    "METRICS",
    "SCHEDULERS",
    "Clock",
    "Rules",
    "Timetable",
    "Timing",
    "at_work",
    "timetable",
    "tree_latency",
]
