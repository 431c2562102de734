"""Several devices and several processes against one device that does the shares one after the other, in NumPy's SGD.

By FCN-Basic at a low rate: the last bit of a sum can move a maximum, after which two trainings part.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT

import batches
import datasets
from runtime import distribute
import main
import networks
import optimize
from runtime import run as runs
import utils
from data import UserError

STEPS, BATCH, RATE = 20, 3, 1e-4
FLAGS = ['--dataset', 'camvid', '--model', 'fcn-basic', '--height', '23', '--width', '31', '--batch_size',
         str(BATCH), '--learning_rate', str(RATE), '--schedule', 'constant', '--class_weights', 'none', '--flip',
         '--device', 'cpu']


@pytest.fixture
def start(tmp_path):
    """File of starting weights: random ones depend on how the graph was built."""
    path = str(tmp_path / 'start.npz')
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(2)
        networks.build('fcn-basic', tf.zeros([1, 23, 31, 3]), 11, True)
        variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
        sess.run(tf.global_variables_initializer())
        np.savez(path, **{v.op.name.split('/', 1)[1]: value for v, value in zip(variables, sess.run(variables))})
    return path


def reference(folder, weights, shares):
    """Losses, and {name: value} of the model's variables, after STEPS steps on one device."""
    dataset, first = datasets.camvid.read(folder), np.load(weights)
    with tf.Graph().as_default():
        start, images, labels = batches.training_batches(dataset, 23, 31, BATCH, 1,
                                                         dict(batches.NO_AUGMENTATION, flip=True))
        tf.train.get_or_create_global_step()
        images_ph, labels_ph = tf.placeholder(tf.uint8, [None, 23, 31, 3]), tf.placeholder(tf.uint8, [None, 23, 31])
        count_ph = tf.placeholder(tf.float32, [])
        loss = optimize.loss(networks.build('fcn-basic', images_ph, 11, True), labels_ph, np.ones(11), count_ph)
        trained = tf.trainable_variables()
        gradients = [tf.zeros_like(v) if g is None else g for v, g in zip(trained, tf.gradients(loss, trained))]
        moving, statistics = zip(*tf.get_collection(utils.BN_STATISTICS))
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            sess.run(*start(0))
            for variable in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES):
                variable.load(first[variable.op.name.split('/', 1)[1]], sess)
            values = [v.astype(float) for v in sess.run(trained)]
            averages = [v.astype(float) for v in sess.run(moving)]
            momenta, losses = [0.0] * len(values), []
            for step in range(STEPS):
                image, label = sess.run([images, labels])
                count, done, total = (label != 255).sum(), 0, 0.0
                sums, means = [0.0] * len(values), [0.0] * len(averages)
                for share in shares:
                    part = slice(done, done + share)
                    feed = {images_ph: image[part], labels_ph: label[part], count_ph: count}
                    one, slopes, seen = sess.run([loss, gradients, statistics], feed)
                    done, total = done + share, total + one
                    sums = [a + b for a, b in zip(sums, slopes)]
                    means = [a + b / len(shares) for a, b in zip(means, seen)]
                losses.append(total)
                for i, variable in enumerate(trained):
                    rate, decay = networks.multipliers('fcn-basic', variable)
                    momenta[i] = 0.9 * momenta[i] + rate * (sums[i] + 5e-4 * decay * values[i])
                    values[i] = values[i] - RATE * momenta[i]
                    variable.load(values[i], sess)
                keep = min(0.9, (1 + step) / (10 + step))
                averages = [keep * old + (1 - keep) * new for old, new in zip(averages, means)]
    normed = {v.op.name[:-len('/gamma')] for v in trained if v.op.name.endswith('_bn/gamma')}
    found = {v.op.name: value for v, value in zip(trained, values)
             if not (v.op.name.endswith('/biases') and v.op.name[:-len('/biases')] + '_bn' in normed)}
    found.update((v.op.name, value) for v, value in zip(moving, averages))
    return losses, found


def check_equal(folder, expected, start):
    """The run's losses and weights are those of the reference, to 1e-4; how far weights moved, to 1%."""
    losses, values = expected
    first = np.load(start)
    np.testing.assert_allclose([r['loss'] for r in runs.read_log(folder, STEPS) if 'loss' in r], losses, rtol=1e-4)
    reader = tf.train.NewCheckpointReader(runs.checkpoint(folder, 'last'))
    for name, value in values.items():
        got, old = reader.get_tensor(name), first[name.split('/', 1)[1]]
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(got - old, value - old, atol=0.01 * abs(value - old).max(), err_msg=name)


