"""Makes batches of examples: resizes and augments images and labels, and builds the `tf.data` iterators.

The random numbers of an example depend only on (seed, epoch, index of the example), so threads and interruptions do not
change the batches.
"""
import functools

import cv2
import numpy as np
import tensorflow.compat.v1 as tf

from data import IGNORE
from system.machine import NUM_CORES

END = 1 << 40  # number of training steps that no run reaches
NO_AUGMENTATION = {'flip': False, 'flip_vertical': False, 'rotate': None, 'scale': 1.0, 'crop': None, 'jitter': 0.0,
                   'gamma': 1.0}


def resize(image, height: int, width: int):
    """Resizes an image uint8 [h, w, 3] to [height, width, 3], by area averaging or bilinear interpolation.

    If the result has fewer pixels than the image, each pixel of the result is the average of an area of the image.
    Otherwise pixels are interpolated bilinearly. OpenCV averages areas only if neither side grows. If one side grows
    and the result still has fewer pixels, the shrinking side is averaged first, and then the growing side is resized.
    An image that already has the size [height, width] is returned without a copy.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    if shrinks and (height > image.shape[0] or width > image.shape[1]):
        small = min(width, image.shape[1]), min(height, image.shape[0])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_label(label, height: int, width: int):
    """Resizes a label uint8 [h, w] to [height, width] by nearest neighbour, sampled at pixel centres.

    A label that already has the size [height, width] is returned without a copy.
    """
    if label.shape == (height, width):
        return label
    rows = ((np.arange(height) + 0.5) * label.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * label.shape[1] / width).astype(int)
    return label[rows[:, None], columns]


def window(array, top: int, left: int, height: int, width: int, fill: int):
    """Copies the window [height, width, ...] of `array` [h, w, ...] that begins at row `top`, column `left`.

    Pixels of the window beyond the edges of `array` get the value `fill`. `top` and `left` may be negative.
    """
    cut = np.full((height, width) + array.shape[2:], fill, array.dtype)
    y, x = max(top, 0), max(left, 0)
    part = array[y:max(top + height, 0), x:max(left + width, 0)]
    cut[y - top:y - top + part.shape[0], x - left:x - left + part.shape[1]] = part
    return cut


def augment(image, label, height: int, width: int, fit: str, rng, augmentation: dict):
    """Augments one example and fits the result to the training size.

    Args:
      image, label: uint8 [h, w, 3] and [h, w], of any size.
      height, width: training size in pixels.
      fit: 'resize' stretches the whole image to the training size; 'crop' keeps the scale of the image, cuts out a
        window of the training size at a random place, and pads an image that is smaller than the window.
      rng: np.random.RandomState, seeded for this example and this epoch.
      augmentation: dict with the keys of NO_AUGMENTATION.
        flip: bool, whether to mirror half of the examples left to right.
        flip_vertical: bool, whether to mirror half of the examples top to bottom.
        rotate: 90 rotates by a random multiple of 90 degrees; None does not rotate.
        scale: the zoom factor is drawn log-uniformly between 1 / scale and scale.
        crop: (height, width) of the window that is cut at a random place out of the zoomed image; None for the training
          size.
        jitter: largest relative change of contrast and brightness; the changes are drawn separately for each channel.
        gamma: pixel values, scaled to 0..1, are raised to a power drawn log-uniformly between 1 / gamma and gamma.
    Returns:
      image uint8 [height, width, 3] and label uint8 [height, width]. If `crop` is set, the result has the size `crop`.
      Padding has the value IGNORE in the label. In the image, padding has the value 0, but `jitter` changes padding
      like all other pixels.
    """
    mirrored = rng.rand() < 0.5  # the order of the random draws is fixed, so that old runs can be repeated
    zoom = augmentation['scale'] ** rng.uniform(-1, 1)
    place = rng.rand(), rng.rand()
    contrast, brightness = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3)
    upside_down = rng.rand() < 0.5
    turns = rng.randint(4)
    power = augmentation['gamma'] ** rng.uniform(-1, 1)

    base = (height, width) if fit == 'resize' else label.shape
    zoomed = max(1, int(round(base[0] * zoom))), max(1, int(round(base[1] * zoom)))
    image, label = resize(image, *zoomed), resize_label(label, *zoomed)
    if augmentation['flip'] and mirrored:
        image, label = image[:, ::-1], label[:, ::-1]
    if augmentation['flip_vertical'] and upside_down:
        image, label = image[::-1], label[::-1]
    if augmentation['rotate']:
        image, label = np.rot90(image, turns), np.rot90(label, turns)
    out_height, out_width = augmentation['crop'] or (height, width)
    top = int(round(place[0] * (label.shape[0] - out_height)))
    left = int(round(place[1] * (label.shape[1] - out_width)))
    image = window(image, top, left, out_height, out_width, 0)
    label = window(label, top, left, out_height, out_width, IGNORE)
    if augmentation['jitter']:
        jitter = augmentation['jitter']
        # A lookup table of 256 entries is 20 times faster than arithmetic on each pixel.
        table = (np.arange(256)[:, None] - 128.0) * (1 + jitter * contrast) + 128 * (1 + jitter * brightness)
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    if augmentation['gamma'] != 1:
        image = cv2.LUT(image, np.rint(255 * (np.arange(256) / 255.0) ** power).astype(np.uint8))
    return image, label


@functools.lru_cache(maxsize=4)
def epoch_order(size: int, seed: int, epoch: int):
    """Shuffles the indices of `size` examples -> int64 [size]; `seed` and `epoch` determine the order."""
    return np.random.RandomState([seed, epoch]).permutation(size)


def position_example(position: int, size: int, seed: int):
    """Finds the example at a position of the endless training stream -> (epoch, index of the example).

    Positions and epochs count from 0. A batch may contain the end of an epoch and the start of the next epoch, as in
    Caffe's data layer, so all batches have the same size.
    """
    epoch = position // size
    return epoch, int(epoch_order(size, seed, epoch)[position % size])


def batch_names(dataset, step: int, batch_size: int, seed: int):
    """Lists the names of the training examples in the batch of step `step`; the first step is 1."""
    positions = range((step - 1) * batch_size, step * batch_size)
    size = len(dataset.examples['train'])
    return [str(dataset.examples['train'][position_example(position, size, seed)[1]]) for position in positions]


def pipeline_options():
    """Makes the options of a tf.data pipeline, with NUM_CORES threads and without autotuning.

    Autotuning would delay each start of a pipeline by seconds.
    """
    options = tf.data.Options()
    if hasattr(options, 'autotune'):
        options.autotune.enabled = False
        options.threading.private_threadpool_size = NUM_CORES  # because the session's pool may have only one thread
    else:  # TensorFlow 1.15
        options.experimental_optimization.autotune = False
        options.experimental_threading.private_threadpool_size = NUM_CORES
    return options


def training_batches(dataset, flags: dict, share: range = None):
    """Makes a stream of training batches. A batch depends only on the seed and the step.

    The stream ends after END steps, a number that no run reaches.

    Args:
      flags: {flag: value} of a run, with batch_size, seed, height, width, fit and the keys of NO_AUGMENTATION.
      share: range of the positions in a batch that this process loads; if None, this process loads the whole batch.
    Returns:
      start: function (number of finished steps) -> (initializer op, feed_dict). The op starts the stream at the batch
        of the next step. Start the stream at END before closing a session: the stream is then empty, so no loading
        thread delays the close.
      images: [len(share), height, width, 3] uint8. If the flag `crop` is set, the images have the size `crop`.
      labels: [len(share), height, width] uint8, IGNORE where unlabelled; the same size as the images.
    """
    height, width, batch_size, seed = [flags[name] for name in ('height', 'width', 'batch_size', 'seed')]
    share = range(batch_size) if share is None else share
    size = len(dataset.examples['train'])
    first_ph = tf.placeholder(tf.int64, [], 'first_position')

    def load(number):  # `number`: position in the sequence of examples that this process reads
        step, place = divmod(int(number), len(share))
        epoch, i = position_example(step * batch_size + share[place], size, seed)
        rng = np.random.RandomState([seed, epoch, i])
        return augment(*dataset.load('train', i), height, width, flags['fit'], rng, flags)

    def example(number):
        image, label = tf.numpy_function(load, [number], [np.uint8, np.uint8])
        out = list(flags['crop'] or (height, width))
        return tf.ensure_shape(image, out + [3]), tf.ensure_shape(label, out)

    pipeline = tf.data.Dataset.range(first_ph, END * len(share)).map(example, num_parallel_calls=NUM_CORES)
    pipeline = pipeline.batch(len(share), drop_remainder=True).prefetch(2)
    iterator = tf.data.make_initializable_iterator(pipeline.with_options(pipeline_options()))
    images, labels = iterator.get_next()
    return lambda step: (iterator.initializer, {first_ph: step * len(share)}), images, labels
