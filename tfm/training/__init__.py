"""Training: the loss, the optimizer, the step, the loop and its checkpoints."""
