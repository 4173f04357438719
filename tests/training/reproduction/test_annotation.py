"""Figures of the annotation literature, counted by hand."""

import numpy as np
import pytest

from training.reproduction.annotation import annotation_figures

pytestmark = pytest.mark.unit


def test_figures_are_means_over_the_classes_that_are_shown():
    scores = np.array([[3, 2, 1, 0], [3, 1, 2, 0], [0, 3, 1, 2]], np.float32)
    labels = np.array([[1, 1, -1, -1], [1, -1, -1, -1], [-1, 1, 1, -1]], np.int8)
    # Two words each: {0, 1}, {0, 2}, {1, 3}. Class 0 is right 2 of 2 and found 2 of 2, class 1 the
    # same, class 2 wrong once and missed once; class 3 is shown by no photo.
    found = annotation_figures(scores, labels, words=2)
    assert found["precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["recall"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert (found["n_plus"], found["classes"]) == (2, 3)


def test_no_word_right_has_no_f1():
    found = annotation_figures(np.array([[1.0, 0.0]]), np.array([[-1, 1]]), words=1)
    assert (found["precision"], found["recall"], found["f1"], found["n_plus"]) == (0, 0, 0, 0)
