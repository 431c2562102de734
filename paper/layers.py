"""Layers of a network as a table: output shapes, parameters and MACs (multiply-accumulates)."""
import collections

import numpy as np
import tabulate
import tensorflow.compat.v1 as tf

import networks

Layer = collections.namedtuple('Layer', 'name kind shape parameters macs')  # shape: (height, width, channels)
KINDS = {'Conv2D': 'convolution', 'DepthwiseConv2dNative': 'convolution', 'Conv2DBackpropInput': 'deconvolution',
         'MaxPoolWithArgmax': 'pooling', 'MaxPool': 'pooling', 'MaxPoolGradWithArgmax': 'upsampling by indices',
         'ResizeBilinear': 'bilinear upsampling', 'LRN': 'normalization'}


def network_layers(model: str, height: int, width: int, num_classes: int, input_norm: str = None) -> list:
    """Layers of a network for one image, in order: list of `Layer`; parameters include batch norm.

    Only ops of KINDS are layers, so no ReLU; parameters are the trainable ones. Builds the network in a new graph, in
    prediction.
    """
    with tf.Graph().as_default() as graph:
        networks.build(model, tf.zeros([1, height, width, 3]), num_classes, False, input_norm)
        sizes = collections.Counter()
        for variable in tf.trainable_variables():
            layer = variable.op.name.split('/')[1]
            sizes[layer[:-3] if layer.endswith('_bn') else layer] += int(np.prod(variable.shape.as_list()))
        found = []
        pools = 0  # poolings that no upsampling has undone yet
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
            found.append(Layer(layer, kind, tuple(shape), sizes.pop(layer, 0), num_macs(op)))
        return found


def num_macs(op) -> int:
    """MACs of a convolution or deconvolution for one image; 0 for any other op."""
    if op.type not in ('Conv2D', 'DepthwiseConv2dNative', 'Conv2DBackpropInput'):
        return 0
    kernel = op.inputs[1].shape.as_list()
    positions = (op.inputs[2] if op.type == 'Conv2DBackpropInput' else op.outputs[0]).shape.as_list()[1:3]
    return int(np.prod(kernel) * np.prod(positions))


def layer_table(model: str, height: int, width: int, num_classes: int, input_norm: str = None) -> str:
    """Formats `network_layers` as lines of text; the last line has the sums of parameters and MACs."""
    found = network_layers(model, height, width, num_classes, input_norm)
    rows = [(layer.name, layer.kind, '%dx%dx%d' % layer.shape, f'{layer.parameters:,}', f'{layer.macs:,}')
            for layer in found]
    parameters = sum(layer.parameters for layer in found)
    macs = sum(layer.macs for layer in found)
    rows.append((model, '', '', f'{parameters:,}', f'{macs:,}'))
    return tabulate.tabulate(rows, headers=('layer', 'kind', 'output', 'parameters', 'MACs'), disable_numparse=True,
                             colalign=('left', 'left', 'left', 'right', 'right'))
