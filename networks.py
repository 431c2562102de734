"""Builds a network by name, builds the prediction graph, and lists the layers of a network as a table."""
import collections
import functools
import re

import numpy as np
import tabulate
import tensorflow.compat.v1 as tf

import baselines
import segnet
import utils

# The keys are the values of --model: the paper's names in lower case.
NETWORKS = {'segnet': segnet.segnet, 'bayesian-segnet': segnet.segnet}
NETWORKS.update({name: functools.partial(segnet.segnet_basic, **variant) for name, variant in segnet.VARIANTS.items()})
NETWORKS['bayesian-segnet-basic'] = NETWORKS['segnet-basic']
NETWORKS.update({'fcn': functools.partial(baselines.fcn, learnt=False),
                 'fcn-deconv': functools.partial(baselines.fcn, learnt=True),
                 'deconvnet': baselines.deconvnet, 'deeplab-largefov': baselines.deeplab_largefov,
                 'unet': baselines.unet})

# Default numbers of Monte-Carlo dropout samples, from the released code. Other networks have the default 0.
SAMPLES = {'bayesian-segnet': 4, 'bayesian-segnet-basic': 8}
INPUTS = {  # {value of --input: function that normalizes BGR images with values 0..255}
    'raw': lambda x: x,     # no scaling and no centring, as in segnet_train.prototxt
    'lrn': utils.lrn,       # local response normalization, as in segnet_basic_train.prototxt
    'lcn': utils.lcn,       # local contrast normalization, as in section 3 of the paper
}


def is_basic(name):
    """Returns whether the network `name` has SegNet-Basic's encoder."""
    return name in segnet.VARIANTS or name == 'bayesian-segnet-basic'


class Spec(collections.namedtuple('Spec', 'model num_classes input dropout precision seed fit height width',
                                  defaults=(None, None, 'float32', 1, 'resize', 360, 480))):
    """The settings of a run that determine the graph of the network.

    model: key of NETWORKS.
    num_classes: number of classes, without void.
    input: key of INPUTS; by default 'lrn' for networks with SegNet-Basic's encoder, else 'raw' (authors' prototxts).
    dropout: rate of the dropout layers; by default 0.5 for Bayesian networks, as in the authors' prototxts, else 0.
    precision: dtype of the layers: 'float32', 'bfloat16' or 'float16'.
    seed: seed of the dropout masks.
    fit: 'resize' resizes all images to height x width. 'crop' trains on crops of height x width and keeps the scale.
    """

    def __new__(cls, *values, **named):
        """Makes a `Spec`. If `input` or `dropout` is None, the default for the network is used."""
        spec = super().__new__(cls, *values, **named)
        if spec.dropout is None:
            spec = spec._replace(dropout=0.5 if spec.model.startswith('bayesian') else 0.0)
        return spec._replace(input=spec.input or ('lrn' if is_basic(spec.model) else 'raw'))


def spec_of(flags: dict, num_classes: int) -> Spec:
    """Makes the `Spec` of a run. `flags`: {flag: value}, from the command line or from config.json."""
    return Spec(num_classes=num_classes, **{name: flags[name] for name in Spec._fields if name in flags})


def build(spec, images, is_training, dropout=lambda x, name: x, reuse=False):
    """Builds the network of `spec` in the variable scope `spec.model`; returns the logits.

    Layers compute in `spec.precision`. Variables, input normalization and batch-norm statistics are always float32.

    Args:
      images: [batch, height, width, 3] RGB, 0..255, uint8 or float32, of any height and width.
      is_training: a Python bool. If True, batch norm uses the statistics of the batch and adds the statistics to the
        collection utils.BN_STATISTICS. If False, batch norm uses the moving averages.
      dropout: function (x, name) -> x, called at each dropout layer of the network. The default is no dropout.
      reuse: bool, whether to reuse the variables of an earlier call.
    Returns:
      logits [batch, height, width, num_classes] float32.
    """
    with tf.variable_scope(spec.model, reuse=reuse):
        bgr = tf.concat(tf.split(tf.cast(images, tf.float32), 3, -1)[::-1], -1)  # OpenCV's DNN cannot read tf.reverse
        x = tf.cast(INPUTS[spec.input](bgr), spec.precision)
        return tf.cast(NETWORKS[spec.model](x, spec.num_classes, is_training, dropout), tf.float32)


def sampled(spec, images, samples, reuse):
    """Computes the mean and the variance of the softmax over `samples` dropout masks.

    Source: test_bayesian_segnet.py. The layers before the first dropout layer run only once. The masks depend on the
    run's seed, but not on the image, so repeated predictions are equal.

    Args:
      images: [1, height, width, 3]. A batch of several images would have a different mask for each image.
    Returns:
      mean: [1, height, width, num_classes] float32.
      variance: [1, height, width] float32, averaged over the classes.
    """
    names = []

    def dropout(x, name):
        names.append(name)
        x = tf.tile(x, [samples, 1, 1, 1]) if len(names) == 1 else x
        return utils.dropout(x, spec.dropout, (spec.seed, 0), name)

    logits = build(spec, images, False, dropout, reuse)
    mean, variance = tf.nn.moments(tf.nn.softmax(logits), [0], keepdims=True)
    return mean, tf.reduce_mean(variance, -1)


