"""Layer helpers: each adds ops to the default graph and returns tensors [batch, height, width, channels].

Knows no network, opens no session, reads no file. Variables bear the names
`weights biases gamma beta moving_mean moving_variance` below the layer's scope. They are float32; layers compute in
the precision of their input, batch norm's statistics in float32.
"""
import collections
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

BN_STATISTICS = 'batch_norm_statistics'  # collection: (moving variable, value in this batch), two a batch norm
BN_EPSILON = 1.001e-5  # the least that TensorFlow's fused op takes; caffe-segnet's bn_layer.cpp has 1e-9
BN_MOMENTUM = 0.9  # follows the last 20 batches or so: weights move fast in runs of a few hundred steps


def variable(name, shape, initializer, trainable=True):
    """float32 variable of the network: all that a trained network consists of is in MODEL_VARIABLES."""
    return tf.get_variable(name, shape, tf.float32, initializer, trainable=trainable,
                           collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES])


def conv_variables(shape, name):
    """Weights `shape`, by He et al. 2015 ('msra' in the prototxts), and biases of a convolution."""
    with tf.variable_scope(name):
        stddev = np.sqrt(2.0 / np.prod(shape[:3]))
        weights = variable('weights', shape, tf.random_normal_initializer(stddev=stddev))
        return weights, variable('biases', shape[3:], tf.zeros_initializer())


def conv(x, filters, kernel_size, name):
    """[batch, h, w, c] -> [batch, h, w, filters], with biases."""
    weights, biases = conv_variables([kernel_size, kernel_size, x.shape.as_list()[-1], filters], name)
    x = tf.nn.conv2d(x, tf.cast(weights, x.dtype), [1, 1, 1, 1], 'SAME', name=name + '/Conv2D')
    return tf.nn.bias_add(x, tf.cast(biases, x.dtype), name=name + '/BiasAdd')


def norm_variables(filters, name, beta):
    """Batch norm's gamma, beta and moving averages, [filters] each, under `name`_bn; `beta`: the initial shift."""
    with tf.variable_scope(name + '_bn'):
        return (variable('gamma', [filters], tf.ones_initializer()),
                variable('beta', [filters], tf.constant_initializer(beta)),
                variable('moving_mean', [filters], tf.zeros_initializer(), trainable=False),
                variable('moving_variance', [filters], tf.ones_initializer(), trainable=False))


def norm_by_batch(x, gamma, beta, mean, variance, biases=0.0):
    """Batch norm of x + `biases` by the batch at hand, whose statistics are noted in BN_STATISTICS.

    The biases are not added: the batch's mean would take them off again, so their gradient is 0.
    """
    y, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=BN_EPSILON, is_training=True)
    tf.add_to_collection(BN_STATISTICS, (mean, batch_mean + biases))
    tf.add_to_collection(BN_STATISTICS, (variance, batch_variance))
    return y


def conv_bn(x, filters, kernel_size, name, is_training, beta=0.0, rate=1, single_channel=False):
    """Convolution and batch norm: [batch, h, w, c] -> [batch, h, w, filters].

    Training normalizes by the batch, and notes both statistics in BN_STATISTICS for `update_averages`. Prediction has
    the moving averages folded into weights and biases, which saves a pass over the map.

    Args:
      beta: batch norm's initial shift.
      rate: distance of the kernel's taps; above 1 the convolution is dilated.
      single_channel: each map is convolved with a filter of its own; `filters` is c then.
    """
    channels = 1 if single_channel else x.shape.as_list()[-1]
    weights, biases = conv_variables([kernel_size, kernel_size, channels, filters], name)
    gamma, beta, mean, variance = norm_variables(filters, name, beta)
    if not is_training:
        scale = gamma * tf.rsqrt(variance + BN_EPSILON)
        weights, biases = weights * scale, (biases - mean) * scale + beta
    weights = tf.cast(weights, x.dtype)
    if single_channel:
        kernel = tf.transpose(weights, [0, 1, 3, 2])  # [size, size, c, 1]
        x = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], 'SAME', name=name + '/depthwise')
    elif rate > 1 and tf.__version__.startswith('1.'):  # its CPU kernel has no gradient for dilations
        x = tf.nn.atrous_conv2d(x, weights, rate, 'SAME', name=name + '/atrous')
    else:
        x = tf.nn.conv2d(x, weights, [1, 1, 1, 1], 'SAME', dilations=[1, rate, rate, 1], name=name + '/Conv2D')
    if is_training:
        return norm_by_batch(x, gamma, beta, mean, variance, biases)
    return tf.nn.bias_add(x, tf.cast(biases, x.dtype), name=name + '/BiasAdd')


