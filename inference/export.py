"""Exports a run's network for other programs: a TensorFlow SavedModel, a TFLite file or an ONNX file.

Weights become constants, and batch norm is folded into the weights. Pooling and unpooling are built from basic ops (see
`utils.portable_pooling`), because TFLite and ONNX have no op for pooling with indices.
The input of each export is 'images', uint8 RGB [batch, height, width, 3]. The outputs are 'ids', uint8 [batch, height,
width], and 'probabilities', float32 [batch, H, W, num_classes], where H x W is the input size of the network.
"""
import concurrent.futures
import importlib.util
import io
import json
import logging
import os
import tempfile
import zipfile

import numpy as np
import tensorflow.compat.v1 as tf

import networks
import utils
from inference import quantize
from runs import weights
from system import devices, quiet
from system.files import UserError, write_bytes, write_text

OUTPUTS = ('ids', 'probabilities')
CLASSES = 'classes.json'  # file with the names, ids and colours of the classes, in a SavedModel or TFLite file


def checked_path(text: str) -> str:
    """Argparse type of --export: checks and returns the path NAME.tflite, NAME.onnx or FOLDER.

    Raises UserError for an unknown file extension, for a format that the installed packages cannot write, and for a
    path that exists and is not an empty folder.
    """
    ending = format_of(text)
    if ending not in ('', '.tflite', '.onnx'):
        raise UserError('--export %s: unknown ending %s; use .tflite, .onnx, or a folder' % (text, ending))
    if ending == '.tflite' and tf.__version__.startswith('1.'):  # TensorFlow 1.15's converter aborts the process
        raise UserError('--export %s: TFLite needs TensorFlow 2; name a folder for a SavedModel' % text)
    if ending == '.onnx' and not importlib.util.find_spec('tf2onnx'):
        raise UserError('--export %s: ONNX needs tf2onnx; pip install -r requirements-export.txt' % text)
    if os.path.exists(text) and not (os.path.isdir(text) and not ending and not os.listdir(text)):
        raise UserError('--export %s: exists already; remove the file or folder, or give another path' % text)
    return text


def format_of(path: str) -> str:
    """Returns the file extension of a path in lower case, such as '.tflite'; '' for a SavedModel."""
    return os.path.splitext(path.rstrip(os.sep))[1].lower()


def export(path: str, spec, config: dict, loaded, size=None, quantization=None) -> str:
    """Writes the network and weights of a run to `path` atomically, as TFLite, ONNX or SavedModel.

    The file extension of `path` selects the format. A SavedModel, and an ONNX file for images of any size, take batches
    of any size. Any other exported file takes a single image.

    Args:
      spec: the run's `networks.Spec`.
      config: config.json of the run. The export gets the names, ids and colours of the classes, and `depth`, the
        number of bits that the values in 16-bit images use.
      loaded: the weights, a `weights.Weights`.
      size: (height, width) of the images that the export takes, or 'free' for images of any size. None selects 'free'
        for a SavedModel, and the training size for a TFLite or ONNX file.
      quantization: a `quantize.Quantization`, or None for float32.
    Returns:
      text for a message: the file size and the share of pixels with the same id as in float32; '' if the export is not
      quantized.
    Raises:
      UserError: the weights do not fit the network.
    """
    ending = format_of(path)
    if size is None:
        size = (spec.height, spec.width) if ending else 'free'
    batch = 1 if ending == '.tflite' or ending and size != 'free' else None
    shape = (batch,) + ((None, None) if size == 'free' else tuple(size)) + (3,)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config('cpu')) as sess:
        export_graph(spec, config['class_ids'], shape)
        weights.load_all(sess, loaded, path)
        graph_def = tf.graph_util.convert_variables_to_constants(sess, sess.graph_def, list(OUTPUTS))
        images = quantization.images if quantization else []
        expected = [sess.run('ids:0', {'images:0': image[None]})[0] for image in images]
    depth = config.get('depth', 16)  # config.json of older revisions has no depth
    classes = json.dumps(dict({key: config[key] for key in ('class_names', 'class_ids', 'colors')}, depth=depth))
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    if ending == '.onnx':
        write_onnx(path, graph_def, classes, quantization)
    else:
        with tempfile.TemporaryDirectory(prefix='.export-', dir=parent) as temporary:
            saved_model = os.path.join(temporary, 'saved_model')
            write_saved_model(saved_model, graph_def, classes)
            if ending:
                write_tflite(path, saved_model, classes, quantization)
            else:
                os.replace(saved_model, path)
    return quantize.describe(path, quantization, expected) if quantization else ''


