"""Each paper's experiments, declared."""

from fedjax_rl.studies.afedpg import STUDY as AFEDPG
from fedjax_rl.studies.communication_efficient import STUDY as COMMUNICATION_EFFICIENT
from fedjax_rl.studies.fast_fedpg import STUDY as FAST_FEDPG
from fedjax_rl.studies.linear_speedup import STUDY as LINEAR_SPEEDUP
from fedjax_rl.studies.momentum import STUDY as MOMENTUM
from fedjax_rl.studies.study import SCALES, Study

STUDIES = {
    study.name: study
    for study in (LINEAR_SPEEDUP, COMMUNICATION_EFFICIENT, FAST_FEDPG, MOMENTUM, AFEDPG)
}

__all__ = [
    "AFEDPG",
    "COMMUNICATION_EFFICIENT",
    "FAST_FEDPG",
    "LINEAR_SPEEDUP",
    "MOMENTUM",
    "SCALES",
    "STUDIES",
    "Study",
]
