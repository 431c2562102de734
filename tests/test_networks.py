"""Tests each network: number of weights, a training step, images of any size, dropout of Bayesian SegNet."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import random_weights, value_of
from tensorflow.python.compiler.xla import xla
from test_main import score, train

import main
import networks
import optimize
import segnet
import utils
from runs.folder import read_config, read_scores

# Numbers of convolution weights for 11 classes, computed by hand from the layers in the papers.
ENCODER = 7 * 7 * 3 * 64 + 3 * 7 * 7 * 64 * 64
VGG16 = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256 + 256 * 512 + 5 * 512 * 512)
EXPECTED = {
    'bilinear-interpolation': ENCODER + 64 * 11,
    'segnet-basic-encoderaddition': ENCODER + 4 * 7 * 7 * 64 * 64 + 64 * 11,
    'segnet-basic-singlechanneldecoder': 624768,
    'fcn-basic': 645312,
    'fcn-basic-noaddition': ENCODER + 64 * 11 + 4 * 8 * 8 * 11 * 11,
    'fcn-basic-nodimreduction': ENCODER + 4 * 8 * 8 * 64 * 64 + 64 * 11,
    'fcn-basic-noaddition-nodimreduction': ENCODER + 4 * 8 * 8 * 64 * 64 + 64 * 11,
    'fcn': VGG16 + 49 * 512 * 4096 + 4096 * 4096 + 4096 * 11 + 512 * 11 + 256 * 11,
    'fcn-deconv': VGG16 + 49 * 512 * 4096 + 4096 * (4096 + 11) + (512 + 256) * 11 + (2 * 4 * 4 + 16 * 16) * 11 * 11,
    'deconvnet': VGG16 + 2 * 49 * 512 * 1024 + 1024 * 1024 + VGG16 - 9 * 3 * 64 + 9 * 64 * 64 + 64 * 11,
    'deeplab-largefov': VGG16 + 9 * 512 * 1024 + 1024 * 1024 + 1024 * 11,
    # The published number of parameters for 1 input channel and 1 class is 31,030,593, with 6,849 biases.
    'unet': 31030593 + 2 * 9 * 64 + 10 * 64 - 6849,
}


@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_convolution_weights(graph, name):
    networks.build(networks.Spec(name, 11), tf.zeros([1, 32, 32, 3]), is_training=False)
    assert EXPECTED[name] == sum(int(np.prod(variable.shape.as_list())) for variable in tf.trainable_variables()
                                 if variable.op.name.endswith('/weights'))


def batch():
    """Returns random images uint8 [2, 45, 61, 3] and labels uint8 [2, 45, 61] of three classes."""
    rng = np.random.RandomState(2)
    return rng.randint(0, 256, (2, 45, 61, 3)).astype(np.uint8), rng.randint(0, 3, (2, 45, 61)).astype(np.uint8)


def loss_and_step(name, logits, labels):
    """Returns the loss of `logits` and the op that trains one step."""
    loss = optimize.loss(logits, labels, np.ones(3))
    return loss, optimize.train_op(loss, 0.1, 0.9, 5e-4, lambda variable: networks.multipliers(name, variable))


# These networks have almost the same graphs as other networks, so only the slow tests include these networks.
SAME_GRAPH = ('bayesian-segnet', 'bayesian-segnet-basic', 'fcn-deconv')


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name in SAME_GRAPH))
                                  for name in sorted(networks.NETWORKS)])
def test_one_step_moves_every_variable_and_any_size_predicts(sess, monkeypatch, name):
    """Trains one step at 45x61, then predicts at 45x61 and 1x17. A batch has the same logits as single images.

    Layers of `conv_bn_relu` have 1/8 of the usual number of filters, to save time.
    """
    wide = utils.conv_bn_relu
    monkeypatch.setattr(utils, 'conv_bn_relu', lambda x, filters, *rest, **named: wide(x, filters // 8, *rest, **named))
    images, labels = batch()
    logits = networks.build(networks.Spec(name, 3), tf.constant(images), is_training=True)
    assert logits.shape.as_list() == [2, 45, 61, 3]
    _, step_op = loss_and_step(name, logits, tf.constant(labels))
    images_ph = tf.placeholder(tf.uint8, [None, None, None, 3])
    predicted = networks.build(networks.Spec(name, 3), images_ph, is_training=False, reuse=True)
    variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
    sess.run(tf.global_variables_initializer())
    before = sess.run(variables)
    sess.run(step_op)
    for variable, old, new in zip(variables, before, sess.run(variables)):
        layer, kind = variable.op.name.rsplit('/', 1)
        normed = kind == 'biases' and any(other.op.name == layer + '_bn/gamma' for other in variables)
        assert (old != new).any() != normed and np.isfinite(new).all(), variable.op.name
    for height, width in ((45, 61), (1, 17)):
        images = np.random.RandomState(2).randint(0, 256, (2, height, width, 3))
        together = sess.run(predicted, {images_ph: images})
        assert together.shape == (2, height, width, 3) and np.isfinite(together).all()
        alone = sess.run(predicted, {images_ph: images[1:]})
        np.testing.assert_allclose(together[1:], alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize('name', ['segnet-basic', 'fcn-basic'])
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_half_precision_is_near_float32(graph, name, precision):
    """Logits are compared with float32 logits by correlation, because rounding changes the pooling indices.

    Variables and gradients stay float32.
    """
    images = tf.constant(batch()[0])
    modes = [(True, 'float32'), (True, precision), (False, 'float32'), (False, precision)]
    got = [networks.build(networks.Spec(name, 3, precision=kind), images, training, reuse=i > 0)
           for i, (training, kind) in enumerate(modes)]
    assert all(logits.dtype == tf.float32 for logits in got)
    assert {g.dtype for g in tf.gradients(got[1], tf.trainable_variables()) if g is not None} == {tf.float32}
    train, train_half, test, test_half = value_of(got)
    for exact, half in ((train, train_half), (test, test_half)):
        assert (exact != half).any()
        assert np.corrcoef(exact.ravel(), half.ravel())[0, 1] > (0.9 if precision == 'float16' else 0.7)


@pytest.mark.skipif(tf.__version__.startswith('1.'), reason='TensorFlow 1.15 cannot compile a part of a graph on a CPU')
def test_xla_compiles_a_training_step(monkeypatch):
    """The losses of three compiled steps of a two-level SegNet equal the losses without XLA.

    The optimizer is SGD, because the size of Adam's first updates does not depend on the size of the gradient. Adam
    would turn rounding errors in a gradient near 0 into large updates.
    """
    monkeypatch.setattr(segnet, 'ENCODER', [(8, 1), (12, 1)])
    def step(images, labels):
        del tf.get_collection_ref(utils.BN_STATISTICS)[:]
        logits = networks.build(networks.Spec('segnet', 3), images, is_training=True, reuse=True)
        loss, step_op = loss_and_step('segnet', logits, labels)
        with tf.control_dependencies([step_op]):
            return tf.identity(loss)

    def compiled_step(*tensors):
        with utils.portable_pooling():
            return xla.compile(step, tensors)[0]  # raises an error if XLA lacks an op

    losses = []
    for build in (step, compiled_step):
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(1)
            tensors = list(map(tf.constant, batch()))
            tf.train.get_or_create_global_step()
            networks.build(networks.Spec('segnet', 3), tensors[0], True)  # creates the variables outside xla.compile
            loss = build(*tensors)
            sess.run(tf.global_variables_initializer())
            losses.append([sess.run(loss) for _ in range(3)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert losses[0][0] != losses[0][1] != losses[0][2]


@pytest.mark.parametrize('kernel_size, stride, height, width', [(8, 2, 23, 30), (4, 2, 5, 7), (16, 8, 9, 17)])
def test_deconvolution_starts_as_bilinear(graph, kernel_size, stride, height, width):
    """The initial kernels upsample each channel bilinearly, except at the border of the image."""
    like = tf.zeros([2, height, width, 1])
    x = np.random.RandomState(3).rand(2, -(-height // stride), -(-width // stride), 3).astype(np.float32)
    got, whole = utils.deconv(tf.constant(x), 3, kernel_size, stride, like, 'd'), np.array(x.shape[1:3]) * stride
    expected = tf.image.resize_bilinear(x, whole, half_pixel_centers=True)[:, :height, :width]
    got, expected = value_of([got, expected])
    inside = slice(stride, -stride)
    assert got.shape == (2, height, width, 3)
    np.testing.assert_allclose(got[:, inside, inside], expected[:, inside, inside], atol=1e-5)


def test_addition_is_of_the_encoders_own_map(sess):
    """With gamma = beta = 0, the decoders return 0, so the logits are the feature maps of the first encoder."""
    images = np.random.RandomState(1).randint(0, 256, (1, 13, 9, 3)).astype(np.uint8)
    logits = networks.build(networks.Spec('segnet-basic-encoderaddition', 64), tf.constant(images), is_training=False)
    sess.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
        if 'conv_decode' in variable.op.name and variable.op.name.endswith(('gamma', 'beta')):
            variable.load(np.zeros(64, np.float32), sess)
        if variable.op.name.endswith('classifier/weights'):
            variable.load(np.eye(64, dtype=np.float32)[None, None], sess)
    relu = [op for op in sess.graph.get_operations() if op.type == 'Relu'][0].outputs[0]
    got, encoded = sess.run([logits, relu])
    np.testing.assert_allclose(got, encoded, atol=1e-6)


# ---------------------------------------------------------------- Bayesian SegNet

SPEC = networks.Spec('bayesian-segnet-basic', 5, dropout=0.5, seed=3)

# Names of the dropout layers in the released prototxts, in order.
PLACES = {'bayesian-segnet-basic': ['encdrop3', 'encdrop4', 'decdrop4', 'decdrop3'],
          'bayesian-segnet': ['encdrop3', 'encdrop4', 'encdrop5', 'decdrop5', 'decdrop4', 'decdrop3']}


@pytest.mark.parametrize('name', sorted(PLACES))
def test_places_of_dropout(graph, name):
    """Dropout follows the encoder and the decoder of each level from level 3 on. Level 1 is the first encoder."""
    seen = []
    networks.build(networks.Spec(name, 11), tf.zeros([1, 48, 80, 3]), True, lambda x, name: seen.append((name, x)) or x)
    assert [place for place, _ in seen] == PLACES[name]
    levels = {'encdrop3': 8, 'encdrop4': 16, 'encdrop5': 32, 'decdrop5': 16, 'decdrop4': 8, 'decdrop3': 4}
    assert [x.shape.as_list()[1:3] for _, x in seen] == [[-(-48 // levels[p]), -(-80 // levels[p])] for p, _ in seen]
    if name == 'bayesian-segnet':
        assert [x.shape.as_list()[3] for _, x in seen] == [256, 512, 512, 512, 256, 128]


def predict(images, samples, spec=SPEC):
    """Returns (ids, mean, variance) of a prediction graph. Each call uses the same random weights."""
    with tf.Graph().as_default(), tf.Session() as sess:
        fetches = networks.prediction_graph(spec, tf.constant(images), images.shape[1:3], samples=samples)
        random_weights(sess, np.random.RandomState(7))
        return sess.run(fetches[:3])


IMAGES = np.random.RandomState(1).randint(0, 256, (1, 21, 17, 3)).astype(np.uint8)


def test_samples_are_the_mean_and_the_variance_of_single_passes():
    """The reference runs the whole network once per sample.

    `prediction_graph` runs the layers before the first dropout only once for all samples.
    """
    _, mean, variance = predict(IMAGES, 6)
    with tf.Graph().as_default(), tf.Session() as sess:
        number = tf.placeholder(tf.int32, [])

        def drop(x, place):
            ones = tf.ones(tf.concat([[6], tf.shape(x)[1:]], 0))
            return x * utils.dropout(ones, 0.5, (3, 0), place)[number][None]

        one = tf.nn.softmax(networks.build(SPEC, tf.constant(IMAGES), False, drop))
        random_weights(sess, np.random.RandomState(7))
        passes = np.stack([sess.run(one, {number: i})[0] for i in range(6)]).astype(float)
    np.testing.assert_allclose(mean[0], passes.mean(0), atol=1e-4)
    np.testing.assert_allclose(variance[0], passes.var(0).mean(-1), rtol=1e-3, atol=1e-5)
    assert variance.max() > 1e-4


def test_without_dropout_samples_agree():
    """Without dropout, each Monte Carlo sample equals the prediction by weight averaging."""
    plain_ids, plain_mean = predict(IMAGES, 0)[:2]
    ids, mean, variance = predict(IMAGES, 5, SPEC._replace(dropout=0.0))
    assert variance.max() < 1e-9
    np.testing.assert_allclose(mean, plain_mean, atol=1e-4)
    np.testing.assert_array_equal(ids, plain_ids)
    np.testing.assert_array_equal(predict(IMAGES, 0, SPEC._replace(dropout=0.0))[1], plain_mean)


@pytest.mark.parametrize('name', ['unet', 'deeplab-largefov', 'fcn-basic', 'bilinear-interpolation'])
def test_other_networks_are_sampled_too(name):
    ids, mean, variance = predict(IMAGES, 3, networks.Spec(name, 5, dropout=0.5, seed=3))
    assert ids.shape == (1, 21, 17) and mean.shape == (1, 21, 17, 5) and variance.shape == (1, 21, 17)
    assert variance.max() > 0


def test_bayesian_network_trains_and_is_scored_the_same_twice(camvid_folder, tmp_path):
    output = train(camvid_folder, str(tmp_path / 'run'), '--model', 'bayesian-segnet-basic', '--steps', '2')
    assert read_config(output)['flags']['dropout'] == 0.5
    scores = [score(output, '--batch_size', size, '--bf_images', '0')['val'] for size in '13']
    assert scores[0]['samples'] == 8 and scores[0]['confusion'] == scores[1]['confusion']
    assert {name: scores[0][name] for name in ('G', 'C', 'mIoU')} == scores[0]['most_certain']['100%']
    averaged = score(output, '--samples', '0', '--bf_images', '0')['val']
    assert averaged['confusion'] != scores[0]['confusion'] and 'most_certain' not in averaged
    assert 0 < averaged['ECE'] < 1 and averaged['ECE'] != scores[0]['ECE'] == scores[1]['ECE']
    flipped = score(output, '--samples', '2', '--tta', 'flip', '--bf_images', '0')
    assert flipped['val']['most_certain']['100%']['mIoU'] == flipped['val']['mIoU']
    assert sorted(read_scores(output)) == ['val', 'val (0 samples)', 'val (2 samples, tta flip)',
                                                   'val (while training)']


# ---------------------------------------------------------------- the layer table

def test_segnet_table():
    layers = networks.network_layers(networks.Spec('segnet', 11))
    assert sum(layer.parameters for layer in layers) == 29449355
    by_name = {layer.name: layer for layer in layers}
    assert by_name['conv1_1'].macs == 360 * 480 * 3 * 64 * 9
    assert by_name['conv1_1'].parameters == 3 * 64 * 9 + 64 + 2 * 64
    assert by_name['pool4'].shape == (23, 30, 512) and by_name['upsample4'].shape == (45, 60, 512)
    assert layers[-1].name == 'conv1_1_D' and layers[-1].shape == (360, 480, 11)
    assert [layer.name for layer in layers].index('upsample5') == 18


def test_describe(capsys, tmp_path, monkeypatch):
    """--describe needs no data and writes no file.

    Input normalization is listed, except with --input raw.
    """
    monkeypatch.chdir(tmp_path)
    main.describe(main.parse_args('--dataset voc2012 --model segnet-basic --height 45 --width 61'.split()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ['norm', 'normalization', '45x61x3', '0', '0']
    assert lines[-2].split() == ['conv_classifier', 'convolution', '45x61x21', '1,365', '3,689,280']
    assert lines[-1].split()[:2] == ['segnet-basic', '1,417,237'] and not list(tmp_path.iterdir())
    main.describe(main.parse_args('--model segnet-basic --input raw --height 9 --width 9'.split()))
    assert 'normalization' not in capsys.readouterr().out
