"""Makes the pages of this folder that follow from the code.

    python docs/make.py

`derivatives.md` says of every algorithm and property what a derivative is worth, as
`frl.differentiable` finds it in what is declared; `tests/test_derivatives.py` tries every row.
`scale.md` says what an agent takes of memory and of a network, as its program has it, and what
follows for many hosts from what was measured; `tests/test_cluster.py` makes it again.
"""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import fedjax_rl as frl
from fedjax_rl import analysis, backend
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.sweeps.costs import Costs, costs_of

HERE = pathlib.Path(__file__).parent
# What an algorithm is shown with besides its defaults, where that changes what is exact.
VARIANTS = {
    "fedq": [{"epsilon": 1.0, "behaviour": "uniform"}, {"sampling": "expected"}],
    "dql": [{"epsilon": 1.0}],
    "iw-es": [{"min_ess": 0.0, "derivative": "score"}],
}
EXACT = {"gradient": "exact"}
REFUSED = "refused"
WORDS = {"exact given the data": "given the data", "score": "estimated", "relaxed": "relaxed"}
HEAD = """# What a derivative is worth

Made by `python docs/make.py` from what the algorithms declare; every entry is tried by
`tests/test_derivatives.py`.

`frl.differentiate(algorithm, outcome, by)` gives the derivative of an outcome of a federation with
respect to how it is run. Where draws depend on what is learned, the property `derivative` says how
they count:

* **exact**: nothing is drawn from what is learned, and the derivative is that of the mean outcome.
* **given the data** (`derivative="pathwise"`): that of the outcome with everything that was drawn
  held fixed. It leaves out how the draws change, is biased as a derivative of the mean outcome, and
  says so in a warning.
* **estimated** (`derivative="score"`): likelihood ratios of all draws of all agents; no bias. What
  evolution strategies draw are perturbed parameters, whatever policy and episodes make of them:
  their score is that of the normal density around the server's model. Where a server plays with its
  own parameters, the actions that it draws count.
* **relaxed** (`derivative="relaxed"`): draws have the derivative of a Gumbel-softmax. Biased.
* refused, with a sentence that says why and what is allowed.

The numbers of an environment are named like `mdp.reward`. What draws are made from,
`mdp.transition` and `mdp.initial_distribution`, has a derivative where nothing is drawn: with
`fedq(mdp, sampling="expected")`, whose updates are the means of those of a trajectory.

Not in the tables, as they are refused everywhere: numbers that count (agents, periods, steps,
seeds), words and switches, what shapes a program, values of an uplink and times of a clock, which
decide who is heard and when. Any algorithm whose uplink chooses by the size of a message
(`event_triggered`, `probabilistic`, `lazy`, `top_k`, `scaled_sign`), and any with a rate that falls
on a plateau, is refused as a whole; `derivative="pathwise"` accepts that.
"""


def environment_of(kinds: tuple[str, ...]):
    """The smallest environment that an algorithm takes."""
    if "tabular" in kinds:
        family = frl.envs.dirichlet_mdps(8, num_states=3, num_actions=2)
        return frl.envs.tabular_task(family, max_steps=4)
    if "mdp" in kinds:
        return frl.envs.random_mdp(seed=0)
    if "grid" in kinds:
        return frl.envs.simple_grid(max_steps=8)
    return frl.envs.lqr()


def columns(name: str) -> dict:
    """What is shown of an algorithm: heading -> algorithm."""
    entry = ALGORITHMS[name]
    default = entry.make(environment_of(entry.environments))
    shown = {"by default": default}
    for variant in [*VARIANTS.get(name, []), EXACT]:
        if variant.keys() <= set(default.properties):
            try:
                own = default.replace(**variant)
            except ValueError:
                continue
            shown[", ".join(f"`{n}={value!r}`" for n, value in variant.items())] = own
    for way in ("pathwise", *default.estimators(default.config)):
        if default.sampled(default.config) is not None:
            shown[f"`derivative={way!r}`"] = default.replace(derivative=way)
    return shown


