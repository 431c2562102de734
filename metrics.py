"""Scores of a split from one confusion matrix, and the boundary measure BF; NumPy and SciPy only, no files."""
import csv
import io

import numpy as np
import scipy.ndimage
import scipy.sparse.csgraph
import scipy.spatial

BF_TOLERANCE = 0.0075  # of the image's diagonal: section 3.2 of the paper; 4.5 pixels at 360x480


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


def confusion_csv(counts, class_names):
    """Confusion matrix as CSV text: a row a true class, a column a predicted one, in pixels."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['truth \\ prediction'] + list(class_names))
    writer.writerows([name] + list(row) for name, row in zip(class_names, counts))
    return out.getvalue()


def boundary(region):
    """bool [h, w] -> bool [h, w]: where the region's edge passes between a pixel and those right of and below it.

    As BSDS' seg2bdry(..., 'imageSize'), which the authors use: the 2x2 block that starts at the pixel is not uniform.
    """
    padded = np.pad(region, [(0, 1), (0, 1)], 'edge')
    return (padded[1:, :-1] != region) | (padded[:-1, 1:] != region) | (padded[1:, 1:] != region)


def matched_pixels(one, other, radius):
    """The most pairs of pixels, one of each bool map [h, w], at most `radius` apart, each pixel in one pair at most.

    As BSDS' correspondPixels: an assignment in which staying alone costs more than any pair.
    """
    num_one, num_other = int(one.sum()), int(other.sum())
    trees = [scipy.spatial.cKDTree(np.argwhere(pixels)) for pixels in (one, other)]
    near = trees[0].sparse_distance_matrix(trees[1], radius, output_type='ndarray')
    alone = np.arange(num_one)  # a partner of its own for each pixel, at a high cost
    costs = np.concatenate([np.ones(len(near)), np.full(num_one, 1e4)])  # equal ones are solved ten times faster
    pairs = np.concatenate([near['i'], alone]), np.concatenate([near['j'], num_other + alone])
    graph = scipy.sparse.csr_matrix((costs, pairs), (num_one, num_other + num_one))
    matched = scipy.sparse.csgraph.min_weight_full_bipartite_matching(graph)[1]
    return int((matched < num_other).sum())


def boundary_f1(label, prediction, num_classes, form='matching'):
    """BF of one image: boundary precision and recall of each class -> F1, mean over the classes.

    Args:
      label, prediction: uint8 [h, w] class ids; void is in no class, an edge against it is an edge.
      form: 'matching', as the authors' computeBFmeasure.m: a pixel is right if it is paired, one to one, with one of
        the other boundary within the tolerance; classes with a boundary in truth or prediction count.
        'distance', as Csurka et al. 2013: a pixel is right if the other boundary is within the tolerance; classes
        with a boundary in the truth count.
    Returns:
      float, or None where no class counts.
    """
    radius, values = BF_TOLERANCE * np.hypot(*label.shape), []
    for class_id in range(num_classes):
        truth, said = boundary(label == class_id), boundary(prediction == class_id)
        if not truth.any() and (form == 'distance' or not said.any()):
            continue
        if not truth.any() or not said.any():
            values.append(0.0)
            continue
        if form == 'matching':
            right = found = matched_pixels(said, truth, radius)
        else:
            right = (scipy.ndimage.distance_transform_edt(~truth)[said] <= radius).sum()
            found = (scipy.ndimage.distance_transform_edt(~said)[truth] <= radius).sum()
        precision, recall = right / said.sum(), found / truth.sum()
        values.append(2 * precision * recall / (precision + recall) if right + found else 0.0)
    return float(np.mean(values)) if values else None
