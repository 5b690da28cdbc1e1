"""Training: one loop for everything that is trained, its optimiser, schedule, checkpoints and metrics."""
