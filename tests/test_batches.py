"""Tests augmentation and batches: image and label stay aligned, and a resumed run gets the same batches."""
import numpy as np
import tensorflow.compat.v1 as tf

import batches
from data import IGNORE, Dataset

FLAGS = dict(batches.NO_AUGMENTATION, height=9, width=13, fit='resize', batch_size=3, seed=5)


def made(size=7, shapes=((9, 13),)):
    """Makes a data set: the red channel of image i is i, and the green channel is the column number.

    The label is 0 in the left half of an image and 1 in the right half.
    """
    def load(split, i):
        height, width = shapes[i % len(shapes)]
        image = np.zeros((height, width, 3), np.uint8)
        image[:, :, 0], image[:, :, 1] = i, np.arange(width)
        return image, np.tile(np.arange(width) * 2 // width, (height, 1)).astype(np.uint8)
    return Dataset('made', ['left', 'right'], [], None, {s: list(range(size)) for s in ('train', 'val')}, load, '')


def stream(dataset, first, steps, **flags):
    """Returns `steps` training batches from step `first` on; `flags` override FLAGS."""
    batches.epoch_order.cache_clear()  # a new process starts with an empty cache
    with tf.Graph().as_default(), tf.Session() as sess:
        start, *tensors = batches.training_batches(dataset, dict(FLAGS, **flags))
        sess.run(*start(first))
        return [sess.run(tensors) for _ in range(steps)]


def augmented(image, label, seed, **settings):
    """Augments an example without resizing.

    `seed` seeds the random generator; `settings` are the augmentation settings.
    """
    return batches.augment(image, label, *label.shape, 'resize', np.random.RandomState(seed),
                           dict(batches.NO_AUGMENTATION, **settings))


def test_each_epoch_visits_each_example_once():
    seen = np.concatenate([images[:, 0, 0, 0] for seed in (5, 6) for images, _ in stream(made(), 0, 7, seed=seed)])
    epochs = seen.reshape(6, 7)  # 21 examples for each of two seeds are 3 epochs of 7 examples
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 6, 'the order changes from epoch to epoch and by seed'


def test_stream_does_not_depend_on_where_it_was_started():
    whole, rest = (stream(made(), first, 9 - first, flip=True, flip_vertical=True, rotate=90, scale=1.5, jitter=0.2,
                          gamma=1.5) for first in (0, 4))
    np.testing.assert_equal(rest, whole[4:])


def test_flip_moves_image_and_label_together():
    mirrored = 0
    for images, labels in stream(made(), 0, 14, flip=True):
        for image, label in zip(images, labels):
            np.testing.assert_array_equal(label, image[:, :, 1] * 2 // 13)
            mirrored += image[0, 0, 1] > image[0, -1, 1]
    assert 10 < mirrored < 32, 'about half of 42'


def test_augmentation_keeps_label_on_image():
    """After flip, zoom and crop, an object has the same edge in the image and in the label.

    Pixels outside the original image are void in the label.
    """
    image = np.full((40, 60, 3), 200, np.uint8)
    image[:, 30:] = 50
    label = (image[:, :, 0] == 50).astype(np.uint8)
    void = 0
    for seed in range(40):
        out, out_label = augmented(image, label, seed, flip=True, scale=1.6, crop=(30, 50))
        assert out.shape == (30, 50, 3) and out_label.shape == (30, 50)
        np.testing.assert_array_equal(out_label == IGNORE, (out == 0).all(2))
        known = out_label != IGNORE
        void += (~known).sum()
        wrong = ((out[:, :, 0] < 125) != (out_label == 1)) & known
        assert wrong.sum() <= 30, 'at most one column, where the edge is blurred'
    assert void > 0


def test_zoom_is_drawn_evenly_on_a_logarithmic_axis():
    """Zoom factors are between 1/4 and 4. A quarter of the factors are below 1/2, and half are below 1."""
    image = np.zeros((40, 40, 3), np.uint8)
    labels = [augmented(image, image[:, :, 0], seed, scale=4.0, crop=(160, 160))[1] for seed in range(600)]
    sides = [np.sqrt((label != IGNORE).sum()) for label in labels]
    assert 10 <= min(sides) < 11 and 155 < max(sides) <= 160
    np.testing.assert_allclose([np.mean(np.array(sides) < side) for side in (20, 40, 80)], [0.25, 0.5, 0.75], atol=0.06)


def test_gamma_is_drawn_evenly_on_a_logarithmic_axis():
    """Gammas are between 1/4 and 4. A quarter of the gammas are below 1/2, and half are below 1.

    Black, white and the label do not change.
    """
    label = np.array([[0, 128, 255]], np.uint8)
    outs = [augmented(label[:, :, None].repeat(3, 2), label, seed, gamma=4.0) for seed in range(600)]
    values = [image[0, 1, 0] for image, _ in outs]
    assert all((image[0, ::2, 0] == [0, 255]).all() and (same == label).all() for image, same in outs)
    powers = np.log(np.array(values) / 255) / np.log(128 / 255)
    np.testing.assert_allclose([np.mean(powers < power) for power in (0.5, 1, 2)], [0.25, 0.5, 0.75], atol=0.06)


def test_turns_and_vertical_flips_move_image_and_label_together():
    """An asymmetric 2x2 image gets all four rotations, with and without a flip."""
    label = np.array([[0, 1], [2, 3]], np.uint8)
    image = np.repeat(np.array([0, 60, 120, 255], np.uint8)[label][..., None], 3, 2)
    seen = set()
    for seed in range(60):
        out, out_label = augmented(image, label, seed, flip_vertical=True, rotate=90)
        np.testing.assert_array_equal(out[:, :, 1], np.array([0, 60, 120, 255])[out_label])
        seen.add(tuple(out_label.ravel()))
    assert seen == {(0, 1, 2, 3), (1, 3, 0, 2), (3, 2, 1, 0), (2, 0, 3, 1),  # the four counterclockwise rotations
                    (2, 3, 0, 1), (3, 1, 2, 0), (1, 0, 3, 2), (0, 2, 1, 3)}  # the four rotations of the flipped image


def test_no_augmentation_changes_nothing():
    example = made().load('train', 3)
    for found, expected in zip(augmented(*example, seed=1), example):
        np.testing.assert_array_equal(found, expected)


def test_fit_crop_keeps_the_scale():
    """Sides longer than 8 pixels are cropped, and shorter sides are padded with void."""
    got = stream(made(7, shapes=((9, 13), (6, 5))), 0, 7, height=8, width=8, fit='crop', batch_size=2)
    places = set()
    for image, label in (pair for images, labels in got for pair in zip(images, labels)):
        known = label != IGNORE
        small = image[:, :, 0].max() % 2 == 1
        assert known.sum() == (30 if small else 64) and (image[~known] == 0).all()
        columns = image[:, :, 1][known]
        np.testing.assert_array_equal(label[known], columns.astype(int) * 2 // (5 if small else 13))
        assert set(np.diff(image[known.argmax(0).max(), :, 1][known.any(0)])) == {1}, 'not stretched'
        places.add((small, tuple(np.argwhere(known)[0]), columns.min()))
    assert len(places) > 6, 'at random places'


def test_resize_label_never_mixes_ids():
    label = np.array([[0, 9], [9, 3]], np.uint8)
    big = batches.resize_label(label, 5, 7)
    assert set(np.unique(big)) == {0, 3, 9}
    np.testing.assert_array_equal(batches.resize_label(big, 2, 2), label)
    # Nearest neighbour reads the old label at the centres of the new pixels.
    assert batches.resize_label(np.arange(6, dtype=np.uint8)[None], 1, 3).tolist() == [[1, 3, 5]]


def test_jitter_is_its_formula():
    """Each pixel has the value that the formula for contrast and brightness gives, computed in floats.

    `augment` draws four random numbers for other augmentations before the six numbers for contrast and brightness.
    """
    image, label = np.random.RandomState(0).randint(0, 256, (9, 13, 3)).astype(np.uint8), np.zeros((9, 13), np.uint8)
    for seed in range(5):
        found, _ = augmented(image, label, seed, jitter=0.5)
        draws = np.random.RandomState(seed).rand(10)[4:] * 2 - 1
        wanted = (image - 128.0) * (1 + 0.5 * draws[:3]) + 128 * (1 + 0.5 * draws[3:])
        np.testing.assert_array_equal(found, np.clip(wanted, 0, 255).astype(np.uint8))
