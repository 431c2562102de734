"""The device: which one it is, the session's configuration for it, what it can compute in."""
import functools
import os
import platform

import tensorflow.compat.v1 as tf
from tensorflow.python.client import device_lib

from runtime import quiet
import utils
from data import UserError

DEVICES = ('auto', 'cpu', 'gpu')
PRECISION_HELP = "what the layers compute in (default: the run's, or float32 where this device cannot)"


@functools.lru_cache(maxsize=None)
def gpus():
    """Descriptions of the GPUs that TensorFlow sees; it is asked once."""
    config = tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True))
    with quiet.suppress_stderr():
        devices = device_lib.list_local_devices(config)
    return [device.physical_device_desc for device in devices if device.device_type == 'GPU']


def device_name(device):
    """What `--device` leads to, by name: 'GPU NVIDIA H200', or 'CPU ..., 2 cores'."""
    found = gpus() if device != 'cpu' else []
    if found:
        return 'GPU ' + found[0].split('name: ')[-1].split(',')[0]
    if device == 'gpu':
        raise UserError('--device gpu: TensorFlow sees no GPU; look at nvidia-smi, install tensorflow[and-cuda] '
                        '(make does), or use --device cpu')
    name = platform.processor() or platform.machine()
    if os.path.exists('/proc/cpuinfo'):
        lines = [line for line in open('/proc/cpuinfo') if line.startswith('model name')]
        name = lines[0].split(':')[1].strip() if lines else name
    return 'CPU %s, %d cores' % (name, os.cpu_count())


def session_config(device, xla=False):
    """tf.ConfigProto: GPU memory grows as needed; on a CPU one op at a time, each on all cores; `xla`: compiled.

    Two convolutions at once took 8% longer than one after the other, and more memory. On a CPU XLA took half as long
    again (SegNet-Basic, 360x480), so it is for GPUs.
    """
    config = tf.ConfigProto(allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True))
    if device == 'cpu':
        config.device_count['GPU'] = 0
    if device == 'cpu' or not gpus():
        config.inter_op_parallelism_threads = 1
        if xla:
            raise UserError('--xla: there is no GPU to compile for, and on a CPU XLA is slower; leave it out')
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return config


def precision(asked, trained_in, device):
    """What to predict in: `asked`, or else what the run was trained in, or float32 where the device cannot."""
    try:
        check_precision(asked or trained_in, device)
    except UserError:
        if asked:
            raise
        return 'float32'
    return asked or trained_in


def check_precision(precision, device):
    """Raises UserError unless `device` can train in `precision`: takes the gradient of a small
    encoder and decoder there."""
    if precision == 'float32':
        return
    config = session_config(device)
    config.allow_soft_placement = False
    try:
        with tf.Graph().as_default(), tf.Session(config=config) as sess, quiet.suppress_stderr():
            image = tf.get_variable('image', [1, 33, 31, 3], initializer=tf.ones_initializer())
            x = utils.conv_bn_relu(tf.cast(image, precision), 4, 3, 'conv', is_training=True)
            x = utils.unpool(*(utils.max_pool_with_argmax(x) + (x,)))
            loss = tf.reduce_sum(tf.cast(utils.conv(x, 2, 3, 'classifier'), tf.float32))
            sess.run(tf.global_variables_initializer())
            sess.run(tf.gradients(loss, image))
    except (tf.errors.OpError, TypeError, ValueError) as error:
        raise UserError('--precision %s: %s with TensorFlow %s cannot (%s); use another, float32 always works'
                        % (precision, device_name(device), tf.__version__, quiet.first_line(error)))
