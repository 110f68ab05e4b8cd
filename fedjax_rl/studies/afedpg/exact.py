"""What nothing random is in: late gradients, an agent beside its reference, clocks alone."""

# ruff: noqa: RUF001 -- the labels say α and − as the papers do

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import analysis, streams
from fedjax_rl.algorithms.afedpg import first_model, point_ahead, server_of
from fedjax_rl.algorithms.oracle import keys_at
from fedjax_rl.federation.clock import Clock
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.plotting.page import describe
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO
from fedjax_rl.rollouts.episodes import sample_trajectories
from fedjax_rl.studies.afedpg.tables import m3
from fedjax_rl.studies.claims import number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exactly, measured, together
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import Stage

DELAYS = (0, 1, 4, 8)
ALPHA = 0.1
PROFILES = {
    "equal": (1.0,) * 8,
    "two classes": (1.0,) * 4 + (4.0,) * 4,
    "linear": tuple(float(t) for t in np.linspace(1, 4, 8)),
    "one slow": (1.0,) * 7 + (10.0,),
}
SHOWN = 16.0  # time of the picture of a clock


def _late(meter) -> xr.Dataset:
    """A9: errors of d on a quadratic, in units of the Hessian times a step: [kind, delay].

    The algorithm's own points and steps, alpha 0.1, eta 0.002, 600 steps; every gradient arrives
    so many steps late.
    """
    report, table = meter.stage("lookahead"), np.empty((3, len(DELAYS)))
    kinds = {"without": (False, 0.0), "with": (True, 0.0), "compensated": (True, 1.0)}
    with jax.enable_x64(True):
        for row, (ahead, compensation) in enumerate(kinds.values()):
            config = frl.afedpg(m3(), lookahead=ahead).config
            for column, delay in enumerate(DELAYS):
                table[row, column] = _delayed(config, delay, compensation * delay)
                report(row * len(DELAYS) + column + 1, table.size)
    return xr.Dataset(
        {"factor": (("kind", "delay"), table)}, {"kind": list(kinds), "delay": list(DELAYS)}
    )


def _delayed(config, delay: int, compensation: float) -> float:
    """Error of d after 600 steps, over the norm of the Hessian times the last step."""
    server, hessian = server_of(config), -jnp.diag(jnp.asarray([0.4, 1.0, 1.7]))
    params = {"messages": 1.0, "momentum": ALPHA, "learning_rate": 0.002, "decay_start": 50.0}
    params |= {"momentum_decay": 0.0, "learning_rate_decay": 0.0}
    params |= {"delay_compensation": float(compensation)}
    params = {name: jnp.asarray(value) for name, value in params.items()}

    def handed(model):
        return point_ahead(config, model, params)

    def step(carry, _):
        model, points = carry
        late = jax.tree.map(lambda x: x[0], points)
        gradient, alpha = hessian @ late[0], late[1]
        new, _ = server.step(model, (), (alpha * gradient, alpha), params)
        points = jax.tree.map(
            lambda old, now: jnp.concatenate([old[1:], now[None]]), points, handed(new)
        )
        return (new, points), new.direction - hessian @ model.parameters

    model = first_model(jnp.asarray([60.0, 0.5, -0.3]))
    first = jax.tree.map(lambda x: jnp.repeat(x[None], delay + 1, axis=0), handed(model))
    (model, _), errors = jax.jit(lambda: jax.lax.scan(step, (model, first), length=600))()
    move = hessian @ (model.parameters - model.previous)
    return float(jnp.linalg.norm(errors[-1]) / jnp.linalg.norm(move))


