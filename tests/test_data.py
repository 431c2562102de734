"""Compares run lengths, class frequencies and class weights with values computed by hand or by brute force.

Tests on published data are skipped on machines without the data.
"""
import os

import hypothesis
import numpy as np
import pytest
from conftest import SHARED, assert_refused, needs_real_data
from hypothesis import strategies

import data
import datasets
from data import IGNORE
from datasets import rle
from system.files import UserError, read_csv


@pytest.mark.parametrize('order, rle, rows', [
    ('rows', '2 3 8 1', [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]), ('rows', '4 3', [[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]),
    ('rows', '', [[0, 0, 0], [0, 0, 0]]), ('rows', '1 4', [[1], [1], [1], [1]]),
    ('relative', '1 2 3 1', [[0, 1, 0, 1], [1, 0, 0, 0]]), ('relative', '0 3', [[1, 1], [1, 0]])])
def test_rle_by_hand(order, rle, rows):
    """In the order `rows`, pixels are counted from 1, and a run may continue in the next row.

    In the order `relative`, pixels are counted column by column, from top to bottom. The start of a run is the number
    of pixels between the previous run and this run.
    """
    assert data.rle_decode(rle, len(rows), len(rows[0]), order).tolist() == rows
    assert data.rle_encode(np.array(rows), order) == rle


def test_a_long_mask_fits_a_csv_field(tmp_path):
    """A CSV field may have 19.4 million characters, like the run-length encoding of a 2000x2000 checkerboard."""
    rle = '2345678 1 ' * 1940000
    (tmp_path / 'train.csv').write_text('id,annotation\na,%s\n' % rle)
    assert list(read_csv(str(tmp_path / 'train.csv'), ['annotation'])) == [(2, {'id': 'a', 'annotation': rle})]


def brute_force_decode(rle, height, width):
    flat = [False] * (height * width)
    numbers = [int(x) for x in rle.split()]
    for start, length in zip(numbers[::2], numbers[1::2]):
        for i in range(length):
            flat[start - 1 + i] = True
    return np.array(flat, bool).reshape(height, width)


@hypothesis.given(strategies.integers(1, 9), strategies.integers(1, 13), strategies.randoms())
def test_rle_inverse(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    rle = data.rle_encode(mask)
    np.testing.assert_array_equal(data.rle_decode(rle, height, width), mask)
    np.testing.assert_array_equal(brute_force_decode(rle, height, width), mask)
    columns = data.rle_encode(mask, 'columns')
    np.testing.assert_array_equal(brute_force_decode(columns, width, height).T, mask)
    for order in ('columns', 'relative'):
        np.testing.assert_array_equal(data.rle_decode(data.rle_encode(mask, order), height, width, order), mask)


def test_relative_rle_beyond_the_image():
    assert_refused('ends at pixel 9, outside the 2x4', data.rle_decode, '1 2 3 3', 2, 4, 'relative')


@pytest.mark.parametrize('rle', [
    '1', '1 2 3', 'a b', '1 x', '1 2,3 4', '0 2', '1 0', '-1 2', '1 -2', '1.5 2', '3 2 1 1', '1 3 2 2', '1 3 3 1',
    '21 1', '20 2', '1 21', '1\t2', '1 2\n', '\u0663 1', '1 99999999999999999999', 'nan 1', '1e2 1', '+1 2', '0x1 1'])
def test_rle_malformed(rle):
    with pytest.raises(UserError):
        data.rle_decode(rle, 4, 5)


@hypothesis.given(strategies.text(alphabet='0123456789 -.,a', max_size=20))
def test_rle_any_text(text):
    try:
        mask = data.rle_decode(text, 4, 5)
    except UserError:
        return
    np.testing.assert_array_equal(mask, brute_force_decode(text, 4, 5))


def test_class_names_that_look_like_numbers(tmp_path):
    """Pandas writes the id 3 as 3.0, and 3.0 is read as 3. The class name v1.0 stays v1.0."""
    path = tmp_path / 'labels.csv'
    path.write_text('id,annotation,width,height,cell_type\na,1 2,3,2,3.0\na,4 1,3,2,v1.0\n')
    assert rle.read_cells(str(path), {'3': 7, 'v1.0': 8}) == {'a': (2, 3, [(2, 7, '1 2'), (3, 8, '4 1')])}


@needs_real_data
def test_rle_real_rows():
    path = os.path.join(SHARED, 'sartorius', 'train.csv')
    cells = rle.read_cells(path, datasets.sartorius.INDICES)
    assert sum(len(rows) for _, _, rows in cells.values()) == 13243
    height, width, rows = next(iter(cells.values()))
    for _, _, text in rows:
        assert data.rle_encode(data.rle_decode(text, height, width)) == text


@needs_real_data
def test_real_camvid_counts():
    dataset = datasets.camvid.read(os.path.join(SHARED, 'camvid'))
    assert {split: len(names) for split, names in dataset.examples.items()} == {'train': 367, 'val': 101}
    pixels, present = data.class_counts(dataset, 'train')
    assert pixels.tolist() == TRAIN_PIXELS
    assert (present // 172800).tolist() == TRAIN_IMAGES


# Number of pixels of each class, and number of images that show each class, in CamVid's published training split.
# The last number in each list is for void.
TRAIN_PIXELS = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967,
                2503995]
TRAIN_IMAGES = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367]


def test_class_weights_of_camvid():
    pixels, present = np.array(TRAIN_PIXELS), np.array(TRAIN_IMAGES) * 360 * 480
    for void_in_median, expected in (
            (False, [.2793, .2017, 4.7865, .1490, 1.0, .4217, 3.8467, 1.9736, .7889, 6.3747, 8.8587]),
            (True, [.2565, .1853, 4.3963, .1369, .9185, .3873, 3.5331, 1.8127, .7246, 5.8550, 8.1365])):
        weights = data.median_frequency_weights(pixels, present, void_in_median=void_in_median)
        np.testing.assert_allclose(weights, expected, atol=5e-5)


def test_class_counts_by_hand():
    labels = [np.array([[0, 0, 1], [IGNORE, 0, 1]], np.uint8), np.array([[0, IGNORE]], np.uint8)]
    dataset = data.Dataset('made', ['a', 'b', 'c'], [], None, {'train': ['x', 'y']}, lambda s, i: (None, labels[i]), '')
    pixels, present = data.class_counts(dataset, 'train')
    assert pixels.tolist() == [4, 2, 0, 2]
    assert present.tolist() == [8, 6, 0, 8]
    # The frequencies of classes a and b are 4/8 and 2/6, and the median is 5/12. Class c does not occur.
    np.testing.assert_allclose(data.median_frequency_weights(pixels, present), [5 / 6, 5 / 4, 0])
    counts = np.array([[3, 2, 0, 1], [1, 0, 0, 1]])  # [image, class]: number of pixels
    weights = datasets.class_weights('median-sqrt', dataset, counts)
    np.testing.assert_allclose(weights, [(5 / 6) ** 0.5, (5 / 4) ** 0.5, 0])


def test_class_weights_of_void_only():
    for void_in_median in (False, True):
        assert_refused('no labelled pixel', data.median_frequency_weights, np.array([0, 0, 9]), np.array([0, 0, 9]),
                       void_in_median)
