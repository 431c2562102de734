"""Tests loading weights from Keras's VGG16 file, from an earlier run, from a .npz and from a .caffemodel."""
import os
import shutil

import h5py
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import assert_refused, weights_of, write_camvid, write_folder
from test_download import zipped
from test_main import score, train
from test_segnet import SEGNET, SEGNET_BASIC, conv_reference

import datasets
import main
import networks
import utils
from runs import weights
from runs.folder import read_config
from system.files import read_text, write_json

def write_vgg16(path):
    """Writes random weights in the layout of Keras's VGG16 file; returns {layer: (kernel, bias)}."""
    rng, values = np.random.RandomState(6), {}
    with h5py.File(path, 'w') as file:
        for layer, channels, filters in SEGNET[:13]:
            name = 'block%s_conv%s' % (layer[4], layer[-1])
            values[layer] = [(rng.normal(size=shape) * 0.05).astype(np.float32)
                             for shape in ((3, 3, channels, filters), (filters,))]
            names = [name + '_W_1:0', name + '_b_1:0']
            file.create_group(name).attrs['weight_names'] = [one.encode() for one in names]
            for one, value in zip(names, values[layer]):
                file[name][one] = value
    return values


def loaded(sess, values, num_classes, place):
    """Loads weights into the variables with the same names; returns the result of `match_variables`."""
    found = weights.match_variables(values, tf.global_variables(), num_classes, place)
    sess.run(tf.global_variables_initializer())
    weights.load_into(sess, found[0])
    return found


def test_vgg16_is_the_same_function(sess, tmp_path):
    """SegNet's conv1_1 gives the same output as VGG16's conv1_1 after Keras's preprocessing of the image.

    The border is not compared.
    """
    stored = write_vgg16(str(tmp_path / 'vgg.h5'))
    values = weights.vgg16(str(tmp_path / 'vgg.h5')).values
    assert set(values) == {layer + kind for layer in stored for kind in ('/weights', '/biases')}
    for layer in ('conv1_2', 'conv5_3'):
        np.testing.assert_equal([values[layer + '/weights'], values[layer + '/biases']], stored[layer])
    images = np.random.RandomState(1).randint(0, 256, (1, 9, 7, 3)).astype(np.uint8)
    networks.build(networks.Spec('segnet', 4), tf.constant(images), is_training=False)
    given, fresh = loaded(sess, values, 4, '--vgg16')
    got = sess.run(sess.graph.get_tensor_by_name('segnet/conv1_1/BiasAdd:0'))
    prepared = images[..., ::-1].astype(float) - [103.939, 116.779, 123.68]  # Keras's mode 'caffe'
    expected = conv_reference(prepared, *[value.astype(float) for value in stored['conv1_1']])
    expected = expected / np.sqrt(1 + 1.001e-5) + 0.001  # the initial batch norm is folded into the convolution
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-3)
    assert len(given) == 26 and 'conv1_1_D/weights' in fresh and 'conv1_1_bn/gamma' in fresh


def test_vgg16_bad_files(tmp_path):
    path = tmp_path / 'vgg.h5'
    assert_refused('vgg.h5: cannot be read', weights.vgg16, str(path))
    write_vgg16(str(path))
    with h5py.File(str(path), 'a') as file:
        del file['block5_conv2']
    for content in (path.read_bytes(), b'hello'):
        path.write_bytes(content)
        assert_refused('vgg.h5: not Keras', weights.vgg16, str(path))
    assert_refused('--vgg16: needs --input raw', main.parse_args, ['--vgg16', 'x', '--model', 'segnet-basic'])


def start(folder, output, *flags):
    return train(folder, output, '--steps', '1', '--learning_rate', '1e-9', *flags)


