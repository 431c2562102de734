"""Builds each network by name, and the prediction graph; lists the layers of a network as a table."""
import collections
import functools
import re

import numpy as np
import tabulate
import tensorflow.compat.v1 as tf

import baselines
import segnet
import utils

# Keys are the values of --model: the paper's names in lower case.
NETWORKS = {'segnet': segnet.segnet, 'bayesian-segnet': segnet.segnet}
NETWORKS.update({name: functools.partial(segnet.segnet_basic, **variant) for name, variant in segnet.VARIANTS.items()})
NETWORKS['bayesian-segnet-basic'] = NETWORKS['segnet-basic']
NETWORKS.update({'fcn': functools.partial(baselines.fcn, learnt=False),
                 'fcn-deconv': functools.partial(baselines.fcn, learnt=True),
                 'deconvnet': baselines.deconvnet, 'deeplab-largefov': baselines.deeplab_largefov,
                 'unet': baselines.unet})

INPUTS = {  # functions that normalize the input image, BGR 0..255
    'raw': lambda x: x,     # segnet_train.prototxt: the network gets the values 0..255 without scaling or centring
    'lrn': utils.lrn,       # local response normalization, as in segnet_basic_train.prototxt
    'lcn': utils.lcn,       # local contrast normalization, as in section 3 of the paper for SegNet-Basic
}


def default_input(name):
    """Returns the default of --input, as in the prototxts: 'lrn' with SegNet-Basic's encoder, else 'raw'."""
    return 'lrn' if is_basic(name) else 'raw'


def is_basic(name):
    """Returns whether the network `name` has SegNet-Basic's encoder."""
    return name in segnet.VARIANTS or name == 'bayesian-segnet-basic'


def default_dropout(name):
    """Returns the default dropout rate in training: 0.5 for Bayesian networks, as in the prototxts; else 0."""
    return 0.5 if name.startswith('bayesian') else 0.0


def default_samples(name):
    """Returns the default number of Monte-Carlo dropout samples of a network.

    The released code draws 4 samples for Bayesian SegNet and 8 for Bayesian SegNet-Basic. The default of other networks
    is 0.
    """
    return {'bayesian-segnet': 4, 'bayesian-segnet-basic': 8}.get(name, 0)


class Spec(collections.namedtuple('Spec', 'model num_classes input dropout precision seed fit height width',
                                  defaults=(None, None, 'float32', 1, 'resize', 360, 480))):
    """Settings of a run that the graph and the prediction need.

    model: key of NETWORKS.  num_classes: number of classes, without void.  input: key of INPUTS.
    dropout: rate of the dropout layers.  precision: dtype of the layers, 'float32', 'bfloat16' or 'float16'.
    seed: seed of the dropout masks.  fit: 'resize' resizes all images to height x width; with 'crop' images keep their
        scale, and height x width is the size of the training crops.
    """

    def __new__(cls, *values, **named):
        """Makes a `Spec`; if `input` or `dropout` is None, the default of the network is used."""
        spec = super().__new__(cls, *values, **named)
        dropout = default_dropout(spec.model) if spec.dropout is None else spec.dropout
        return spec._replace(input=spec.input or default_input(spec.model), dropout=dropout)


def spec_of(flags: dict, num_classes: int) -> Spec:
    """Builds the `Spec` of a run from `flags`, {flag: value}, of the command line or of config.json."""
    return Spec(num_classes=num_classes, **{name: flags[name] for name in Spec._fields if name in flags})


def build(spec, images, is_training, dropout=lambda x, name: x, reuse=False):
    """Builds the network of `spec` in a variable scope with the name of the network; returns the logits.

    Args:
      spec: `Spec`, of which model, num_classes, input and precision are used. Variables, input normalization and
        batch-norm statistics are float32, whatever the precision.
      images: [batch, height, width, 3] RGB, 0..255, uint8 or float32, of any height and width.
      is_training: Python bool: batch norm uses the statistics of the batch (True) or the moving averages (False). True
        also adds the batch statistics to utils.BN_STATISTICS, for `optimize.train_op`.
      dropout: function (x, name) -> x, called at each dropout layer of the network; default: no dropout.
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

    Source: test_bayesian_segnet.py. The layers before the first dropout layer do not depend on the mask and run once.
    The masks depend on the run's seed, not on the image or the call.

    Args:
      images: [1, height, width, 3]. The batch has one image, because masks depend on the position in a batch.
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

    `size`: (height, width) of the result, ints or an int32 tensor [2]. If the size already matches, no op is added.
    """
    if isinstance(size, tf.Tensor) or probabilities.shape.as_list()[1:3] != list(size):
        return tf.image.resize_bilinear(probabilities, size, half_pixel_centers=True)
    return probabilities


