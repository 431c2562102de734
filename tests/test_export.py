"""Runs exported files in the runtimes of their formats, and compares the results with predict.py."""
import importlib.util
import json
import os
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, assert_refused, file_size_limit, put_text, random_weights, value_of

import batches
import networks
import predict
import segnet
from inference import export
from inference.predictor import Predictor, Settings
from runs import weights
from runs.folder import read_config

PUBLISHED = os.path.join(ROOT, 'Output', 'pretrained', 'camvid-segnet-basic')
needs_onnx = pytest.mark.skipif(not all(map(importlib.util.find_spec, ('tf2onnx', 'onnxruntime'))),
                                reason='tf2onnx and onnxruntime are not installed (requirements-export.txt)')
needs_tf2 = pytest.mark.skipif(tf.__version__.startswith('1.'), reason="TensorFlow 1.15's converter to TFLite aborts")
FORMATS = [pytest.param('saved', id='SavedModel'), pytest.param('a.tflite', id='TFLite', marks=needs_tf2),
           pytest.param('a.onnx', id='ONNX', marks=needs_onnx)]


def blocks(height, width, seed):
    """Returns an image uint8 [height, width, 3] of 5x7 blocks in random colours, with noise added."""
    rng = np.random.RandomState(seed)
    colors = rng.randint(0, 200, (5, 7, 3)).astype(np.uint8)
    image = cv2.resize(colors, (width, height), interpolation=cv2.INTER_NEAREST)
    return image + rng.randint(0, 50, image.shape).astype(np.uint8)


IMAGES = [blocks(45, 61, seed) for seed in range(3)]


def published(**flags):
    """Returns config and weights of the published SegNet-Basic at 45x61 in float32; `flags` change the config."""
    config = read_config(PUBLISHED)
    config['flags'].update({'height': 45, 'width': 61, 'precision': 'float32'}, **flags)
    return config, weights.load(PUBLISHED)


