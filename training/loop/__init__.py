"""The training loop: objective, optimizer step, devices, checkpoints, logs."""
