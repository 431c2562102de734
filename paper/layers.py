"""A network's layers as a table: output shapes, parameters, MACs. Builds a graph of its own, needs no data."""
import collections

import numpy as np
import tensorflow.compat.v1 as tf

import networks

Layer = collections.namedtuple('Layer', 'name kind shape parameters macs')  # shape: (height, width, channels)
KINDS = {'Conv2D': 'convolution', 'DepthwiseConv2dNative': 'convolution', 'Conv2DBackpropInput': 'deconvolution',
         'MaxPoolWithArgmax': 'pooling', 'MaxPool': 'pooling', 'MaxPoolGradWithArgmax': 'upsampling by indices',
         'ResizeBilinear': 'bilinear upsampling', 'LRN': 'normalization'}


def network_layers(model, height, width, num_classes):
    """The network's layers for one image, in order: list of `Layer`; a layer's parameters are with its batch norm's."""
    with tf.Graph().as_default() as graph:
        networks.build(model, tf.zeros([1, height, width, 3]), num_classes, is_training=False)
        sizes = collections.Counter()
        for variable in tf.trainable_variables():
            layer = variable.op.name.split('/')[1]
            sizes[layer[:-3] if layer.endswith('_bn') else layer] += int(np.prod(variable.shape.as_list()))
        found, pools = [], 0
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
            found.append(Layer(layer, kind, tuple(shape), sizes.pop(layer, 0), macs(op)))
        return found


def macs(op):
    """Multiplications of a (de)convolution, for one image; 0 for any other op."""
    if op.type not in ('Conv2D', 'DepthwiseConv2dNative', 'Conv2DBackpropInput'):
        return 0
    kernel = op.inputs[1].shape.as_list()
    places = (op.inputs[2] if op.type == 'Conv2DBackpropInput' else op.outputs[0]).shape.as_list()[1:3]
    return int(np.prod(kernel) * np.prod(places))


def table(model, height, width, num_classes):
    """`network_layers` as lines of text, with their sums."""
    row = '%-22s %-22s %-16s %12s %16s'
    found = network_layers(model, height, width, num_classes)
    lines = [row % ('layer', 'kind', 'output', 'parameters', 'MACs')]
    lines += [row % (layer.name, layer.kind, '%dx%dx%d' % layer.shape, f'{layer.parameters:,}',
                     f'{layer.macs:,}') for layer in found]
    parameters, total = sum(layer.parameters for layer in found), sum(layer.macs for layer in found)
    lines.append(row % (model, '', '', f'{parameters:,}', f'{total:,}'))
    return '\n'.join(line.rstrip() for line in lines)
