"""TensorFlow Serving's services, and the client that asks them."""
