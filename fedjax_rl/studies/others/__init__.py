"""Study `others`: the same experiments by other people's code, or by their algorithm in NumPy."""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.others import policies, values
from fedjax_rl.studies.study import scales

SCALES = scales(
    families=(2, 6, 6),  # of Jin et al.
    steps=((4, 16), (1, 4, 16, 64), (1, 4, 16, 64)),  # H of theirs
    pg_trials=(24, 200, 800),
    td_trials=(12, 48, 192),
    grid_trials=(40, 240, 960),
    repetitions=(3, 10, 40),  # of all of Einhorn's runs
)

STUDY = Study(
    "others",
    "Public codes of Einhorn, Jin et al., Beikmohammadi, Labbi et al. and Gunn",
    (values.einhorn, policies.averages, values.td, policies.policy_gradient, values.grid),
    SCALES,
    note="""Whether two programs written by different people agree. What is compared with are
    numbers of others' runs, which stand as references with their source, or the updates of their
    public code, written once more in NumPy and run beside ours; then the claim is that the
    difference is small, and a band says how small. Controls are the same comparisons with a
    program that learns nothing.""",
    found="""the public codes and this package agree: with Jin et al.'s to rounding, with Einhorn's
    raw runs at K of 100 and more by a factor of {E1/0} and {E1/1} ({E1!}); at K = 1 and 10 his
    errors are larger by {E2/0} and {E2/1} ({E2!}), since his workers share one queue.""",
)
