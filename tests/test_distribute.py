"""Compares training by several processes with training by one process, which computes SGD in NumPy.

The learning rate is low, because a rounding error can move the maximum of a pooling window, and then two training runs
diverge.
"""
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, assert_refused
from test_main import score, wait_for_log

import batches
import main
import networks
import optimize
import utils
from data import Dataset
from datasets import camvid
from inference.predictor import Prediction
from runs.folder import checkpoints, read_config, read_log, read_scores
from system import cluster, distribute

STEPS, BATCH, RATE = 7, 5, 1e-4
FLAGS = ('--dataset camvid --model fcn-basic --height 23 --width 31 --batch_size %d --optimizer sgd --learning_rate %g '
         '--schedule constant --class_weights none --flip --device cpu' % (BATCH, RATE)).split()
# Runs main.py and saves all TensorFlow variables at the end. The environment variable KILL names the moment at which
# the process kills itself.
DRIVER = """
import os, signal, sys, threading
sys.path.insert(0, %r)
from system import quiet
import numpy as np, tensorflow.compat.v1 as tf
import evaluate, main
from runs.run import Run
from system import cli
loop = main.session_loop
def recorded(sess, *others):
    loop(sess, *others)
    np.savez(os.environ['DUMP'], **{v.op.name: sess.run(v) for v in tf.global_variables()})
main.session_loop = recorded
main.plots.save = lambda figure, path: open(path, 'wb').close()  # drawing takes seconds
if 'KILL' in os.environ:
    owner, name, wait = {'step': (Run, 'log_step', 0.0), 'validation': (evaluate, 'score_split', 0.0),
        'saving': (Run, 'save', 0.02), 'drawing': (main.plots, 'loss_curves', 0.0)}[os.environ['KILL']]
    function = getattr(owner, name)
    def dying(*args, **kwargs):
        if name != 'log_step' or args[1] == 8:
            threading.Timer(wait, os.kill, [os.getpid(), signal.SIGKILL]).start()
        return function(*args, **kwargs)
    setattr(owner, name, dying)
cli.main(main.main)
""" % ROOT


def start(output, index, hosts, flags, **variables):
    """Starts one process of a training run, with the environment variables `variables`.

    At the end, the process writes all TensorFlow variables to OUTPUT.INDEX.npz.
    """
    environment = dict(os.environ, TF_CONFIG=cluster.tf_config(hosts, index), DUMP='%s.%d.npz' % (output, index),
                       **variables)
    return subprocess.Popen([sys.executable, '-c', DRIVER] + FLAGS + ['--output', output] + list(flags),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=environment)


def ends(processes, seconds):
    """Waits at most `seconds` for each process.

    Returns [(exit status, standard output, lines of standard error)].
    """
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, [line for line in errors.splitlines() if 'cuInit' not in line])
            for process, (out, errors) in zip(processes, said)]


def has_gradient(variable):
    """Returns whether a trainable variable has a gradient. Biases before a batch norm have no gradient."""
    layer, kind = variable.op.name.rsplit('/', 1)
    return kind != 'biases' or layer + '_bn/gamma' not in {v.op.name for v in tf.trainable_variables()}


def reference(folder, *splits):
    """In this process, trains once for each list in `splits`; yields the losses and the variables.

    A list in `splits` has one number for each process: how many images the process takes from each batch. The variables
    are {name: (value at the start, value after STEPS steps)}.
    """
    dataset = camvid.read(folder)
    with tf.Graph().as_default():
        tf.set_random_seed(1)  # the default of --seed
        start, images, labels = batches.training_batches(dataset, vars(main.parse_args(FLAGS)))
        tf.train.get_or_create_global_step()
        images_ph, labels_ph = tf.placeholder(tf.uint8, [None, 23, 31, 3]), tf.placeholder(tf.uint8, [None, 23, 31])
        count_ph = tf.placeholder(tf.float32, [])
        logits = networks.build(networks.Spec('fcn-basic', 11), images_ph, True)
        loss = optimize.loss(logits, labels_ph, np.ones(11), count_ph)
        trained = [variable for variable in tf.trainable_variables() if has_gradient(variable)]
        gradients = tf.gradients(loss, trained)
        moving, statistics = map(list, zip(*tf.get_collection(utils.BN_STATISTICS)))
        multipliers = [networks.multipliers('fcn-basic', variable) for variable in trained]
        with tf.Session() as sess:
            for shares in splits:
                sess.run(tf.global_variables_initializer())
                sess.run(*start(0))
                first = sess.run(trained + moving)
                values, averages = first[:len(trained)], first[len(trained):]
                momenta, losses = [np.float32(0)] * len(values), []
                for step in range(STEPS):
                    image, label = sess.run([images, labels])
                    results = []
                    for share, end in zip(shares, np.cumsum(shares)):
                        part = slice(end - share, end)
                        feed = {images_ph: image[part], labels_ph: label[part], count_ph: (label != 255).sum()}
                        results.append(sess.run([loss] + gradients + statistics, feed))
                    total, *sums = [sum(parts[1:], parts[0]) for parts in zip(*results)]
                    losses.append(total)
                    for i, (variable, (rate, decay)) in enumerate(zip(trained, multipliers)):
                        slope = sums[i] + np.float32(5e-4 * decay) * values[i]
                        momenta[i] = np.float32(0.9) * momenta[i] + rate * slope
                        values[i] = values[i] - np.float32(RATE) * momenta[i]
                        variable.load(values[i], sess)
                    keep = np.float32(min(0.9, (1 + step) / (10 + step)))
                    averages = [old - (1 - keep) * (old - new / np.float32(len(shares)))
                                for old, new in zip(averages, sums[len(trained):])]
                yield losses, {v.op.name: pair for v, *pair in zip(trained + moving, first, values + averages)}


