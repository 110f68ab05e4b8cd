"""Whether anything was learned at all: what returns gain over the first policy's, and a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedjax_rl.studies.claims import Measurable, control, number
from fedjax_rl.studies.estimates import ratio, together
from fedjax_rl.studies.numbers import Number

TRIPLED = (2, None)  # a return that ends at three times its start has gained this much of it


def gains(
    ids: tuple[str, str],
    lines: str,
    late: Sequence[Number],
    still: tuple[Number, Number],
    *,
    of: str = "",
    why: str = "",
) -> Iterator[Measurable]:
    """Two claims: that every late return has tripled, and that it has not where nobody learns.

    A first policy may come to less than nothing: a gain is said in parts of the size of its return.

    Args:
      ids: of the claim and of its control.
      lines: what the late returns are of, in their order.
      late: returns of the last quarter.
      still: of runs that learn nothing, the whole, which is the first policy's, and the last
        quarter.
      of: what stands before the quantity, such as an environment.
      why: of both.
    """
    first, last = still
    height = first.then(abs)
    yield number(
        ids[0],
        f"{of}return of the last quarter less that of the first policy, in parts of its size: "
        f"{lines}",
        together(*(ratio(own - first, height) for own in late)),
        (TRIPLED,) * len(late),
        why=why,
    )
    yield control(
        ids[1],
        "the same where nothing is learned",
        ratio(last - first, height),
        TRIPLED,
        why=why,
    )
