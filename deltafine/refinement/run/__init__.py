"""A run: its directory, lock, checkpoints and resuming, and the way from the model to the refined model."""
