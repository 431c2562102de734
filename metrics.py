"""Computes scores: accuracy and IoU from a confusion matrix, boundary measure BF, calibration error."""
import numpy as np
import scipy.sparse.csgraph
import scipy.spatial

BF_TOLERANCE = 0.0075  # fraction of the image diagonal, from section 3.2 of the paper; 4.5 pixels at 360x480


def confusion(labels, predictions, num_classes: int):
    """Counts pixels by true class (row) and predicted class (column): int64 [num_classes, num_classes].

    Args:
      labels: uint8 array of class ids; pixels labelled num_classes or more (void) are ignored.
      predictions: array of the same shape; class ids below num_classes.
    """
    labelled = labels < num_classes
    joint = num_classes * labels[labelled].astype(np.int64) + predictions[labelled]
    return np.bincount(joint, minlength=num_classes ** 2).reshape(num_classes, num_classes)


def confusion_by_uncertainty(labels, predictions, variance, num_classes: int):
    """Counts pixels by uncertainty, true class and predicted class: int64 [2048, num_classes, num_classes].

    The first axis is the bin of the variance. The bin index consists of the exponent and the top four mantissa bits of
    the float32 variance, so the variances in a bin differ by at most 6.25%.

    Args:
      labels: uint8 array of class ids; pixels labelled num_classes or more (void) are ignored.
      predictions: array of the same shape; class ids below num_classes.
      variance: float32 array of the same shape, 0 to 0.25. The variance of probabilities is never above 0.25.
    """
    labelled = labels < num_classes
    bins = variance[labelled].view(np.uint32).astype(np.int64) >> 19
    joint = (bins * num_classes + labels[labelled]) * num_classes + predictions[labelled]
    return np.bincount(joint, minlength=2048 * num_classes ** 2).reshape(-1, num_classes, num_classes)


def most_certain(counts, share: float):
    """Sums the confusion matrices of the least uncertain pixels: int64 [num_classes, num_classes].

    Args:
      counts: int64 [bins, num_classes, num_classes] from `confusion_by_uncertainty`, summed over a whole split.
      share: fraction of all pixels to include, 0..1. Bins are not split, so the sum may include more pixels
        than `share`.
    """
    pixels = np.cumsum(counts.sum((1, 2)))
    return counts[:np.searchsorted(pixels, share * pixels[-1]) + 1].sum(0)


def confidence_counts(labels, predictions, confidence, num_classes: int):
    """Counts pixels by confidence: int64 [256, 2]. Column 0 counts all pixels, column 1 the correct pixels.

    Args:
      labels: uint8 array of class ids; pixels labelled num_classes or more (void) are ignored.
      predictions: array of the same shape; class ids below num_classes.
      confidence: uint8 array of the same shape, the highest probability of each pixel times 255.
    """
    labelled = labels < num_classes
    right = labelled & (labels == predictions)
    return np.stack([np.bincount(confidence[pixels], minlength=256) for pixels in (labelled, right)], 1)


