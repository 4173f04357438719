"""From photos or stored features to the batches of a training step."""
