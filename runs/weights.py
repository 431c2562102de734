"""Loads weights from Keras' VGG16, an earlier run, a .npz or the authors' .caffemodel, and publishes runs.

Arrays have names LAYER/KIND, such as 'conv1_1/weights', without the scope of the network. The module builds no tensors.
"""
import collections
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

import utils
from runs import caffe
from runs.folder import checkpoint, publish_config, read_config, run_folder
from system import cli
from system.files import UserError, note, atomic_write, check_file

# values: {name: array}. step: training step, or None. description: text for messages.
# class_names: classes of the run, or None. input: --input of the run, or None.
Weights = collections.namedtuple('Weights', 'values step description class_names input', defaults=(None, None))
VGG16_URL = ('https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
             'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5')
VGG16_MD5 = '6d6bbae143d832006294945121d1f1fc'
VGG16_LAYERS = ['conv%d_%d' % (block, i) for block, size in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, size + 1)]
VGG16_MEAN = np.array([103.939, 116.779, 123.68])  # BGR mean that Keras subtracts from VGG16's input (imagenet_utils)
# In every network, matches the names of the layers that have one feature map per class.
CLASS_LAYERS = re.compile(r'(conv1_1_D|conv_classifier|classifier|seg_score|fc8|score_\w+|upscore\w*|conv_reduce\d|'
                          r'deconv\d(_bn)?)/')
RENAMED = {'dense_softmax_inner_prod': 'conv_classifier'}  # {name in the authors' segnet_basic_camvid: our name}
SCALE = ':scale'  # suffix of the arrays with the scales [h, w, 1, out] of 8-bit kernels [h, w, in, out]


def vgg16(path: str) -> Weights:
    """Loads the 13 convolutions of Keras' VGG16 without top, adapted to BGR images with values 0..255.

    VGG16 expects BGR images minus a mean, but our networks subtract no mean. The mean is therefore folded into the
    biases of conv1_1, which is exact everywhere except at the zero-padded border.

    Args:
      path: path of Keras' HDF5 file, or 'download', which stores the file in Keras' cache.
    Raises:
      UserError: the download failed, or the file does not hold the weights of VGG16 without top.
    """
    import h5py  # imported only when needed; TensorFlow installs h5py
    if path == 'download':
        try:
            path = tf.keras.utils.get_file(VGG16_URL.split('/')[-1], VGG16_URL, file_hash=VGG16_MD5)
        except Exception as error:  # Keras raises a plain Exception if the download fails
            raise UserError('--vgg16 download: %s; download %s by hand and give the path' % (error, VGG16_URL))
    check_file(path)
    values = {}
    try:
        with h5py.File(path, 'r') as file:
            for layer in VGG16_LAYERS:
                group = file['block%s_%s' % (layer[4], 'conv' + layer[-1])]
                for kind, name in zip(('weights', 'biases'), group.attrs['weight_names']):
                    values['%s/%s' % (layer, kind)] = group[name][()].astype(np.float64)
        values['conv1_1/biases'] -= np.einsum('yxco,c->o', values['conv1_1/weights'], VGG16_MEAN)
    except Exception as error:  # h5py raises many kinds of error for files of another format
        raise UserError("--vgg16 %s: not Keras' VGG16 without top (%s: %s)" % (path, type(error).__name__, error))
    return Weights(values, None, 'the encoder of VGG16')


def of_run(folder: str, which: str) -> Weights:
    """Loads the weights of a run folder: the checkpoint `which`, or weights.npz of a published run.

    `which` is 'best' or 'last'. For a published run `which` is ignored. Raises UserError if the config or the
    checkpoint is missing or damaged.
    """
    config = read_config(folder)
    known = {'class_names': config['class_names'], 'input': config['flags']['input']}
    path = os.path.join(folder, 'weights.npz')
    if os.path.exists(path):
        return npz(path)._replace(step=config.get('step'), **known)
    path = checkpoint(folder, which)
    scope = config['flags']['model'] + '/'
    values = {}
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            if name.startswith(scope) and not name.endswith(('/Momentum', '/Adam', '/Adam_1')):
                values[name[len(scope):]] = reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise UserError('%s: damaged (%s); use the other --checkpoint, best or last' % (path, cli.first_line(error)))
    step = int(path.split('-')[-1])
    return Weights(values, step, '%s weights of step %d' % (which, step), **known)