def _transport(meter) -> xr.Dataset:
    """A14: AFedPG with one agent beside N-PG-IGT written out, 50 steps, the same keys.

    Returns:
      `parameters` and `reference` [entry], float64.
    """
    report = meter.stage("transport")
    rate, steps, task = 0.05, 50, m3()
    with jax.enable_x64(True):
        own = frl.afedpg(task, learning_rate=rate, momentum=ALPHA, episodes_per_step=8)
        ours = jax.jit(
            lambda: frl.simulate(own, num_agents=1, num_steps=steps).state.server.parameters[0]
        )()
        policy, rule = own.config.make_policy(), learner.AdvantageRule()
        keys = streams.agent_keys(np.zeros(1, np.int32), np.zeros(1, np.int32))
        start = policy.init(streams.keys_of(keys, streams.Episodic.MODEL)[0]).astype(float)
        member = own.parameters(own.config, 1).agent["environment"]
        member = jax.tree.map(jnp.asarray, member)

        def step(carry, place):
            here, before, direction = carry
            point = here + (1 - ALPHA) / ALPHA * (here - before)
            words = keys_at(keys, place, jnp.uint32(0))
            made = sample_trajectories(
                task, policy, words, point[None], 8, environment=member, kind="scan"
            )
            one = jax.tree.map(lambda x: x[0], made)
            found = learner.estimate(policy, point, one, task.discount, rule)
            direction = jnp.where(place == 0, found, (1 - ALPHA) * direction + ALPHA * found)
            there = here + rate * direction / jnp.linalg.norm(direction)
            return (there, here, direction), None

        first = (start, start, jnp.zeros_like(start))
        places = jnp.arange(steps, dtype=jnp.uint32)
        reference = jax.jit(lambda: jax.lax.scan(step, first, places)[0][0])()
    report(1, 1)
    return xr.Dataset(
        {"parameters": ("entry", np.asarray(ours)), "reference": ("entry", np.asarray(reference))}
    )


def _schedule(meter) -> xr.Dataset:
    """A10: clocks alone, 20,000 arrivals: [profile]; times of asynchronous and synchronous steps.

    `age` is the mean delay of messages, `largest` of all; `share` the distribution [profile, age].
    """
    report, rows = meter.stage("schedule"), {name: [] for name in ("time", "round", "age")}
    rows |= {"largest": [], "share": []}
    for place, times in enumerate(PROFILES.values()):
        table = frl.timetable(
            Clock("asynchronous", compute_time=times), num_agents=8, num_steps=20_000
        )
        rounds = frl.timetable(Clock(compute_time=times), num_agents=8, num_steps=1000)
        ages = table.staleness.ravel().astype(int)
        rows["time"].append(table.time[0, -1] / 20_000)
        rows["round"].append(rounds.time[0, -1] / 1000)
        rows["age"].append(ages.mean())
        rows["largest"].append(ages.max())
        rows["share"].append(np.bincount(ages, minlength=101)[:101].cumsum() / ages.size)
        report(place + 1, len(PROFILES))
    share = rows.pop("share")
    data = {name: ("profile", values) for name, values in rows.items()}
    data["share"] = (("profile", "delay"), share)
    return xr.Dataset(data, {"profile": list(PROFILES), "delay": np.arange(101)})


def _all(array) -> list:
    return [exactly(value) for value in np.ravel(array)]


LATE, ALONE = Stage("lookahead", _late, 10), Stage("transport", _transport, 10)
CLOCKS = Stage("schedule", _schedule, 4)


@figure("lookahead", "what looking ahead makes up for: errors on a quadratic, and N-PG-IGT")
def lookahead(size):
    """Looking ahead makes up for the age of the momentum, not for that of a late message."""
    del size
    factors = (9, 10, 13, 17, 0, 1, 4, 8)
    yield number(
        "A9",
        "error of the momentum on a quadratic in Hessian steps, delays 0, 1, 4, 8: without "
        "lookahead, with",
        measured(lambda runs: _all(runs["factor"][:2]), LATE),
        tuple((0.99 * x, 1.01 * x) if x else (None, 1e-9) for x in factors),
        published=factors,
    )
    yield number(
        "A9 compensated",
        "the same with the delay added to the coefficient: largest",
        measured(lambda runs: exactly(runs["factor"][2].max()), LATE),
        (None, 5e-3),
        reference=0,
    )
    yield number(
        "A14",
        "AFedPG with one agent less N-PG-IGT, same keys, 50 steps: largest entry",
        measured(lambda runs: exactly(abs(runs["parameters"] - runs["reference"]).max()), ALONE),
        (None, 1e-12),
        published=0,
        reference=2e-15,
    )

    def errors(axis, runs):
        words = ("without: (1 − α) / α + δ", "with: δ", "with δ in the coefficient: 0")
        for place, label in enumerate(words):
            axis.plot(DELAYS, runs["factor"][place], f"{MARKERS[place]}-", ms=5, label=label)
        axis.set_xticks(DELAYS)
        describe(axis, "", "δ, steps that a gradient is late", "‖error of d‖ / ‖Hessian × step‖")

    def equal(axis, runs):
        reference = runs["reference"]
        axis.plot(reference, reference, ":", color=GREY, label="equal")
        axis.plot(reference, runs["parameters"], "o", color=OKABE_ITO[0], ms=4)
        describe(axis, "", "N-PG-IGT, written out", "AFedPG")

    yield page(
        "lookahead",
        panel(errors, LATE, title="a quadratic, α = 0.1"),
        panel(equal, ALONE, title="one agent, 50 steps: parameters"),
        legends="below",
    )