@pytest.mark.parametrize('shares', [[2, 3], pytest.param([1, 2, 2], marks=pytest.mark.slow)])
def test_processes_equal_one_that_adds_the_gradients(camvid_folder, output, shares):
    """The losses and variables of several processes equal the results of one process, within 1e-5.

    The single process adds the gradients of all shares of a batch. The changes of the variables since the start are
    equal within 1%.
    """
    hosts = cluster.free_hosts(len(shares))
    flags = ['--data_dir', camvid_folder, '--steps', str(STEPS)]
    said = ends([start(output, i, hosts, flags) for i in range(len(shares))], 240)
    assert [status for status, _, _ in said] == [0] * len(shares), said
    assert 'done, step %d of' % STEPS in said[0][1] and 'done' not in said[1][1], said
    (expected, variables), (whole, _) = reference(camvid_folder, shares, [BATCH])
    losses = [record['loss'] for record in read_log(output, STEPS) if 'loss' in record]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert abs(np.array(whole) - losses).max() > 1e-2
    values = [np.load('%s.%d.npz' % (output, i)) for i in range(len(shares))]
    for name, (old, value) in variables.items():
        atol = 1e-5 * max(1.0, abs(value).max())  # rounding errors grow with the largest value
        np.testing.assert_allclose(values[0][name], value, rtol=1e-5, atol=atol, err_msg=name)
        np.testing.assert_allclose(values[0][name] - old, value - old, atol=0.01 * abs(value - old).max(), err_msg=name)
    for name in values[0].files:  # the files also hold the optimizer's variables and the global step
        assert all(other[name].tobytes() == values[0][name].tobytes() for other in values[1:]), name
    alone = score(output, '--data_dir', camvid_folder, '--bn', 'moving', '--tile', 'off')['val']
    shared = read_scores(output)['val (while training)']
    assert shared['confusion'] == alone['confusion'] and shared['mIoU'] == alone['mIoU']


def test_a_step_sends_gradients_and_statistics_only(graph):
    group = distribute.Group(['a:1', 'b:2'], 1)
    args = main.parse_args(FLAGS)
    with tf.device(group.place):
        images, labels = tf.zeros([3, 23, 31, 3], tf.uint8), tf.zeros([3, 23, 31], tf.uint8)
        main.training_graph(args, networks.spec_of(vars(args), 11), np.ones(11), (images, labels), STEPS, group)
    reduced = list(filter(has_gradient, tf.trainable_variables())) + [
        variable for variable in tf.global_variables() if 'moving' in variable.op.name]
    numbers = sum(variable.shape.num_elements() for variable in reduced)
    reductions = [op for op in graph.get_operations() if op.type == 'CollectiveReduce']
    assert sorted(op.inputs[0].shape.num_elements() for op in reductions) == [1, numbers + 1]
    assert len({op.get_attr('instance_key') for op in reductions}) == 2
    assert {op.device for op in reductions} == {'/job:worker/task:1/device:CPU:0'}
    # No op is placed on another task.
    assert not [op.name for op in graph.get_operations() if op.device and 'task:1' not in op.device]


