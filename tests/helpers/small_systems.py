"""Sizes of every system for a test, where the paper's would take seconds to build."""

SMALL = {
    "biam": {"channels": 8, "num_heads": 2, "top_k": 3},
    "fast0tag": {"channels": (16, 8)},
    "fast0tag_linear": {"svm_steps": 20},
    "attention_per_label": {"channels": 8, "joint_size": 6, "batch_norm_momentum": 0.5},
    "attention_per_cluster": {"channels": 8, "num_clusters": 3, "batch_norm_momentum": 0.5},
    "lesa": {"channels": 8, "num_attentions": 3, "batch_norm_momentum": 0.5},
    "wsabie": {"dimension": 8},
    "cnn_rnn": {"label_size": 8, "units": 16, "max_labels": 3, "beams": 2},
}
