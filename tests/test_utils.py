"""Checks layers against loops and formulas that are written in NumPy."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import random_weights, value_of
from scipy import ndimage

import utils


def lcn_reference(image):
    """Computes local contrast normalization with SciPy -> float64 [h, w, c].

    Source: section 2 of Jarrett et al. 2009. Near an edge, the weights inside the image are rescaled to sum to 1.
    """
    window = np.exp(-(np.arange(-4, 5)[:, None] ** 2 + np.arange(-4, 5) ** 2) / (2 * 2.0 ** 2))

    def blurred(x):
        total, weights = [ndimage.correlate(y, window, mode='constant') for y in (x.mean(-1), np.ones(x.shape[:2]))]
        return (total / weights)[:, :, None]

    centred = image - blurred(image)
    deviation = np.sqrt(blurred(centred ** 2))
    return centred / np.maximum(deviation, deviation.mean())


def test_lcn_equals_its_formula(graph):
    images = np.random.RandomState(2).randint(0, 256, (2, 13, 7, 3)).astype(np.float32)
    got, flat = value_of([utils.lcn(tf.constant(images)), utils.lcn(tf.fill([1, 5, 6, 3], 77.0))])
    np.testing.assert_allclose(got, [lcn_reference(image.astype(float)) for image in images], atol=1e-4)
    assert np.abs(flat).max() < 0.1, 'a flat image has no contrast, at its edges neither'


def test_deconvolution_with_moving_averages_equals_its_formula(sess):
    """The expected values come from Python loops that upsample a 3x2 map to 5x4.

    All parameters of batch norm have random values.
    """
    rng = np.random.RandomState(6)
    x = rng.normal(size=(2, 3, 2, 4)).astype(np.float32)
    got = utils.deconv_bn(tf.constant(x), 3, 3, 2, tf.zeros([2, 5, 4, 1]), 'up', False)
    values = random_weights(sess, rng)
    expected = np.zeros((2, 7, 7, 3))
    for n, i, j, p, q in np.ndindex(2, 3, 2, 3, 3):
        expected[n, 2 * i + p, 2 * j + q] += values['weights'][p, q] @ x[n, i, j]
    expected = expected[:, 1:6, :4]  # SAME padding adds one row above and no column on the left
    expected = (expected - values['moving_mean']) / np.sqrt(values['moving_variance'] + utils.BN_EPSILON)
    expected = values['gamma'] * expected + values['beta']
    np.testing.assert_allclose(sess.run(got), expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_a_function_of_seed_step_and_name(sess):
    """Two masks with the same seed, step and name are equal. All other masks are independent."""
    x, step = tf.ones([3, 20, 30, 8]), tf.placeholder(tf.int64, [])
    masks = [utils.dropout(x, 0.25, (seed, step), name) for seed, name in ((1, 'p'), (1, 'p'), (2, 'p'), (1, 'q'))]
    (mask, same, *others), (of_next_step, *_) = (sess.run(masks, {step: number}) for number in (3, 4))
    np.testing.assert_array_equal(mask, same)
    assert set(np.unique(mask)) == {0, np.float32(1 / 0.75)}
    assert abs((mask == 0).mean() - 0.25) < 0.02 and abs(mask.mean() - 1) < 0.02
    for other in others + [of_next_step]:
        assert 0.2 < (other != mask).mean() < 0.55  # independent masks differ in 2 * 0.25 * 0.75 = 37.5% of the values


def pool_reference(x):
    """Computes max pooling with loops; returns the maxima and a mask of `x`.

    The mask is True at the first maximum of each window.
    """
    batch, height, width, channels = x.shape
    out = np.zeros((batch, -(-height // 2), -(-width // 2), channels), x.dtype)
    mask = np.zeros(x.shape, bool)
    for n, i, j, c in np.ndindex(*out.shape):
        block = x[n, 2 * i:2 * i + 2, 2 * j:2 * j + 2, c]
        out[n, i, j, c] = block.max()
        row, column = np.unravel_index(block.argmax(), block.shape)
        mask[n, 2 * i + row, 2 * j + column, c] = True
    return out, mask


def unpool_reference(x, mask):
    """Copies each value of `x` to a 2x2 window, and sets all positions to 0 where `mask` is False."""
    return x.repeat(2, 1).repeat(2, 2)[:, :mask.shape[1], :mask.shape[2]] * mask


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('height, width', [(5, 7), (23, 30), (45, 60), (7, 1), (None, None)])
def test_pooling_and_unpooling(graph, height, width, dtype):
    """Compares the scatter implementation and the portable implementation with Python loops, bit for bit.

    If the maximum occurs twice in a window, the first position counts.
    """
    rng = np.random.RandomState(1)
    x = rng.randint(-3, 3, [3, height or 7, width or 9, 4])  # most windows contain equal values
    weights = rng.randint(-4, 5, x.shape)
    x_ph = tf.placeholder(dtype, [None, height, width, 4])
    pooled, mask = pool_reference(x)
    expected = [pooled, unpool_reference(pooled ** 2 + 1, mask), 2 * x * weights * mask]
    for portable in (False, True):
        with utils.portable_pooling(portable):
            values, indices = utils.max_pool_with_argmax(x_ph)
            unpooled = utils.unpool(values * values + 1, indices, x_ph)
        assert values.dtype == unpooled.dtype == x_ph.dtype and unpooled.shape.as_list() == [None, height, width, 4]
        gradient, = tf.gradients(unpooled, x_ph, tf.constant(weights, dtype))
        found = value_of([tf.cast(y, tf.float32) for y in (values, unpooled, gradient)] + [indices], {x_ph: x})
        np.testing.assert_equal(found[:3], expected)
        if not portable:
            places = np.where(mask, np.arange(x[0].size).reshape(x[0].shape), -1)
            np.testing.assert_array_equal(found[3], pool_reference(places)[0])


def test_portable_pooling_ends_with_its_block(graph):
    x = tf.zeros([1, 3, 5, 2])
    with utils.portable_pooling():
        with utils.portable_pooling(False):
            assert utils.max_pool_with_argmax(x)[1].dtype == tf.int64
        assert utils.max_pool_with_argmax(x)[1].dtype == tf.float32
        with tf.Graph().as_default():
            assert not utils.is_portable(), 'another graph'
    assert utils.max_pool_with_argmax(x)[1].dtype == tf.int64


def test_portable_unpooling_of_dropout_samples(graph):
    """Three samples of an image share the pooling indices of the image."""
    rng = np.random.RandomState(4)
    encoded, samples = tf.constant(rng.rand(1, 5, 7, 2)), tf.constant(rng.rand(3, 3, 4, 2))
    maps = []
    for portable in (False, True):
        with utils.portable_pooling(portable):
            maps.append(utils.unpool(samples, utils.max_pool_with_argmax(encoded)[1], encoded))
    scattered, portable = value_of(maps)
    assert scattered.shape == (3, 5, 7, 2)
    np.testing.assert_array_equal(scattered, portable)


def test_lrn_is_caffes(graph):
    """Caffe's formula is x / (1 + alpha / size * sum of x^2 over 5 channels) ^ beta."""
    x = np.random.RandomState(1).uniform(0, 255, (2, 5, 7, 9))
    padded = np.pad(x, [(0, 0)] * 3 + [(2, 2)], 'constant')
    squares = sum(padded[..., i:i + 9] ** 2 for i in range(5))
    got = value_of(utils.lrn(tf.constant(x, tf.float32)))
    np.testing.assert_allclose(got, x / (1 + 1e-4 / 5 * squares) ** 0.75, rtol=1e-6)


