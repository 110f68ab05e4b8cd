r"""FedSVRPG-M and FedHAPG-M: local steps along a momentum that the server keeps.

The server's u estimates the gradient of J at the previous model theta'. In its local steps agent i
corrects u for the way from there to its own theta,

    FedSVRPG-M   d = beta g(tau | theta) + (1 - beta) (u + g(tau | theta) - w g(tau | theta')),
                 w = w(tau | theta', theta), tau ~ theta;
    FedHAPG-M    d = beta w g(tau | theta) + (1 - beta) (u + D),  w = w(tau | theta, theta_a),
                 D a Hessian-vector product at theta_a = a theta + (1 - a) theta' along
                 theta - theta', a ~ U[0, 1], tau ~ theta_a,

and after H of them the server sets u to the mean change per step and learning rate and moves by
lambda u. With beta = 1 both are FedPG with that server step.

The fixed point has the bias of FedPG at the same eta and H, whatever beta is; but eta can be made
small without slowing the server down.

* Wang, He, Zhang, Miao and Anderson, *Momentum for the Win: Collaborative Federated Reinforcement
  Learning across Heterogeneous Environments*, arXiv 2405.19499, Algorithm 1 and Eq. (4).
* The Hessian-vector product: Shen et al., *Hessian Aided Policy Gradient* (2019).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms.define import Learner
from fedjax_rl.algorithms.local_gradient import (
    learner_of,
    local_steps,
    mean_direction,
    policy_gradient,
)
from fedjax_rl.algorithms.local_gradient_properties import LocalGradient
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import record, static, traced
from fedjax_rl.learners import policy_gradient as learner

ANCHORS = ("previous", "current")
WEIGHTS = ("trajectory", "per_decision")

_MOMENTUM = fields.number(0, 1, above=True)
_BOUND = fields.number(0, above=True, infinite=True).or_none()


@record
class MomentumPG(LocalGradient):
    """Properties of both algorithms; see also `LocalGradient`.

    Attributes:
      momentum: beta, weight of the newest gradient, in (0, 1]; 1 is no momentum.
      server_learning_rate: lambda, of the momentum, above 0. By default what suits a table or a
        network. Averaging of parameters is lambda = eta H.
      first_episodes: B_0, episodes of an agent for the first momentum; with 0 that is zero.
      weight_clip: c_w, what importance weights are truncated at, above 0; may be infinite, as it is
        by default. It shrinks the term that is subtracted, so that steps become longer: compare
        methods at equal steps.
      authors_code: the recursion of the authors' published code instead of their algorithm: a
        momentum of the agent's own, begun anew in every round, gradients per step of an episode,
        plain averaging of parameters. Theirs also divides learning rates by a power of the
        gradients seen; here they stay.
    """

    learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.005, 0.005))
    momentum: Any = traced(0.2, _MOMENTUM)
    server_learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.5, 0.05))
    first_episodes: int = static(20, fields.whole(0))
    weight_clip: Any = traced(None, _BOUND, absent=np.inf)
    authors_code: bool = static(False, fields.switch())

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        if self.authors_code and self.gradient != "sampled":
            raise ValueError(f"gradient is {self.gradient} with authors_code; allowed: sampled")


@record
class FedSVRPGM(MomentumPG):
    """Properties of FedSVRPG-M; see also `MomentumPG`.

    Attributes:
      weight_clip: as of `MomentumPG`, but 1.2 by default with a network, whose weights of long
        episodes vary so much that learning breaks off.
      variance_reduction: whether the old gradient is subtracted; without, the recursion is
        momentum alone, d = beta g + (1 - beta) u.
      anchor: theta', "previous" (the server's model a round ago, of which u is the gradient) or
        "current" (the model sent down last).
      weights: of a whole "trajectory", or "per_decision", which varies less.
    """

    weight_clip: Any = traced(None, _BOUND, absent=np.inf, by_policy=(None, 1.2))
    variance_reduction: bool = static(True, fields.switch())
    anchor: str = static("previous", fields.word(ANCHORS))
    weights: str = static("trajectory", fields.word(WEIGHTS))

    def with_defaults(self):
        """Without standardised advantages where weights are of decisions, which have none."""
        plain = self.normalize is None and self.weights == "per_decision"
        own = dataclasses.replace(self, normalize=False) if plain else self
        return super(FedSVRPGM, own).with_defaults()


@record
class FedHAPGM(MomentumPG):
    """Properties of FedHAPG-M; see also `MomentumPG`.

    Attributes:
      learning_rate: as of `MomentumPG`.
      momentum: as of `MomentumPG`; 0.2 by default, and 0.9 with a network: of long episodes the
        product with the Hessian varies more than the gradient.
      server_learning_rate: as of `MomentumPG`.
      two_trajectories: whether the gradient comes from episodes of its own at theta, with weight
        1: twice the episodes, and more stable.
    """

    learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.005, 0.002))
    momentum: Any = traced(None, _MOMENTUM.or_none(), by_policy=(0.2, 0.9))
    server_learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.5, 0.02))
    two_trajectories: bool = static(False, fields.switch())

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        clip = self.weight_clip
        # Theirs truncates weights to [2 - clip, clip], which is empty below 1.
        if self.authors_code and clip is not None and is_number(clip) and clip < 1:
            raise ValueError(f"weight_clip is {clip} with authors_code; allowed: at least 1")


def _server(config: MomentumPG) -> ServerStep:
    """The momentum becomes the mean change per step, and the model moves along it."""

    def step(model, memory, total, params):
        direction = mean_direction(config, total, params)
        # Theirs is the plain mean of the parameters, which is lambda = eta H.
        move = total if config.authors_code else params["server_learning_rate"] * direction
        model = model._replace(
            parameters=model.parameters + move, previous=model.parameters, direction=direction
        )
        return model, memory

    return ServerStep(lambda model: (), step)


def _spec(config: MomentumPG) -> MessageSpec:
    """A mean change moves the model alone, by the server's learning rate per step."""
    if config.authors_code:
        return MessageSpec()

    def step(params):
        return params["server_learning_rate"] / (params["learning_rate"] * config.local_steps)

    return MessageSpec(step=step, moving=lambda broadcast: broadcast[0])