def test_init_from_a_run(tmp_path, capsys):
    """--init_from copies all weights of a run with 11 classes to a run with 3 classes, except the classifier."""
    camvid = write_camvid(str(tmp_path / 'camvid'), {'train': 3, 'val': 2})
    first, second, third, other = [str(tmp_path / name) for name in ('first', 'second', 'third', 'other')]
    start(camvid, first, '--learning_rate', '0.1')
    start(write_folder(str(tmp_path / 'own')), second, '--dataset', 'folder', '--init_from', first)
    assert 'as initialized: conv_classifier/biases, conv_classifier/weights' in capsys.readouterr().out
    start(camvid, third, '--init_from', first)
    assert 'as initialized: none' in capsys.readouterr().out
    given, got, whole = weights_of(first), weights_of(second), weights_of(third)
    for name in given:
        if name.endswith(('/weights', '/gamma')):
            for values in [whole] + [got] * ('classifier' not in name):
                np.testing.assert_allclose(values[name], given[name], atol=1e-6)
    assert got['segnet-basic/conv_classifier/weights'].shape == (1, 1, 64, 3)
    assert_refused('--init_from .*: has conv_decode1/biases, which this network lacks', start, camvid, other, '--model',
                   'bilinear-interpolation', '--init_from', first)
    assert_refused('no such run folder', start, camvid, other, '--init_from', str(tmp_path / 'none'))
    assert not os.path.exists(other), 'nothing written half'
    shutil.rmtree(first)
    start(camvid, third, '--init_from', first, '--steps', '2', '--schedule', 'poly')
    assert 'done, step 2 of 2 (1 in this run)' in capsys.readouterr().out, 'a run that goes on does not need it'


def test_fitting_refuses_other_shapes(graph):
    """A classifier for another number of classes is left out. A 7x7 kernel for a 3x3 layer is an error."""
    networks.build(networks.Spec('segnet', 3), tf.zeros([1, 8, 8, 3]), is_training=False)
    variables = tf.global_variables()
    for name, shape, said in (('conv2_1/weights', (7, 7, 64, 128), r'\[7, 7, 64, 128\], this network has \[3, 3'),
                              ('conv1_1_D/weights', (7, 7, 64, 3), ''), ('conv1_1_D/biases', (1, 3), r'\[1, 3\]')):
        assert_refused('FILE: %s has shape %s' % (name, said), weights.match_variables, {name: np.zeros(shape)},
                       variables, 3, 'FILE')
    values = {'conv1_1_D/weights': np.zeros((3, 3, 64, 5)), 'conv1_1_D/biases': np.ones(5)}
    given, fresh = weights.match_variables(values, variables, 3, 'FILE')
    assert not given and {'conv1_1_D/weights', 'conv1_1_D/biases'} <= set(fresh)


# ---------------------------------------------------------------- .npz and .caffemodel

def varint(value):
    """Encodes an integer as a protobuf varint."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(number, body):
    """Encodes a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def blob(array, old):
    """Encodes a BlobProto: four sizes and unpacked floats if `old`, otherwise a shape and packed floats."""
    if old:
        sizes = enumerate((1,) * (4 - array.ndim) + array.shape, 1)
        return b''.join([varint(i << 3) + varint(size) for i, size in sizes]
                        + [varint(5 << 3 | 5) + value.tobytes() for value in array.astype('<f4').flat])
    return message(7, message(1, b''.join(map(varint, array.shape)))) + message(5, array.astype('<f4').tobytes())


def caffemodel(layers, old=False):
    """Encodes a .caffemodel of layers [(name, type, arrays)]; if `old`, as V1LayerParameter messages."""
    name_field, type_field, blobs_field = (4, 5, 6) if old else (1, 2, 7)
    content = message(1, b'net') if not old else b''
    for name, kind, arrays in layers:
        type_value = varint(type_field << 3) + varint(4) if old else message(type_field, kind.encode())
        body = message(name_field, name.encode()) + type_value + b''.join(
            message(blobs_field, blob(array, old)) for array in arrays)
        content += message(2 if old else 100, body)
    return content


