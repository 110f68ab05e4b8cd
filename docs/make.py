"""Makes the pages of this folder that follow from the code.

    python docs/make.py

`derivatives.md` says of every algorithm and property what a derivative is worth, as
`frl.differentiable` finds it in what is declared; `tests/test_derivatives.py` tries every row.
"""

from __future__ import annotations

import pathlib

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

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


if __name__ == "__main__":
    (HERE / "derivatives.md").write_text(page())