def calibration_error(counts):
    """Computes the expected calibration error (ECE) -> fraction 0..1, None if there are no pixels.

    The confidences 0 to 1 are divided into 15 bins of equal width. The error of a bin is the difference between the
    mean confidence and the fraction of correct pixels. ECE is the mean error of the bins, weighted by the number of
    pixels. Source: Guo et al., arXiv 1706.04599, section 2, equation 3.

    Args:
      counts: int64 [256, 2] from `confidence_counts`, summed over a whole split.
    """
    levels = np.arange(256)
    bins = np.minimum(levels * 15 // 255, 14)
    expected, right = [np.bincount(bins, column) for column in (counts[:, 0] * levels / 255, counts[:, 1])]
    return float(abs(expected - right).sum() / counts[:, 0].sum()) if counts.any() else None


def mean(values):
    """Averages the values that are not None -> float; None if all values are None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def scores(counts):
    """Computes global accuracy, class average accuracy and mean IoU from the confusion matrix of a whole split.

    A class without labelled pixels has the accuracy None. A class with neither labelled nor predicted pixels has the
    IoU None. The means C and mIoU ignore None. SegNet's script compute_test_results.m divides by the number of all
    classes; the means are the same if every class occurs.

    Args:
      counts: int64 [num_classes, num_classes]. Rows are true classes, columns are predicted classes.
    Returns:
      dict of G, C, mIoU and fwIoU (mean IoU weighted by class frequency), and lists with one entry per class: accuracy
        (recall), precision, F1 (Dice), IoU and pixels (number of labelled pixels). All scores are fractions 0..1. C and
        mIoU are None if the values of all classes are None. G and fwIoU are 0 if `counts` has no pixels.
    """
    true_positives = np.diag(counts)
    truth = counts.sum(1)
    predicted = counts.sum(0)
    share = truth / max(truth.sum(), 1)

    def ratios(denominators):
        return [float(correct / pixels) if pixels else None for correct, pixels in zip(true_positives, denominators)]

    accuracy = ratios(truth)
    iou = ratios(truth + predicted - true_positives)

    return {'G': float(true_positives.sum() / max(truth.sum(), 1)), 'C': mean(accuracy), 'mIoU': mean(iou),
            'fwIoU': float(sum(weight * value for weight, value in zip(share, iou) if value is not None)),
            'accuracy': accuracy, 'precision': ratios(predicted), 'F1': ratios((truth + predicted) / 2), 'IoU': iou,
            'pixels': truth.tolist()}


def boundary(region):
    """Marks the boundary pixels of a region: bool [h, w] -> bool [h, w].

    A pixel is on the boundary if the pixel to the right, the pixel below, or the pixel diagonally below to the right
    has a different value. The authors of the paper use the same rule: seg2bdry(..., 'imageSize') of BSDS.
    """
    padded = np.pad(region, [(0, 1), (0, 1)], 'edge')
    return (padded[1:, :-1] != region) | (padded[:-1, 1:] != region) | (padded[1:, 1:] != region)


def matched_pixels(one, other, radius: float) -> int:
    """Counts the pairs of a maximum one-to-one matching between the True pixels of two bool maps [h, w].

    The two pixels of a pair are at most `radius` apart. As in correspondPixels of BSDS, the matching has as many pairs
    as possible. Each map must have at least one True pixel.
    """
    num_one, num_other = int(one.sum()), int(other.sum())
    trees = [scipy.spatial.cKDTree(np.argwhere(pixels)) for pixels in (one, other)]
    near = trees[0].sparse_distance_matrix(trees[1], radius, output_type='ndarray')
    alone = np.arange(num_one)  # each pixel of `one` without a partner is matched to a dummy, at a high cost
    # Each pair of real pixels costs 1. With the distance of the pixels as the cost, SciPy takes ten times longer.
    costs = np.concatenate([np.ones(len(near)), np.full(num_one, 1e4)])
    pairs = np.concatenate([near['i'], alone]), np.concatenate([near['j'], num_other + alone])
    graph = scipy.sparse.csr_matrix((costs, pairs), (num_one, num_other + num_one))
    matched = scipy.sparse.csgraph.min_weight_full_bipartite_matching(graph)[1]
    return int((matched < num_other).sum())


def boundary_f1(label, prediction, num_classes: int):
    """Computes the boundary measure BF of one image: the F1 of precision and recall, averaged over the classes.

    A boundary pixel is correct if the one-to-one matching finds a partner for the pixel within the tolerance,
    BF_TOLERANCE times the image diagonal. The average includes the classes that have a boundary in the label or in the
    prediction. Source: the authors' script computeBFmeasure.m.

    Args:
      label, prediction: uint8 [h, w] class ids. Edges between a class and void are boundaries of the class.
    Returns:
      float 0..1, or None if no class has a boundary.
    """
    radius = BF_TOLERANCE * np.hypot(*label.shape)
    values = []
    for class_id in range(num_classes):
        truth = boundary(label == class_id)
        predicted = boundary(prediction == class_id)
        matches = matched_pixels(predicted, truth, radius) if truth.any() and predicted.any() else 0
        if truth.any() or predicted.any():
            values.append(2.0 * matches / (predicted.sum() + truth.sum()))
    return mean(values)