@pytest.fixture(scope='module', params=['segnet', 'segnet-basic'])
def network(request, tmp_path_factory):
    """Returns a function that exports a network to a file of the given name, and the expected ids of IMAGES.

    The networks are a narrow SegNet with random weights and the published SegNet-Basic.
    """
    config, loaded = published()
    folder = tmp_path_factory.mktemp(request.param)

    def exported(name):
        path = str(folder / name)
        if not os.path.exists(path):
            export.export(path, spec_of(config), config, loaded)
        return path

    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'segnet':
            patch.setattr(segnet, 'ENCODER', [(filters // 16, n) for filters, n in segnet.ENCODER])
            config['flags'].update(model='segnet', input='raw')
            with tf.Graph().as_default(), tf.Session() as sess:
                networks.build(networks.Spec('segnet', 11), tf.zeros([1, 8, 8, 3]), is_training=False)
                loaded = weights.Weights(random_weights(sess, np.random.RandomState(5)), None, 'random', None)
        yield exported, expected_ids(config, loaded, IMAGES)


def spec_of(config):
    return networks.spec_of(config['flags'], 11)


def expected_ids(config, loaded, images):
    """Predicts class indices as predict.py does; returns a list of arrays [h, w]."""
    with tf.Graph().as_default(), tf.Session() as sess:
        predictor = Predictor(sess, spec_of(config), Settings())
        weights.load_all(sess, loaded, 'test')
        return [predictor.predict([image])[0].ids for image in images]


def run_onnx(path, images):
    """Runs an ONNX file on images uint8 [batch, h, w, 3]; returns [ids, probabilities]."""
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session.run(export.OUTPUTS, {'images': images})


def run_exported(path, images):
    """Runs an exported file on uint8 images; returns a list of (ids, probabilities)."""
    if path.endswith('.tflite'):
        run = tf.lite.Interpreter(path).get_signature_runner()
        outputs = [run(images=image[None]) for image in images]
    elif path.endswith('.onnx'):
        outputs = [dict(zip(export.OUTPUTS, run_onnx(path, image[None]))) for image in images]
    else:
        with tf.Graph().as_default(), tf.Session() as sess:
            signature = tf.saved_model.loader.load(sess, ['serve'], path).signature_def['serving_default']
            names = {name: signature.outputs[name].name for name in export.OUTPUTS}
            outputs = [sess.run(names, {signature.inputs['images'].name: image[None]}) for image in images]
    return [(output['ids'][0], output['probabilities'][0]) for output in outputs]


@pytest.mark.parametrize('name', FORMATS)
def test_exported_network_predicts_the_same_classes(network, name):
    exported, expected = network
    assert len(np.unique(expected)) > 3
    outputs = run_exported(exported(name), IMAGES)
    assert np.mean([ids == right for (ids, _), right in zip(outputs, expected)]) >= 0.9999
    for ids, probabilities in outputs:
        assert ids.dtype == np.uint8 and probabilities.shape == (45, 61, 11)
        assert (probabilities.argmax(-1) == ids).all() and np.abs(probabilities.sum(-1) - 1).max() < 1e-4


@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('size', ['free', (90, 121)])
def test_images_are_resized_as_predict_does(tmp_path, name, size):
    """Networks that are exported with --export_size free accept images of any size.

    ONNX files that are exported with --export_size free also accept batches of images. The input size of the network is
    45x61.
    """
    (config, loaded), path = published(), str(tmp_path / name)
    config['class_ids'] = [20, 3, 5, 7, 9, 11, 13, 15, 17, 19, 1]
    images = [blocks(90, 121, 3)] + [blocks(31, 23, 4)] * (size == 'free')
    export.export(path, spec_of(config), config, loaded, size)
    if size == 'free' and name == 'a.tflite':
        interpreter = tf.lite.Interpreter(path)
        for image in images:
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]['index'], (1,) + image.shape)
            interpreter.allocate_tensors()
    outputs = [(image[None], ids[None], maps[None]) for image, (ids, maps) in zip(images, run_exported(path, images))]
    if (name, size) == ('a.onnx', 'free'):
        batches = np.stack([blocks(90, 121, seed) for seed in range(3)]), np.stack([blocks(31, 23, 4)] * 2)
        outputs += [(batch, *run_onnx(path, batch)) for batch in batches]
    for batch, ids, probabilities in outputs:
        assert ids.shape == batch.shape[:3] and probabilities.shape == (len(batch), 45, 61, 11)
        assert (ids == np.array(config['class_ids'])[np.array(expected_ids(config, loaded, batch))]).mean() > 0.99


@pytest.mark.parametrize('depth', [{}, {'depth': None}, {'depth': 12}])
def test_classes_have_the_depth_that_predict_uses(tmp_path, depth):
    config, loaded = published()
    config.pop('depth')
    export.export(str(tmp_path / 'saved'), spec_of(config), dict(config, **depth), loaded)
    assert json.loads((tmp_path / 'saved' / 'classes.json').read_text())['depth'] == depth.get('depth', 16)


@needs_tf2
def test_tflite_needs_no_operations_beyond_the_built_in_and_holds_the_classes(network):
    from tensorflow.lite.python import schema_py_generated
    path = network[0]('a.tflite')
    model = schema_py_generated.ModelT.InitFromObj(schema_py_generated.Model.GetRootAsModel(open(path, 'rb').read(), 0))
    assert len(model.operatorCodes) > 10 and not any(code.customCode for code in model.operatorCodes)
    with zipfile.ZipFile(path) as archive:
        classes = json.loads(archive.read('classes.json').decode())
    assert classes['class_names'][3] == 'Road' and classes['colors'][3] == [128, 64, 128]
    assert classes['class_ids'] == list(range(11))


@needs_onnx
def test_opencv_reads_onnx(network):
    import onnx
    exported, expected = network
    net = cv2.dnn.readNetFromONNX(exported('a.onnx'))
    net.enableWinograd(False)  # Winograd convolutions are less exact and change 2% of the pixels
    net.setInput(IMAGES[0][None])
    assert (net.forward('ids')[0] == expected[0]).mean() >= 0.9999
    metadata = {entry.key: entry.value for entry in onnx.load(exported('a.onnx')).metadata_props}
    assert json.loads(metadata['classes'])['class_names'][3] == 'Road'


@pytest.mark.parametrize('old, new', [((45, 61), (20, 100)), ((45, 61), (23, 31)), ((45, 61), (45, 128)),
                                      ((45, 61), (96, 128)), ((3, 300), (45, 61)), ((300, 3), (45, 61)),
                                      ((1, 1), (4, 5))])
def test_resize_equals_opencv(graph, old, new):
    """Our area averages and bilinear values differ from OpenCV's by at most 1.

    About 0.1% of the bilinear values differ. OpenCV rounds the interpolation weights.
    """
    image = blocks(*old, seed=2)
    resized = value_of(export.resize(tf.constant(image[None].astype(np.float32)), *new))[0]
    difference = np.abs(resized - batches.resize(image, *new))
    assert difference.max() <= 1 and difference.mean() < (0.2 if np.prod(new) < np.prod(old) else 0.001)


def test_refused_paths_and_sizes(tmp_path, monkeypatch):
    put_text(str(tmp_path), 'old/file', 'x')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for name, message in (('a.pb', 'unknown ending .pb'), ('a.onnx', 'pip install -r requirements-export.txt'),
                          ('old', 'exists already')):
        assert_refused(message, predict.parse_args, [PUBLISHED, '--export', str(tmp_path / name)])
    for text in ('0x50', '45xfree', '-1x30'):
        assert_refused('export_size', predict.parse_args, [PUBLISHED, '--export', 'new', '--export_size', text])
    assert_refused('--export_size: needs --export', predict.parse_args, [PUBLISHED, 'a.png', '--export_size', 'free'])
    for flag, value in (('tta', 'flip'), ('tile', '45x61'), ('tile_overlap', '0'), ('precision', 'float32'),
                        ('samples', '0'), ('batch_size', '2'), ('output', 'x'), ('submission', None)):
        flags = [PUBLISHED, '--export', 'new', '--' + flag] + [value] * (value is not None)
        assert_refused('--%s: changes nothing in an export' % flag, predict.parse_args, flags)
        predict.parse_args(flags + ['image.png'])
    predict.parse_args([PUBLISHED, '--export', 'new', '--checkpoint', 'last', '--device', 'cpu'])
    args = predict.parse_args([PUBLISHED, '--export', str(tmp_path / 'new'), '--export_size', '45x61', 'image.png'])
    assert args.export_size == (45, 61) and args.inputs == ['image.png']
    assert predict.parse_args([PUBLISHED, '--export', 'new', '--export_size', 'free']).export_size == 'free'
    args = predict.parse_args([PUBLISHED, 'a.png', '--export', 'new', '--export_size', '45', '61', '7'])
    assert args.export_size == (45, 61) and args.inputs[-1] == '7', 'the form of older revisions'


@pytest.mark.parametrize('name', FORMATS)
def test_full_disk_leaves_nothing(tmp_path, name):
    """On a full disk, the export leaves no file. A limit on file sizes simulates the full disk."""
    config, loaded = published()
    with file_size_limit(100000), pytest.raises((OSError, tf.errors.OpError)):
        export.export(str(tmp_path / name), spec_of(config), config, loaded)
    assert os.listdir(str(tmp_path)) == []