def test_shares_cover_the_batch():
    groups = [distribute.Group(['a:1', 'b:2', 'c:3'], i) for i in range(3)]
    assert [list(group.share(7)) for group in groups] == [[0, 1], [2, 3], [4, 5, 6]]
    assert_refused('--batch_size 2: must be at least the number of processes, 3', groups[0].share, 2)


def test_scores_of_shares_equal_those_of_the_whole_split():
    rng = np.random.RandomState(4)
    whole = [(i, rng.randint(0, 3, (5, 7)), Prediction(rng.randint(0, 3, (5, 7)))) for i in range(11)]
    dataset = Dataset('made', ['a', 'b', 'c'], [], (5, 7), {'val': range(11)}, None, 'predictions.png')
    settings = {'dataset': dataset, 'split': 'val', 'bf_images': 8, 'num_extremes': 2}
    expected = main.evaluate.score_split(whole, **settings)
    parts = []
    for i in range(3):
        main.evaluate.score_split(whole[i::3], all_gather=lambda part: parts.append(part) or [part], **settings)
    scores, shown, extremes = main.evaluate.score_split([], all_gather=lambda part: parts + [part], **settings)
    assert scores == expected[0] and scores['bf_images'] == 8 and shown.keys() == {0, 2, 5, 8}
    assert [extreme[:2] for extreme in extremes] == [extreme[:2] for extreme in expected[2]]


@pytest.mark.slow
@pytest.mark.parametrize('victim, moment', [(0, 'step'), (1, 'step'), (0, 'validation'), (1, 'validation'),
                                            (0, 'saving'), (0, 'drawing')])
def test_a_lost_process_ends_the_others_and_the_run_resumes(camvid_folder, tmp_path, victim, moment):
    output, flags = str(tmp_path / 'run'), ['--data_dir', camvid_folder, '--validate_every', '5steps']
    hosts = cluster.free_hosts(2)
    pair = [start(output, i, hosts, flags + ['--steps', '100000'], **({'KILL': moment} if i == victim else {}))
            for i in range(2)]
    pair[victim].wait(240)
    began = time.time()
    status, _, lines = ends(pair, 60)[1 - victim]
    assert time.time() - began < 60 and status == 1, lines
    assert len(lines) == 1 and hosts[victim] + ' is gone; start all processes again' in lines[0], lines
    before = checkpoints(output, 'last')
    step = int(before[0].split('-')[-1]) if before else 0
    hosts = cluster.free_hosts(2)
    again = ends([start(output, i, hosts, flags + ['--steps', str(step + 2)]) for i in range(2)], 240)
    assert [status for status, _, _ in again] == [0, 0] and '(2 in this run)' in again[0][1], again


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(camvid_folder, output):
    hosts = cluster.free_hosts(2)
    pair = [start(output, i, hosts, ['--data_dir', camvid_folder, '--steps', '100000']) for i in range(2)]
    wait_for_log(pair[0], output)
    pair[1].send_signal(signal.SIGTERM)
    said = ends(pair, 60)
    assert [status for status, _, _ in said] == [128 + signal.SIGTERM] * 2, said
    assert checkpoints(output, 'last') and 'stopped at step' in said[0][1]


@pytest.mark.slow
@pytest.mark.parametrize('case, message', [
    ('missing', 'no answer within'), ('name', 'no answer within'), ('port', 'Address already in use'),
    ('flags', "--learning_rate: .* has 0.0001, .* has 0.5; start all processes with the same flags"),
    ('index', 'Address already in use')])
def test_a_wrong_start_is_told_within_a_minute(camvid_folder, tmp_path, case, message):
    hosts = cluster.free_hosts(2)
    listed = [hosts, [hosts[0], 'no-such-host.invalid:2222'] if case == 'name' else hosts]
    with socket.socket() as other:
        if case == 'port':
            other.bind(('', int(hosts[1].split(':')[1])))
            other.listen(1)
        pair = [start(str(tmp_path / 'run'), 0 if case == 'index' else i, listed[i], ['--data_dir', camvid_folder]
                      + ['--learning_rate', '0.5'] * (i == 1 and case == 'flags'))
                for i in range(1 if case == 'missing' else 2)]
        subprocess.check_call([sys.executable, '-c', 'import main'], cwd=ROOT, stderr=subprocess.DEVNULL)
        imported = time.time()  # by now the two processes have imported TensorFlow
        said = ends(pair, 150)
    assert time.time() - imported < 60
    assert all(status == 2 and len(lines) == 1 for status, _, lines in said), said
    assert any(re.search(message, lines[0]) for _, _, lines in said), said  # any process may fail first


