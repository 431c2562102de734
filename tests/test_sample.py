"""Tests that the bundled cell images never change and that cells do not overlap.

Local brightness and contrast must not be enough to predict the classes.
"""
import os

import cv2
import numpy as np
import pytest
from conftest import ROOT, assert_refused

import data
import datasets
import main
import metrics
from datasets import cells, rle
from runs.folder import read_scores

CSV = os.path.join(ROOT, 'train.csv')


def examples(split):
    dataset = datasets.sample.read()
    return [dataset.load(split, i) for i in range(len(dataset.examples[split]))]


def test_cells_do_not_overlap_and_are_of_some_size():
    images = rle.read_cells(CSV, datasets.sartorius.INDICES)
    assert len(images) == 64
    for height, width, rows in images.values():
        assert (height, width) == (cells.HEIGHT, cells.WIDTH)
        masks = list(rle.cell_masks(CSV, (height, width), rows))
        assert np.sum(masks, 0).max() == 1
        assert min(mask.sum() for mask in masks) >= 100
        assert {class_id for _, class_id, _ in rows} == {1, 2, 3}, 'all cell types in each image'


def test_splits_and_shares():
    dataset = datasets.sample.read()
    assert [len(dataset.examples[split]) for split in ('train', 'val')] == [48, 16]
    for split in ('train', 'val'):
        pixels, _ = data.class_counts(dataset, split)
        shares = pixels[:4] / pixels.sum()
        assert 0.6 < shares[0] < 0.8 and (shares[1:] > 0.05).all() and pixels[4] == 0


def test_rendering_is_a_function_of_the_name():
    dataset = datasets.sample.read()
    image, label = dataset.load('train', 3)
    assert image.dtype == np.uint8 and image.shape == label.shape + (3,) == (128, 176, 3)
    np.testing.assert_array_equal(image, dataset.load('train', 3)[0])
    mask = label > 0
    assert (cells.render([mask], ['cort'], 'a') != cells.render([mask], ['cort'], 'b')).mean() > 0.5


def test_other_tables(tmp_path):
    """An image without cells is all background.

    A table with the columns ImageId, EncodedPixels and ClassId is refused.
    """
    path = tmp_path / 'train.csv'
    path.write_text('id,annotation,width,height,cell_type\na,,31,23,\n')
    image, label = datasets.sample.read(str(tmp_path)).load('train', 0)
    assert image.shape == (23, 31, 3) and image.std() > 1 and label.shape == (23, 31) and not label.any()
    path.write_text('ImageId,EncodedPixels,ClassId\na,1 2,1\n')
    for name in ('sample', 'sartorius'):
        assert_refused("train.csv: has no column 'id'; expected id,annotation", datasets.open, name, str(tmp_path))


def local_mean_and_variance(image):
    """Returns the mean and the variance of the 9x9 pixels around each pixel, both float32 [h, w]."""
    x = image[:, :, 0].astype(np.float32)
    mean = cv2.blur(x, (9, 9))
    return mean, cv2.blur(x * x, (9, 9)) - mean ** 2


def test_local_mean_and_variance_do_not_tell_the_classes():
    """Classes predicted from the local mean and variance, quantized to 32 bins each, reach an mIoU below 0.45."""
    train, val = examples('train'), examples('val')
    pixels = [local_mean_and_variance(image) for image, _ in train]
    edges = [np.quantile(values, np.arange(1, 32) / 32) for values in zip(*pixels)]

    def ranges(image):
        rows, columns = map(np.digitize, local_mean_and_variance(image), edges)
        return 32 * rows + columns

    counts = sum(np.bincount((4 * ranges(image) + label).ravel(), minlength=4096) for image, label in train)
    counts = counts.reshape(1024, 4)
    for likelihood in (counts, counts / counts.sum(0)):
        predicted = [likelihood.argmax(1)[ranges(image)] for image, _ in val]
        confusion = sum(metrics.confusion(label, ids, 4) for (_, label), ids in zip(val, predicted))
        assert 0.2 < metrics.scores(confusion)['mIoU'] < 0.45


@pytest.mark.slow
def test_segnet_succeeds(tmp_path):
    """`python main.py` without flags reaches a validation mIoU of at least 0.75."""
    folder = main.train(main.parse_args(['--output', str(tmp_path / 'run')]))
    assert read_scores(folder)['val (while training)']['mIoU'] >= 0.75
