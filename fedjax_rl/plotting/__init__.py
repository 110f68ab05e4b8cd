"""One function per kind of picture, each from a saved result alone. Knows no algorithm by name."""

from fedjax_rl.plotting.bands import banded_curves
from fedjax_rl.plotting.browse import browsable
from fedjax_rl.plotting.by_property import curves
from fedjax_rl.plotting.drift import drift
from fedjax_rl.plotting.learning import learning_curves
from fedjax_rl.plotting.mdp import mdp
from fedjax_rl.plotting.pareto import pareto
from fedjax_rl.plotting.points import points
from fedjax_rl.plotting.profiles import performance_profiles
from fedjax_rl.plotting.regressions import coefficients, panels, regression
from fedjax_rl.plotting.snr import expected_communication, first_communication, snr
from fedjax_rl.plotting.speedup import speedup
from fedjax_rl.plotting.style import save, style
from fedjax_rl.plotting.tables import heat

__all__ = [
    "banded_curves",
    "browsable",
    "coefficients",
    "curves",
    "drift",
    "expected_communication",
    "first_communication",
    "heat",
    "learning_curves",
    "mdp",
    "panels",
    "pareto",
    "performance_profiles",
    "points",
    "regression",
    "save",
    "snr",
    "speedup",
    "style",
]