def caffemodel(path: str) -> Weights:
    """Loads a .caffemodel. Convolution kernels are transposed from Caffe's [out, in, h, w] to [h, w, in, out].

    Caffe stores no batch-norm statistics. The moving mean becomes 0 and the moving variance 1 - BN_EPSILON, so that
    batch norm divides by 1. Files written by compute_bn_statistics.py have the statistics folded into scale and shift:
    score such files with `--bn moving`. Score training snapshots with `--bn population`. Raises UserError if the file
    is damaged, or if a layer does not have two blobs (arrays).
    """
    values = {}
    for layer, blobs in caffe.read_layers(path).items():
        layer = RENAMED.get(layer, layer)
        if len(blobs) != 2:
            raise UserError('%s: layer %s has %d blobs; expected two' % (path, layer, len(blobs)))
        first, second = blobs
        if first.ndim == 4 and first.shape != (1, first.size, 1, 1):  # batch norm has shape (1, n, 1, 1)
            arrays = {'weights': first.transpose(2, 3, 1, 0), 'biases': second.ravel()}
        else:
            arrays = {'gamma': first.ravel(), 'beta': second.ravel(), 'moving_mean': np.zeros(first.size, np.float32),
                      'moving_variance': np.full(first.size, 1 - utils.BN_EPSILON, np.float32)}
        values.update({'%s/%s' % (layer, kind): array for kind, array in arrays.items()})
    return Weights(values, None, 'weights from Caffe')


def npz(path: str) -> Weights:
    """Loads a .npz with names such as 'conv1_1/weights' [3, 3, 3, 64]; all arrays become float32.

    An 8-bit kernel is multiplied by the array whose name is the kernel's name plus the suffix SCALE.
    Raises UserError if the file is not a .npz of numeric arrays.
    """
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: np.asarray(file[name], np.float32) for name in file.files}
        for name in [name for name in values if name.endswith(SCALE)]:
            values[name[:-len(SCALE)]] *= values.pop(name)
    except Exception as error:  # NumPy and zipfile raise many kinds of error for a damaged file
        raise UserError('%s: not a .npz of numbers (%s: %s)' % (path, type(error).__name__, str(error)[:200]))
    return Weights(values, None, 'weights from %s' % os.path.basename(path))


def publish(folder: str, run: str, sess, step):
    """Publishes a run as a small folder: weights.npz, and config.json without local paths.

    Kernels [height, width, a, b] are stored as int8. All values with the same row, column and index b share a scale,
    which maps the largest of their absolute values to 127. A single scale for all rows and columns cost SegNet-Basic
    0.8 points of mIoU. Other variables are stored in float32.

    Args:
      sess: session of the default graph, in which the model's variables are initialized.
      step: training step of the weights; None if unknown.
    """
    os.makedirs(folder, exist_ok=True)
    arrays = {}
    variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
    for variable, value in zip(variables, sess.run(variables)):
        name = variable.op.name.split('/', 1)[1]
        if value.ndim == 4:
            scale = np.maximum(abs(value).max(2, keepdims=True), 1e-30) / 127
            arrays[name + SCALE] = scale.astype(np.float32)
            value = np.rint(value / scale).astype(np.int8)
        arrays[name] = value
    with atomic_write(os.path.join(folder, 'weights.npz')) as part, open(part, 'wb') as file:
        np.savez_compressed(file, **arrays)
    publish_config(folder, run, step)


def load(path: str, which: str = 'best') -> Weights:
    """Loads weights from a file or run folder -> `Weights`.

    Args:
      path: a .npz file, a .caffemodel file, a run folder, or the name of a published run.
      which: checkpoint of a run folder, 'best' or 'last'.
    Raises:
      UserError: the weights cannot be read, or a weight is not finite. UserError is also raised if `which` is 'last'
        and `path` is a file or a published run, because files and published runs have a single set of weights.
    """
    read = {'.npz': npz, '.caffemodel': caffemodel}.get(os.path.splitext(path)[1])
    if which == 'last' and (read or os.path.exists(os.path.join(run_folder(path), 'weights.npz'))):
        raise UserError('--checkpoint last: %s has one set of weights; leave the flag out' % path)
    loaded = read(path) if read else of_run(run_folder(path), which)
    for name, value in loaded.values.items():
        if not np.isfinite(value).all():
            raise UserError('%s: %s holds numbers that are not finite; use other weights' % (path, name))
    return loaded


def starting_weights(vgg16_path, init_from, class_names: list, input_norm: str):
    """Loads the weights of --vgg16 or --init_from -> ({name: array}, text for messages).

    The text is the flag with the value, such as '--vgg16 download'. Returns ({}, '') if both flags are None. The
    weights of the class layers, which have one feature map per class, are reordered to match `class_names`, the classes
    of the new run. Raises UserError for weights that cannot be read.
    """
    if vgg16_path is not None:
        return vgg16(vgg16_path).values, '--vgg16 %s' % vgg16_path
    if init_from is not None:
        loaded = load(init_from)
        if loaded.input not in (None, input_norm):
            note('--init_from %s: trained with --input %s, not --input %s' % (init_from, loaded.input, input_norm))
        return match_classes(loaded, class_names).values, '--init_from %s' % init_from
    return {}, ''


