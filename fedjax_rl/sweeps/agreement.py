"""Whether several processes are about to run the same, before anything compiles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from fedjax_rl import hosts
from fedjax_rl.saving import results
from fedjax_rl.saving.fingerprint import differences
from fedjax_rl.sweeps.run_arguments import Run


def agree(run: Run, batches: Iterable[tuple[str | None, Callable[[], dict]]]) -> None:
    """Has all processes compare what they have been given.

    Args:
      run: for how long, and how.
      batches: of each the label of its algorithm, and what gives its fingerprint.

    Raises:
      ValueError: in every process, naming one that is given something else, and what.
    """
    own = _said(run)
    for label, describe in batches:
        # What cannot be told apart by its content is believed to be the same.
        with contextlib.suppress(ValueError):
            described = describe()
            own |= {n if label is None else f"{label}: {n}": x for n, x in described.items()}
    theirs = hosts.once(lambda: own)
    differ = hosts.heard(differences(own, theirs))

    def refuse() -> None:
        for process, words in enumerate(differ):
            if words:
                listed = "; ".join(words[:4]).replace(", there ", ", and there ")
                raise ValueError(
                    f"process {process} is given something else than process 0: {listed}; allowed: "
                    "the same arguments and versions for all"
                )

    hosts.once(refuse)


def _said(run: Run) -> dict[str, list[str]]:
    """Of the arguments of a run those that say when processes meet, as a fingerprint has them."""
    values = {
        "num_steps": run.num_steps,
        "devices": run.devices,
        "chunk": run.chunk,
        "checkpoints": run.checkpoints is not None,
        **results.versions(),
    }
    return {name: [str(value), ""] for name, value in values.items()}