def _assemble(config: MomentumPG, oracle: Oracle, direction) -> Learner:
    """What both have in common besides the direction of a local step."""
    first = config.first_episodes

    def directions(population, params, keys, parameters, kept):
        own = streams.keys_of(keys, streams.Episodic.FIRST)
        place = keys_at(own, jnp.uint32(0), jnp.uint32(0))
        return oracle.gradients(population, params, place, parameters, kept, first, False)

    link = Exchange(
        message=lambda agent, broadcast, params: agent.change,
        server=_server(config),
        broadcast=lambda model: (
            model.parameters if config.authors_code else (model.parameters, model.direction)
        ),
        spec=_spec(config),
        dedicated_server=True,
    )
    work = local_steps(oracle, direction)
    # A recursion that begins anew in every round needs no first momentum.
    begins = directions if first > 0 and not config.authors_code else None
    return learner_of(oracle, work, link, directions=begins)


def _per_step(config: MomentumPG, gradient, trajectories):
    """The gradient, per step of an episode where the authors' code has it so."""
    if not config.authors_code:
        return gradient
    return gradient / jnp.mean(trajectories.steps).astype(gradient.dtype)


def _recursion(config: MomentumPG, newest, change, model, now, place, params):
    """The move of a local step, `beta g + (1 - beta) (u + change of the gradient)`; unbatched."""
    beta = params["momentum"]
    # In the authors' code the recursion runs within a round, and begins anew with each.
    if config.authors_code:
        following = beta * newest + (1 - beta) * (now.direction + change)
        return jnp.where(place == 0, newest, following)
    return beta * newest + (1 - beta) * (model.direction + change)


def _exactly(config: MomentumPG, oracle: Oracle):
    """The direction of a local step with exact gradients; the same for both algorithms."""
    subtracts = getattr(config, "variance_reduction", True)

    def one(now, model, params, place):
        newest = oracle.gradient(now.parameters, params)
        change = jnp.zeros_like(newest)
        if subtracts:
            change = newest - oracle.gradient(_anchor(config, model, now), params)
        return _recursion(config, newest, change, model, now, place, params)

    def direction(population, params, state, models, now, keys, place, differentiable):
        moves = per_agent(one, population, params, now, models, fixed=(place,))
        return moves, now._replace(direction=moves)

    return direction


def _anchor(config: MomentumPG, model, now):
    """theta', the parameters of which the momentum is the gradient; unbatched."""
    if config.authors_code:
        return now.before
    current = getattr(config, "anchor", "previous") == "current"
    # u is made of gradients on the way from `previous`, and so estimates the one there.
    return model.parameters if current else model.previous