def table(name: str) -> str:
    """The rows of an algorithm."""
    shown = {head: frl.differentiable(own, unset=True) for head, own in columns(name).items()}
    names = [
        n for n in next(iter(shown.values())) if any(_kind(k[n]) != REFUSED for k in shown.values())
    ]
    lines = [f"\n## {name}\n"]
    if not names:
        return "\n".join([*lines, "Nothing can be differentiated by.\n"])
    lines += [f"| | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    for n in names:
        lines.append(f"| `{n}` | {' | '.join(_kind(kinds[n]) for kinds in shown.values())} |")
    return "\n".join([*lines, ""])


def _kind(text: str) -> str:
    return REFUSED if text.startswith("refused") else WORDS.get(text, text)


def page() -> str:
    """The page on derivatives."""
    return HEAD + "".join(table(name) for name in ALGORITHMS)


# Scale --------------------------------------------------------------------------------------------

RESULTS = HERE.parent / "benchmarks" / "results"
SCALE_HEAD = """# What scale costs

Made by `python docs/make.py` from the programs of the algorithms, from what `benchmarks/` has
measured and from published speeds of links; `tests/test_cluster.py` makes it again.

## An agent

Of one agent on an accelerator, with the defaults of its algorithm. *State*: bytes that it and its
uplink keep between two rounds; a run needs it twice, before a chunk of rounds and after. *With
work*: what algorithms that ask for memory say a run takes, rollouts and minibatches included. *Up*,
*down*: bytes that it sends and hears in a round if everything is sent. *Updates*: turns of loops in
a round, one after the other, which no device makes at a time; episodes count as one.

| algorithm | on | state | with work | up | down | exchanges a round | updates |
|---|---|---|---|---|---|---|---|
"""
# Where a `Task` is wanted, in place of the smallest that there is.
CARTPOLE = "CartPole-v1"
# What takes no task of discrete actions.
CONTINUOUS = {"fedapg": "gymnax/Pendulum-v1"}
HOSTS = (1, 2, 4, 8, 32, 256)


class Work(NamedTuple):
    """A federation whose rounds are timed.

    Attributes:
      name: of it.
      algorithm: that is run.
      num_agents: N.
      units: of what was measured, in an agent's part of a round.
      peer: where a core's rate stands: file, tables one in the other, row and case.
      row: of `benchmarks/device.py`, by its beginning.
    """

    name: str
    algorithm: object
    num_agents: int
    units: float
    peer: tuple[str, tuple[str, ...], str, str]
    row: str


def shown(name: str):
    """Where an algorithm is shown, in words, and the algorithm there."""
    entry = ALGORITHMS[name]
    if "mdp" in entry.environments:
        return "paper-mdp", entry.make(frl.envs.paper_mdp())
    if "task" in entry.environments:
        where = CONTINUOUS.get(name, CARTPOLE)
        return where, entry.make(frl.envs.make(where))
    return "the smallest", entry.make(environment_of(entry.environments))


def costs(algorithm) -> Costs:
    """Of a federation of two."""
    return costs_of(algorithm, 2)


def scale_row(name: str, where: str, algorithm) -> str:
    """What an agent of an algorithm takes."""
    found = costs(algorithm)
    state = sum(found.kept.get(part, 0) for part in ("agents", "uplinks")) / 2
    declared = "" if algorithm.memory is None else algorithm.memory(algorithm.config, 1)["total"]
    period = algorithm.config.sync_period if algorithm.periodic else 1
    sizes = [found.messages.get(f"bytes_{way}", 0) for way in ("up", "down")]
    numbers = (state, declared, *sizes, found.messages.get("messages_up", 0))
    cells = [f"{x:,.0f}" if x != "" else "" for x in (*numbers, found.step.turns * period)]
    return f"| {name} | {where} | {' | '.join(cells)} |"


def bigfish():
    """FedPPO with IMPALA as `benchmarks/device.py` times it."""
    game = frl.envs.procgen_task("BigFish", observation="pixels")
    sizes = {"num_envs": 64, "rollout_steps": 16, "minibatches": 4, "passes": 1}
    return frl.fedppo(game, network="impala", **sizes)


def works() -> list[Work]:
    """What is timed: the least work of an agent that there is, some, and much."""
    fedq = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=100)
    sizes = {"num_envs": 16, "rollout_steps": 128, "passes": 4, "minibatches": 8}
    ppo = frl.fedppo(frl.envs.make(CARTPOLE), **sizes)
    mlp, impala = ("fedppo, MLP on CartPole, 16", "fedppo, IMPALA on BigFish")
    return [
        Work("fedq, K = 100", fedq, 1_000_000, 100, _PEERS[0], "fedq, 1,048,576 agents, K = 100"),
        Work("fedppo, MLP on CartPole", ppo, 4096, 16 * 128 / 4, _PEERS[1], mlp),
        Work("fedppo, IMPALA on BigFish", bigfish(), 256, 64 * 16, _PEERS[2], impala),
    ]


_PEERS = (
    ("fedq", ("rows",), "fedjax_rl", "N=256 K=100"),
    ("ppo", ("agents",), "16 agents", "256 environments in all"),
    ("ppo", ("impala", "frames"), "whole", "IMPALA"),
)


