"""Describes and checks the device that `--device` selects; configures sessions on the device."""
import contextlib
import functools
import os
import platform
import re

import tensorflow.compat.v1 as tf
from tensorflow.python.client import device_lib

from system import cli, quiet
from system.files import UserError
from system.machine import NUM_CORES, matches

PRECISIONS = ('float32', 'bfloat16', 'float16')
UNSUPPORTED = (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.UnimplementedError, TypeError,
               ValueError)  # errors that TensorFlow raises if an op has no kernel for a precision


def add_flags(parser):
    """Adds --device to the parser of a command."""
    parser.add_argument('--device', choices=('auto', 'cpu', 'gpu'), default='auto', help='auto: a GPU, else the CPU')


def add_tf32_flag(parser, default='on'):
    """Adds --tf32 to the parser of a command. If `default` is None, the training run's setting is used."""
    parser.add_argument('--tf32', choices=('on', 'off'), default=default,
                        help='off: compute float32 in full precision, slower on new GPUs (default: as trained, or on)')


def kind(device: str) -> str:
    """Returns 'GPU' or 'CPU': the kind of device that `device`, a value of --device, selects on this machine."""
    return 'GPU' if device != 'cpu' and gpus() else 'CPU'


@functools.lru_cache(maxsize=None)
def gpus():
    """Returns TensorFlow's descriptions of all GPUs: list of str. The result is cached."""
    with quiet.suppress_stderr():
        devices = device_lib.list_local_devices(tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True)))
    return [device.physical_device_desc for device in devices if device.device_type == 'GPU']


def precision_name(precision: str, device: str, tf32: str) -> str:
    """Names a precision for messages: 'float32 (TF32)' if the GPU multiplies float32 in TensorFloat-32.

    GPUs of compute capability 8.0 or higher use TensorFloat-32, unless `tf32` is 'off'.
    """
    capability = re.search(r'compute capability: (\d+)', gpus()[0]) if kind(device) == 'GPU' else None
    rounded = precision == 'float32' and tf32 == 'on' and capability and int(capability.group(1)) >= 8
    return 'float32 (TF32)' if rounded else precision


def device_name(device: str) -> str:
    """Returns the name of the device that `--device` selects, such as 'GPU NVIDIA H200' or 'CPU ..., 2 cores'.

    Raises UserError if `device` is 'gpu' and TensorFlow sees no GPU.
    """
    if kind(device) == 'GPU':
        return 'GPU ' + gpus()[0].split('name: ')[-1].split(',')[0]
    if device == 'gpu':
        raise UserError('--device gpu: TensorFlow sees no GPU; install tensorflow[and-cuda], or use --device cpu')
    names = matches(r'^model name\s*: (.*)', '/proc/cpuinfo') or [platform.processor() or platform.machine()]
    return 'CPU %s, %d cores' % (names[0], NUM_CORES)


def needs_portable_pooling(device: str, xla: bool = False) -> bool:
    """Returns whether pooling must be built without the op MaxPoolWithArgmax.

    XLA does not support the op. On a GPU the gradient of the op is not deterministic, so the op is not used if the
    environment variable TF_DETERMINISTIC_OPS is set.
    """
    deterministic = os.environ.get('TF_DETERMINISTIC_OPS', '').lower() in ('1', 'true')
    return xla or deterministic and kind(device) == 'GPU'


def session_config(device: str, xla: bool = False, tf32: str = None):
    """Configures a session on `device`, a value of --device -> tf.ConfigProto.

    TensorFlow takes GPU memory only as needed. On a CPU, the session runs one op at a time, on all cores, because two
    convolutions in parallel took 8% longer than in sequence, and needed more memory. XLA is only for GPUs, because a
    CPU took 50% longer with XLA (SegNet-Basic, 360x480). `tf32`, 'on' or 'off', applies to the whole process; None
    keeps the value of the last call. Raises UserError if `xla` is True and there is no GPU.
    """
    if tf32 and not tf.__version__.startswith('1.'):  # TensorFlow 1.15 has no TensorFloat-32
        tf.config.experimental.enable_tensor_float_32_execution(tf32 == 'on')
    config = tf.ConfigProto(allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True))
    if device == 'cpu':
        config.device_count['GPU'] = 0
        if not os.path.exists('/proc/driver/nvidia'):
            gpus()  # TensorFlow reports a missing driver once; `gpus` hides the report
    if kind(device) == 'CPU':
        config.inter_op_parallelism_threads = 1
        if xla:
            raise UserError('--xla: there is no GPU to compile for, and XLA is slower on a CPU; leave --xla out')
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return config


def precision(asked, trained_in: str, device: str) -> str:
    """Selects the precision of a prediction: `asked` if not None, else `trained_in`, the run's precision.

    Raises UserError if the device does not support `asked`. If the device does not support `trained_in`, the result is
    float32.
    """
    if asked:
        check_precision(asked, device)
        return asked
    with contextlib.suppress(UserError):
        check_precision(trained_in, device)
        return trained_in
    return 'float32'


def check_precision(precision: str, device: str):
    """Raises UserError if `device` cannot compute in `precision`. Every device supports float32.

    The check runs a convolution, batch norm and pooling, and the gradient with respect to the image. Errors that do not
    concern the precision, such as tf.errors.ResourceExhaustedError, are raised unchanged.
    """
    if precision == 'float32':
        return
    config = session_config(device)
    config.allow_soft_placement = False
    try:
        with tf.Graph().as_default(), tf.Session(config=config) as sess, quiet.suppress_stderr():
            image = tf.placeholder_with_default(tf.ones([1, 33, 31, 3]), [1, 33, 31, 3])
            x = tf.nn.conv2d(tf.cast(image, precision), tf.ones([3, 3, 3, 4], precision), [1, 1, 1, 1], 'SAME')
            x, _, _ = tf.nn.fused_batch_norm(x, tf.ones([4]), tf.zeros([4]))
            if not needs_portable_pooling(device):  # unpooling uses the gradient of MaxPoolWithArgmax
                x, _ = tf.nn.max_pool_with_argmax(x, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME')
            sess.run(tf.gradients(tf.reduce_sum(tf.cast(x, tf.float32)), image))
    except UNSUPPORTED as error:
        raise UserError('--precision %s: not supported by %s with TensorFlow %s (%s); use --precision float32'
                        % (precision, device_name(device), tf.__version__, cli.first_line(error)))
