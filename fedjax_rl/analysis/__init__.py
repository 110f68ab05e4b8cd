"""From recorded arrays to numbers with intervals. Host-side NumPy; knows no algorithm by name."""

from fedjax_rl.analysis.asynchrony import time_per_update, time_ratio
from fedjax_rl.analysis.bands import (
    FEWEST,
    Bands,
    agent_mean,
    first_below,
    first_episode,
    first_within,
    growth_correlation,
    mean_interval,
    percentile_bands,
)
from fedjax_rl.analysis.bootstrap import FitInterval, Interval, bootstrap_fit, bootstrap_interval
from fedjax_rl.analysis.bounds import BoundTerms, einhorn_bound, khodadadian_bound
from fedjax_rl.analysis.censored import CensoredFit, interval_regression, speedup_fit, tobit
from fedjax_rl.analysis.cluster import (
    LINKS,
    POD,
    Chips,
    Link,
    agents_held,
    all_reduce_time,
    round_time,
)
from fedjax_rl.analysis.communication import (
    communication_probability,
    communication_variance,
    expected_communication,
    normal_window_rate,
    sampled_communication,
    window_rate,
)
from fedjax_rl.analysis.drift import DriftFit, DriftLaw, fit_drift_law, sync_phases
from fedjax_rl.analysis.fit import Fit
from fedjax_rl.analysis.over_runs import (
    RunInterval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from fedjax_rl.analysis.pareto import pareto_front
from fedjax_rl.analysis.power_laws import factored, loglog, two_variable, windowed
from fedjax_rl.analysis.regression import ols
from fedjax_rl.analysis.signal_to_noise import (
    SignalToNoise,
    best_fraction,
    ideal_signal_to_noise,
    selection_intensity,
    selection_threshold,
    signal_to_noise,
)
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
from fedjax_rl.analysis.verdict import Claim, Measured, around, decide, runs_to_decide

__all__ = [
    "FEWEST",
    "LINKS",
    "POD",
    "AuthorStop",
    "Bands",
    "BoundTerms",
    "CensoredFit",
    "Chips",
    "Claim",
    "DriftFit",
    "DriftLaw",
    "Fit",
    "FitInterval",
    "Interval",
    "Link",
    "Measured",
    "MedianTime",
    "ReachedCurve",
    "RunInterval",
    "SignalToNoise",
    "ThresholdTime",
    "agent_mean",
    "agents_held",
    "all_reduce_time",
    "around",
    "author_final",
    "author_stop",
    "best_fraction",
    "bootstrap_fit",
    "bootstrap_interval",
    "communication_probability",
    "communication_variance",
    "decide",
    "einhorn_bound",
    "expected_communication",
    "factored",
    "first_below",
    "first_episode",
    "first_within",
    "fit_drift_law",
    "growth_correlation",
    "ideal_signal_to_noise",
    "interquartile_mean",
    "interval_regression",
    "kaplan_meier_curve",
    "kaplan_meier_median",
    "khodadadian_bound",
    "loglog",
    "mean_interval",
    "normal_window_rate",
    "ols",
    "pareto_front",
    "percentile_bands",
    "performance_profile",
    "probability_of_improvement",
    "reported_agent",
    "round_time",
    "runs_to_decide",
    "sampled_communication",
    "selection_intensity",
    "selection_threshold",
    "settled_mean",
    "signal_to_noise",
    "speedup_fit",
    "stratified_bootstrap",
    "sync_phases",
    "tail_mean",
    "time_per_update",
    "time_ratio",
    "time_to_threshold",
    "tobit",
    "two_variable",
    "window_rate",
    "windowed",
]