def test_initial_weights_depend_on_the_seed_and_the_name():
    """Random ops created earlier in the graph do not change the weights.

    Different layers have different initial weights. Different seeds give different initial weights.
    """
    def initial(seed, ops):
        with tf.Graph().as_default():
            tf.set_random_seed(seed)
            for _ in range(ops):
                tf.random_uniform([])
            layers = [utils.conv_variables([3, 3, 2, 5], name)[0] for name in ('one', 'two')]
            utils.deconv(tf.zeros([1, 2, 3, 4]), 3, 4, 2, tf.zeros([1, 4, 5, 3]), 'three')
            return value_of(layers + [tf.trainable_variables()[-1]])

    first, same, other = initial(1, 0), initial(1, 7), initial(2, 0)
    for i in range(3):
        np.testing.assert_array_equal(first[i], same[i])
        assert np.abs(first[i] - other[i]).min() > 0
    assert np.abs(first[0] - first[1]).min() > 0


def test_conv_initial_weights(graph):
    """Weights have the standard deviation sqrt(2 / fan_in) of He et al. Biases are 0."""
    utils.conv(tf.zeros([1, 5, 7, 32]), 48, 7, 'c')
    weights, biases = value_of(tf.trainable_variables())
    assert weights.shape == (7, 7, 32, 48) and not biases.any()
    assert abs(weights.std() / np.sqrt(2 / (7 * 7 * 32)) - 1) < 0.01 and abs(weights.mean()) < 1e-3


