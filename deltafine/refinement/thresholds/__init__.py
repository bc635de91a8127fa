"""Thresholds: calibrated, shared out among the layers, found anew while training, trimmed to a budget."""