@policy_gradient(FedSVRPGM)
def fedsvrpg_m(config: FedSVRPGM) -> Learner:
    """FedSVRPG-M: momentum with variance reduction.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> algorithm = frl.fedsvrpg_m(task, momentum=0.2)
      >>> algorithm.config.momentum
      0.2
    """
    oracle = Oracle(config)
    task = oracle.task

    def one(now, model, trajectories, params, place):
        kept = oracle.with_episodes(now.oracle, now.parameters, trajectories, params)
        policy = oracle.acting(now.oracle)
        trajectories = oracle.judged(trajectories, now.oracle)
        newest = oracle.estimate(now.parameters, trajectories, params, now.oracle)
        newest = _per_step(config, newest, trajectories)
        change = jnp.zeros_like(newest)
        if config.variance_reduction:
            anchor = _anchor(config, model, now)
            # Eq. (4): the target theta' is the numerator, theta, which made the episodes, the
            # denominator. The other way round it still looks like learning.
            old, weights, overflows = learner.weighted_gradient(
                policy,
                anchor,
                now.parameters,
                trajectories,
                task.discount,
                oracle.rule(params),
                oracle.entropy(params),
                kind=config.weights,
                clip=params["weight_clip"],
            )
            change = newest - _per_step(config, old, trajectories)
            kept = kept.weighed(weights, overflows)
        move = _recursion(config, newest, change, model, now, place, params)
        return move, now._replace(direction=move, oracle=kept)

    def direction(population, params, state, models, now, keys, place, differentiable):
        count = config.episodes_per_step
        trajectories = oracle.sample(
            params, keys, now.parameters, count, differentiable, now.oracle
        )

        def everybody(trajectories, now, models):
            return per_agent(one, population, params, now, models, trajectories, fixed=(place,))

        return learner.without_padding(everybody, trajectories, now, models)

    return _assemble(config, oracle, _exactly(config, oracle) if oracle.exact else direction)


@policy_gradient(FedHAPGM)
def fedhapg_m(config: FedHAPGM) -> Learner:
    """FedHAPG-M: momentum with Hessian-vector products.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> algorithm = frl.fedhapg_m(task, momentum=0.2)
      >>> algorithm.config.momentum
      0.2
    """
    oracle = Oracle(config)
    task, count = oracle.task, config.episodes_per_step

    def between(now, model, share, params):
        """theta_a, and the way from theta' to theta."""
        way = now.parameters - _anchor(config, model, now)
        # Written from theta: where there is no way, theta_a is theta to the last bit.
        return now.parameters - (1 - share) * way, way

    def along(policy, at, way, trajectories, params):
        """The estimated change of the gradient along the way."""
        if config.authors_code:
            # The authors' routine loses the rewards: what is left is the likelihood's curvature.
            steps = jnp.mean(trajectories.steps).astype(at.dtype)
            ones = trajectories.mask.astype(at.dtype) / steps
            score = lambda x: learner.gradient(policy, x, trajectories, ones)
            return jax.jvp(score, (at,), (way,))[1]
        return learner.hessian_vector(
            policy,
            at,
            way,
            trajectories,
            task.discount,
            oracle.rule(params),
            oracle.entropy(params),
        )

    def one(now, before, model, at, way, trajectories, newest, params, place):
        kept = oracle.with_episodes(now.oracle, at, trajectories, params, before)
        policy, trajectories = oracle.acting(before), oracle.judged(trajectories, before)
        if newest is None:
            newest, weights, overflows = learner.weighted_gradient(
                policy,
                now.parameters,
                at,
                trajectories,
                task.discount,
                oracle.rule(params),
                oracle.entropy(params),
                clip=params["weight_clip"],
                two_sided=config.authors_code,
            )
            newest = _per_step(config, newest, trajectories)
            kept = kept.weighed(weights, overflows)
        change = along(policy, at, way, trajectories, params)
        move = _recursion(config, newest, change, model, now, place, params)
        return move, now._replace(direction=move, oracle=kept)

    def direction(population, params, state, models, now, keys, place, differentiable):
        own = streams.keys_of(state.keys, streams.Episodic.LEARNER, state.time)
        words = jax.vmap(streams.bits)(streams.fold(own, place))
        # Drawn, not 1/2: in the mean over a the product is the difference of the gradients exactly.
        shares = streams.uniform(words, now.parameters.dtype)
        at, ways = per_agent(between, population, params, now, models, shares)
        newest, before = None, now.oracle
        if config.two_trajectories:
            memory = streams.keys_of(state.keys, streams.Episodic.MEMORY)
            first, trajectories = oracle.sample_both(
                params,
                (keys, keys_at(memory, state.time, place)),
                (now.parameters, at),
                count,
                differentiable,
                before,
            )
            newest, kept = oracle.estimates(population, params, first, now.parameters, now.oracle)
            now = now._replace(oracle=kept)
        else:
            trajectories = oracle.sample(params, keys, at, count, differentiable, before)

        def everybody(trajectories, now, before, models, at, ways, newest):
            return per_agent(
                one,
                population,
                params,
                now,
                before,
                models,
                at,
                ways,
                trajectories,
                newest,
                fixed=(place,),
            )

        return learner.without_padding(
            everybody, trajectories, now, before, models, at, ways, newest
        )

    return _assemble(config, oracle, _exactly(config, oracle) if oracle.exact else direction)