def conv_bn_relu(x, filters, kernel_size, name, is_training, rate=1):
    """Convolution, batch norm and ReLU, in the order of segnet_train.prototxt and with its initial shift of 0.001."""
    return tf.nn.relu(conv_bn(x, filters, kernel_size, name, is_training, 0.001, rate))


def bilinear_kernel(kernel_size, stride, channels):
    """float32 [kernel_size, kernel_size, channels, channels] that upsamples each map by `stride`, bilinearly.

    Its taps lie in the middle 2 * stride of the kernel; a kernel as wide as that is FCN's.
    """
    centre = (kernel_size - 1) / 2.0
    row = np.maximum(1 - np.abs(np.arange(kernel_size) - centre) / stride, 0)
    return (np.outer(row, row)[:, :, None, None] * np.eye(channels)).astype(np.float32)


def deconv(x, filters, kernel_size, stride, like, name):
    """[batch, h, w, c] -> [batch, height and width of `like`, filters], ceil(height / stride) being h; no biases.

    Starts as bilinear upsampling where c is `filters`, else by He et al. 2015.
    """
    with tf.variable_scope(name):
        channels = x.shape.as_list()[-1]
        if channels == filters:
            start = tf.constant_initializer(bilinear_kernel(kernel_size, stride, channels))
        else:
            start = tf.random_normal_initializer(stddev=np.sqrt(2.0 * stride ** 2 / (kernel_size ** 2 * channels)))
        weights = variable('weights', [kernel_size, kernel_size, filters, channels], start)
        shape = tf.concat([tf.shape(x)[:1], tf.shape(like)[1:3], [filters]], 0)
        y = tf.nn.conv2d_transpose(x, tf.cast(weights, x.dtype), shape, [1, stride, stride, 1], 'SAME')
        y.set_shape(x.shape[:1].concatenate(like.shape[1:3]).concatenate(filters))
        return y


def deconv_bn(x, filters, kernel_size, stride, like, name, is_training):
    """`deconv` and batch norm, by the batch in training, else by the moving averages."""
    y = deconv(x, filters, kernel_size, stride, like, name)
    gamma, beta, mean, variance = norm_variables(filters, name, 0.0)
    if is_training:
        return norm_by_batch(y, gamma, beta, mean, variance)
    scale = gamma * tf.rsqrt(variance + BN_EPSILON)
    return y * tf.cast(scale, y.dtype) + tf.cast(beta - mean * scale, y.dtype)


def upsample_bilinear(x, like):
    """[batch, h, w, c] -> [batch, height and width of `like`, c], bilinear, at pixel centres."""
    y = tf.image.resize_bilinear(x, tf.shape(like)[1:3], half_pixel_centers=True)
    y.set_shape(x.shape[:1].concatenate(like.shape[1:3]).concatenate(x.shape[3]))
    return tf.cast(y, x.dtype)  # TensorFlow resizes in float32


def update_averages():
    """Ops that move the averages of each batch norm towards the statistics of the batch, two a batch norm.

    Their momentum grows as min(0.9, (1 + step) / (10 + step)) (as tf.train.ExponentialMovingAverage's num_updates),
    so that a run of a few hundred steps is not scored with the initial values. Where towers share the batch, the mean
    of theirs counts.
    """
    step = tf.cast(tf.train.get_or_create_global_step(), tf.float32)
    momentum = tf.minimum(BN_MOMENTUM, (1 + step) / (10 + step))
    batches = collections.OrderedDict()  # by variable: of each tower that shares the batch
    for moving, batch in tf.get_collection(BN_STATISTICS):
        batches.setdefault(moving.op.name, (moving, []))[1].append(batch)
    return [tf.assign_sub(moving, (1 - momentum) * (moving - tf.add_n(values) / len(values)))
            for moving, values in batches.values()]


def lrn(x):
    """Local response normalization across channels, equal to Caffe's `local_size 5, alpha 1e-4, beta 0.75`.

    Caffe divides alpha by the window's size (lrn_layer.cpp) and counts the whole window, TensorFlow its radius.
    """
    return tf.nn.lrn(x, depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75)


