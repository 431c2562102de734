"""Weights from outside: VGG16 as Keras gives it, an earlier run, a .npz, or the authors' .caffemodel.

Values are named by layer below the network's scope, as 'conv1_1/weights'. Reads files; builds no tensors.
"""
import collections
import os

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import caffe
import data
from runtime import quiet
from runtime import run as runs
import utils
from data import UserError

Weights = collections.namedtuple('Weights', 'values step what')  # {name: array}; of a run's step, or None; in words
VGG16_URL = ('https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
             'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5')
VGG16_MD5 = '6d6bbae143d832006294945121d1f1fc'
VGG16_LAYERS = ['conv%d_%d' % (block, i) for block, size in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, size + 1)]
VGG16_MEAN = np.array([103.939, 116.779, 123.68])  # BGR, 0..255: subtracted from VGG16's input (keras imagenet_utils)


def vgg16(path):
    """The 13 convolutions of Keras' VGG16 without top -> `Weights`, for BGR input 0..255 without mean subtraction.

    Keras kept the weights' BGR, which SegNet sees too. VGG16 wants the mean subtracted, SegNet's input is raw: what the
    mean adds to the first convolution is taken out of its biases, which is the same but for the padded border.
    """
    import h5py  # TensorFlow brings it along
    if path == 'download':
        try:
            path = tf.keras.utils.get_file(VGG16_URL.split('/')[-1], VGG16_URL, file_hash=VGG16_MD5)
        except Exception as error:  # Keras raises a bare one
            raise UserError('--vgg16 download: %s; fetch %s by hand and give its path' % (error, VGG16_URL))
    data.check_file(path)
    values = {}
    try:
        with h5py.File(path, 'r') as file:
            for layer in VGG16_LAYERS:
                group = file['block%s_%s' % (layer[4], 'conv' + layer[-1])]
                names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs['weight_names']]
                for kind, name in zip(('weights', 'biases'), names):
                    values['%s/%s' % (layer, kind)] = group[name][()].astype(np.float64)
        values['conv1_1/biases'] -= np.einsum('yxco,c->o', values['conv1_1/weights'], VGG16_MEAN)
    except Exception as error:  # h5py raises many kinds for a file of another form
        raise UserError("--vgg16 %s: not Keras' VGG16 without top (%s: %s)" % (path, type(error).__name__, error))
    return Weights(values, None, 'the encoder of VGG16')


def of_run(folder, which):
    """The `which` ('best' or 'last') weights of a run -> `Weights`. A run that was handed on has weights.npz only."""
    config, path = runs.read_config(folder), os.path.join(folder, 'weights.npz')
    flags = config['flags']
    if os.path.exists(path):
        return npz(path)._replace(step=config.get('step'))
    path = runs.checkpoint(folder, which)
    scope, values = flags['model'] + '/', {}
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            if name.startswith(scope) and not name.endswith(('/Momentum', '/Adam', '/Adam_1')):
                values[name[len(scope):]] = reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UserError('%s: damaged (%s); --checkpoint names the other one, best or last'
                        % (path, quiet.first_line(error)))
    step = int(path.split('-')[-1])
    return Weights(values, step, '%s weights of step %d' % (which, step))


def caffemodel(path):
    """Weights as caffe-segnet stores them -> `Weights`.

    Convolutions turn from Caffe's [out, in, h, w]. Caffe stores no statistics of batch norm: the moving mean and
    variance become those that change nothing, which is right for a file of compute_bn_statistics.py, where they are
    folded into scale and shift (`--bn moving`); a file of training wants `--bn population`.
    """
    values = {}
    for layer, blobs in caffe.layers(path).items():
        if blobs[0].ndim == 4 and blobs[0].shape != (1, blobs[0].size, 1, 1):  # else batch norm's [1, channels, 1, 1]
            kinds = ('weights', 'biases')
            blobs = [np.transpose(blobs[0], [2, 3, 1, 0])] + [one.reshape(-1) for one in blobs[1:]]
        else:
            kinds, blobs = ('gamma', 'beta'), [one.reshape(-1) for one in blobs]
            values[layer + '/moving_mean'] = np.zeros_like(blobs[0])
            values[layer + '/moving_variance'] = np.full_like(blobs[0], 1 - utils.BN_EPSILON)
        if len(blobs) != 2:
            raise UserError('%s: layer %s has %d blobs; expected two' % (path, layer, len(blobs)))
        values.update({'%s/%s' % (layer, kind): blob for kind, blob in zip(kinds, blobs)})
    return Weights(values, None, 'weights from Caffe')


def npz(path):
    """A .npz of arrays by name, as 'conv1_1/weights' [3, 3, 3, 64] -> `Weights`; nothing is unpickled."""
    data.check_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: np.asarray(file[name], np.float32) for name in file.files}
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for a damaged file
        raise UserError('%s: not a .npz of numbers (%s: %s)' % (path, type(error).__name__, str(error)[:200]))
    return Weights(values, None, 'weights from %s' % os.path.basename(path))


def publish(folder, run, sess, variables, step):
    """Writes what a run is handed on by: weights.npz, and its config.json without this machine's paths.

    Kernels are stored as float16, which halves them; what is one number a map, as float32.
    """
    os.makedirs(folder, exist_ok=True)
    values = {variable.op.name.split('/', 1)[1]: value for variable, value in zip(variables, sess.run(variables))}
    with data.atomic_write(os.path.join(folder, 'weights.npz')) as part, open(part, 'wb') as file:
        np.savez_compressed(file, **{name: value.astype(np.float16) if value.ndim == 4 else value
                                     for name, value in values.items()})
    runs.publish_config(folder, run, step)


def load(path, which='best'):
    """A run folder (its `which` checkpoint), a .npz or a .caffemodel -> `Weights`."""
    if path.endswith('.npz'):
        return npz(path)
    return caffemodel(path) if path.endswith('.caffemodel') else of_run(path, which)


def match_variables(values, variables, num_classes, flag):
    """Pairs `values` with `variables` by name; UserError, which begins with `flag`, where they do not fit.

    Where `values` were made for another number of classes, the classifier stays as it is initialized.

    Returns:
      given: list of (variable, float32 array).
      fresh: names of the variables that stay as they are initialized.
    """
    named = {variable.op.name.split('/', 1)[1]: variable for variable in variables}
    unknown = sorted(set(values) - set(named))
    if unknown:
        raise UserError('%s: has %s, which this network has not; give --model the network it is of'
                        % (flag, unknown[0]))
    given, fresh = [], sorted(set(named) - set(values))
    for name in sorted(values):
        shape, ours = list(values[name].shape), named[name].shape.as_list()
        if shape == ours:
            given.append((named[name], values[name].astype(np.float32)))
        elif len(shape) == len(ours) and all(a == b or b == num_classes for a, b in zip(shape, ours)):
            fresh.append(name)
        else:
            raise UserError('%s: %s has shape %s, this network has %s' % (flag, name, shape, ours))
    return given, fresh


def load_into(sess, given):
    """Sets the variables of `given`, a list of (variable, array)."""
    for variable, value in given:
        variable.load(value, sess)


def match_all_variables(loaded, variables, flag):
    """Pairs every one of `variables` with its array: as `match_variables`, but UserError where a variable lacks one."""
    given, fresh = match_variables(loaded.values, variables, 0, flag)
    if fresh:
        raise UserError('%s: lacks %s' % (flag, fresh[0]))
    return given
