"""Builds losses, learning-rate schedules, gradients of convolutions on CPUs, and the op of a training step."""
import numpy as np
import tensorflow.compat.v1 as tf

import utils
from data import IGNORE

# Size of the largest strip of image rows, in bytes. A strip and the gradient of the strip fit into the cache of a core.
STRIP_BYTES = 2 ** 20
# Size of the largest kernel whose gradient is computed from strips, in bytes. A strip and the gradient of a larger
# kernel do not fit into the cache together.
LARGEST_KERNEL = 2 ** 22


def labelled_pixels(labels):
    """Counts the pixels of `labels` that are not IGNORE -> scalar float32 tensor."""
    return tf.reduce_sum(tf.cast(tf.not_equal(labels, IGNORE), tf.float32))


def loss(logits, labels, class_weights, count=None):
    """Sums the softmax cross-entropy times class weight over labelled pixels, and divides the sum by `count`.

    As in caffe-segnet (softmax_loss_layer.cpp, normalize: true), the divisor is the number of labelled pixels, not the
    sum of the class weights.

    Args:
      logits: [batch, height, width, num_classes] float32.
      labels: [batch, height, width] uint8, IGNORE where unlabelled.
      class_weights: num_classes floats.
      count: number of labelled pixels in the whole batch, if `labels` is only a share of the batch; None for the
        number of labelled pixels in `labels`.
    Returns:
      scalar float32; 0 if no pixel is labelled.
    """
    labelled = tf.not_equal(labels, IGNORE)
    # The ids are int64, because TensorFlow fills a tensor of int32 zeros on the CPU, even if the network is on a GPU.
    ids = tf.where(labelled, tf.cast(labels, tf.int64), tf.zeros_like(labels, tf.int64))
    weights = tf.gather(tf.constant(class_weights, tf.float32), ids) * tf.cast(labelled, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)
    count = labelled_pixels(labels) if count is None else count
    return tf.reduce_sum(weights * cross_entropy) / tf.maximum(count, 1.0)


def dice_loss(logits, labels):
    """Computes one minus the mean Dice coefficient of the classes that occur in `labels`.

    Source: Drozdzal et al., 2016, equation 1. The Dice coefficient of a class is 2 sum(p y) / (sum(p) +
    sum(y)), with the softmax p and the one-hot label y. Each sum runs over the labelled pixels of the batch.

    Args:
      logits: [batch, height, width, num_classes] float32.
      labels: [batch, height, width] uint8, IGNORE where unlabelled.
    Returns:
      scalar float32; 0 if no pixel is labelled.
    """
    truth = tf.one_hot(tf.cast(labels, tf.int32), logits.shape.as_list()[-1])  # all 0 for pixels labelled IGNORE
    labelled = tf.cast(tf.not_equal(labels, IGNORE), tf.float32)[..., None]
    probabilities = tf.nn.softmax(logits) * labelled
    overlap = tf.reduce_sum(probabilities * truth, [0, 1, 2])  # [num_classes]
    pixels = tf.reduce_sum(truth, [0, 1, 2])
    total = pixels + tf.reduce_sum(probabilities, [0, 1, 2])
    present = tf.cast(pixels > 0, tf.float32)
    missed = present * (1 - 2 * overlap / tf.maximum(total, 1e-6))
    return tf.reduce_sum(missed) / tf.maximum(tf.reduce_sum(present), 1.0)


def learning_rate(schedule, base, total_steps):
    """Returns the learning rate at the current global step, a scalar float32 tensor.

    The schedule 'constant' is `base` at each step, as in the released solvers.
    The schedule 'poly' is base * (1 - step / total_steps) ** 0.9, as in DeepLab.
    """
    if schedule == 'constant':
        return tf.constant(base, tf.float32)
    done = tf.cast(tf.train.get_or_create_global_step(), tf.float32) / float(total_steps)
    return base * tf.maximum(1.0 - done, 0.0) ** 0.9


def cpu_gradients(device_kind):
    """Context manager: on a CPU, `conv_gradients` computes the gradients of convolutions built in the block.

    `device_kind` is 'CPU' or 'GPU'. With 'GPU' the convolutions keep TensorFlow's gradients.
    """
    return tf.get_default_graph().gradient_override_map({'Conv2D': 'CPUConv2D'} if device_kind == 'CPU' else {})


@tf.RegisterGradient('CPUConv2D')
def conv_gradients(op, gradient):
    """Computes the gradients of a convolution with respect to the input and the kernel, for a CPU.

    With stride 1, dilation 1, SAME padding and a kernel of odd size, the gradient with respect to the input is the
    convolution of `gradient` with the kernel flipped along both axes. With oneDNN such a convolution takes 50% to 100%
    of the time of TensorFlow's op Conv2DBackpropInput. The results are equal up to rounding. For all other
    convolutions, and for images without a static size, TensorFlow's ops compute the gradients.
    """
    x, kernel = op.inputs
    settings = {name: op.get_attr(name) for name in ('strides', 'padding', 'dilations')}
    sides = kernel.shape.as_list()[:2]
    plain = (settings['padding'] == b'SAME' and set(settings['strides'] + settings['dilations']) == {1}
             and all(side % 2 for side in sides) and None not in x.shape.as_list()[1:])
    if not plain:
        return (tf.nn.conv2d_backprop_input(tf.shape(x), kernel, gradient, **settings),
                tf.nn.conv2d_backprop_filter(x, kernel.shape, gradient, **settings))
    with tf.control_dependencies([gradient]):  # saves memory: otherwise all kernels are flipped first
        mirrored = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return tf.nn.conv2d(gradient, mirrored, [1, 1, 1, 1], 'SAME'), kernel_gradient(x, kernel.shape.as_list(), gradient)


