"""Tests tiles, enlargement, test-time augmentation and the predictor."""
import argparse
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import assert_refused, noise_video, random_image, random_weights, value_of

import networks
from data import Dataset
from inference import tiles, video
from inference.predictor import Prediction, Predictor, Settings, add_flags, batches, check_tta, passes
from system import cli

SPEC = networks.Spec('segnet-basic', 4, dropout=0.5, seed=3, height=16, width=24)


@pytest.mark.parametrize('length,tile,overlap,expected', [
    (20, 20, 0.25, [0]), (21, 20, 0.25, [0, 1]), (40, 20, 0, [0, 20]), (40, 20, 0.25, [0, 10, 20]),
    (35, 20, 0.25, [0, 15]), (36, 20, 0.25, [0, 8, 16])])
def test_starts_of_tiles(length, tile, overlap, expected):
    assert tiles.tile_offsets(length, tile, overlap) == expected


@pytest.mark.parametrize('size,tile,overlap', [
    ((45, 61), (16, 24), 0.25), ((45, 61), (45, 20), 0), ((17, 40), (9, 8), 0.7), ((10, 11), (10, 11), 0.25)])
def test_blend_equals_sums_over_the_whole_image(size, tile, overlap):
    """Each pixel is a weighted mean of the values of all tiles that cover the pixel.

    The weight is the distance from the pixel to the nearer horizontal border of the tile, times the distance to the
    nearer vertical border.
    """
    rng = np.random.RandomState(1)
    grid = tiles.grid(size, tile, overlap)
    maps = rng.rand(len(grid.tops) * len(grid.lefts), *tile, 3).astype(np.float32)
    total, weights = np.zeros(size + (3,)), np.zeros(size + (1,))
    for i, (top, left) in enumerate((top, left) for top in grid.tops for left in grid.lefts):
        for y, x in np.ndindex(tile):
            weight = min(y + 1, tile[0] - y) * min(x + 1, tile[1] - x)
            total[top + y, left + x] += weight * maps[i, y, x]
            weights[top + y, left + x] += weight
    assert weights.min() > 0
    blended, times = np.zeros(size + (3,)), np.zeros(size, int)
    for top, left, block in tiles.blend(maps, grid, 3):
        place = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
        blended[place] = block
        times[place] += 1
    assert (times == 1).all()
    # `blend` normalizes row weights and column weights separately, which is exact for tiles on a grid.
    np.testing.assert_allclose(blended, total / weights, atol=1e-5)


@pytest.mark.parametrize('small,large', [((5, 7), (23, 31)), ((23, 31), (10, 9)), ((4, 6), (4, 6)), ((1, 3), (5, 2))])
def test_enlarge_equals_tensorflow(graph, small, large):
    maps = np.random.RandomState(2).rand(*small, 5).astype(np.float32)
    expected = value_of(tf.image.resize_bilinear(maps[None], large, half_pixel_centers=True)[0])
    bands = [tiles.enlarge(maps, *large, first=first, last=min(first + 3, large[0])) for first in range(0, large[0], 3)]
    np.testing.assert_allclose(np.concatenate(bands), expected, atol=1e-5)
    one_channel = tiles.enlarge(maps[:, :, :1], *large, first=0, last=large[0])
    np.testing.assert_allclose(one_channel, expected[:, :, :1], atol=1e-5)
    assert one_channel.dtype == bands[0].dtype == np.float32


@pytest.fixture(scope='module')
def network():
    """Returns a function that makes a `Predictor` with the given fit and settings.

    The network has random weights, with which several classes are predicted.
    """
    with tf.Graph().as_default(), tf.Session() as sess:
        Predictor(sess, SPEC, Settings())
        random_weights(sess, np.random.RandomState(4))
        yield lambda fit='resize', **settings: Predictor(sess, SPEC._replace(fit=fit), Settings(**settings), reuse=True)


def test_touching_tiles_are_labelled_as_single_images(network):
    """A mosaic of 2x2 images, predicted in four tiles, gets exactly the labels of the four single images."""
    singles = [random_image(33, 47, seed) for seed in range(4)]
    mosaic = np.vstack([np.hstack(singles[:2]), np.hstack(singles[2:])])
    expected = [prediction.ids for prediction in network(batch_size=4, probabilities=True).predict(singles)]
    ids = network(tile=(33, 47), tile_overlap=0, batch_size=3).predict([mosaic])[0].ids
    np.testing.assert_array_equal(ids, np.vstack([np.hstack(expected[:2]), np.hstack(expected[2:])]))
    assert len(np.unique(ids)) > 2


def test_details_equal_the_graphs_prediction(network):
    """At least 99.9% of the ids do not depend on whether confidence and probabilities are requested.

    An image gets the same ids in a batch as alone.
    """
    image = [random_image(45, 61)]
    plain = network().predict(image)[0]
    detailed = network(confidence=True, probabilities=True).predict(image)[0]
    assert (plain.ids == detailed.ids).mean() > 0.999
    batch = network(batch_size=2, confidence=True).predict(image * 2)[1]
    np.testing.assert_array_equal(batch.ids, plain.ids)
    assert abs(batch.confidence.astype(int) - detailed.confidence).max() <= 1 and len(np.unique(batch.confidence)) > 2
    np.testing.assert_allclose(detailed.probabilities.sum(-1), 1, atol=2e-3)
    assert plain.confidence is None and plain.probabilities is None and plain.variance is None


