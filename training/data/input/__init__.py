"""Input pipelines: batches from photos or stored features."""
