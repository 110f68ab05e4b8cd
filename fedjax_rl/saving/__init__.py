"""The state of runs and their results on disk, and whose they are."""
