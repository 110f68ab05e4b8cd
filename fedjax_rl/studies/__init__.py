"""Each paper's experiments, declared; and the words to declare another one's."""

from fedjax_rl.studies.afedpg import STUDY as AFEDPG
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.communication_efficient import STUDY as COMMUNICATION_EFFICIENT
from fedjax_rl.studies.declared import Study, figure
from fedjax_rl.studies.differentiate import STUDY as DIFFERENTIATE
from fedjax_rl.studies.estimates import (
    exact,
    exponent,
    mean,
    measured,
    of_means,
    ratio,
    share_of_trials,
    shares,
    together,
)
from fedjax_rl.studies.fast_fedpg import STUDY as FAST_FEDPG
from fedjax_rl.studies.linear_speedup import STUDY as LINEAR_SPEEDUP
from fedjax_rl.studies.momentum import STUDY as MOMENTUM
from fedjax_rl.studies.others import STUDY as OTHERS
from fedjax_rl.studies.pictures import against, curves, page, panel, picture
from fedjax_rl.studies.runs import Stage, runs
from fedjax_rl.studies.study import SCALES, scales
from fedjax_rl.studies.tuned import tuned

STUDIES = {
    study.name: study
    for study in (
        *(LINEAR_SPEEDUP, COMMUNICATION_EFFICIENT, FAST_FEDPG, MOMENTUM, AFEDPG, OTHERS),
        DIFFERENTIATE,
    )
}

__all__ = [
    "AFEDPG",
    "COMMUNICATION_EFFICIENT",
    "DIFFERENTIATE",
    "FAST_FEDPG",
    "LINEAR_SPEEDUP",
    "MOMENTUM",
    "OTHERS",
    "SCALES",
    "STUDIES",
    "Stage",
    "Study",
    "against",
    "control",
    "curves",
    "effect",
    "exact",
    "exponent",
    "figure",
    "mean",
    "measured",
    "number",
    "of_means",
    "page",
    "panel",
    "picture",
    "ratio",
    "runs",
    "scales",
    "share_of_trials",
    "shares",
    "together",
    "tuned",
]
