"""Each paper's experiments, declared."""

from fedjax_rl.studies.linear_speedup import STUDY as LINEAR_SPEEDUP
from fedjax_rl.studies.study import SCALES, Study

STUDIES = {LINEAR_SPEEDUP.name: LINEAR_SPEEDUP}

__all__ = ["LINEAR_SPEEDUP", "SCALES", "STUDIES", "Study"]
