"""Metrics of multi-label zero-shot tagging."""

from biam_tf.metrics.figures_by_part import evaluate_scores, format_table
from biam_tf.metrics.precision_and_f1 import (
    CLASS_CONVENTIONS,
    IMAGE_CONVENTIONS,
    F1AtK,
    average_precision,
    chance_average_precision,
    f1_at_k,
    labels_of_classes,
    mean_average_precision,
)

__all__ = [
    "CLASS_CONVENTIONS",
    "IMAGE_CONVENTIONS",
    "F1AtK",
    "average_precision",
    "chance_average_precision",
    "evaluate_scores",
    "f1_at_k",
    "format_table",
    "labels_of_classes",
    "mean_average_precision",
]
