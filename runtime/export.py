"""Exports a run's network for other programs: a TensorFlow SavedModel, a TFLite file or an ONNX file.

Weights are constants with batch norm folded in; pooling and unpooling are built of plain ops (utils.portable_pooling).
Each export takes 'images' uint8 RGB [batch, height, width, 3] and returns 'ids' uint8 [batch, height, width] and
'probabilities' float32 [batch, H, W, num_classes], where H x W is the input size of the network.
"""
import importlib.util
import json
import logging
import os
import tempfile
import zipfile

import tensorflow.compat.v1 as tf

import data
import networks
import utils
from data import UserError
from runtime import quiet, weights

OUTPUTS = ('ids', 'probabilities')
CLASSES = 'classes.json'  # in the SavedModel's folder, in the zip archive behind a TFLite model; ONNX: key 'classes'


def check_path(path):
    """Format that `path` asks for: '.tflite', '.onnx' or '' (SavedModel); UserError if it cannot be written."""
    ending = os.path.splitext(path.rstrip(os.sep))[1].lower()
    if ending not in ('', '.tflite', '.onnx'):
        raise UserError('--export %s: unknown ending %s; use NAME.tflite, NAME.onnx, or a folder without an ending '
                        'for a SavedModel' % (path, ending))
    if ending == '.onnx' and not importlib.util.find_spec('tf2onnx'):
        raise UserError('--export %s: needs tf2onnx; pip install -r requirements-export.txt' % path)
    if os.path.exists(path) and not (os.path.isdir(path) and not ending and not os.listdir(path)):
        raise UserError('--export %s: exists already; remove it or use another name' % path)
    return ending


def export(path, run, config, loaded, size=None):
    """Writes the run's network to `path`, completely or not at all.

    Args:
      path: NAME.tflite, NAME.onnx, or a folder for a SavedModel.
      run: folder of the run, named in errors.
      config: the run's config.json.
      loaded: weights as `weights.load` returns them.
      size: (height, width) of the images, 'free' for any size; None for 'free' in a SavedModel, for the size of
        training in a file.
    """
    ending = check_path(path)
    flags = config['flags']
    if size is None and ending:
        size = flags['height'], flags['width']
    shape = (1 if ending else None,) + ((None, None) if size in (None, 'free') else tuple(size)) + (3,)
    with tf.Graph().as_default(), tf.Session() as sess:
        export_graph(flags, len(config['class_names']), shape)
        weights.load_into(sess, weights.match_all_variables(loaded, tf.global_variables(), run))
        graph_def = tf.graph_util.convert_variables_to_constants(sess, sess.graph_def, OUTPUTS)
    classes = json.dumps({'class_names': config['class_names'], 'colors': config['colors']})
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=parent) as temporary:
        saved_model = os.path.join(temporary, 'saved_model')
        write_saved_model(saved_model, graph_def, classes)
        if ending:
            file = os.path.join(temporary, 'file')
            (write_tflite if ending == '.tflite' else write_onnx)(file, saved_model, graph_def, classes)
        os.replace(file if ending else saved_model, path)


def export_graph(flags, num_classes, shape):
    """Builds 'images' of `shape` -> 'ids' and 'probabilities', in float32."""
    images = tf.placeholder(tf.uint8, shape, 'images')
    x = tf.cast(images, tf.float32)
    if flags['fit'] == 'resize':
        x = resize(x, flags['height'], flags['width'])
    with utils.portable_pooling():
        logits = networks.build(flags['model'], x, num_classes, False, flags['input'])
    probabilities = tf.nn.softmax(logits, name='probabilities')
    tf.identity(networks.class_ids(probabilities, utils.height_width(images)), 'ids')


def resize(x, height, width):
    """Resizes images [batch, h, w, 3] like `batches.resize`, as two matrix products: no format has an area average."""
    if x.shape.as_list()[1:3] == [height, width]:
        return x
    old_height, old_width = utils.height_width(x)
    shrinks = height * width < old_height * old_width
    rows = tf.matmul(resize_weights(old_height, height, shrinks), tf.reshape(x, [-1, old_height, old_width * 3]))
    y = tf.matmul(resize_weights(old_width, width, shrinks), tf.reshape(rows, [-1, old_width, 3]))
    y = tf.round(tf.reshape(y, [-1, height, width, 3]))
    y.set_shape(x.shape[:1].concatenate(y.shape[1:]))
    return y


def resize_weights(old, new, shrinks):
    """float32 [new, old]: the weights of area averages if `shrinks`, else of bilinear interpolation."""
    pixel = tf.cast(tf.range(old), tf.float32)
    last = tf.cast(old - 1, tf.float32)
    scale = (last + 1) / new
    start = tf.cast(tf.range(new), tf.float32)[:, None] * scale
    area = tf.maximum(tf.minimum(start + scale, pixel + 1) - tf.maximum(start, pixel), 0) / scale
    centre = tf.minimum(tf.maximum(start + scale / 2 - 0.5, 0), last)
    bilinear = tf.maximum(1 - tf.abs(centre - pixel), 0)
    return tf.where(tf.fill(tf.shape(area), shrinks), area, bilinear)


def write_saved_model(path, graph_def, classes):
    """Writes the frozen graph as a SavedModel with the classes beside it."""
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.import_graph_def(graph_def, name='')
        tensors = {name: sess.graph.get_tensor_by_name(name + ':0') for name in OUTPUTS}
        tf.saved_model.simple_save(sess, path, {'images': sess.graph.get_tensor_by_name('images:0')}, tensors)
    with open(os.path.join(path, CLASSES), 'w', encoding='utf-8') as file:
        file.write(classes)


def write_tflite(path, saved_model, graph_def, classes):
    """Converts to TFLite with built-in operations only; the classes follow the model as a zip archive."""
    with quiet.suppress_stderr():
        model = tf.compat.v2.lite.TFLiteConverter.from_saved_model(saved_model).convert()
    with open(path, 'wb') as file:
        file.write(model)
    with zipfile.ZipFile(path, 'a') as archive:  # as in TFLite's own metadata: interpreters ignore what follows
        archive.writestr(CLASSES, classes)


def write_onnx(path, saved_model, graph_def, classes):
    """Converts to ONNX by tf2onnx; the classes are in the model's metadata."""
    import tf2onnx  # not among the requirements
    logging.getLogger('tf2onnx').setLevel(logging.ERROR)
    with quiet.suppress_stderr():
        names = {name + ':0': name for name in ('images',) + OUTPUTS}
        model, _ = tf2onnx.convert.from_graph_def(graph_def, input_names=['images:0'], output_names=list(names)[1:],
                                                  tensors_to_rename=names, opset=13)
    model.metadata_props.add(key='classes', value=classes)
    with open(path, 'wb') as file:
        file.write(model.SerializeToString())
