"""Sizes of every system for a test, where the paper's would take seconds to build."""

SMALL = {
    "biam": {"channels": 8, "num_heads": 2, "top_k": 3},
    "fast0tag": {"channels": (16, 8)},
    "fast0tag_linear": {"svm_steps": 20},
    "wsabie": {"dimension": 8},
    "cnn_rnn": {"label_size": 8, "units": 16, "max_labels": 3, "beams": 2},
}