def test_augmentation_is_the_mean_of_passes(network):
    image = random_image(45, 61)
    once = network(fit='crop', tile='off', probabilities=True)

    def probabilities(seen):
        return once.predict([np.ascontiguousarray(seen)])[0].probabilities.astype(float)

    flipped = network(fit='crop', tile='off', tta='flip', probabilities=True).predict([image])[0]
    expected = (probabilities(image) + probabilities(image[:, ::-1])[:, ::-1]) / 2
    np.testing.assert_allclose(flipped.probabilities, expected, atol=2e-3)
    scaled = network(fit='crop', tile='off', tta='0.5,1', probabilities=True).predict([image])[0]
    small = probabilities(batches.resize(image, 22, 30))
    with tf.Graph().as_default():
        small = value_of(tf.image.resize_bilinear(small[None].astype(np.float32), (45, 61), half_pixel_centers=True))[0]
    np.testing.assert_allclose(scaled.probabilities, (probabilities(image) + small) / 2, atol=2e-3)
    assert abs(scaled.probabilities.astype(float) - probabilities(image)).max() > 0.01
    ids = network(fit='crop', tile='off', tta='0.5').predict([image])[0].ids  # a single scale; only ids are requested
    assert (ids == small.argmax(-1)).mean() > 0.99 > (ids == probabilities(image).argmax(-1)).mean()


def test_samples_and_tiles_give_a_variance(network):
    image = [random_image(45, 61)]
    whole, tiled = [network(samples=3, **settings).predict(image)[0] for settings in ({}, {'tile': (33, 47)})]
    for prediction in (whole, tiled):
        assert prediction.variance.shape == (45, 61) and prediction.variance.max() > 0


def test_a_split_is_predicted_in_order(network):
    """All images in a batch have the same size. A run with --fit crop predicts whole images one at a time."""
    shapes = [(33, 47)] * 4 + [(16, 24), (33, 47), (33, 47)]
    seen = []
    for fit, sizes in (('resize', [3, 1, 1, 2]), ('crop', [1] * 7)):
        predictor = network(fit, batch_size=3)
        predictor.predict = lambda images: seen.append(len(images)) or [image[0, 0, 0] for image in images]
        dataset = Dataset('made', [], [], None, {'val': list('abcdefg')}, lambda split, i: (
            np.full(shapes[i] + (3,), i, np.uint8), np.full(shapes[i], 9 - i)), '')
        found = list(predictor.predict_split(dataset, 'val'))
        assert [(i, label[0, 0], first) for i, label, first in found] == [(i, 9 - i, i) for i in range(7)]
        assert seen == sizes
        seen.clear()
    assert [(i, first) for i, _, first in predictor.predict_split(dataset, 'val', 1, 3)] == [(1, 1), (4, 4)], 'a share'


def test_choice_of_tiles(network):
    """A run with --fit resize shrinks images. A run with --fit crop cuts images larger than 512x512 into tiles."""
    resize = network()
    assert resize.tile_size(5000, 4000) == (5000, 4000) and resize.shrinks(33, 24) and not resize.shrinks(32, 48)
    crop = network(fit='crop')
    assert crop.tile_size(512, 512) == (512, 512) and crop.tile_size(513, 512) == (512, 512)
    assert crop.tile_size(100, 9000) == (100, 512) and not crop.shrinks(100, 9000)
    assert_refused('--tile 20x30: larger than the image of 19x40', network(tile=(20, 30)).tile_size, 19, 40)


def test_overlap_without_tiles_is_refused(network):
    for tile, fit in (('auto', 'resize'), ('off', 'crop')):
        assert_refused('--tile_overlap 0.2: needs --tile', network, fit, tile=tile, tile_overlap=0.2)
    for tile, fit in (('auto', 'crop'), ((9, 9), 'resize')):
        network(fit, tile=tile, tile_overlap=0.2)


def test_flags():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    for words, expected in (([], 'auto'), (['--tile', 'off'], 'off'), (['--tile', '45x61'], (45, 61))):
        assert parser.parse_args(words).tile == expected
    for text in ('free', '45', '45x', '45x61x3', '7x61', '-9x61', '45x11586', '45 61'):
        with pytest.raises(argparse.ArgumentTypeError, match='auto or off or HEIGHTxWIDTH'):
            cli.size('auto', 'off')(text)
    assert passes('flip') == [(1, False), (1, True)]
    assert passes('0.75,1,flip') == [(0.75, False), (0.75, True), (1, False), (1, True)]
    for text in ('0', '0.75,0', 'nan', 'flop', '', '9', '1,,2'):
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            check_tta(text)


def test_frames_that_are_too_large(tmp_path):
    """A video whose frames have more than --max_pixels pixels is refused before an overlay is written."""
    path, overlay = noise_video(str(tmp_path / 'v.avi'), 3), tmp_path / 'o.mp4'
    predictor = types.SimpleNamespace(predict=lambda images: [Prediction(images[0][:, :, 0] % 2)])

    def write(max_pixels):
        video.write_overlays(path, str(overlay), predictor, [[0, 0, 0]] * 2, 0.5, max_pixels,
                             lambda frames, **_: frames)

    assert_refused('frames have more than 3071 pixels', write, 48 * 64 - 1)
    assert not overlay.exists()
    write(48 * 64)