def caffe_layers(rng):
    """Returns random layers of SegNet-Basic for 11 classes, in the form in which caffe-segnet stores layers."""
    layers = [('data', 'DenseImageData', [])]
    for name, channels, _ in SEGNET_BASIC[:-1]:
        layers.append((name, 'Convolution', [rng.normal(size=(64, channels, 7, 7)) * 0.02, rng.normal(size=64) * 0.1]))
        layers.append((name + '_bn', 'BN', [rng.normal(size=(1, 64, 1, 1)) + 1, rng.normal(size=(1, 64, 1, 1)) * 0.1]))
    return layers + [('conv_classifier', 'Convolution', [rng.normal(size=(11, 64, 1, 1)), rng.normal(size=11)])]


@pytest.mark.parametrize('old', [False, True])
def test_caffemodel_is_the_same_function(sess, tmp_path, old):
    """The output of the first convolution with batch norm and ReLU equals a NumPy computation.

    NumPy uses the arrays of the file, whose axes have Caffe's order.
    """
    layers = caffe_layers(np.random.RandomState(8))
    # The old format stores each value in a field of its own, so most layers are left out to save time.
    if old:  # dense_softmax_inner_prod is the classifier's name in segnet_basic_camvid.prototxt
        layers = layers[:3] + [('dense_softmax_inner_prod',) + layers[-1][1:]]
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(layers, old))
    images = np.random.RandomState(1).randint(0, 256, (1, 9, 7, 3)).astype(np.uint8)
    networks.build(networks.Spec('segnet-basic', 11, input='raw'), tf.constant(images), is_training=False)
    given, _ = loaded(sess, weights.load(str(path)).values, 11, 'FILE')
    assert len(given) == (6 if old else 8 * 6) + 2
    got = sess.run(sess.graph.get_tensor_by_name('segnet-basic/Relu:0'))
    classifier = sess.run([v for v in tf.global_variables() if v.op.name.endswith('classifier/weights')][0])
    (_, _, (kernel, bias)), (_, _, (scale, shift)) = layers[1:3]
    x = conv_reference(images[..., ::-1].astype(float), np.transpose(kernel, [2, 3, 1, 0]), bias)
    np.testing.assert_allclose(got, np.maximum(x * scale.ravel() + shift.ravel(), 0), atol=1e-3)
    np.testing.assert_allclose(classifier[0, 0], layers[-1][2][0][:, :, 0, 0].T, rtol=1e-6)


def test_weights_are_scored(tmp_path, monkeypatch):
    """evaluate.py gives equal confusion matrices for a .caffemodel and a .npz with the same weights."""
    read = datasets.camvid.read
    monkeypatch.setattr(datasets.camvid, 'read', lambda *folders: read(*folders)._replace(size=(45, 61)))
    camvid = write_camvid(str(tmp_path / 'camvid'), {'train': 3, 'val': 2})
    (tmp_path / 'a.caffemodel').write_bytes(caffemodel(caffe_layers(np.random.RandomState(8))))
    np.savez(str(tmp_path / 'a.npz'), **weights.load(str(tmp_path / 'a.caffemodel')).values)
    flags = '--model segnet-basic --dataset camvid --bf_images 0 --data_dir'.split() + [camvid]
    matrices = []
    for name, size in (('a.caffemodel', '4'), ('a.npz', '1')):  # the scores do not depend on --batch_size
        output = str(tmp_path / ('out-' + name))
        flags += ['--weights', str(tmp_path / name), '--output', output, '--batch_size', size]
        matrices.append(score(*flags)['val']['confusion'])
        assert {'metrics.json', 'predictions.png', 'confusion-val.csv'} <= set(os.listdir(output))
    assert matrices[0] == matrices[1] and np.sum(matrices[0]) == 2 * 43 * 61
    for flags, said in ((['--weights', 'x.npz'], 'with --model and --dataset'), ([], 'give a run folder'),
                        (['run', '--weights', 'x.npz'], 'give a run folder'),
                        (['--weights', 'run', '--model', 'segnet', '--dataset', 'sample'], 'must be a .npz'),
                        (['run', '--model', 'segnet'], 'give a run folder alone')):
        assert_refused(said, score, *flags)