@pytest.mark.parametrize('text', ['{', '[]', '[' * 100000, '{"cluster": {"worker": ["a:1"]}}'] + [
    '{"cluster": %s, "task": {"type": "worker", "index": %s}}' % case for case in (
        ('{"worker": ["a"]}', 0), ('{"worker": ["a:1"]}', 1), ('{"worker": ["a:1"], "ps": ["b:2"]}', 0),
        ('{"worker": ["a:1"], "chief": ["b:1", "b:2"]}', 0), ('{"worker": ["a:1"]}', -1),
        ('{"worker": {"a:1": 2}}', 0), ('{"worker": ["a:1", "b:2"]}', 'true'), ('{"worker": ["5001", "5002"]}', 0),
        ('{"worker": ["a:1", "a:1"]}', 0), ('{"worker": ["a:70000"]}', 0))])
def test_bad_tf_config_is_refused(monkeypatch, text):
    monkeypatch.setenv('TF_CONFIG', text)
    assert_refused('TF_CONFIG .*expected', cluster.resolve_cluster)


CHIEF = '"chief": ["a:1"]'
BOTH = '{"cluster": {%s, "worker": ["b:1", "b:2"]}, "task": {"type": "%s", "index": %s}}'


@pytest.mark.parametrize('text, expected', [
    ('{}', ([''], 0)), ('{"cluster": {}, "task": {"type": "worker", "index": 0}}', ([''], 0)),
    (cluster.tf_config(['a:1'], 0), ([''], 0)),
    ('{"cluster": {%s}, "task": {"type": "chief", "index": 0}, "environment": "cloud"}' % CHIEF, ([''], 0)),
    (BOTH % (CHIEF, 'chief', 0), (['a:1', 'b:1', 'b:2'], 0)),
    (BOTH % (CHIEF, 'worker', '"1"'), (['a:1', 'b:1', 'b:2'], 2)),
    (BOTH % ('"master": ["a:1"]', 'worker', 0), (['a:1', 'b:1', 'b:2'], 1))])
def test_usual_forms_of_tf_config(monkeypatch, text, expected):
    """Vertex AI and Kubeflow list a chief in addition to the workers.

    For a single process, the cluster may be missing.
    """
    monkeypatch.setenv('TF_CONFIG', text)
    assert cluster.resolve_cluster() == expected


def test_processes_of_the_environment(monkeypatch, tmp_path):
    assert cluster.resolve_cluster() == ([''], 0)
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames gpu[3,7-8]" ] && printf "gpu3\\ngpu7\\ngpu8\\n"\n')
    scontrol.chmod(0o755)
    for name, value in {'PATH': '%s:%s' % (tmp_path, os.environ['PATH']), 'SLURM_STEP_NUM_TASKS': '5',
                        'SLURM_STEP_NODELIST': 'gpu[3,7-8]', 'SLURM_STEP_TASKS_PER_NODE': '2(x2),1',
                        'SLURM_PROCID': '3', 'SLURM_LOCALID': '1', 'SLURM_JOB_ID': '40007',
                        'CUDA_VISIBLE_DEVICES': '4,6'}.items():
        monkeypatch.setenv(name, value)
    assert cluster.resolve_cluster() == (['gpu3:20007', 'gpu3:20008', 'gpu7:20007', 'gpu7:20008', 'gpu8:20007'], 3)
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '6'
    # A cyclic distribution puts processes 0 and 3 on gpu3, 1 and 4 on gpu7, and 2 on gpu8.
    for name, value in {'SLURM_DISTRIBUTION': 'cyclic', 'SLURM_LOCALID': '0', 'SLURM_PROCID': '1'}.items():
        monkeypatch.setenv(name, value)
    assert_refused('SLURM_DISTRIBUTION cyclic.*--distribution=block', cluster.resolve_cluster)
    monkeypatch.setenv('SLURM_PROCID', '0')
    monkeypatch.delenv('SLURM_JOB_ID')
    for tasks in ('5', 'x'):
        monkeypatch.setenv('SLURM_STEP_NUM_TASKS', tasks)
        assert_refused('SLURM_STEP_NUM_TASKS is set, but', cluster.resolve_cluster)


