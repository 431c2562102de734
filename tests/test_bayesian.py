"""Tests Bayesian SegNet: the positions of dropout, and the mean and variance of Monte-Carlo samples."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import random_weights
from test_main import score, train

import networks
import utils
from runs.folder import read_config, read_scores

SPEC = networks.Spec('bayesian-segnet-basic', 5, dropout=0.5, seed=3)

# Names of the dropout layers in the released prototxts, in order.
PLACES = {'bayesian-segnet-basic': ['encdrop3', 'encdrop4', 'decdrop4', 'decdrop3'],
          'bayesian-segnet': ['encdrop3', 'encdrop4', 'encdrop5', 'decdrop5', 'decdrop4', 'decdrop3']}


@pytest.mark.parametrize('name', sorted(PLACES))
def test_places_of_dropout(graph, name):
    """Dropout follows each pooling from the third on, and the decoder of each of these levels."""
    seen = []
    networks.build(networks.Spec(name, 11), tf.zeros([1, 48, 80, 3]), True, lambda x, name: seen.append((name, x)) or x)
    assert [place for place, _ in seen] == PLACES[name]
    levels = {'encdrop3': 8, 'encdrop4': 16, 'encdrop5': 32, 'decdrop5': 16, 'decdrop4': 8, 'decdrop3': 4}
    assert [x.shape.as_list()[1:3] for _, x in seen] == [[-(-48 // levels[p]), -(-80 // levels[p])] for p, _ in seen]
    if name == 'bayesian-segnet':
        assert [x.shape.as_list()[3] for _, x in seen] == [256, 512, 512, 512, 256, 128]


def predict(images, samples, spec=SPEC):
    """Returns (ids, mean, variance) of a prediction graph. The random weights are the same in each call."""
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
    """Without dropout each sample equals the prediction by weight averaging."""
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