def test_bad_weights_are_refused_by_name(graph, tmp_path):
    networks.build(networks.Spec('segnet-basic', 11), tf.zeros([1, 8, 8, 3]), is_training=False)
    layers = caffe_layers(np.random.RandomState(8))

    def match(content, name='a.caffemodel'):
        (tmp_path / name).write_bytes(content)
        weights.load_all(None, weights.load(str(tmp_path / name)), 'FILE')

    whole = caffemodel(layers)
    for broken in (b'', b'hello', whole[:-7], whole[:5000], b'\xff' * 300):
        assert_refused('a.caffemodel: not a .caffemodel|has shape|lacks', match, broken)
    for said, changed in (
            ('FILE: lacks conv_classifier/biases', layers[:-1]), ('layer conv1 has 1 blobs', [
                ('conv1', 'Convolution', layers[1][2][:1])]),
            ('FILE: has conv9/biases, which this network lacks', layers + [('conv9', 'Convolution', layers[1][2])]),
            (r'FILE: conv_classifier/biases has shape \[12\], this network has \[11\]', layers[:-1] + [
                ('conv_classifier', 'Convolution', [np.ones((12, 64, 1, 1)), np.ones(12)])])):
        assert_refused(said, match, caffemodel(changed))
    for field in (message(7, message(1, b'\xff\xff\xff\x7f' * 100000)),              # a shape of 100,000 dimensions
                  message(7, message(1, varint(1 << 32) * 2)), message(7, message(1, varint(1 << 64))),  # huge sizes
                  b'\x28\x00', b'\x38\x00'):                            # integers in the fields data and shape
        assert_refused('not a .caffemodel|blobs', match, message(100, message(1, b'conv1') + message(7, field)))
    np.savez(str(tmp_path / 'a.npz'), a=np.array([{'evil': 1}], object))
    contents = [(tmp_path / 'a.npz').read_bytes(), b'PK\x03\x04 no']
    for header in (b"{'descr': (", b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}" % (b'9' * 30)):
        contents.append(zipped({'a.npy': b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header}))
    for content in contents:
        assert_refused('not a .npz of numbers', match, content, 'a.npz')
    assert_refused('cannot be read', weights.load, str(tmp_path / 'none.npz'))


def test_published_weights_are_the_run_with_its_statistics(camvid_folder, tmp_path, monkeypatch):
    """A published run has 8-bit kernels, population statistics and no local paths.

    The scores are almost the same as the scores of the original run.
    """
    run, published = str(tmp_path / 'run'), str(tmp_path / 'published')
    start(camvid_folder, run, '--steps', '2', '--learning_rate', '0.01', '--optimizer', 'adam')
    config = read_config(run)
    config['invocations'][0]['command'] = (
        "python main.py @/home/me/r.txt --data_dir /home/o\\'neil\\ 1/x --vgg16 '/home/a b/vgg 16.h5' "
        '--init_from Output/run --output=/mnt/run1/')
    config['flags']['class_weights'] = '/home/a b/weights.csv'
    write_json(os.path.join(run, 'config.json'), config)
    scores = score(run, '--publish', published, '--bf_images', '0')['val']
    monkeypatch.setattr('sys.argv', ['evaluate.py', published, '--data_dir=%s (1)/j\xfcrgen' % camvid_folder])
    monkeypatch.chdir(tmp_path)
    again = score(published, '--data_dir', camvid_folder, '--bn', 'moving', '--bf_images', '0')['val']
    assert again['step'] == scores['step'] == 2
    moved = abs(np.array(again['confusion']) - scores['confusion']).sum()  # a changed pixel changes two entries
    assert moved <= 0.05 * np.sum(scores['confusion'])
    assert sorted(os.listdir(published)) == ['config.json', 'weights.npz'], 'scores go to another folder'
    text = ''.join(map(read_text, ('published/config.json', 'Output/published-published/metrics.json')))
    trained = "\"python main.py @r.txt --data_dir DIR --vgg16 'vgg 16.h5' --init_from Output/run --output=run1\""
    assert trained in text and 'evaluate.py published --data_dir=DIR' in text
    assert str(tmp_path) not in text and '"seconds"' in text and '/home' not in text
    with np.load(os.path.join(published, 'weights.npz')) as file:
        assert file['conv1/weights'].dtype == np.int8 and file['conv1_bn/moving_variance'].dtype == np.float32
    assert_refused('--publish .*must not exist yet', score, run, '--publish', published)


