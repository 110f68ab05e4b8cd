"""Settings that have been tuned, per algorithm and environment, and what they reach."""

from fedjax_rl.presets.table import Reached, Tuned, entries, find, refusal, tuned

__all__ = ["Reached", "Tuned", "entries", "find", "refusal", "tuned"]
