"""Compares losses, schedules and optimizer steps with values computed by hand and with NumPy."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import value_of

import optimize
import utils
from data import IGNORE


@pytest.mark.parametrize('labels', [[[[0, IGNORE, 3], [2, 1, IGNORE]]], [[[IGNORE] * 3] * 2]])
def test_void_pixels_have_no_loss_and_no_gradient(graph, labels):
    """The loss of a batch without a labelled pixel is 0, and the gradient is finite."""
    logits = tf.constant(np.random.RandomState(1).rand(1, 2, 3, 4), tf.float32)
    value = optimize.loss(logits, tf.constant(labels, tf.uint8), np.ones(4))
    value, gradient = value_of([value, tf.gradients(value, logits)[0]])
    labelled = np.not_equal(labels, IGNORE)
    np.testing.assert_array_equal((gradient != 0).all(-1), labelled)
    assert np.isfinite(gradient).all() and (value > 0) == labelled.any()


def test_dice_of_four_pixels_by_hand(graph):
    """Classes 0 and 2 occur, class 1 does not occur, and one pixel is void."""
    softmax = np.array([[[.5, .25, .25], [.7, .1, .2], [.25, .5, .25], [.1, .8, .1]]], np.float32)
    labels = np.array([[0, 0, 2, IGNORE]], np.uint8)
    # Summed over the three labelled pixels, the probabilities of classes 0 and 2 are 1.45 and 0.70.
    dice = [2 * 1.2 / (2 + 1.45), 2 * .25 / (1 + .70)]
    void = np.full((1, 4), IGNORE, np.uint8)
    losses = [optimize.dice_loss(tf.constant(np.log(softmax)[None]), tf.constant(x[None])) for x in (labels, void)]
    np.testing.assert_allclose(value_of(losses), [1 - sum(dice) / 2, 0], rtol=1e-5)


def test_frozen_variables_do_not_move(sess):
    w, b = (tf.get_variable(name, initializer=[1.0, -2.0]) for name in ('w', 'b'))
    op = optimize.train_op(tf.reduce_sum(w * b), 0.1, 0.9, 5e-4, lambda v: (0.0 if v is w else 1.0, 1.0), 'adam')
    sess.run(tf.global_variables_initializer())
    sess.run(op)
    assert sess.run(w).tolist() == [1.0, -2.0] and sess.run(b)[0] != 1.0


def test_schedules(sess):
    step = tf.train.get_or_create_global_step()
    rates = [optimize.learning_rate(name, 0.1, 100) for name in ('constant', 'poly')]
    for at, expected in ((0, (.1, .1)), (50, (.1, .1 * .5 ** .9)), (70, (.1, .1 * .3 ** .9)), (100, (.1, 0))):
        step.load(at, sess)
        np.testing.assert_allclose(sess.run(rates), expected, atol=1e-6)


def test_two_steps_of_sgd_equal_numpy(sess):
    """A step of SGD computes v = 0.9 * v + m * (g + decay * d * w), and then w = w - rate * v.

    g is the gradient of the variable w, and v is the momentum. The multipliers of w are m for the learning rate `rate`
    and d for the weight decay `decay`.
    """
    w, b = (tf.get_variable(name, initializer=[1.0, -2.0, 3.0]) for name in ('w', 'b'))
    target = np.array([1.0, 5.0, 2.0])
    value = tf.reduce_sum(tf.square(w - target)) + tf.reduce_sum(tf.square(b - target))
    step_op = optimize.train_op(value, 0.1, 0.9, 0.01, lambda v: (2.0, 0.0) if v.op.name == 'b' else (1.0, 1.0))
    sess.run(tf.global_variables_initializer())
    for _ in range(2):
        sess.run(step_op)
    got_w, got_b, step = sess.run([w, b, tf.train.get_global_step()])
    assert step == 2
    for got, rate, decay in ((got_w, 1, 0.01), (got_b, 2, 0)):
        x, v = np.array([1.0, -2.0, 3.0]), 0
        for _ in range(2):
            v = 0.9 * v + rate * (2 * (x - target) + decay * x)
            x = x - 0.1 * v
        np.testing.assert_allclose(got, x, rtol=1e-5)


def test_loss_scale_skips_a_step_that_overflows(sess):
    """In float16 the gradient overflows at the first loss scale, 32,768, but not at 16,384."""
    weight = tf.get_variable('weights', initializer=[1.0, 2.0])
    loss = tf.reduce_sum(tf.cast(tf.cast(weight, tf.float16) * np.float16(2.5), tf.float32))
    step_op = optimize.train_op(loss, 0.1, 0.0, 0.0, lambda variable: (1.0, 0.0), precision='float16')
    scale = next(variable for variable in tf.global_variables() if 'loss_scale' in variable.op.name)
    seen = []
    sess.run(tf.global_variables_initializer())
    for _ in range(3):
        sess.run(step_op)
        seen.append(np.hstack(sess.run([scale, tf.train.get_global_step(), weight])))
    np.testing.assert_allclose(seen, [[16384, 1, 1, 2], [16384, 2, 0.75, 1.75], [16384, 3, 0.5, 1.5]], rtol=1e-3)


def test_train_op_wants_every_batch_norm_updated(graph):
    x = utils.conv_bn(tf.ones([2, 5, 7, 3]), 3, 1, 'c', True)
    del tf.get_collection_ref(utils.BN_STATISTICS)[:1]
    with pytest.raises(AssertionError, match='1 batch-norm updates for 1 batch norms'):
        optimize.train_op(tf.reduce_sum(x), 0.1, 0.9, 0.0, lambda v: (1.0, 1.0))


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('height, width, kernel, stride, padding, strips', [
    (13, 11, (3, 3, 2, 4), 1, 'SAME', 5), (12, 7, (7, 5, 3, 2), 1, 'SAME', 4), (4, 5, (9, 3, 2, 3), 1, 'SAME', 2),
    (5, 6, (1, 1, 3, 4), 1, 'SAME', 1), (9, 7, (3, 3, 3, 4), 2, 'SAME', 1), (9, 7, (3, 3, 3, 4), 1, 'VALID', 1),
    (9, 7, (2, 2, 3, 4), 1, 'SAME', 1)])
def test_gradients_of_convolutions_on_a_cpu(graph, monkeypatch, height, width, kernel, stride, padding, strips, dtype):
    """Compares our gradients in float32 or float16 with TensorFlow's float64 gradients.

    The gradient of a kernel of odd size is summed over strips of three rows. The last strip may need padding, and a
    kernel may have more rows than a strip. For all other convolutions, our gradients are TensorFlow's gradients.
    """
    monkeypatch.setattr(optimize, 'STRIP_BYTES', 3 * width * kernel[2] * np.dtype(dtype).itemsize)
    rng = np.random.RandomState(0)
    arrays = [rng.randint(-3, 4, shape) for shape in ((2, height, width, kernel[2]), kernel)]
    gradients = []
    for kind, device in ((dtype, 'CPU'), ('float64', 'GPU')):
        inputs = [tf.constant(array, kind) for array in arrays]
        with optimize.cpu_gradients(device):
            y = tf.nn.conv2d(*inputs, strides=[1, stride, stride, 1], padding=padding)
        slope = np.random.RandomState(1).randint(-3, 4, y.shape.as_list())
        gradients.append(tf.gradients(y, inputs, tf.constant(slope, kind)))
    found, expected = value_of(gradients)
    np.testing.assert_equal(found, expected)
    ours = next(op for op in tf.get_default_graph().get_operations() if op.type == 'Conv2DBackpropFilter')
    assert ours.inputs[0].shape[0] == 2 * strips
