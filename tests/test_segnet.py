"""Compares SegNet and SegNet-Basic with the released prototxts and with a forward pass in NumPy."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import random_weights
from test_utils import pool_reference, unpool_reference

import networks
import segnet

# Layers of the released prototxts in order: (name, input channels, output channels) for 11 classes.
SEGNET = [
    ('conv1_1', 3, 64), ('conv1_2', 64, 64), ('conv2_1', 64, 128), ('conv2_2', 128, 128), ('conv3_1', 128, 256),
    ('conv3_2', 256, 256), ('conv3_3', 256, 256), ('conv4_1', 256, 512), ('conv4_2', 512, 512), ('conv4_3', 512, 512),
    ('conv5_1', 512, 512), ('conv5_2', 512, 512), ('conv5_3', 512, 512), ('conv5_3_D', 512, 512),
    ('conv5_2_D', 512, 512), ('conv5_1_D', 512, 512), ('conv4_3_D', 512, 512), ('conv4_2_D', 512, 512),
    ('conv4_1_D', 512, 256), ('conv3_3_D', 256, 256), ('conv3_2_D', 256, 256), ('conv3_1_D', 256, 128),
    ('conv2_2_D', 128, 128), ('conv2_1_D', 128, 64), ('conv1_2_D', 64, 64), ('conv1_1_D', 64, 11)]
SEGNET_BASIC = [
    ('conv1', 3, 64), ('conv2', 64, 64), ('conv3', 64, 64), ('conv4', 64, 64), ('conv_decode4', 64, 64),
    ('conv_decode3', 64, 64), ('conv_decode2', 64, 64), ('conv_decode1', 64, 64), ('conv_classifier', 64, 11)]


@pytest.mark.parametrize('model, layers, kernel, count', [('segnet', SEGNET, 3, 29449355),
                                                          ('segnet-basic', SEGNET_BASIC, 7, 1416587)])
def test_variables(graph, model, layers, kernel, count):
    """Batch norm follows each convolution except the last."""
    expected = {}  # {name: shape}
    for layer, channels, filters in layers:
        size = 1 if layer == 'conv_classifier' else kernel
        shapes = {'/weights': [size, size, channels, filters], '/biases': [filters]}
        if layer != layers[-1][0]:
            shapes.update(dict.fromkeys(('_bn/gamma', '_bn/beta', '_bn/moving_mean', '_bn/moving_variance'), [filters]))
        expected.update({'%s/%s%s' % (model, layer, name): shape for name, shape in shapes.items()})
    images = tf.placeholder(tf.uint8, [None, None, None, 3])
    networks.build(networks.Spec(model, 11), images, is_training=True)
    variables = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert variables == expected and sum(v.shape.num_elements() for v in tf.trainable_variables()) == count
    networks.build(networks.Spec(model, 11), images, is_training=False, reuse=True)
    assert len(tf.global_variables()) == len(variables), 'the evaluation tower adds no variable'
    assert set(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)) == set(tf.global_variables())


def test_released_multipliers(graph):
    """Compares the multipliers of learning rates and of weight decay with segnet_train.prototxt.

    SegNet-Basic applies weight decay to the shift of batch norm, and SegNet does not.
    """
    for model, beta in (('segnet', 0.0), ('segnet-basic', 1.0)):
        networks.build(networks.Spec(model, 11), tf.zeros([1, 8, 8, 3]), is_training=True)
        expected = {'weights': (1, 1), 'biases': (2, 0), 'gamma': (1, 1), 'beta': (1, beta)}
        variables = [v for v in tf.trainable_variables() if v.op.name.startswith(model + '/')]
        assert len(variables) > 30
        assert all(networks.multipliers(model, v) == expected[v.op.name.split('/')[-1]] for v in variables)


def conv_reference(x, weights, biases):
    """Computes a zero-padded convolution with NumPy: [batch, h, w, c] -> [batch, h, w, filters]."""
    height, width = x.shape[1:3]
    margin = len(weights) // 2
    x = np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)], 'constant')
    return biases + sum(x[:, i:i + height, j:j + width] @ weights[i, j] for i, j in np.ndindex(weights.shape[:2]))


def conv_bn_reference(x, w, name):
    x = conv_reference(x, w[name + '/weights'], w[name + '/biases'])
    x = (x - w[name + '_bn/moving_mean']) / np.sqrt(w[name + '_bn/moving_variance'] + 1.001e-5)
    return x * w[name + '_bn/gamma'] + w[name + '_bn/beta']


def logits_reference(images, w, layers, encoders, decoders, relu):
    """Computes logits of RGB images with NumPy; the layers run in the same order as in the Caffe model.

    The first layer gets BGR. `encoders` and `decoders` list the number of convolutions in each level, without the
    classifier. If `relu` is True, a ReLU follows each convolution of the decoders.
    """
    x, masks, layers = images[..., ::-1].astype(float), [], iter(layer for layer, _, _ in layers)
    if not relu:  # SegNet-Basic begins with LRN over all three channels
        x = x / (1 + 1e-4 / 5 * (x ** 2).sum(-1, keepdims=True)) ** 0.75
    for convolutions in encoders:
        for _ in range(convolutions):
            x = np.maximum(conv_bn_reference(x, w, next(layers)), 0)
        x, mask = pool_reference(x)
        masks.append(mask)
    for convolutions in decoders:
        x = unpool_reference(x, masks.pop())
        for _ in range(convolutions):
            x = conv_bn_reference(x, w, next(layers))
            x = np.maximum(x, 0) if relu else x
    classifier = next(layers)
    return conv_reference(x, w[classifier + '/weights'], w[classifier + '/biases'])


@pytest.mark.parametrize('model, layers, encoders, decoders', [
    ('segnet', SEGNET, (2, 2, 3, 3, 3), (3, 3, 3, 2, 1)), ('segnet-basic', SEGNET_BASIC, (1, 1, 1, 1), (1, 1, 1, 1))])
def test_logits_equal_an_independent_forward_pass(sess, monkeypatch, model, layers, encoders, decoders):
    """The images have 13x9 pixels, and SegNet's layers have 1/16 of the usual number of filters."""
    if model == 'segnet':
        monkeypatch.setattr(segnet, 'ENCODER', [(filters // 16, n) for filters, n in segnet.ENCODER])
    rng = np.random.RandomState(4)
    images = rng.randint(0, 256, (2, 13, 9, 3)).astype(np.uint8)
    logits = networks.build(networks.Spec(model, 3), tf.constant(images), is_training=False)
    expected = logits_reference(images, random_weights(sess, rng), layers, encoders, decoders, model == 'segnet')
    got = sess.run(logits)
    assert got.shape == (2, 13, 9, 3)
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())