def export_graph(spec, class_ids: list, shape):
    """Adds the nodes 'images', 'ids' and 'probabilities' to the default graph, and the network between them.

    'images' is a uint8 placeholder of `shape`. The layers compute in float32. 'ids' has the size of the images, and
    'probabilities' has the size of the network's input.

    Args:
      spec: `networks.Spec` of the run.
      class_ids: list of int, the id of each class in 'ids'.
    """
    images = tf.placeholder(tf.uint8, shape, 'images')
    x = tf.cast(images, tf.float32)
    if spec.fit == 'resize':
        x = resize(x, spec.height, spec.width)
    with utils.portable_pooling():
        logits = networks.build(spec._replace(precision='float32'), x, False)
    probabilities = tf.nn.softmax(logits, name='probabilities')
    resized = networks.resize_probabilities(probabilities, utils.height_width(images))
    ids = tf.cast(tf.argmax(resized, -1), tf.uint8)
    if class_ids != list(range(len(class_ids))):
        ids = tf.gather(np.array(class_ids, np.uint8), tf.cast(ids, tf.int32))
    tf.identity(ids, 'ids')


def resize(x, height: int, width: int):
    """Resizes images [batch, h, w, 3] -> [batch, height, width, 3], by area averaging or bilinearly.

    A result with fewer pixels than the image is an area average; any other result is bilinear. The export formats have
    no op for area averages or for OpenCV's bilinear interpolation in integers, so both are computed as matrix products.
    If the export takes images of any size, the graph computes both results and selects the right result by the size of
    the image.
    """
    if x.shape.as_list()[1:3] == [height, width]:
        return x
    old_height, old_width = utils.height_width(x)
    shrinks = height * width < old_height * old_width
    if isinstance(shrinks, bool):
        y = (area_average if shrinks else bilinear)(x, height, width)
    else:
        area = area_average(x, height, width)
        y = tf.where(tf.fill(tf.shape(area), shrinks), area, bilinear(x, height, width))
    y.set_shape(x.shape[:1].concatenate(y.shape[1:]))
    return y


def area_average(x, height: int, width: int):
    """Averages images [batch, h, w, 3] over the area of each new pixel -> [batch, height, width, 3], rounded."""
    old_height, old_width = utils.height_width(x)
    return tf.round(product(area_weights(old_height, height, x), area_weights(old_width, width, x), x))


def bilinear(x, height: int, width: int):
    """Resizes images [batch, h, w, 3] bilinearly with OpenCV's integer arithmetic -> [batch, height, width, 3]."""
    old_height, old_width = utils.height_width(x)
    left, right = bilinear_weights(old_width, width, x)
    # As in OpenCV, the horizontal interpolation drops the lowest 4 bits of the result, and the vertical interpolation
    # drops the lowest 16 bits.
    above, below = [tf.floor(product(weights, (left + right) / 16, x, tf.floor) / 65536)
                    for weights in bilinear_weights(old_height, height, x)]
    return tf.floor((above + below + 2) / 4)


def product(rows, columns, x, inner=tf.identity):
    """Multiplies images [batch, h, w, 3] by one matrix along the width, then by another along the height.

    Args:
      rows: matrix along the height, float32 [height, h].
      columns: matrix along the width, float32 [width, w].
      inner: function that is applied to the product along the width.
    Returns:
      float32 [batch, height, width, 3].
    """
    height, old_height = utils.height_width(rows[None])
    width, old_width = utils.height_width(columns[None])
    y = inner(tf.matmul(columns, tf.reshape(x, [-1, old_width, 3])))
    y = tf.matmul(rows, tf.reshape(y, [-1, old_height, width * 3]))
    return tf.reshape(y, [-1, height, width, 3])


