"""Compares scores with values computed by hand and by brute force."""
import numpy as np
import pytest

import metrics


def test_confusion_and_scores_by_hand():
    labels = np.array([[0, 0, 0, 1], [1, 2, 255, 3]], np.uint8)       # 255 and 3 are void
    predictions = np.array([[0, 1, 1, 1], [2, 2, 0, 1]], np.uint8)
    confusion = metrics.confusion(labels, predictions, 3)
    assert confusion.tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]
    scores = metrics.scores(confusion)
    assert scores['accuracy'] == pytest.approx([1 / 3, 1 / 2, 1])
    assert scores['IoU'] == pytest.approx([1 / 3, 1 / 4, 1 / 2])
    assert scores['precision'] == pytest.approx([1, 1 / 3, 1 / 2]) and scores['pixels'] == [3, 2, 1]
    assert scores['F1'] == pytest.approx([2 / 4, 2 / 5, 2 / 3])
    assert [scores[name] for name in ('G', 'C', 'mIoU', 'fwIoU')] == pytest.approx(
        [3 / 6, (1 / 3 + 1 / 2 + 1) / 3, (1 / 3 + 1 / 4 + 1 / 2) / 3, 3 / 6 / 3 + 2 / 6 / 4 + 1 / 6 / 2])


@pytest.mark.parametrize('counts, expected', [
    ([[3, 1, 0], [0, 0, 0], [0, 0, 0]], {'accuracy': [0.75, None, None], 'IoU': [0.75, 0, None], 'mIoU': 0.375}),
    ([[0, 0], [0, 0]], {'G': 0, 'C': None, 'mIoU': None, 'fwIoU': 0})])
def test_absent_classes(counts, expected):
    """A class that is predicted but not labelled has no accuracy and an IoU of 0.

    A class that is neither predicted nor labelled is left out of the means.
    """
    scores = metrics.scores(np.array(counts))
    assert {name: scores[name] for name in expected} == expected


def test_surest_pixels_equal_a_sorted_list():
    """The expected values come from sorting the labelled pixels of two images by variance."""
    rng = np.random.RandomState(2)
    counts, pixels = 0, []
    for height, width in ((9, 13), (7, 5)):
        labels = rng.randint(0, 4, (height, width)).astype(np.uint8)  # the label 3 is void
        predictions = rng.randint(0, 3, (height, width)).astype(np.uint8)
        # The variances are powers of two, and each power of two has its own bin in `confusion_by_uncertainty`.
        variance = np.float32(2.0) ** -rng.randint(0, 40, (height, width)).astype(np.float32)
        variance[0, :3] = 0
        counts = counts + metrics.confusion_by_uncertainty(labels, predictions, variance, 3)
        pixels.append(np.array([variance[labels < 3], labels[labels < 3], predictions[labels < 3]]))
    variance, labels, predictions = np.hstack(pixels)
    for share in (0.3, 0.5, 1.0):
        surest = variance <= np.sort(variance)[int(np.ceil(share * len(variance))) - 1]
        expected = metrics.confusion(labels[surest], predictions[surest].astype(int), 3)
        assert metrics.most_certain(counts, share).tolist() == expected.tolist()


def test_calibration_error_equals_a_loop_over_bins():
    """The expected value comes from a loop that puts each labelled pixel of two images into one of 15 bins."""
    rng = np.random.RandomState(3)
    counts, pixels = 0, []
    for shape in ((9, 13), (7, 5)):
        labels, predictions = [rng.randint(0, high, shape).astype(np.uint8) for high in (4, 3)]
        confidence = rng.randint(60, 256, shape).astype(np.uint8)
        counts = counts + metrics.confidence_counts(labels, predictions, confidence, 3)
        pixels.append(np.array([confidence[labels < 3], (labels == predictions)[labels < 3]], int))
    confidence, correct = np.hstack(pixels)
    bins = np.minimum(confidence * 15 // 255, 14)
    errors = [abs((confidence / 255 - correct)[bins == i].sum()) for i in range(15)]
    assert metrics.calibration_error(counts) == pytest.approx(sum(errors) / len(bins))
    assert metrics.calibration_error(counts * 0) is None


# ---------------------------------------------------------------- boundary F1 score

def boundary_reference(region):
    """Returns a mask of the pixels that are the upper left pixel of a 2x2 block with both True and False."""
    height, width = region.shape
    return np.array([[len(set(region[y:y + 2, x:x + 2].flat)) == 2 for x in range(width)] for y in range(height)])


def matching_reference(one, other, radius):
    """Returns the number of pairs in a maximum matching of boundary pixels, found with augmenting paths."""
    right = [tuple(p) for p in np.argwhere(other)]
    partner = {}

    def augment(pixel, tried):
        for q in right:
            if q not in tried and (q[0] - pixel[0]) ** 2 + (q[1] - pixel[1]) ** 2 <= radius ** 2:
                tried.add(q)
                if q not in partner or augment(partner[q], tried):
                    partner[q] = pixel
                    return True
        return False

    return sum(augment(tuple(p), set()) for p in np.argwhere(one))


def bf_reference(label, prediction, num_classes, tolerance):
    radius, values = tolerance * np.sqrt(label.shape[0] ** 2 + label.shape[1] ** 2), []
    for c in range(num_classes):
        truth, predicted = boundary_reference(label == c), boundary_reference(prediction == c)
        if not truth.any() and not predicted.any():
            continue
        matches = matching_reference(predicted, truth, radius)
        precision, recall = matches / max(predicted.sum(), 1), matches / max(truth.sum(), 1)
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    return np.mean(values) if values else None


def test_bf_equals_brute_force(monkeypatch):
    """Compares the BF of 200 small maps with the BF of a maximum matching, found with augmenting paths.

    The distance tolerance of BF is below 4 pixels.
    """
    rng = np.random.RandomState(5)
    for i in range(200):
        (height, width), tolerance = rng.randint(5, 14, 2), rng.choice([0.0075, 0.1, 0.2])
        maps = np.kron(rng.randint(0, 3, (2, 4, 4)), np.ones((1, 4, 4))).astype(np.uint8)
        label, prediction = maps[:, :height, :width]
        prediction = np.roll(prediction, rng.randint(0, 3), rng.randint(0, 2)) if i % 3 else label
        label[:rng.randint(0, 2)] = 255
        monkeypatch.setattr(metrics, 'BF_TOLERANCE', tolerance)
        expected = bf_reference(label, prediction, 3, tolerance)
        assert metrics.boundary_f1(label, prediction, 3) == (expected and pytest.approx(expected))


def square(top, left, size=100):
    label = np.zeros((size, size), np.uint8)
    label[top:top + 40, left:left + 30] = 1
    return label


def test_bf_of_a_shifted_square():
    """For 100x100 maps, the tolerance of BF is 1.06 pixels.

    After a sideways shift by 1 pixel, all boundary pixels match. After a sideways shift by 5 pixels, only pixels of the
    upper and lower edges match.
    """
    found = [metrics.boundary_f1(square(20, 30), square(20, left), 2) for left in (30, 31, 35)]
    # Each square has 140 boundary pixels. 28 pixels of the upper edge and 28 of the lower edge have a match.
    assert found == [1, 1, pytest.approx(2 * 28 / 140)]


def test_bf_of_missing_and_empty():
    """A class that only one of the two maps contains has a BF of 0. If neither map has a boundary, BF is None."""
    empty = np.zeros((100, 100), np.uint8)
    assert metrics.boundary_f1(square(20, 30), empty, 2) == metrics.boundary_f1(empty, square(20, 30), 2) == 0
    assert metrics.boundary_f1(empty, empty, 2) is None