def lcn(x):
    """Local contrast normalization of Jarrett et al. 2009 (section 2): subtractive, then divisive, over all channels.

    Their window is 9x9 Gaussian; its width, which they do not give, is 2 pixels here (standard deviation). Near an edge
    the weights of what lies inside are scaled to a sum of 1, so that a flat image stays flat.
    """
    height, width, channels = tf.shape(x)[1], tf.shape(x)[2], x.shape.as_list()[-1]
    row = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
    window = (np.outer(row, row) / row.sum() ** 2)[:, :, None, None].astype(np.float32)
    inside = tf.nn.conv2d(tf.ones([1, height, width, 1]), window, [1, 1, 1, 1], 'SAME')

    def local_mean(x):  # over the window and all channels
        over_channels = np.tile(window / channels, [1, 1, channels, 1])
        return tf.nn.conv2d(x, over_channels, [1, 1, 1, 1], 'SAME') / inside

    centred = x - local_mean(x)
    deviation = tf.sqrt(local_mean(tf.square(centred)) + 1e-12)
    floor = tf.reduce_mean(deviation, [1, 2, 3], keepdims=True)  # c in the paper; each image's own
    return centred / tf.maximum(tf.maximum(deviation, floor), 1e-3)


def dropout(x, rate, key, name):
    """Zeroes a share `rate` of the values and scales the others up by 1 / (1 - rate), as Caffe.

    Args:
      key: (seed, number of the step or the sample), a Python int and a tensor: with `name` they decide the mask,
        whatever ran before.
    """
    seed, number = key
    layer_seed = (seed ^ zlib.crc32(name.encode())) & 0x7fffffff
    kept = tf.random.stateless_uniform(tf.shape(x), tf.stack([layer_seed, tf.cast(number, tf.int32)])) >= rate
    return tf.where(kept, x / (1.0 - rate), tf.zeros_like(x))


def max_pool(x, size=2, stride=2):
    """[batch, h, w, c] -> [batch, ceil(h/stride), ceil(w/stride), c]."""
    return tf.nn.max_pool(x, [1, size, size, 1], [1, stride, stride, 1], 'SAME')


def max_pool_with_argmax(x):
    """[batch, h, w, c] -> [batch, ceil(h/2), ceil(w/2), c] and the int64 indices of the maxima, of the same shape.

    An index counts within its own image, (row * w + column) * c + channel. Of equal values the first counts.
    The gradient goes where the indices say, so the map itself need not be kept for it.
    """
    shape = tf.shape(x)

    @tf.custom_gradient
    def pool(x):
        y, indices = tf.nn.max_pool_with_argmax(x, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME')
        return (y, indices), lambda gradient, _: scatter(gradient, indices, shape)

    y, indices = pool(x)
    return y, tf.stop_gradient(indices)


def unpool(x, indices, like):
    """Puts each value of `x` [batch, h, w, c] back where `indices` says in its image; zero elsewhere.

    The result has the shape of `like`, the encoder's own map: never 2h x 2w, which shears the map where its height
    or width is odd. Only the shape of `like` is used, so the map itself can be freed. Where `x` holds several samples
    of each image, all take the image's indices.

    TensorFlow 1.15 uses the map: where nothing else does, its optimizer moves a ReLU from before the pooling behind
    it, and a window with no positive value then has another index in prediction than in training.
    """
    shape = tf.concat([tf.shape(x)[:1], tf.shape(like)[1:]], 0)
    samples = [tf.shape(x)[0] // tf.shape(indices)[0], 1, 1, 1]
    indices = tf.tile(indices, samples)  # costs nothing for a single sample
    place = tf.tile(like, samples) if tf.__version__.startswith('1.') else None

    @tf.custom_gradient
    def unpooled(x):
        return scatter(x, indices, shape, place), lambda gradient: gather(gradient, indices)

    y = unpooled(x)
    y.set_shape(x.shape[:1].concatenate(like.shape[1:]))
    return y


def scatter(x, indices, shape, place=None):
    """Zeros of `shape` [batch, h, w, c], but for the values of `x` at `indices`, which count within each image.

    TensorFlow's own scatter for the gradient of pooling, many times faster on a CPU than `tf.scatter_nd`. It wants
    a map of that shape, `place`, whose values it does not read: an empty one unless given.
    """
    with tf.control_dependencies([x]):  # not before it is wanted
        place = tf.raw_ops.Empty(shape=shape, dtype=x.dtype) if place is None else place
    return tf.raw_ops.MaxPoolGradWithArgmax(input=place, grad=x, argmax=indices, ksize=[1, 2, 2, 1],
                                            strides=[1, 2, 2, 1], padding='SAME', include_batch_in_index=False)


def gather(y, indices):
    """Takes from `y` [batch, h, w, c] the values that `indices` [batch, ...] names in each image: undoes `unpool`."""
    size = tf.shape(y, out_type=tf.int64)
    with tf.control_dependencies([y]):  # else the sum is made with the indices, and kept until the gradient comes
        offsets = tf.reshape(tf.range(size[0]) * tf.reduce_prod(size[1:]), [-1, 1, 1, 1])
        return tf.gather(tf.reshape(y, [-1]), indices + offsets)
