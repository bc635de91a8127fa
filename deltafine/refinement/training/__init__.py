"""Training: the step, its losses and optimisers, and what happens around it."""