def test_batch_norm_training_and_averages(sess):
    """Training uses the statistics of the batch.

    Prediction uses the moving averages, whose momentum grows with the steps.
    """
    rng = np.random.RandomState(2)
    steps = [rng.normal(i, 1 + i, (2, 5, 7, 3)).astype(np.float32) for i in range(4)]
    x_ph = tf.placeholder(tf.float32, [2, 5, 7, 3])
    trained = utils.conv_bn(x_ph, 3, 1, 'c', True)
    with tf.variable_scope('', reuse=True):
        tested = utils.conv_bn(x_ph, 3, 1, 'c', False)
    weights, biases, _, beta = tf.trainable_variables()
    with tf.control_dependencies(utils.update_averages(tf.get_collection(utils.BN_STATISTICS))):
        step_op = tf.assign_add(tf.train.get_global_step(), 1)
    mean, variance = np.zeros(3), np.ones(3)
    sess.run(tf.global_variables_initializer())
    assert sess.run(beta).tolist() == [np.float32(0.001)] * 3  # the value of shift_filler in the prototxts
    for variable, value in ((weights, np.eye(3)[None, None]), (biases, [0.0, 3.0, -4.0]), (beta, [0.5] * 3)):
        variable.load(value, sess)
    for i, x in enumerate(steps):
        got, _ = sess.run([trained, step_op], {x_ph: x})
        x = x.astype(float)
        batch_mean, batch_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        np.testing.assert_allclose(got, (x - batch_mean) / np.sqrt(batch_variance + 1.001e-5) + 0.5, atol=1e-4)
        momentum = min(0.9, (1 + i) / (10 + i))
        mean = momentum * mean + (1 - momentum) * (batch_mean + [0, 3, -4])
        variance = momentum * variance + (1 - momentum) * batch_variance * 70 / 69
    expected = (steps[0] + [0, 3, -4] - mean) / np.sqrt(variance + 1.001e-5) + 0.5
    np.testing.assert_allclose(sess.run(tested, {x_ph: steps[0]}), expected, atol=1e-4)


def test_dropout_in_bfloat16(graph):
    """In bfloat16, 1 / 0.7 is rounded to 183 / 128. TensorFlow 1.15 cannot divide in bfloat16."""
    x = tf.cast(tf.get_variable('x', initializer=tf.ones([4, 5])), 'bfloat16')
    dropped = value_of(tf.cast(utils.dropout(x, 0.3, (1, 2), 'a'), tf.float32))
    assert set(dropped.flat) == {0.0, 183 / 128}


def test_dilated_convolutions_have_a_gradient_on_any_cpu(graph):
    """A dilated convolution uses no Conv2D op with dilations.

    On a CPU, TensorFlow's gradient of such an op needs oneDNN, which may be turned off.
    """
    utils.conv_bn(tf.ones([1, 9, 7, 2]), 3, 3, 'a', True, rate=2)
    assert not [op for op in graph.get_operations() if op.type == 'Conv2D' and op.get_attr('dilations') != [1] * 4]