@figure("clock", "who arrives when, and the time per message against closed forms")
def clock(size):
    """Always busy agents are as many messages old as there are others, whatever their speeds."""
    del size
    profiles = list(PROFILES.values())
    step = np.array([analysis.time_per_update(times, "asynchronous") for times in profiles])
    expected = np.array([analysis.time_ratio(times) for times in profiles])
    near = ((0.999, 1.001),) * 4
    yield number(
        "A10",
        "always busy agents, four profiles: time per step over 1 / sum 1/t",
        measured(lambda runs: _all(runs["time"] / step), CLOCKS),
        near,
        published=(1,) * 4,
    )
    yield number(
        "A10 delay",
        "mean delay over N - 1; largest delay",
        together(
            measured(lambda runs: _all(runs["age"] / 7), CLOCKS),
            measured(lambda runs: _all(runs["largest"]), CLOCKS),
        ),
        (*near, (7, 7), (18, 19), (18, 18), (70, 70)),
        published=(*(1,) * 4, *(None,) * 4),
        reference=(*(1,) * 4, 7, 19, 18, 70),
    )
    yield number(
        "time ratio",
        "constant times: time per message of synchronous over asynchronous, over t_max / harmonic "
        "mean",
        measured(lambda runs: _all(runs["round"] / 8 / runs["time"] / expected), CLOCKS),
        ((0.95, 1.05),) * 4,
        published=(1,) * 4,
    )

    def ratios(axis, runs):
        places = np.arange(len(PROFILES))
        shown = runs["round"] / 8 / runs["time"]
        axis.bar(places, shown, 0.5, label="20,000 arrivals, 1,000 rounds")
        axis.plot(places, expected, "_", color="black", ms=26, label="$t_{max}$ / harmonic mean")
        axis.set_xticks(places, PROFILES)
        describe(axis, "", "", "synchronous / asynchronous")

    def delays(axis, runs):
        for place, name in enumerate(PROFILES):
            axis.step(
                runs["delay"],
                runs["share"][place],
                where="post",
                color=OKABE_ITO[place],
                label=name,
            )
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks([0, 1, 7, 20, 70], ["0", "1", "7", "20", "70"])
        describe(axis, "", "age of a message, mean 7", "share of messages")

    kinds = ("synchronous", "semi-synchronous", "asynchronous")
    yield page(
        "clock",
        *(
            panel(_bars(kind), title=kind.replace("semi-synchronous", "first four"))
            for kind in kinds
        ),
        panel(ratios, CLOCKS, title="time per message"),
        panel(delays, CLOCKS, title="how old messages are"),
        columns=3,
    )


def _bars(scheduler):
    """Who works when: a bar from the model's handing over to the message, the rest is waiting."""

    def draw(axis):
        works = PROFILES["linear"]
        wait_for = 4 if scheduler == "semi-synchronous" else None
        timing = Clock(scheduler, wait_for, compute_time=works)
        table = frl.timetable(timing, num_agents=8, num_steps=60)
        times, begun = table.time[0], np.zeros(8)
        for place, now in enumerate(times[times <= SHOWN + max(works)]):
            for agent in table.agent[0, place]:
                axis.barh(
                    agent + 1, works[agent] - 0.08, 0.7, begun[agent] + 0.04, color=OKABE_ITO[0]
                )
                begun[agent] = now
        axis.vlines(np.unique(times[times <= SHOWN]), 0.5, 8.5, color=GREY, lw=0.5, zorder=0)
        axis.set_xlim(0, SHOWN)
        axis.set_yticks(range(1, 9))
        axis.grid(visible=False)
        describe(axis, "", "time; a line is a step", "agent")

    return draw
