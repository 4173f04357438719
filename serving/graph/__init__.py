"""The exported model: signatures of TensorFlow operations, and what lies beside them."""
