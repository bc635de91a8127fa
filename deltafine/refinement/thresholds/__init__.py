"""Thresholds: calibrated, shared out among the layers, computed again while training, trimmed to a budget."""
