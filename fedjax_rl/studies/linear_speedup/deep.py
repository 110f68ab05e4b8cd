"""Figures 8 to 13."""

SIZES: dict = {}
FIGURES = ()
PRESETS = ("paper", "clean")
