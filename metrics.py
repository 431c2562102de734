"""Scores of a split from one confusion matrix; NumPy only, no files."""
import numpy as np


def confusion(labels, predictions, num_classes):
    """int64 [num_classes, num_classes] pixel counts: rows the truth, columns the prediction.

    Args:
      labels: uint8 array of class ids; pixels labelled num_classes or more (void) are left out.
      predictions: array of the same shape, class ids below num_classes.
    """
    labelled = labels < num_classes
    joint = num_classes * labels[labelled].astype(np.int64) + predictions[labelled]
    return np.bincount(joint, minlength=num_classes ** 2).reshape(num_classes, num_classes)


def scores(counts):
    """Global accuracy, class average accuracy and mean IoU of a confusion matrix of a whole split.

    A class that the truth does not hold has no accuracy; one that neither truth nor prediction holds has no IoU.
    Such entries are None and left out of the means (SegNet's compute_test_results.m divides by all classes, which
    is the same wherever the split holds each).

    Returns:
      dict: G, C, mIoU, fwIoU (IoU weighted by the classes' shares), and the lists accuracy and IoU, one entry a class.
    """
    hit, truth, said = np.diag(counts).astype(float), counts.sum(1).astype(float), counts.sum(0)
    union = truth + said - hit
    accuracy = np.where(truth > 0, hit / np.maximum(truth, 1), np.nan)
    iou = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
    share = truth / max(truth.sum(), 1)

    def number(x):
        return None if np.isnan(x) else float(x)

    def mean(x):
        return None if np.isnan(x).all() else float(np.nanmean(x))

    return {'G': float(hit.sum() / max(truth.sum(), 1)), 'C': mean(accuracy), 'mIoU': mean(iou),
            'fwIoU': float(np.nansum(share * iou)),
            'accuracy': [number(x) for x in accuracy], 'IoU': [number(x) for x in iou]}