def processes(folder, output, steps, *flags, count=2):
    """`count` processes of one training on this machine, the chief first."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            ports.append(free.getsockname()[1])
    hosts = ['127.0.0.1:%d' % port for port in ports]
    command = [sys.executable, os.path.join(ROOT, 'main.py')] + FLAGS + [
        '--data_dir', folder, '--output', output, '--steps', str(steps)] + list(flags)
    return [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                             env=dict(os.environ, TF_CONFIG=json.dumps({'cluster': {'worker': hosts}, 'task': {
                                 'type': 'worker', 'index': index}}))) for index in range(count)]


def test_two_devices_equal_one_that_adds_the_gradients(camvid_folder, tmp_path, start):
    output = str(tmp_path / 'run')
    main.train(main.parse_args(FLAGS + ['--data_dir', camvid_folder, '--output', output, '--steps', str(STEPS),
                                        '--gpus', '2', '--init_from', start]))
    expected = reference(camvid_folder, start, [2, 1])
    check_equal(output, expected, start)
    whole, _ = reference(camvid_folder, start, [3])
    assert abs(np.array(whole) - expected[0]).max() > 1e-2  # shares are normalized apart


def test_two_processes_equal_one_that_adds_the_gradients(camvid_folder, tmp_path, start):
    output = str(tmp_path / 'run')
    pair = processes(camvid_folder, output, STEPS, '--init_from', start)
    said = [process.communicate(timeout=120) for process in pair]
    assert 'done, step 20 of 20' in said[0][0] and 'is done' in said[1][0], said
    check_equal(output, reference(camvid_folder, start, [2, 1]), start)


@pytest.mark.slow
@pytest.mark.parametrize('victim', [1, 0])
def test_a_lost_process_ends_the_other_and_the_run_resumes(camvid_folder, tmp_path, victim):
    output = str(tmp_path / 'run')
    pair = processes(camvid_folder, output, 100000)
    try:
        log, until = os.path.join(output, 'log.jsonl'), time.time() + 90
        while not (os.path.exists(log) and runs.checkpoints(output, 'last')):
            assert time.time() < until and pair[0].poll() is None, pair[0].communicate()
            time.sleep(0.2)
        pair[victim].send_signal(signal.SIGKILL)
        _, said = pair[1 - victim].communicate(timeout=60)
    finally:
        for process in pair:
            process.kill()
    assert pair[1 - victim].returncode == 1
    lines = [line for line in said.splitlines() if 'cuInit' not in line]  # TensorFlow without a GPU
    assert len(lines) == 1 and 'is gone' in lines[0] and 'go on from the last checkpoint' in lines[0], said
    step = int(runs.checkpoint(output, 'last').split('-')[-1])
    main.train(main.parse_args(FLAGS + ['--data_dir', camvid_folder, '--output', output, '--steps', str(step + 2)]))
    assert int(runs.checkpoint(output, 'last').split('-')[-1]) == step + 2


@pytest.mark.slow
def test_an_interrupted_chief_saves_and_lets_the_others_go(camvid_folder, tmp_path):
    output = str(tmp_path / 'run')
    pair = processes(camvid_folder, output, 100000)
    log, until = os.path.join(output, 'log.jsonl'), time.time() + 90
    while not (os.path.exists(log) and os.path.getsize(log)):
        assert time.time() < until and pair[0].poll() is None, pair[0].communicate()
        time.sleep(0.2)
    pair[0].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [128 + signal.SIGTERM, 0], said
    assert runs.checkpoints(output, 'last')


@pytest.mark.parametrize('text', ['{', '[]', '{"cluster": {"worker": ["a:1"]}}', '{"cluster": {"worker": ["a"]}, '
                                  '"task": {"type": "worker", "index": 0}}', '{"cluster": {"worker": ["a:1"]}, "task": '
                                  '{"type": "worker", "index": 1}}', '{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, '
                                  '"task": {"type": "worker", "index": 0}}', '[' * 100000,
                                  '{"cluster": {"worker": {"a:1": 2}}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": true}}',
                                  '{"cluster": {"worker": ["5001", "5002"]}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}'])
def test_bad_tf_config_is_refused(monkeypatch, text):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match='TF_CONFIG .*expected'):
        distribute.from_environment()


def test_towers_and_shares(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}')
    assert distribute.from_environment() is None
    assert distribute.shares(7, 3) == [3, 2, 2]
    with pytest.raises(UserError, match='--batch_size 2: must be at least the number of devices, 3'):
        distribute.shares(2, 3)
    monkeypatch.setattr(distribute.devices, 'gpus', lambda: ['one', 'two'])
    assert distribute.towers(None, 'auto', 2) == ['/device:GPU:0', '/device:GPU:1']
    assert distribute.towers(distribute.Cluster(['a:1', 'b:2'], 0), 'gpu', 1) == [
        '/job:worker/task:0/device:GPU:0', '/job:worker/task:1/device:GPU:0']
    with pytest.raises(UserError, match='--gpus 3: TensorFlow sees 2 here'):
        distribute.towers(None, 'auto', 3)