def test_settings_that_differ(monkeypatch):
    group, chief = distribute.Group(['a:1', 'b:1']), {'--steps': 3, 'revision': 'f00'}
    for other, message in (({'--steps': 4, 'revision': 'f00'}, '--steps: a:1 has 3, b:1 has 4; start all'),
                           ({'--steps': 3}, 'revision: a:1 has f00, b:1 has None'),
                           (dict(chief, more=1), 'more: a:1 has None, b:1 has 1'), (dict(chief), None)):
        monkeypatch.setattr(group, 'all_gather', lambda settings, other=other: [settings, other])
        assert_refused(message, group.check_equal, chief) if message else group.check_equal(chief)


def test_launched_processes_get_one_signal_each(tmp_path):
    """Ctrl-C sends one signal to each process. Each process gets the flags as the user typed them.

    If a process is killed by SIGKILL (9), the exit status is 128 + 9. The test needs no GPU.
    """
    script = tmp_path / 'script.py'
    script.write_text('import os, sys, time\nsys.path.insert(0, %r)\nfrom system import cli, cluster\n'
                      'cluster.launch(2, "cpu")\nwith cli.stop_signals() as stop:\n'
                      '    print("ready %%s\\n" %% sys.argv[1:], end="", flush=True)\n'
                      '    while not stop:\n        time.sleep(0.05)\n    time.sleep(1)\n'
                      'print("saved\\n", end="", flush=True)\nos.kill(os.getpid(), int(sys.argv[1]))\n' % ROOT)
    # A shell starts `make test &` with SIGINT ignored, and the processes would inherit this setting.
    settings = {'stdout': subprocess.PIPE, 'start_new_session': True, 'env': dict(os.environ, CUDA_VISIBLE_DEVICES='0'),
                'preexec_fn': lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    for number, status in ((0, 0), (9, 137)):
        parent = subprocess.Popen([sys.executable, str(script), str(number)], **settings)
        assert [parent.stdout.readline(), parent.stdout.readline()] == [b"ready ['%d']\n" % number] * 2
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.communicate(timeout=60)[0] == b'saved\n' * 2 and parent.returncode == status


def test_a_signal_while_processes_are_started(tmp_path):
    """A signal also reaches a process that is started after the signal."""
    script = tmp_path / 'script.py'
    script.write_text('import os, signal, subprocess, sys, time\nsys.path.insert(0, %r)\nfrom system import cluster\n'
                      'class Popen(subprocess.Popen):\n    def __init__(self, *args, **named):\n'
                      '        super().__init__(*args, **named)\n        os.kill(os.getpid(), signal.SIGUSR1)\n'
                      'if cluster.LAUNCHED in os.environ:\n    time.sleep(60)\n'
                      'subprocess.Popen = Popen\ncluster.launch(2, "cpu")\n' % ROOT)
    done = subprocess.run([sys.executable, str(script)], timeout=50, env=dict(os.environ, CUDA_VISIBLE_DEVICES=''))
    assert done.returncode == 128 + signal.SIGUSR1


def test_gpus_that_are_not_there(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(os.path, 'isdir', lambda path: False)
    assert_refused('--gpus 2: the GPUs are none', cluster.launch, 2, 'auto')
    monkeypatch.setenv('TF_CONFIG', cluster.tf_config(['a:1', 'b:1'], 0))
    assert_refused('start one process for each GPU', cluster.launch, 2, 'cpu')


@pytest.mark.slow
def test_gpus_shares_training_and_scoring(camvid_folder, output):
    """Two processes and one process give the same scores and files."""

    def run(script, *flags):
        command = [sys.executable, os.path.join(ROOT, script), '--device', 'cpu', *flags]
        return subprocess.check_output(command, universal_newlines=True, timeout=240)

    said = run('main.py', '--gpus', '2', '--data_dir', camvid_folder, '--output', output, '--steps', '2', *FLAGS)
    assert 'Process 1 of 127.0.0.1' in said and 'done, step 2 of 2' in said
    kept, = read_config(output)['invocations']
    assert (kept['processes'], read_config(output)['flags']['gpus']) == (2, 2)
    assert '--gpus 2 ' in kept['command'] and '--gpus 1' not in kept['command']
    found = []
    for flags in (['--gpus', '2'], []):
        printed = run('evaluate.py', output, '--split', 'val', 'test', '--bf_images', '2', *flags)
        scores = read_scores(output)
        written = [open(os.path.join(output, name), 'rb').read() for name in ('confusion-val.csv', 'predictions.png')]
        found.append([{split: dict(scores[split], command='') for split in ('val', 'test')}, written,
                      [line for line in printed.splitlines() if not line.startswith('Process')]])
    assert found[0] == found[1] and scores['val']['images'] == 5 and scores['val']['bf_images'] == 2