def resize_probabilities(probabilities, size):
    """Resizes probabilities bilinearly, [batch, h, w, c] -> [batch, height, width, c].

    `size`: (height, width) of the result, two ints or an int32 tensor [2]. If the size matches already, no op is added.
    """
    if isinstance(size, tf.Tensor) or probabilities.shape.as_list()[1:3] != list(size):
        return tf.image.resize_bilinear(probabilities, size, half_pixel_centers=True)
    return probabilities


def prediction_graph(spec, images, size, reuse=False, samples=0):
    """Builds the graph that predicts the class of each pixel: softmax, resize to `size`, argmax.

    Args:
      spec: the run's `Spec`.
      images: [batch, height, width, 3] uint8 or float32 RGB, at the input size of the network.
      size: (height, width) of the predictions, two ints or an int32 tensor [2].
      reuse: bool, whether to reuse the variables of an earlier call.
      samples: number of Monte-Carlo dropout samples, for a batch of one image. 0 turns dropout off.
    Returns:
      ids: [batch, *size] uint8 class indices.
      probabilities: [batch, height, width, num_classes] float32, at the input size of the network.
      variance: [batch, height, width] float32, the variance of the probabilities over the samples, averaged over the
        classes. Without samples the variance is 0.
      confidence: [batch, *size] uint8, the highest probability times 255.
    """
    if samples:
        probabilities, variance = sampled(spec, images, samples, reuse)
    else:
        probabilities = tf.nn.softmax(build(spec, images, False, reuse=reuse))
        variance = tf.zeros_like(probabilities[..., 0])
    resized = resize_probabilities(probabilities, size)
    confidence = tf.cast(tf.round(255 * tf.reduce_max(resized, -1)), tf.uint8)
    return tf.cast(tf.argmax(resized, -1), tf.uint8), probabilities, variance, confidence


def multipliers(name, variable):
    """Returns the multipliers of a variable of the network `name`: (learning rate, weight decay).

    Source: the `param` blocks of the released prototxts. Biases have twice the learning rate and no weight decay. The
    batch-norm shift has no weight decay, except in networks with SegNet-Basic's encoder: the prototxt of SegNet-Basic
    has no `param` block for batch norm.
    """
    kind = variable.op.name.split('/')[-1]
    if kind == 'biases':
        return 2.0, 0.0
    return 1.0, 0.0 if kind == 'beta' and not is_basic(name) else 1.0


def in_encoder(variable):
    """Returns whether a variable belongs to the encoder."""
    return re.search(r'/(conv|down)\d(_\d)?(_bn)?/\w+\Z', variable.op.name) is not None


# ---------------------------------------------------------------- layer table

Layer = collections.namedtuple('Layer', 'name kind shape parameters macs')  # shape: (height, width, channels)
KINDS = {'Conv2D': 'convolution', 'DepthwiseConv2dNative': 'convolution', 'Conv2DBackpropInput': 'deconvolution',
         'MaxPoolWithArgmax': 'pooling', 'MaxPool': 'pooling', 'MaxPoolGradWithArgmax': 'upsampling by indices',
         'ResizeBilinear': 'bilinear upsampling', 'LRN': 'normalization'}


def network_layers(spec: Spec) -> list:
    """Lists the layers of a network in order, for one image of spec.height x spec.width: list of `Layer`.

    Only ops with a type in KINDS are listed, so for example ReLU is left out. `parameters` counts the trainable values
    of the layer and of the layer's batch norm. The network is built in a new graph, in prediction mode.
    """
    with tf.Graph().as_default() as graph:
        build(spec, tf.zeros([1, spec.height, spec.width, 3]), False)
        sizes = collections.Counter()
        for variable in tf.trainable_variables():
            layer = variable.op.name.split('/')[1]
            sizes[layer[:-3] if layer.endswith('_bn') else layer] += int(np.prod(variable.shape.as_list()))
        layers = []
        pools = 0  # number of poolings so far, minus the number of upsamplings
        for op in graph.get_operations():
            kind = KINDS.get(op.type)
            layer = op.name.split('/')[1] if kind else None
            if kind is None or kind == 'convolution' and layer not in sizes:
                continue
            if kind == 'pooling':
                pools += 1
                layer = 'pool%d' % pools
            elif kind == 'upsampling by indices':
                layer = 'upsample%d' % pools
                pools -= 1
            elif layer not in sizes:
                layer = {'normalization': 'norm'}.get(kind, 'upsample')
            shape = tuple(op.outputs[0].shape.as_list()[1:])
            layers.append(Layer(layer, kind, shape, sizes.pop(layer, 0), num_macs(op)))
        return layers


def num_macs(op) -> int:
    """Returns the number of MACs of a convolution or deconvolution for one image; 0 for any other op."""
    if op.type not in ('Conv2D', 'DepthwiseConv2dNative', 'Conv2DBackpropInput'):
        return 0
    kernel = op.inputs[1].shape.as_list()
    positions = (op.inputs[2] if op.type == 'Conv2DBackpropInput' else op.outputs[0]).shape.as_list()[1:3]
    return int(np.prod(kernel) * np.prod(positions))


def layer_table(spec: Spec) -> str:
    """Formats the layers of a network as a text table. The last line has the sums of parameters and MACs."""
    layers = network_layers(spec)
    rows = [(layer.name, layer.kind, '%dx%dx%d' % layer.shape, layer.parameters, layer.macs) for layer in layers]
    rows.append((spec.model, '', '', sum(layer.parameters for layer in layers), sum(layer.macs for layer in layers)))
    return tabulate.tabulate(rows, headers=('layer', 'kind', 'output', 'parameters', 'MACs'), intfmt=',')
