"""TensorFlow Serving's gRPC services for one model, and a client of them."""