def prediction_graph(spec, images, size, reuse=False, samples=0):
    """Builds the graph that predicts the class of each pixel: softmax, resize to `size`, argmax.

    Args:
      spec: `Spec` of the run.
      images: [batch, height, width, 3] uint8 or float32 RGB, at the input size of the network.
      size: (height, width) of the predictions, ints or an int32 tensor [2].
      reuse: bool, whether to reuse the variables of an earlier call.
      samples: number of Monte-Carlo dropout samples, for a batch of one; 0 turns dropout off (the paper's weight
        averaging).
    Returns:
      ids: [batch, *size] uint8 class indices.
      probabilities: [batch, height, width, num_classes] float32, at the input size of the network.
      variance: [batch, height, width] float32, variance of the probabilities over the samples, averaged over the
        classes; 0 without samples.
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
    """Returns the multipliers (learning rate, weight decay) of a variable of the network `name`: two floats.

    Source: the `param` blocks of the released prototxts. Biases have twice the learning rate and no weight decay. The
    batch-norm shift has no weight decay, except in networks with SegNet-Basic's encoder, because SegNet-Basic's
    prototxt gives batch norm no `param` block.
    """
    kind = variable.op.name.split('/')[-1]
    if kind == 'biases':
        return 2.0, 0.0
    return 1.0, 0.0 if kind == 'beta' and not is_basic(name) else 1.0


def in_encoder(variable):
    """Returns whether a variable belongs to the encoder: to a convolution or batch norm before a pooling."""
    return re.search(r'/(conv|down)\d(_\d)?(_bn)?/\w+\Z', variable.op.name) is not None


# ---------------------------------------------------------------- layers as a table

Layer = collections.namedtuple('Layer', 'name kind shape parameters macs')  # shape: (height, width, channels)
KINDS = {'Conv2D': 'convolution', 'DepthwiseConv2dNative': 'convolution', 'Conv2DBackpropInput': 'deconvolution',
         'MaxPoolWithArgmax': 'pooling', 'MaxPool': 'pooling', 'MaxPoolGradWithArgmax': 'upsampling by indices',
         'ResizeBilinear': 'bilinear upsampling', 'LRN': 'normalization'}


def network_layers(spec: Spec) -> list:
    """Lists the layers of a network in order, for one image of spec.height x spec.width: list of `Layer`.

    Only ops with a type in KINDS count as layers, so ReLU is not listed. `parameters` is the number of trainable values
    of the layer and its batch norm. The network is built in a new graph, in prediction mode.
    """
    with tf.Graph().as_default() as graph:
        build(spec, tf.zeros([1, spec.height, spec.width, 3]), False)
        sizes = collections.Counter()
        for variable in tf.trainable_variables():
            layer = variable.op.name.split('/')[1]
            sizes[layer[:-3] if layer.endswith('_bn') else layer] += int(np.prod(variable.shape.as_list()))
        layers = []
        pools = 0  # number of poolings whose upsampling has not been listed yet
        for op in graph.get_operations():
            kind = KINDS.get(op.type)
            layer = op.name.split('/')[1] if kind else None
            if kind is None or kind == 'convolution' and layer not in sizes:
                continue
            shape = op.outputs[0].shape.as_list()[1:]
            if kind == 'pooling':
                pools += 1
                layer = 'pool%d' % pools
            elif kind == 'upsampling by indices':
                layer = 'upsample%d' % pools
                pools -= 1
            elif layer not in sizes:
                layer = {'normalization': 'norm'}.get(kind, 'upsample')
            layers.append(Layer(layer, kind, tuple(shape), sizes.pop(layer, 0), num_macs(op)))
        return layers


def num_macs(op) -> int:
    """Returns the number of MACs of a convolution or deconvolution for one image; 0 for any other op."""
    if op.type not in ('Conv2D', 'DepthwiseConv2dNative', 'Conv2DBackpropInput'):
        return 0
    kernel = op.inputs[1].shape.as_list()
    positions = (op.inputs[2] if op.type == 'Conv2DBackpropInput' else op.outputs[0]).shape.as_list()[1:3]
    return int(np.prod(kernel) * np.prod(positions))


def layer_table(spec: Spec) -> str:
    """Formats the layers of a network as a text table; the last line has the sums of parameters and MACs."""
    layers = network_layers(spec)
    rows = [(layer.name, layer.kind, '%dx%dx%d' % layer.shape, f'{layer.parameters:,}', f'{layer.macs:,}')
            for layer in layers]
    parameters = sum(layer.parameters for layer in layers)
    macs = sum(layer.macs for layer in layers)
    rows.append((spec.model, '', '', f'{parameters:,}', f'{macs:,}'))
    return tabulate.tabulate(rows, headers=('layer', 'kind', 'output', 'parameters', 'MACs'), disable_numparse=True,
                             colalign=('left', 'left', 'left', 'right', 'right'))