def match_classes(loaded: Weights, class_names: list) -> Weights:
    """Reorders the weights of the class layers to match `class_names`, the classes of the new run -> `Weights`.

    The class layers have one feature map per class. Weights of a class that `loaded` lacks become NaN, for which
    `load_into` keeps the random initial values. An array that would contain only NaN is left out. Prints which classes
    `loaded` has, and which classes `loaded` lacks. If the classes of `loaded` are unknown, or equal `class_names` in
    the same order, `loaded` is returned unchanged. The result keeps the `class_names` of `loaded`.
    """
    old = loaded.class_names
    if old is None or old == class_names:
        return loaded
    order = [old.index(name) if name in old else -1 for name in class_names]
    values = {}
    for name, value in loaded.values.items():
        for axis in class_axes(name, value.ndim):
            if value.shape[axis] == len(old):
                missing = np.full_like(value.take([0], axis), np.nan)
                value = np.concatenate([value, missing], axis).take(order, axis)
        if not np.isnan(value).all():
            values[name] = value
    known = [name for name in class_names if name in old]
    print('classes matched by name: %s; initialized at random: %s'
          % (', '.join(known) or 'none', ', '.join(name for name in class_names if name not in old) or 'none'))
    return loaded._replace(values=values)


def class_axes(name: str, num_axes: int) -> range:
    """Returns the axes of a variable that have one index per class -> range; empty for layers without classes.

    A kernel has one such axis, the last axis. The kernel of an upsampling layer has two such axes, because input and
    output have one feature map per class. A bias has one such axis.
    """
    if not CLASS_LAYERS.match(name):
        return range(0)
    return range(0 if num_axes < 4 else 2 if name.startswith(('upscore', 'deconv')) else 3, num_axes)


def match_variables(values: dict, variables, num_classes: int, flag: str):
    """Matches arrays to the network's variables by name -> (assignments, uninitialized).

    Args:
      values: {name without the network's scope: array}.
      variables: list of tf.Variable, the variables of the network.
      num_classes: number of classes of the network.
      flag: the flag that named the weights, for the error message.
    Returns:
      assignments: list of (variable, float32 array).
      uninitialized: names of the variables that keep their random initial values: variables without an array, and
        variables whose number of classes differs from the number of classes in the array.
    Raises:
      UserError: an array has no variable of the same name, or the shapes differ in more than the number of classes.
    """
    named = {variable.op.name.split('/', 1)[1]: variable for variable in variables}
    unknown = sorted(set(values) - set(named))
    if unknown:
        raise UserError('%s: has %s, which this network lacks; is --model right?' % (flag, unknown[0]))
    assignments = []
    uninitialized = sorted(set(named) - set(values))
    for name in sorted(values):
        shape, expected = list(values[name].shape), named[name].shape.as_list()
        axes = class_axes(name, len(shape))
        if shape == expected:
            assignments.append((named[name], values[name].astype(np.float32)))
        elif [num_classes if axis in axes else side for axis, side in enumerate(shape)] == expected:
            uninitialized.append(name)
        else:
            raise UserError('%s: %s has shape %s, this network has %s; check --model' % (flag, name, shape, expected))
    return assignments, uninitialized


def load_into(sess, assignments: list):
    """Assigns arrays to variables in `sess`, all with one call of `sess.run`.

    Where an array is NaN, the variable keeps its current value, so the caller must initialize the variable first.

    Args:
      assignments: list of (variable, array).
    """
    values = {}
    for variable, value in assignments:
        if np.isnan(value).any():
            value = np.where(np.isnan(value), sess.run(variable), value)
        values[variable.initializer.inputs[1]] = value
    sess.run([variable.initializer for variable, _ in assignments], values)  # one call assigns all variables


def load_all(sess, loaded: Weights, flag: str):
    """Assigns an array of `loaded` to each of the model's variables in the default graph.

    Raises UserError if an array fits no variable, a variable has no array, or the number of classes differs. The error
    message begins with `flag`.
    """
    variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
    assignments, uninitialized = match_variables(loaded.values, variables, 0, flag)
    if uninitialized:
        raise UserError('%s: lacks %s, which this network has; is --model right?' % (flag, uninitialized[0]))
    load_into(sess, assignments)
