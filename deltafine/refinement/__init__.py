"""Refinement: thresholds, training, and the run directory that both live in."""