def positions(old, x):
    """Returns the numbers 0 to `old` - 1, float32 [old], as a tensor that depends formally on the images `x`.

    The resize weights are computed from the numbers. If the numbers did not depend on `x`, the weights would be stored
    in the exported file as constants: 1 MB for a resize from 360x480 to 240x320. Adding min(x, 0), which is always 0,
    makes the numbers depend on `x`. The graph then computes the weights for each image.
    """
    return tf.cast(tf.range(old), tf.float32) + tf.minimum(tf.reshape(x[:1, :1, :1, :1], [1]), 0)


def area_weights(old, new: int, x):
    """Computes the matrix of area interpolation along an axis, from `old` to `new` pixels: float32 [new, old].

    `x`: the images, on which the matrix must depend formally (see `positions`).
    """
    pixel = positions(old, x)
    scale = tf.cast(old, tf.float32) / new
    start = tf.cast(tf.range(new), tf.float32)[:, None] * scale
    return tf.maximum(tf.minimum(start + scale, pixel + 1) - tf.maximum(start, pixel), 0) / scale


def bilinear_weights(old, new: int, x):
    """Computes the matrices of bilinear interpolation along an axis, from `old` to `new` pixels.

    Returns two tensors, float32 [new, old]. Each new pixel is interpolated between two neighbouring old pixels. The
    first tensor has the weights of the old pixels with the lower index, the second tensor the weights of the old pixels
    with the higher index. The weights are whole numbers from 0 to 2048. At the border the two old pixels are the same.
    The two tensors stay separate, because OpenCV rounds the product with each weight separately.

    `x`: the images, on which the tensors must depend formally (see `positions`).
    """
    last = tf.cast(old - 1, tf.float32)
    centre = (tf.cast(tf.range(new), tf.float32)[:, None] + 0.5) * (last + 1) / new - 0.5
    first = tf.floor(centre)
    pixel = positions(old, x)
    return [tf.cast(tf.equal(pixel, tf.clip_by_value(neighbour, 0, last)), tf.float32) * tf.round(2048 * share)
            for neighbour, share in ((first, 1 - (centre - first)), (first + 1, centre - first))]


def write_saved_model(path: str, graph_def, classes: str):
    """Writes a frozen graph as a SavedModel to the folder `path`, and the text `classes` to the file CLASSES."""
    with tf.Graph().as_default(), tf.Session(config=devices.session_config('cpu')) as sess:
        tf.import_graph_def(graph_def, name='')
        tensors = {name: sess.graph.get_tensor_by_name(name + ':0') for name in OUTPUTS}
        tf.saved_model.simple_save(sess, path, {'images': sess.graph.get_tensor_by_name('images:0')}, tensors)
    write_text(os.path.join(path, CLASSES), classes)


def write_tflite(path: str, saved_model: str, classes: str, quantization):
    """Converts the SavedModel in the folder `saved_model` to the TFLite file `path`, with built-in ops only.

    The text `classes` is appended to the file, as a zip archive.
    """
    def convert():
        """Returns the bytes of the TFLite file.

        `convert` must run in a new thread, because a new thread is in eager mode. In graph mode the converter loses the
        signature, which has the names of the inputs and outputs.
        """
        converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(saved_model)
        return quantize.to_tflite(converter, quantization) if quantization else converter.convert()

    with quiet.suppress_stderr(), concurrent.futures.ThreadPoolExecutor(1) as thread:
        model = thread.submit(convert).result()
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, 'a') as classes_file:  # TFLite interpreters ignore the zip archive
        classes_file.writestr(CLASSES, classes)
    write_bytes(path, archive.getvalue())


def write_onnx(path: str, graph_def, classes: str, quantization):
    """Converts a frozen graph to the ONNX file `path` with tf2onnx, with the text `classes` in the metadata."""
    import tf2onnx  # an optional package, listed in requirements-export.txt
    logging.getLogger('tf2onnx').setLevel(logging.ERROR)
    os.environ['TF2ONNX_CATCH_ERRORS'] = 'false'  # otherwise tf2onnx needs 10 GB of memory, not 6
    with quiet.suppress_stderr():
        names = {name + ':0': name for name in ('images',) + OUTPUTS}
        model, _ = tf2onnx.convert.from_graph_def(graph_def, input_names=['images:0'], output_names=list(names)[1:],
                                                  tensors_to_rename=names, opset=13)
        model = quantize.to_onnx(model, quantization) if quantization else model
    model.metadata_props.add(key='classes', value=classes)
    write_bytes(path, model.SerializeToString())
