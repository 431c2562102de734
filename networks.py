"""All networks by name: `build` is the one door to them. Builds graphs; opens no session, looks at no flag."""
import functools

import tensorflow.compat.v1 as tf

import baselines
import segnet
import utils

# A flag value is the paper's name in lower case.
NETWORKS = {'segnet': segnet.segnet, 'bayesian-segnet': segnet.segnet}
NETWORKS.update({name: functools.partial(segnet.segnet_basic, **variant) for name, variant in segnet.VARIANTS.items()})
NETWORKS['bayesian-segnet-basic'] = NETWORKS['segnet-basic']
NETWORKS.update({'fcn': functools.partial(baselines.fcn, learnt=False),
                 'fcn-deconv': functools.partial(baselines.fcn, learnt=True),
                 'deconvnet': baselines.deconvnet, 'deeplab-largefov': baselines.deeplab_largefov,
                 'unet': baselines.unet})

INPUTS = {  # what a network can see instead of BGR, 0..255
    'raw': lambda x: x,     # segnet_train.prototxt: neither scaled nor centred, batch norm does both
    'lrn': utils.lrn,       # segnet_basic_train.prototxt
    'lcn': utils.lcn,       # section 3 of the paper, for SegNet-Basic and its variants
}


def default_input(name):
    """What `name` sees unless told otherwise: LRN for the networks of table 1, as the released SegNet-Basic."""
    return 'lrn' if is_basic(name) else 'raw'


def is_basic(name):
    """Whether `name` has SegNet-Basic's encoder."""
    return name in segnet.VARIANTS or name == 'bayesian-segnet-basic'


def default_dropout(name):
    """Share dropped: 0.5 in the Bayesian networks, as released; none in the others."""
    return 0.5 if name.startswith('bayesian') else 0.0


def default_samples(name):
    """Samples of Monte-Carlo dropout, as the released inference prototxts: 4, 8 for Basic; none without dropout."""
    return {'bayesian-segnet': 4, 'bayesian-segnet-basic': 8}.get(name, 0)


def no_dropout(x, place):
    """Leaves `x` as it is."""
    return x


def build(name, images, num_classes, is_training, input_norm=None, drop=no_dropout, reuse=False,
          precision='float32'):
    """The network `name` under the scope `name`.

    Args:
      images: [batch, height, width, 3] RGB, 0..255, uint8 or float32, of any height and width.
      num_classes: int, void not counted.
      is_training: Python bool; batch norm by the batch (True) or by the moving averages (False).
      input_norm: one of INPUTS, applied to BGR 0..255; None for the network's own.
      drop: function (x, place) -> x, dropout at the network's places for it.
      reuse: take the variables of an earlier call.
      precision: float32, bfloat16 or float16: what the layers compute in; variables, input normalization and batch
        norm's statistics are float32.
    Returns:
      logits [batch, height, width, num_classes] float32.
    """
    with tf.variable_scope(name, reuse=reuse):
        x = INPUTS[input_norm or default_input(name)](tf.reverse(tf.cast(images, tf.float32), [-1]))
        return tf.cast(NETWORKS[name](tf.cast(x, precision), num_classes, is_training, drop), tf.float32)


def sampled(flags, images, num_classes, samples, reuse):
    """Monte-Carlo dropout: mean and variance of the softmax over `samples` masks, as test_bayesian_segnet.py.

    The layers before the first dropout are the same in all samples and run once.

    Args:
      images: [1, height, width, 3]; one image at a time, so that its masks do not depend on others.
    Returns:
      mean: [1, height, width, num_classes] float32.
      variance: [1, height, width] float32, the mean over the classes.
    """
    places = []

    def drop(x, place):
        places.append(place)
        x = tf.tile(x, [samples, 1, 1, 1]) if len(places) == 1 else x
        return utils.dropout(x, flags['dropout'], (flags['seed'], 0), place) if flags['dropout'] else x

    logits = build(flags['model'], images, num_classes, False, flags['input'], drop, reuse, flags['precision'])
    mean, variance = tf.nn.moments(tf.nn.softmax(logits), [0], keepdims=True)
    return mean, tf.reduce_mean(variance, -1)


def prediction_graph(flags, images, num_classes, sizes, reuse=False, samples=0):
    """The one way predictions are made.

    Args:
      flags: those of the run, as in config.json; model, input and precision are read.
      images: [batch, height, width, 3] uint8 or float32 RGB, at the size that the network sees.
      sizes: [batch, 2] int32, the height and width at which each prediction is wanted.
      samples: of Monte-Carlo dropout, for a batch of one; 0 leaves dropout off (which averages the weights).
    Returns:
      predictions: [batch, max height, max width] uint8 class ids; 0 beyond an image's own size.
      probabilities: [batch, height, width, num_classes] float32, at the network's size.
      variance: [batch, height, width] float32, over the samples, mean of the classes; 0 without samples.
    """
    if samples:
        probabilities, variance = sampled(flags, images, num_classes, samples, reuse)
    else:
        logits = build(flags['model'], images, num_classes, False, flags['input'], reuse=reuse,
                       precision=flags['precision'])
        probabilities = tf.nn.softmax(logits)
        variance = tf.zeros_like(probabilities[..., 0])
    height, width = tf.reduce_max(sizes[:, 0]), tf.reduce_max(sizes[:, 1])

    def at_own_size(item):
        one, size = item
        one = tf.image.resize_bilinear(one[None], size, half_pixel_centers=True)[0]
        ids = tf.cast(tf.argmax(one, -1), tf.uint8)
        return tf.pad(ids, [[0, height - size[0]], [0, width - size[1]]])

    predictions = tf.map_fn(at_own_size, (probabilities, sizes), dtype=tf.uint8, parallel_iterations=1)
    return predictions, probabilities, variance


def multipliers(name, variable):
    """(learning rate, weight decay) multipliers of a trainable variable, as `param` blocks of the released prototxts.

    Biases learn twice as fast and do not decay. SegNet's batch-norm shift does not decay; SegNet-Basic's does, since
    its prototxt gives batch norm no `param` block.
    """
    kind = variable.op.name.split('/')[-1]
    if kind == 'biases':
        return 2.0, 0.0
    return 1.0, 0.0 if kind == 'beta' and not is_basic(name) else 1.0
