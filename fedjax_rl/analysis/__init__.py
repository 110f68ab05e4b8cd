"""From recorded arrays to numbers with intervals. Host-side NumPy; knows no algorithm by name."""

from fedjax_rl.analysis.bootstrap import FitInterval, Interval, bootstrap_fit, bootstrap_interval
from fedjax_rl.analysis.bounds import BoundTerms, einhorn_bound, khodadadian_bound
from fedjax_rl.analysis.censored import tobit
from fedjax_rl.analysis.drift import DriftFit, DriftLaw, fit_drift_law, sync_phases
from fedjax_rl.analysis.regression import Fit, factored, loglog, ols, two_variable, windowed
from fedjax_rl.analysis.steady_state import (
    AuthorStop,
    author_final,
    author_stop,
    reported_agent,
    settled_mean,
    tail_mean,
)
from fedjax_rl.analysis.threshold import (
    MedianTime,
    ReachedCurve,
    ThresholdTime,
    kaplan_meier_curve,
    kaplan_meier_median,
    time_to_threshold,
)
from fedjax_rl.analysis.verdict import Target, judge

__all__ = [
    "AuthorStop",
    "BoundTerms",
    "DriftFit",
    "DriftLaw",
    "Fit",
    "FitInterval",
    "Interval",
    "MedianTime",
    "ReachedCurve",
    "Target",
    "ThresholdTime",
    "author_final",
    "author_stop",
    "bootstrap_fit",
    "bootstrap_interval",
    "einhorn_bound",
    "factored",
    "fit_drift_law",
    "judge",
    "kaplan_meier_curve",
    "kaplan_meier_median",
    "khodadadian_bound",
    "loglog",
    "ols",
    "reported_agent",
    "settled_mean",
    "sync_phases",
    "tail_mean",
    "time_to_threshold",
    "tobit",
    "two_variable",
    "windowed",
]
