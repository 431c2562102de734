"""Scores by hand, on asymmetric examples."""
import numpy as np
import pytest

import metrics


def test_confusion_by_hand():
    labels = np.array([[0, 0, 0, 1], [1, 2, 255, 3]], np.uint8)       # 255 and 3 are void
    predictions = np.array([[0, 1, 1, 1], [2, 2, 0, 1]], np.uint8)
    assert metrics.confusion(labels, predictions, 3).tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]


def test_scores_by_hand():
    scores = metrics.scores(np.array([[1, 2, 0], [0, 1, 1], [0, 0, 1]]))
    assert scores['accuracy'] == pytest.approx([1 / 3, 1 / 2, 1])
    assert scores['IoU'] == pytest.approx([1 / 3, 1 / 4, 1 / 2])
    assert scores['G'] == pytest.approx(3 / 6)
    assert scores['C'] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert scores['mIoU'] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)
    assert scores['fwIoU'] == pytest.approx(3 / 6 / 3 + 2 / 6 / 4 + 1 / 6 / 2)


def test_absent_classes():
    """Class 1 is predicted only: no accuracy, IoU 0; class 2 is nowhere: left out."""
    scores = metrics.scores(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert scores['accuracy'] == [0.75, None, None] and scores['IoU'] == [0.75, 0.0, None]
    assert scores['C'] == 0.75 and scores['mIoU'] == 0.375


def test_nothing_labelled():
    scores = metrics.scores(np.zeros((2, 2), int))
    assert scores['G'] == 0 and scores['C'] is None and scores['mIoU'] is None


def test_equal_to_brute_force():
    rng = np.random.RandomState(7)
    labels, predictions = rng.randint(0, 5, (2, 6, 11)).astype(np.uint8)
    labels[labels == 4] = 255
    predictions %= 4
    scores = metrics.scores(metrics.confusion(labels, predictions, 4))
    valid = labels != 255
    for c in range(4):
        truth, said = (labels == c), (predictions == c) & valid
        assert scores['IoU'][c] == pytest.approx((truth & said).sum() / (truth | said).sum())
        assert scores['accuracy'][c] == pytest.approx((truth & said).sum() / truth.sum())
    assert scores['G'] == pytest.approx((labels == predictions)[valid].mean())