def kernel_gradient(x, shape, gradient):
    """Computes the gradient of a convolution with respect to its kernel.

    The images are cut into strips of rows, which form a larger batch. TensorFlow's op Conv2DBackpropFilter reads the
    input several times. A strip stays in the cache of a core, so the op takes 60% to 80% of the time that whole images
    take. Images are not cut for a 1x1 kernel or a kernel of more than LARGEST_KERNEL bytes, because strips would save
    no time.

    Args:
      x: [batch, h, w, c], the input of the convolution, which has stride 1 and SAME padding.
      shape: [kernel height, kernel width, c, filters], where kernel height and width are odd.
      gradient: [batch, h, w, filters].
    """
    height, width, channels = x.shape.as_list()[1:]
    rows = max(1, STRIP_BYTES // (width * channels * x.dtype.size))
    strips = -(-height // rows)
    rows = -(-height // strips)
    if strips == 1 or shape[:2] == [1, 1] or 4 * np.prod(shape) > LARGEST_KERNEL:
        return tf.nn.conv2d_backprop_filter(x, shape, gradient, [1, 1, 1, 1], 'SAME')
    top, left = shape[0] // 2, shape[1] // 2
    rest = strips * rows - height  # number of rows of zeros that fill the last strip
    with tf.control_dependencies([gradient]):  # delays the padding of x until the backward pass
        x = tf.pad(x, [[0, 0], [top, top + rest], [left, left], [0, 0]])
    strip_rows = rows * np.arange(strips)[:, None] + np.arange(rows + 2 * top)  # neighbouring strips share 2 * top rows
    x = tf.reshape(tf.gather(x, strip_rows.ravel(), axis=1), [-1, rows + 2 * top, width + 2 * left, channels])
    if rest:
        gradient = tf.pad(gradient, [[0, 0], [0, rest], [0, 0], [0, 0]])
    gradient = tf.reshape(gradient, [-1, rows, width, shape[3]])
    return tf.nn.conv2d_backprop_filter(x, shape, gradient, [1, 1, 1, 1], 'VALID')


def train_op(loss, rate, momentum, weight_decay, multipliers, optimizer='sgd', precision='float32',
             all_reduce=list):
    """Builds the op of one training step: gradients, weight decay, batch-norm averages and the global step.

    Args:
      loss: scalar float32.
      rate: learning rate, scalar.
      momentum: momentum of sgd; ignored by adam.
      weight_decay: weight_decay * variable is added to the gradient before momentum, as in Caffe.
      multipliers: function that maps a variable to (multiplier of the learning rate, multiplier of the weight decay).
        If the multiplier of the learning rate is 0, the variable is frozen.
      optimizer: 'sgd' (with momentum) or 'adam'. Adam's steps do not depend on the scale of the gradient, so with Adam
        only a learning-rate multiplier of 0 has an effect.
      precision: dtype of the layers. For 'float16' the loss is scaled by a power of two. The scale of the loss falls
        when a gradient overflows, and rises after 2,000 steps without an overflow. A step with an overflow updates the
        batch-norm averages and the global step, but not the trained variables.
      all_reduce: function (list of tensors) -> list of the sums over all processes that train together.
    Raises:
      AssertionError: the graph has batch-norm layers whose statistics are not in BN_STATISTICS.
    """
    adam = tf.train.AdamOptimizer(rate)
    update = adam if optimizer == 'adam' else tf.train.MomentumOptimizer(rate, momentum)
    if precision == 'float16':
        update = tf.train.experimental.MixedPrecisionLossScaleOptimizer(update, 'dynamic')
    pairs = [(gradient, variable) for gradient, variable
             in update.compute_gradients(loss, colocate_gradients_with_ops=True)
             if gradient is not None and multipliers(variable)[0]]  # the gradient of a bias before batch norm is None
    statistics = tf.get_collection(utils.BN_STATISTICS)
    sums = all_reduce([gradient for gradient, _ in pairs] + [batch for _, batch in statistics] + [tf.ones([])])
    gradients = []
    for gradient, (_, variable) in zip(sums, pairs):
        rate_multiplier, decay_multiplier = multipliers(variable)
        if weight_decay * decay_multiplier:
            with tf.control_dependencies([gradient]):  # saves memory: otherwise all decay terms are computed first
                gradient += weight_decay * decay_multiplier * variable
        gradients.append((gradient if rate_multiplier == 1 else rate_multiplier * gradient, variable))
    means = [batch / sums[-1] for batch in sums[len(pairs):-1]]  # sums[-1] is the number of processes
    averages = utils.update_averages([(moving, mean) for (moving, _), mean in zip(statistics, means)])
    norms = sum(variable.op.name.endswith('/moving_mean') for variable in tf.global_variables())
    assert len(averages) == 2 * norms, '%d batch-norm updates for %d batch norms' % (len(averages), norms)
    with tf.control_dependencies(averages):
        applied = update.apply_gradients(gradients)
    with tf.control_dependencies([applied]):
        return tf.assign_add(tf.train.get_or_create_global_step(), 1).op