def test_classes_are_matched_by_name(sess, capsys):
    """The classifier weights of a class move to the index of the class with the same name.

    The weights of a new class are NaN. Encoder weights do not change.
    """
    values = {'conv_classifier/biases': np.arange(3.0)}
    for layer, shape in (('conv_classifier', (3, 3, 2, 3)), ('conv1_1_D', (3,) * 4), ('upscore2', (3,) * 4),
                         ('conv2', (1, 1, 3, 3))):
        values[layer + '/weights'] = np.arange(np.prod(shape, dtype=float)).reshape(shape)
    matched = weights.match_classes(weights.Weights(values, 1, 'x', ['sky', 'road', 'car']),
                                    ['car', 'bus', 'sky']).values
    assert 'matched by name: car, sky; initialized at random: bus' in capsys.readouterr().out
    nan = np.nan
    for name, place, expected in (
            ('conv_classifier/weights', (2, 1), [[44, nan, 42], [47, nan, 45]]),
            ('conv1_1_D/weights', (0, 2), [[20, nan, 18], [23, nan, 21], [26, nan, 24]]),  # last axis: classes
            ('upscore2/weights', (1, 0), [[35, nan, 33], [nan] * 3, [29, nan, 27]]),
            ('conv_classifier/biases', (), [2, nan, 0]), ('conv2/weights', (), values['conv2/weights'])):
        np.testing.assert_array_equal(matched[name][place], expected)
    variable = tf.get_variable('biases', initializer=[7.0, 8.0, 9.0])
    sess.run(variable.initializer)
    weights.load_into(sess, [(variable, matched['conv_classifier/biases'])])
    assert sess.run(variable).tolist() == [2, 8, 0]


def test_published_kernels_in_8_bits(sess, tmp_path, monkeypatch):
    """Each output channel of a kernel has a scale. The rounding error is at most half the scale."""
    monkeypatch.setattr(weights, 'publish_config', lambda *_: None)
    kernel = np.random.RandomState(2).normal(size=(3, 3, 5, 4)) * [1e-3, 1, 50, 0]
    with tf.variable_scope('net'):
        utils.variable('conv/weights', kernel.shape, tf.constant_initializer(kernel))
        utils.variable('conv/biases', [2], tf.constant_initializer([0.1, 0.2]))
    sess.run(tf.global_variables_initializer())
    weights.publish(str(tmp_path / 'out'), 'run', sess, 3)
    values = weights.npz(str(tmp_path / 'out' / 'weights.npz')).values
    assert set(values) == {'conv/weights', 'conv/biases'}
    np.testing.assert_array_equal(values['conv/biases'], np.float32([0.1, 0.2]))
    error = abs(values['conv/weights'] - kernel).max((0, 1, 2))
    assert (error <= abs(kernel).max((0, 1, 2)) / 127 * 0.501 + 1e-12).all() and error[1] > 1e-4


def test_last_weights_of_a_file(tmp_path):
    np.savez(str(tmp_path / 'weights.npz'), a=np.ones(2))
    for path in (str(tmp_path), str(tmp_path / 'weights.npz')):
        assert_refused('--checkpoint last: .* has one set of weights', weights.load, path, 'last')
