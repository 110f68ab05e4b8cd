"""One function per kind of picture, each from a saved result alone. Knows no algorithm by name."""

from fedjax_rl.plotting.drift import drift
from fedjax_rl.plotting.learning import curves, learning_curves
from fedjax_rl.plotting.mdp import mdp
from fedjax_rl.plotting.regressions import coefficients, panels, regression
from fedjax_rl.plotting.speedup import speedup
from fedjax_rl.plotting.style import save, style
from fedjax_rl.plotting.tables import heat, scoreboard

__all__ = [
    "coefficients",
    "curves",
    "drift",
    "heat",
    "learning_curves",
    "mdp",
    "panels",
    "regression",
    "save",
    "scoreboard",
    "speedup",
    "style",
]
