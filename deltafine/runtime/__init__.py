"""Delta inference frame by frame on a CPU: compile a model to a plan, and run the plan on what changed."""
