"""The loss, the learning-rate schedules and the train op."""
import tensorflow.compat.v1 as tf

import utils
from data import IGNORE

SCHEDULES = ('constant', 'poly', 'step')


def labelled_pixels(labels):
    """Scalar float32: how many of `labels` are not IGNORE."""
    return tf.reduce_sum(tf.cast(tf.not_equal(labels, IGNORE), tf.float32))


def loss(logits, labels, class_weights, count=None):
    """Weighted softmax cross-entropy: the sum over labelled pixels divided by their number.

    Not by the sum of the weights: so does caffe-segnet (softmax_loss_layer.cpp, normalize: true).

    Args:
      logits: [batch, height, width, num_classes] float32.
      labels: [batch, height, width] uint8, IGNORE where unlabelled.
      class_weights: num_classes floats.
      count: what to divide by; the labelled pixels of the whole batch where these are a share of it.
    Returns:
      scalar float32; 0 where no pixel is labelled.
    """
    labelled = tf.not_equal(labels, IGNORE)
    ids = tf.where(labelled, tf.cast(labels, tf.int32), tf.zeros_like(labels, tf.int32))
    weights = tf.gather(tf.constant(class_weights, tf.float32), ids) * tf.cast(labelled, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)
    count = labelled_pixels(labels) if count is None else count
    return tf.reduce_sum(weights * cross_entropy) / tf.maximum(count, 1.0)


def learning_rate(schedule, base, total_steps):
    """Scalar float32 at the current global step.

    constant: base, as the released solvers.
    poly: base * (1 - step / total_steps) ** 0.9, as DeepLab.
    step: a tenth of base after 0.6 of the steps, a hundredth after 0.85.
    """
    done = tf.cast(tf.train.get_or_create_global_step(), tf.float32) / float(total_steps)
    if schedule == 'poly':
        return base * tf.maximum(1.0 - done, 0.0) ** 0.9
    if schedule == 'step':
        return base * tf.where(done < 0.6, 1.0, tf.where(done < 0.85, 0.1, 0.01))
    return tf.constant(base, tf.float32)


def train_op(loss, rate, momentum, weight_decay, multipliers, optimizer='sgd', precision='float32'):
    """One step: gradients, weight decay, batch-norm averages and the global step.

    Args:
      rate: learning rate, scalar.
      weight_decay: added to the gradient as weight_decay * variable (so Caffe), before momentum.
      multipliers: function variable -> (learning rate, weight decay) multipliers.
      optimizer: 'sgd' (with momentum) or 'adam' (whose steps do not depend on the first multiplier).
      precision: that of the layers. For float16 the loss is scaled by a power of two that falls when a gradient
        overflows, which skips the step, and rises after 2,000 steps without.
    """
    adam = tf.train.AdamOptimizer(rate)
    update = adam if optimizer == 'adam' else tf.train.MomentumOptimizer(rate, momentum)
    if precision == 'float16':
        scale = tf.train.experimental.DynamicLossScale()
        update = tf.train.experimental.MixedPrecisionLossScaleOptimizer(update, scale)
    gradients = []
    for gradient, variable in update.compute_gradients(loss, colocate_gradients_with_ops=True):
        rate_multiplier, decay_multiplier = multipliers(variable)
        if gradient is None:  # a bias in front of batch norm
            continue
        if weight_decay * decay_multiplier:
            with tf.control_dependencies([gradient]):  # else all products are made at the step's start, and kept
                gradient += weight_decay * decay_multiplier * variable
        gradients.append((gradient if rate_multiplier == 1 else rate_multiplier * gradient, variable))
    averages = utils.update_averages()
    norms = sum(variable.op.name.endswith('/moving_mean') for variable in tf.global_variables())
    assert len(averages) == 2 * norms, '%d batch-norm updates for %d batch norms' % (len(averages), norms)
    with tf.control_dependencies(averages):
        applied = update.apply_gradients(gradients)
    with tf.control_dependencies([applied]):
        return tf.assign_add(tf.train.get_or_create_global_step(), 1).op