def measured(work: Work) -> dict[str, float]:
    """Seconds of an agent's part of a round, by the device that it was measured on."""
    file, tables, name, case = work.peer
    content = json.loads((RESULTS / f"{file}-cpu.json").read_text())
    rows = content
    for one in tables:
        rows = rows[one]
    row = next(row for row in rows if row["name"] == name)
    core = f"a core of {content['device'].removeprefix('cpu: ').partition(',')[0]}"
    found = {core: work.units / row["cases"][case]["median"]}
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text())
        if content.get("case") == "device" and content.get("scale") == "full":
            rows = [row for row in content["rows"] if row["name"].startswith(work.row)]
            if rows:
                rate = max(row["median"] for row in rows)
                found[content["device"].removeprefix("1 x ")] = work.units / rate
    return found


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= size:
            return f"{float(f'{value / size:.3g}'):,g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def round_table(work: Work, size: float) -> str:
    """Times of a round of a federation over hosts, by device, link and shape."""
    lines = [
        f"\n### {work.name}, N = {work.num_agents:,}\n",
        f"A message has {size:,.0f} bytes.\n",
        f"| a host is | link | shape | {' | '.join(f'{n} hosts' for n in HOSTS)} |",
        f"|---|---|---|{'---|' * len(HOSTS)}",
    ]
    for device, each in measured(work).items():
        for link, known in analysis.LINKS.items():
            for shape in ("ring", "tree"):
                times = [
                    analysis.round_time(each, work.num_agents, size, hosts, known, shape)
                    for hosts in HOSTS
                ]
                cells = " | ".join(map(seconds, times))
                lines.append(f"| {device} | {link} | {shape} | {cells} |")
    return "\n".join([*lines, ""])


def local_rounds(size: float) -> str:
    """Rounds in processes of one machine, as measured and as the model has them."""
    content = json.loads((RESULTS / "scaling-cpu.json").read_text())
    one, two, *_ = rows = content["processes"]
    # On a ring of two a message takes two hops.
    link = analysis.Link(two["exchange_seconds"] / 2, float("inf"), "measured")
    lines = [
        "\n### Measured: fedq, K = 100, in processes of one machine\n",
        f"`benchmarks/run.py scaling`, N = {one['agents']:,}, on {content['device']}. The",
        "model has the compute of one process shared by the cores, and a ring whose latency is",
        "that of two processes that only exchange. It leaves out that cores which work at the same",
        "time are slower each, and that of more processes than cores some wait for others that do",
        "not run.\n",
        "| processes | measured | model | of it exchange | measured exchange alone |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        count = row["processes"]
        ring = 0.0 if count == 1 else analysis.all_reduce_time(size, count, link, "ring")
        model = one["round_seconds"] / min(count, row["cores"]) + ring
        alone = row["exchange_seconds"] if count > 1 else 0.0
        times = [seconds(x) if x else "-" for x in (row["round_seconds"], model, ring, alone)]
        lines.append(f"| {count} | {' | '.join(times)} |")
    return "\n".join([*lines, ""])


def pod_row(work: Work, found: Costs) -> str:
    """What a pod holds of the agents of a federation, and how long their mean takes."""
    one, pod = work.algorithm, analysis.POD
    need = 2 * sum(found.kept.get(part, 0) for part in ("agents", "uplinks")) / 2
    need = need if one.memory is None else one.memory(one.config, 1)["total"]
    size = found.messages["bytes_up"]
    times = (
        analysis.all_reduce_time(size, pod.count, pod.link, shape) for shape in ("ring", "tree")
    )
    cells = f"{need:,.0f} | {analysis.agents_held(need):,} | {' | '.join(map(seconds, times))}"
    return f"| {work.name} | {cells} |"


@backend.made_for("tpu")
def scale_page() -> str:
    """The page on scale, of the programs that accelerators have."""
    rows = [scale_row(name, *shown(name)) for name in ALGORITHMS]
    timed = [(work, costs(work.algorithm)) for work in works()]
    impala = timed[-1][0].algorithm
    rows.append(scale_row("fedppo, IMPALA", "BigFish, pixels, 64 environments", impala))
    pod = analysis.POD
    links = [
        f"| {name} | {seconds(link.latency)} | {link.bandwidth / 1e9:.3g} GB/s | {link.source} |"
        for name, link in analysis.LINKS.items()
    ]
    return "\n".join(
        [
            SCALE_HEAD + "\n".join(rows),
            "",
            "## A round over hosts",
            "",
            "`analysis.round_time`: the agents of one federation are shared by H hosts, each of",
            "which averages its own first. What crosses a link is then one message, however many",
            "agents there are, on a ring or up and down a tree. Compute is what `benchmarks/` has",
            "measured, as if a host were one such core or device and all else were free; links are",
            "as published:",
            "",
            "| link | latency | one way | source |",
            "|---|---|---|---|",
            *links,
            *(round_table(work, found.messages["bytes_up"]) for work, found in timed),
            local_rounds(timed[0][1].messages["bytes_up"]),
            f"## A pod of {pod.count} chips",
            "",
            f"{pod.bytes / 1e9:.0f} GB a chip ({pod.source}), three quarters of it for agents. The",
            "mean is over one federation that lies on all chips.",
            "",
            "| | bytes of an agent | agents | mean on a ring | on a tree |",
            "|---|---|---|---|---|",
            *(pod_row(work, found) for work, found in timed),
            "",
        ]
    )


if __name__ == "__main__":
    (HERE / "derivatives.md").write_text(page())
    (HERE / "scale.md").write_text(scale_page())
