"""Measures the speed, the memory and the mIoU of inference engines, on the network of a run.

The engines are predict.py, ONNX Runtime, OpenVINO, OpenCV and TFLite.
"""
import collections
import functools
import importlib.util
import os

import cv2
import numpy as np
import tensorflow.compat.v1 as tf

import datasets
import metrics
import networks
from inference import export, quantize
from inference.predictor import Predictor, Settings
from runs import report, weights
from runs.folder import read_config
from system import devices, machine
from system.files import UserError
from system.machine import NUM_CORES

# packages: names of the Python packages that the engine needs.
# file: name of the exported file that the engine reads; None for predict.py.
# start: function that opens the exported file and returns a function (image uint8 [h, w, 3] RGB) -> ids uint8 [h, w].
#   The argument of start is the path of the exported file; for predict.py, the run folder and the `networks.Spec`.
Engine = collections.namedtuple('Engine', 'packages file start')


def openvino(path: str):
    """Opens an ONNX file in OpenVINO, on all cores; returns a function (image) -> ids."""
    from openvino import Core
    model = Core().compile_model(path, 'CPU', {'INFERENCE_NUM_THREADS': NUM_CORES, 'PERFORMANCE_HINT': 'LATENCY'})
    return lambda image: model({'images': image[None]})['ids'][0]


def opencv(path: str, winograd: bool):
    """Opens an ONNX file in OpenCV's DNN module, on all cores; returns a function (image) -> ids."""
    network = cv2.dnn.readNetFromONNX(path)
    network.enableWinograd(winograd)

    def predict(image):
        network.setInput(image[None])
        return network.forward('ids')[0].astype(np.uint8)

    return predict


def predict_py(run: str, spec, precision: str):
    """Loads a run into a new session on the CPU, as predict.py does; returns a function (image) -> ids."""
    sess = tf.Session(graph=tf.Graph(), config=devices.session_config('cpu'))
    with sess.graph.as_default(), sess.as_default():
        predictor = Predictor(sess, spec._replace(precision=precision), Settings(tile='off'))
        weights.load_all(sess, weights.load(run), run)
    return lambda image: predictor.predict([image])[0].ids


ONNX = ('tf2onnx', 'onnxruntime')  # tf2onnx writes the ONNX files, onnxruntime quantizes the weights
ENGINES = {
    'predict.py': Engine((), None, functools.partial(predict_py, precision='float32')),
    'predict.py, bfloat16': Engine((), None, functools.partial(predict_py, precision='bfloat16')),
    'ONNX Runtime': Engine(ONNX, 'float32.onnx', quantize.open_onnx),
    'ONNX Runtime, int8': Engine(ONNX, 'int8.onnx', quantize.open_onnx),
    'OpenVINO': Engine(ONNX + ('openvino',), 'float32.onnx', openvino),
    'OpenVINO, int8': Engine(ONNX + ('openvino',), 'int8.onnx', openvino),
    'OpenCV': Engine(ONNX, 'float32.onnx', functools.partial(opencv, winograd=False)),
    'OpenCV, Winograd': Engine(ONNX, 'float32.onnx', functools.partial(opencv, winograd=True)),
    'TFLite': Engine((), 'float32.tflite', quantize.open_tflite),
    'TFLite, int8': Engine((), 'int8.tflite', quantize.open_tflite),
}


def missing(name: str) -> str:
    """Returns the reason why the engine `name` cannot run here, such as 'openvino is not installed', or ''."""
    engine = ENGINES[name]
    if engine.file and engine.file.endswith('.tflite') and tf.__version__.startswith('1.'):
        return 'needs TensorFlow 2'
    if 'bfloat16' in name:
        try:
            devices.check_precision('bfloat16', 'cpu')
        except UserError as error:
            return str(error)
    packages = [package for package in engine.packages if not importlib.util.find_spec(package)]
    return ', '.join(packages) + ' is not installed' if packages else ''


def spec_of_run(config: dict, size: list):
    """Returns the `networks.Spec` of the run with this config, but with the input size `size` [height, width]."""
    return networks.spec_of(dict(config['flags'], height=size[0], width=size[1]), len(config['class_names']))


def validation_images(run: str, config: dict, number: int) -> tuple:
    """Reads `number` evenly spaced images of a run's validation split -> (tuple of images, tuple of labels).

    Raises UserError if the data set is missing or the images differ in size.
    """
    dataset = datasets.open(config['flags']['dataset'], config['flags']['data_dir'], config)
    datasets.check_split(dataset, 'val')
    indices = np.linspace(0, len(dataset.examples['val']) - 1, number).round().astype(int)
    images, labels = zip(*(dataset.load('val', i) for i in sorted(set(indices))))
    if len({image.shape for image in images}) > 1:
        raise UserError('--engines: the images of %s have several sizes; use a data set of one size' % run)
    return images, labels


def export_files(folder: str, names: list, run: str, config: dict, size: list, images) -> dict:
    """Exports a run for each engine in `names`, and writes images.npy -> {engine: path of the exported file}.

    images.npy holds `images`, the input of every engine. The path of the engine 'predict.py' is None, because
    predict.py reads no exported file. The int8 files are calibrated with training images of the run.
    """
    np.save(os.path.join(folder, 'images.npy'), images)
    loaded = weights.load(run)
    config = dict(config, class_ids=list(range(len(config['class_names']))))  # exports then return class indices
    paths = {name: ENGINES[name].file and os.path.join(folder, ENGINES[name].file) for name in names}
    spec, image_size = spec_of_run(config, size), images[0].shape[:2]
    int8 = quantize.Quantization('int8', quantize.calibration_images([], config, spec, image_size))
    for path in sorted(set(filter(None, paths.values()))):
        export.export(path, spec, config, loaded, image_size, int8 if 'int8' in os.path.basename(path) else None)
    return paths


def measure(repeats: int, engine: str, run: str, path, size: list, folder: str) -> dict:
    """Measures time and memory of an engine -> {'seconds': list of float, 'memory': bytes}.

    The first image of images.npy in `folder` is labelled `repeats` times. 'memory' is the growth of the peak memory of
    this process. The first call for an engine writes the class ids of all images to ENGINE.npy in `folder`.

    Args:
      engine: key of ENGINES.
      run: path of the run folder, which only predict.py reads.
      path: path of the exported file; None for predict.py.
      size: [height, width] of the network's input.
    """
    images = np.load(os.path.join(folder, 'images.npy'))
    before = machine.peak_memory()
    start = ENGINES[engine].start
    predict = start(path) if path else start(run, spec_of_run(read_config(run), size))
    seconds = machine.seconds_of_runs(lambda: predict(images[0]), repeats)
    memory = machine.peak_memory() - before
    if not os.path.exists(os.path.join(folder, engine + '.npy')):
        np.save(os.path.join(folder, engine + '.npy'), [predict(image) for image in images])
    return {'seconds': seconds, 'memory': memory}


def score_columns(folder: str, engine: str, labels, num_classes: int) -> dict:
    """Scores the ids that `measure` wrote to ENGINE.npy -> {column: text}.

    The columns are the mIoU in percent and the share of pixels with the same id as in the output of predict.py.
    """
    ids, reference = [np.load(os.path.join(folder, name + '.npy')) for name in (engine, 'predict.py')]
    confusion = sum(metrics.confusion(label, found, num_classes) for label, found in zip(labels, ids))
    return {'mIoU': report.percent(metrics.scores(confusion)['mIoU']), 'equal ids': '%.4f' % (ids == reference).mean()}
