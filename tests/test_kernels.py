"""Checks that all ops have GPU kernels. No GPU is needed: TensorFlow lists its kernels on every machine."""
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import kernels

import baselines
import main
import networks
import segnet
import utils
from system import devices, distribute

pytestmark = pytest.mark.skipif(tf.__version__.startswith('1.'), reason="1.15's wheel for CPUs has no GPU kernels")
needs_gpu = pytest.mark.skipif(devices.kind('auto') == 'CPU', reason='this machine has no GPU')


registered_kernels = functools.lru_cache(maxsize=None)(kernels.get_registered_kernels_for_op)


def fits(kernel, node):
    """Returns whether `kernel` supports the dtypes of `node` on a GPU. DEFAULT kernels run on all devices."""
    return kernel.device_type in ('GPU', 'DEFAULT') and all(
        node.attr[limit.name].type in limit.allowed_values.list.type for limit in kernel.constraint)


def lacking(outputs):
    """Returns {(op type, dtypes)} of all ops that `outputs` need and that have no GPU kernel.

    Ops in the bodies of loops are included.
    """
    definition = tf.get_default_graph().as_graph_def()
    names = [getattr(x, 'op', x).name for x in outputs]
    nodes = list(tf.graph_util.extract_sub_graph(definition, names).node)
    nodes += [node for function in definition.library.function for node in function.node_def]
    return {(node.op, tuple(sorted(tf.as_dtype(value.type).name for value in node.attr.values() if value.type)))
            for node in nodes if not any(fits(kernel, node) for kernel in registered_kernels(node.op).kernel)}


def training(model, precision):
    """Builds the graph of a training step; returns the tensors and ops that the step fetches."""
    args = main.parse_args(['--model', model, '--precision', precision, '--batch_size', '2', '--optimizer', 'sgd'])
    batch = tf.placeholder(tf.uint8, [2, 45, 61, 3]), tf.placeholder(tf.uint8, [2, 45, 61])
    return list(main.training_graph(args, networks.spec_of(vars(args), 3), np.ones(3), batch, 10,
                                    distribute.Group()).values())


def prediction(model, precision):
    """Builds the graph of a prediction; returns [tensor of predicted ids]."""
    images, size = tf.placeholder(tf.uint8, [2, 45, 61, 3]), tf.placeholder(tf.int32, [2])
    return [networks.prediction_graph(networks.Spec(model, 3, precision=precision), images, size)[0]]


@pytest.mark.parametrize('model, precision', [(model, 'bfloat16') for model in sorted(networks.NETWORKS)] + [
    ('segnet-basic', 'float32'), ('segnet-basic', 'float16')])
def test_all_ops_have_gpu_kernels(monkeypatch, model, precision):
    """Checks the ops of training and prediction. SegNet-Basic is also checked with portable pooling.

    Each level of VGG16 has one convolution here, because further convolutions add no new op. An op with a kernel for
    bfloat16 also has kernels for float32 and float16. The float16 case also covers the ops of loss scaling.
    """
    for module in (segnet, baselines):
        monkeypatch.setattr(module, 'ENCODER', [(filters, 1) for filters, _ in segnet.ENCODER])
    for portable in (False, True) if model == 'segnet-basic' else (False,):
        for build in (training, prediction):
            with tf.Graph().as_default(), utils.portable_pooling(portable):
                assert lacking(build(model, precision)) == set()


def test_a_full_gpu_is_no_lack_of_a_precision(monkeypatch):
    """If the check of bfloat16 runs out of memory, the prediction must not fall back to float32 silently."""
    def run(self, *_):
        raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating')

    monkeypatch.setattr(tf.Session, 'run', run)
    for asked in ('bfloat16', None):
        with pytest.raises(tf.errors.ResourceExhaustedError):
            devices.precision(asked, 'bfloat16', 'cpu')


def test_precisions_are_checked_without_the_scatter(monkeypatch):
    monkeypatch.setenv('TF_DETERMINISTIC_OPS', '1')
    monkeypatch.setattr(devices, 'kind', lambda device: 'GPU')
    monkeypatch.setattr(tf.nn, 'max_pool_with_argmax', lambda *_: pytest.fail('scatter'))
    for precision in ('bfloat16', 'float16'):
        devices.check_precision(precision, 'cpu')


def test_a_missing_kernel_is_found(graph):
    image = tf.placeholder(tf.float16, [1, 4, 4, 8])
    assert lacking([tf.nn.lrn(image)]) == {('LRN', ('float16',))}  # on a GPU, LRN has only a float32 kernel
    pooled = tf.raw_ops.MaxPoolWithArgmax(input=image, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding='SAME',
                                          Targmax=tf.int32)
    assert lacking(pooled) == {('MaxPoolWithArgmax', ('float16', 'int32'))}  # all kernels return int64 indices


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize('precision', devices.PRECISIONS)
def test_a_gpu_trains_in_each_precision(precision):
    devices.check_precision(precision, 'gpu')


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_pools_and_unpools_as_the_cpu(sess):
    x = np.random.RandomState(5).randn(3, 45, 61, 8).astype(np.float32)
    found = []
    for device in ('/CPU:0', '/GPU:0'):
        with tf.device(device):
            image = tf.constant(x)
            pooled, indices = utils.max_pool_with_argmax(image)
            y = utils.unpool(pooled, indices, image)
            found.append([pooled, indices, y] + tf.gradients(y * y, image))
    for on_cpu, on_gpu in zip(*sess.run(found)):
        np.testing.assert_array_equal(on_cpu, on_gpu)


def test_an_index_before_the_image_is_clipped(sess, monkeypatch):
    """On a GPU, a pooling window of NaNs has the index -1, and the unpooling op does not check indices."""
    pool = tf.nn.max_pool_with_argmax

    def on_gpu(x, *settings):
        y, indices = pool(x, *settings)
        return y, tf.where(tf.equal(y, 5.0), -tf.ones_like(indices), indices)

    monkeypatch.setattr(tf.nn, 'max_pool_with_argmax', on_gpu)
    x = tf.constant(np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1))
    y, indices = utils.max_pool_with_argmax(x)
    # The two windows have the maxima 4 and 5. The index of 5 is replaced by -1 above, and is clipped to 0.
    assert sess.run(indices).ravel().tolist() == [4, 0]
    assert sess.run(utils.unpool(y, indices, x)).ravel().tolist() == [5, 0, 0, 0, 4, 0]
