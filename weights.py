"""Starting weights: VGG16 as Keras gives it, or an earlier run of one's own.

Values are named by layer below the network's scope, as 'conv1_1/weights'. Reads files; builds no tensors.
"""
import numpy as np
import tensorflow.compat.v1 as tf

import runs
from data import UserError

VGG16_URL = ('https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
             'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5')
VGG16_MD5 = '6d6bbae143d832006294945121d1f1fc'
VGG16_LAYERS = ['conv%d_%d' % (block, i) for block, size in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, size + 1)]
VGG16_MEAN = np.array([103.939, 116.779, 123.68])  # BGR, 0..255: subtracted from VGG16's input (keras imagenet_utils)


def vgg16(path):
    """The 13 convolutions of Keras' VGG16 without top -> {name: array}, for BGR input 0..255 without mean subtraction.

    Keras kept the weights' BGR, which SegNet sees too. VGG16 wants the mean subtracted, SegNet's input is raw: what the
    mean adds to the first convolution is taken out of its biases, which is the same but for the padded border.
    """
    import h5py  # TensorFlow brings it along
    if path == 'download':
        path = tf.keras.utils.get_file(VGG16_URL.split('/')[-1], VGG16_URL, file_hash=VGG16_MD5)
    values = {}
    try:
        with h5py.File(path, 'r') as file:
            for layer in VGG16_LAYERS:
                group = file['block%s_%s' % (layer[4], 'conv' + layer[-1])]
                names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs['weight_names']]
                for kind, name in zip(('weights', 'biases'), names):
                    values['%s/%s' % (layer, kind)] = group[name][()].astype(np.float64)
    except (OSError, KeyError) as error:
        raise UserError("--vgg16 %s: not Keras' VGG16 without top (%s)" % (path, error))
    values['conv1_1/biases'] -= np.einsum('yxco,c->o', values['conv1_1/weights'], VGG16_MEAN)
    return values


def of_run(folder):
    """The best weights of a run, or its newest -> {name: array}."""
    flags = runs.read_config(folder)['flags']
    path = runs.checkpoint(folder, 'best', needed=False) or runs.checkpoint(folder, 'last')
    reader, scope = tf.train.load_checkpoint(path), flags['model'] + '/'
    return {name[len(scope):]: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if name.startswith(scope) and not name.endswith(('/Momentum', '/Adam', '/Adam_1'))}


def fitting(values, variables, num_classes, flag):
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
