"""Photos indexed once, then scored against any classes without the model."""
