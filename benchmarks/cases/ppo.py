"""PPO on CartPole against rejax, sixteen agents against one, and where IMPALA's time goes."""

from __future__ import annotations

from cases import SMALL_LOOPS, Case

# Least rates: of rejax's, and of sixteen agents in one agent's with as many environments.
PEER_LIMIT, AGENTS_LIMIT = 1.5, 0.9
# Least rate of IMPALA's products in that of a large one.
IMPALA_LIMIT = 0.4
# Rollouts of a call; those before agents are compared with the peer, and with how many seeds.
ROLLOUTS, LEARNED_ROLLOUTS, LEARNED_SEEDS = 4, 12, 3

NOTE = """On a CPU agents learn one after the other: grouped convolutions take three times as
long, and gradients of kernels as products of matrices are eight times as fast as XLA's own within a
loop. An epoch of IMPALA is learning by four fifths, at a fifth of the speed of a product of large
matrices; a forward pass reaches a third. With 16 environments a step of a rollout is 62 kernels, of
which most take as long as the one that counts the steps."""


def _rows(arguments) -> dict:
    import harness
    import ppo_fedjax as ours
    import ppo_peers as peers

    rollouts = max(1, round(arguments.scale * ROLLOUTS))

    def against_peer():
        for num_envs in (16, peers.ENVS):
            makers = {
                "fedjax_rl": lambda n=num_envs: ours.cartpole(1, n, rollouts),
                "rejax": lambda n=num_envs: peers.rejax_ppo("CartPole-v1", n, rollouts)[0],
            }
            calls = {row: make() for row, make in arguments.wanted(makers).items()}
            yield f"{num_envs} environments", calls

    def against_one():
        yield (
            f"{peers.ENVS} environments in all",
            {
                "one agent": ours.cartpole(1, peers.ENVS, rollouts),
                "16 agents": ours.cartpole(16, peers.ENVS // 16, rollouts),
                "16 agents, in turn": ours.cartpole(
                    16, peers.ENVS // 16, rollouts, batching="in turn"
                ),
            },
        )

    rows = harness.table(against_peer(), CASE.units, arguments)
    agents = harness.table(against_one(), CASE.units, arguments)
    shares, convolutions = _impala(arguments)
    return {
        "rows": rows,
        "scale": arguments.scale,
        "learned": [] if arguments.only else [_learned(ours, peers)],
        "agents": agents,
        "impala": shares,
        "convolutions": convolutions,
    }


def _learned(ours, peers) -> dict:
    """Returns after equal training, ours and the peer's."""
    seeds = range(LEARNED_SEEDS)
    _, learned = peers.rejax_ppo("CartPole-v1", 64, LEARNED_ROLLOUTS)
    return {
        "what": f"mean return after {LEARNED_ROLLOUTS} rollouts of 64 environments, by seed",
        "rejax": [learned(seed) for seed in seeds],
        "fedjax_rl": [ours.learned(1, 64, LEARNED_ROLLOUTS, seed) for seed in seeds],
        "fedjax_rl, 16 agents": [ours.learned(16, 4, LEARNED_ROLLOUTS, seed) for seed in seeds],
    }


def _impala(arguments) -> tuple[dict, list]:
    """Shares of the time of an agent that sees pictures, and ways to apply its convolutions."""
    import harness
    import ppo_fedjax as ours

    repeats = max(2, arguments.repeats // 2)
    parts = harness.table([("IMPALA", ours.parts())], "frames", arguments, repeats=repeats)
    rates = {row["name"]: row["median"] for row in parts}

    def seconds_of(call) -> float:
        found = harness.measure({"product": call}, {"product": 1}, 5)["product"]
        return 1 / max(found.rates(harness.clock()))

    limit = ours.peak(seconds_of)
    shares = {
        "frames": parts,
        "share": {n: rates["whole"] / rates[n] for n in ("environment", "acting", "learning")},
        "operations_per_second_of_a_product": limit,
        "of_that": {
            n: rates[n] * ours.operations(n) / limit for n in ("acting", "learning", "whole")
        },
    }
    ways = []
    for case, calls in ours.convolutions(max(1, round(arguments.scale * 16))).items():
        ways += harness.table([(case, calls)], "pictures", arguments, repeats=repeats)
    return shares, ways


def _limits(content) -> list[dict]:
    from harness import target

    ours = next(row for row in content["rows"] if row["name"] == "fedjax_rl")
    agents = next(row for row in content["agents"] if row["name"] == "16 agents")
    (case,) = agents["cases"]
    return [
        *(
            target(f"rejax, {c}", found["ratio"]["rejax"], PEER_LIMIT)
            for c, found in ours["cases"].items()
        ),
        target("IMPALA's products", content["impala"]["of_that"]["whole"], IMPALA_LIMIT),
        target(f"16 agents, {case}", agents["cases"][case]["ratio"]["one agent"], AGENTS_LIMIT),
    ]


CASE = Case(
    _rows, "environment steps", _limits, 5, "fedjax_rl", SMALL_LOOPS, note=NOTE, peers=("rejax",)
)
