"""Tests main.py and evaluate.py on small data sets: output files, scores, bit-exact resuming and errors."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from concurrent import futures
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import (ROOT, assert_refused, assert_same_weights, put_example, put_text, undrawn, weights_of,
                      write_camvid, write_folder)
from test_segnet import conv_reference

import data
import datasets
import evaluate
import main
import metrics
import networks
import utils
from datasets import record
from inference.predictor import Prediction, Predictor, Settings
from runs.folder import add_scores, checkpoint, read_config, read_scores, training_seconds
from system import devices, distribute
from system.files import atomic_write, write_json

FLAGS = ['--dataset', 'camvid', '--model', 'segnet-basic', '--height', '23', '--width', '31', '--batch_size', '2',
         '--learning_rate', '0.01', '--optimizer', 'sgd', '--flip', '--validate_every', '1']
LONG = FLAGS + ['--steps', '9', '--dropout', '0.5']  # flags of the run in the fixture `runs`


def train(folder, output, *flags):
    return main.train(main.parse_args(FLAGS + ['--data_dir', folder, '--output', output] + list(flags)))


def score(*flags):
    """Runs evaluate.py with `flags` as arguments; returns {split: scores}."""
    return evaluate.evaluate(evaluate.parse_args(list(flags)))


def start(folder, output, *flags, **popen):
    """Starts main.py in a new process."""
    command = [sys.executable, os.path.join(ROOT, 'main.py'), *FLAGS, '--data_dir', folder, '--output', output, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **popen)


def wait_for_log(process, output, lines=1):
    """Waits until the process has written `lines` lines to log.jsonl."""
    log, deadline = os.path.join(output, 'log.jsonl'), time.time() + 120
    while not os.path.exists(log) or open(log).read().count('\n') < lines:
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.01)


def read_log(output):
    return [json.loads(line) for line in pathlib.Path(output, 'log.jsonl').read_text().splitlines()]


def test_run_folder(camvid_folder, output, figures):
    """Training writes the files of a run. evaluate.py gives the validation scores that training wrote.

    The scores do not depend on the batch size of evaluate.py. At the start, the folder contains a temporary file that a
    killed process left an hour ago.
    """
    put_text(output, '.lock', '')
    put_text(output, '.lock.pid', '1 on elsewhere')
    left_behind(output, 3700)
    train(camvid_folder, output, '--steps', '7')
    assert set(os.listdir(output)) >= {'loss.png', 'predictions.png', 'checkpoints', 'best'}
    assert any(name.startswith('events') for name in os.listdir(output))
    assert not [name for name in os.listdir(output) if name.endswith('.part')]
    config = read_config(output)
    assert config['flags']['learning_rate'] == 0.01 and config['class_names'][3] == 'Road'
    assert config['invocations'][0]['tensorflow'] == tf.__version__
    log = read_log(output)
    assert [record['step'] for record in log if 'loss' in record] == list(range(1, 8))
    validations = [record for record in log if 'mIoU' in record]
    assert [record['step'] for record in validations] == [4, 7]  # after each epoch: 7 images are 3.5 steps of 2 images
    for name in ('loss.png', 'predictions.png'):
        assert data.read_image(os.path.join(output, name)).shape[0] > 300

    flags = '--bn moving --checkpoint last --batch_size'.split()
    matrices = [score(output, *flags, size)['val']['confusion'] for size in '13']
    assert matrices[0] == matrices[1]
    assert np.sum(matrices[0]) == 5 * 43 * 61, 'at the size of the labels, void rows left out'
    scores = metrics.scores(np.array(matrices[0]))
    assert {name: scores[name] for name in ('G', 'C', 'mIoU')}.items() <= validations[-1].items()
    assert read_scores(output)['val (moving, last)']['step'] == 7


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Trains a run of 9 steps in the folder whole/; returns the parent folder.

    The folders 6/ and 8/ are copies of whole/, taken during steps 6 and 8. Each copy has the files that a run would
    leave if the process were killed in this step.
    """
    folder = str(tmp_path_factory.mktemp('runs'))
    log_step = main.Run.log_step

    def copying(run, step, fetched):
        if step in (6, 8):
            shutil.copytree(run.folder, os.path.join(folder, str(step)))
        log_step(run, step, fetched)

    camvid = write_camvid(os.path.join(folder, 'camvid'), {'train': 7, 'val': 5, 'test': 3})
    with undrawn(), mock.patch.object(main.Run, 'log_step', copying):
        train(camvid, os.path.join(folder, 'whole'), *LONG)
    return folder


def copy_of(runs, name, output):
    """Copies the run folder whole/, 6/ or 8/ to `output`; returns the path of whole/, for comparison.

    `runs` is the folder that the fixture `runs` returns, and `name` is the name of the run folder.
    """
    shutil.copytree(os.path.join(runs, name), output)
    return os.path.join(runs, 'whole')


def edit_config(output, **flags):
    """Changes flags in config.json of a run. A flag with the value None is removed."""
    config = read_config(output)
    config['flags'].update(flags)
    config['flags'] = {name: value for name, value in config['flags'].items() if value is not None or name not in flags}
    write_json(os.path.join(output, 'config.json'), config)


def test_killed_and_resumed_run_ends_with_the_same_weights(camvid_folder, runs, output):
    """A run that is killed in the second epoch and resumed ends with the weights of an uninterrupted run.

    The weights are equal bit for bit.
    """
    whole = copy_of(runs, '6', output)
    with open(os.path.join(output, 'log.jsonl'), 'a') as f:
        f.write('{"step": 6, "los')  # a line that is incomplete because the process was killed
    train(camvid_folder, output, *LONG)
    assert_same_weights(weights_of(whole), weights_of(output))
    np.testing.assert_equal(weights_of(output, 'best'), weights_of(whole, 'best'))
    expected, losses = [[(r['step'], r['loss']) for r in read_log(f) if 'loss' in r] for f in (whole, output)]
    assert losses == expected


def damage(path, how):
    """Truncates, zeroes or deletes the file `path`."""
    content = pathlib.Path(path).read_bytes()
    os.remove(path)
    if how != 'gone':
        pathlib.Path(path).write_bytes(content[:len(content) // 2] if how == 'truncated' else bytes(len(content)))


@pytest.mark.parametrize('how, part', [('truncated', 'data-00000-of-00001')] + [
    pytest.param(how, 'index', marks=pytest.mark.slow) for how in ('zeroed', 'gone')])
def test_damaged_checkpoint(camvid_folder, runs, output, capsys, how, part):
    """If the newest checkpoint is damaged, the run resumes from the checkpoint before.

    The run ends with the same weights as a run without damage.
    """
    whole, checkpoints = copy_of(runs, '8', output), os.path.join(output, 'checkpoints')
    damage(os.path.join(checkpoints, 'model-7.' + part), how)
    pathlib.Path(os.path.join(checkpoints, 'model-9.data-00000-of-00001.tempstate123')).write_text('half')
    train(camvid_folder, output, *LONG)
    out = capsys.readouterr().out
    assert ('model-7: damaged' in out) == (part != 'index' or how != 'gone') and 'done, step 9 of 9 (5 in this' in out
    assert_same_weights(weights_of(whole), weights_of(output))
    assert [r['step'] for r in read_log(output) if 'loss' in r] == list(range(1, 10))
    assert {name.split('.')[0] for name in os.listdir(checkpoints)} == {'checkpoint', 'model-4', 'model-7', 'model-9'}
    assert len({name.split('.')[0] for name in os.listdir(os.path.join(output, 'best'))}) == 2


def test_run_without_checkpoints(camvid_folder, runs, output):
    """A run whose checkpoints are all damaged or deleted is refused."""
    copy_of(runs, '8', output)
    for step in (4, 7):
        damage(os.path.join(output, 'checkpoints', 'model-%d.index' % step), 'truncated')
    assert_refused('checkpoints: no intact checkpoint', train, camvid_folder, output, *LONG)
    damage(checkpoint(output, 'best') + '.index', 'zeroed')
    assert_refused('damaged', score, output)
    shutil.rmtree(os.path.join(output, 'checkpoints'))
    run = run_of(datasets.camvid.read(camvid_folder), output, *LONG)
    assert_refused('checkpoints: no intact checkpoint', run.restore, None)


def left_behind(folder, age):
    """Writes the temporary file of a process that was killed `age` seconds ago; returns the path."""
    part = os.path.join(folder, '.%032x.part' % age)
    pathlib.Path(part).write_text('{')
    os.utime(part, (time.time() - age,) * 2)
    return part


def test_unfinished_files_of_killed_processes_are_deleted(tmp_path):
    """Recent temporary files and files of other programs are kept."""
    old, new = [left_behind(str(tmp_path), age) for age in (3700, 60)]
    (tmp_path / 'film.part').write_text('a download')
    os.utime(str(tmp_path / 'film.part'), (0, 0))
    write_json(str(tmp_path / 'a.json'), 1)
    assert sorted(os.listdir(str(tmp_path))) == sorted([os.path.basename(new), 'film.part', 'a.json'])


def test_refusal_names_the_process_that_holds_the_lock(tmp_path):
    """The error names the process in .lock.pid. The lock file of a dead process is ignored."""
    run, other = main.Run.__new__(main.Run), main.Run.__new__(main.Run)
    run.folder = other.folder = str(tmp_path)
    (tmp_path / '.lock.pid').write_text('1 on elsewhere')
    with run.locked():
        for _ in range(2):
            assert_refused('process %d on .* trains there' % os.getpid(), other.locked().__enter__)
    with other.locked():
        pass


def test_two_writers_of_one_file(tmp_path):
    """If two writers write one file, the content of the writer that finishes last is kept.

    An error message names the target file, not the temporary file.
    """
    path = str(tmp_path / 'a.txt')
    with atomic_write(path) as first, atomic_write(path) as second:
        pathlib.Path(first).write_text('first')
        pathlib.Path(second).write_text('second')
    assert os.listdir(str(tmp_path)) == ['a.txt'] and pathlib.Path(path).read_text() == 'first'
    with pytest.raises(OSError) as error:
        write_json(str(tmp_path / 'missing' / 'a.json'), 1)
    assert error.value.filename == str(tmp_path / 'missing' / 'a.json')


def test_two_processes_write_scores(tmp_path):
    """Two threads, which stand for two processes, write scores at the same time. No entry is lost."""
    with futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: add_scores(str(tmp_path), {'entry %d' % i: {}}), range(100)))
    assert len(read_scores(str(tmp_path))) == 100


def test_larger_steps_continue_and_finished_runs_say_so(camvid_folder, runs, output, capsys):
    whole = copy_of(runs, 'whole', output)
    train(camvid_folder, output, *LONG)
    assert 'finished' in capsys.readouterr().out
    config = read_config(output)
    assert config['invocations'][0]['processes'] == 1
    config['invocations'][0]['processes'] = 3
    write_json(os.path.join(output, 'config.json'), config)
    train(camvid_folder, output, *LONG, '--steps', '10')
    assert 'note: %s: resumes with processes: 1, before: 3' % output in capsys.readouterr().err
    assert [r['step'] for r in read_log(output) if 'loss' in r] == list(range(1, 11))
    kernel = 'segnet-basic/conv1/weights'
    assert (weights_of(output)[kernel] != weights_of(whole)[kernel]).any()


def test_images_of_several_sizes_at_their_own_scale(tmp_path):
    """A run with --fit crop trains on 16x16 crops and is scored on whole images.

    Scoring uses the same input normalization as training, here --input lcn.
    """
    folder, output = write_folder(str(tmp_path / 'own')), str(tmp_path / 'run')
    train(folder, output, *'--dataset folder --steps 2 --fit crop --height 16 --width 16 --input lcn'.split())
    scores = [score(output, '--batch_size', size)['val']['confusion'] for size in '13']
    assert scores[0] == scores[1]
    load = datasets.folder.read(folder).load
    assert np.sum(scores[0]) == sum(load('val', i)[1].size for i in range(2))


def test_interrupt_saves_and_tells(camvid_folder, output, monkeypatch, capsys):
    """Each step begins with a check for signals. A signal at the end of step 2 stops the run after step 3.

    During training, the run holds the lock of the run folder.
    """
    log_step = main.Run.log_step

    def interrupted(run, step, fetched):
        log_step(run, step, fetched)
        if step == 2:
            assert_refused('process %d on .* trains there' % os.getpid(), run.locked().__enter__)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(main.Run, 'log_step', interrupted)
    with pytest.raises(SystemExit) as stopped:
        train(camvid_folder, output, '--steps', '5000')
    assert stopped.value.code == 128 + signal.SIGTERM and read_log(output)[-1]['step'] == 3
    assert 'stopped at step 3 of 5000' in capsys.readouterr().out and checkpoint(output, 'last').endswith('model-3')


def test_training_stops_on_a_loss_that_is_not_finite(camvid_folder, output, monkeypatch):
    real = evaluate.networks.build

    def explodes(spec, images, is_training, *others, **named):
        logits = real(spec, images, is_training, *others, **named)
        step = tf.cast(tf.train.get_or_create_global_step(), tf.float32)
        return logits / (5.0 - step) if is_training else logits

    monkeypatch.setattr(main.networks, 'build', explodes)
    with pytest.raises(FloatingPointError, match='at step 6, after .* lower --learning_rate'):
        train(camvid_folder, output, '--steps', '9')
    assert tf.train.latest_checkpoint(os.path.join(output, 'checkpoints')).endswith('model-4')
    assert all(np.isfinite(value).all() for value in weights_of(output).values())


def test_scores_of_a_known_prediction(camvid_folder):
    """Scores are computed at the size of the label, and each labelled pixel counts once."""
    dataset = datasets.preload(datasets.camvid.read(camvid_folder), ('val',))[0]
    labels = [dataset.load('val', i)[1] for i in range(5)]
    predictions = [(i, label, Prediction(np.full((45, 61), 7, np.uint8))) for i, label in enumerate(labels)]
    scores, shown, ends = evaluate.score_split(predictions, dataset, 'val', bf_images=2, num_extremes=2)
    counts = np.array([np.bincount(label.ravel(), minlength=256)[:11] for label in labels])  # [image, class]
    np.testing.assert_array_equal(scores['confusion'], np.outer(counts.sum(0), np.arange(11) == 7))
    assert scores['bf_images'] == 2 and 0 <= scores['BF'] < 0.5
    assert sorted(shown) == [0, 1, 2, 3] and shown[1].shape == (45, 61) and (shown[1] == 7).all()
    # The prediction is class 7 at all pixels. So the IoU of class 7 is the share of class 7, and all other IoUs are 0.
    each = [count[7] / count.sum() / len({*np.flatnonzero(count), 7}) for count in counts]
    order = np.argsort([-value for value in each], kind='stable')[[0, 1, 3, 4]]
    assert [i for _, i, _ in ends] == list(order)
    np.testing.assert_allclose([score for score, _, _ in ends], np.array(each)[order])


def test_evaluate_writes_the_confusion_matrix_and_the_papers_row(camvid_folder, runs, output, capsys):
    copy_of(runs, 'whole', output)
    edit_config(output, class_weights='none')
    scores = score(output, '--split', 'test', '--data_dir', camvid_folder)['test']
    out = capsys.readouterr().out
    assert 'G 84.0   C 54.6   mIoU 46.3   BF 36.7   the paper on the test split: table 1, natural' in out
    rows = [line.split(',') for line in pathlib.Path(output, 'confusion-test.csv').read_text().splitlines()]
    assert rows[0][1:] == list(datasets.camvid.CLASSES) == [row[0] for row in rows[1:]]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == scores['confusion']
    assert os.path.exists(os.path.join(output, 'confusion-test.png'))
    stored = read_scores(output)['test']
    assert stored['BF'] == scores['BF'] and stored['bn'] == 'population'


def test_each_setting_has_an_entry_in_metrics():
    """Flags that change scores are in the name of the entry. A split that is given twice is scored once."""
    for flags, entry in (('--batch_size 2', 'val'), ('--checkpoint last', 'val (last)'),
                         ('--tile off --bn moving --precision float32', 'val (moving, tile off, float32)'),
                         ('--tile 45x61 --tile_overlap 0.25', 'val (tile 45x61, overlap 0.25)')):
        assert evaluate.entry_name(evaluate.parse_args(['run'] + flags.split()), 'val') == entry
    assert evaluate.parse_args(['run', '--split', 'test', 'val', 'test']).split == ['test', 'val']


def test_population_statistics_equal_numpy(camvid_folder):
    """The population mean of the first layer is the average of the batch means.

    The population variance is the average of the unbiased batch variances. Dropout increases the variances in the
    layers after the first dropout layer, but not in the layers before.
    """
    dataset = datasets.preload(datasets.camvid.read(camvid_folder), ('train', 'val'))[0]
    spec = networks.Spec('segnet-basic', 11, height=45, width=61, input='raw')
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(3)
        Predictor(sess, spec, Settings())
        sess.run(tf.global_variables_initializer())
        fitted = []
        for dropout in (0.5, 0):
            evaluate.population_statistics(sess, dataset, spec._replace(dropout=dropout), 2, distribute.Group())
            fitted.append({v.op.name: sess.run(v) for v in tf.global_variables() if '/conv' in v.op.name})
    values = fitted[1]
    for layer, equal in (('conv3', True), ('conv4', False)):  # the first dropout layer follows pooling 3
        variances = [each['segnet-basic/%s_bn/moving_variance' % layer] for each in fitted]
        assert (variances[0] == variances[1]).all() if equal else (variances[0] > variances[1]).all()
    order = np.random.RandomState([0, 0]).permutation(7).tolist() + [np.random.RandomState([0, 1]).permutation(7)[0]]
    images = np.stack([dataset.load('train', i)[0] for i in order]).astype(float)[..., ::-1]
    x = conv_reference(images, *[values['segnet-basic/conv1/' + kind].astype(float) for kind in ('weights', 'biases')])
    x = x.reshape(4, -1, 64)  # [batch, pixel in the two images, channel]
    mean, variance = x.mean(1).mean(0), x.var(1, ddof=1).mean(0)
    np.testing.assert_allclose(values['segnet-basic/conv1_bn/moving_mean'], mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(values['segnet-basic/conv1_bn/moving_variance'], variance, rtol=1e-4)


# ---------------------------------------------------------------- refusals

@pytest.mark.parametrize('flags, said', [
    (['--height', '0'], '--height: 0: must be'), (['--learning_rate', 'nan'], '--learning_rate: nan'),
    (['--validate_every', '0'], 'epochs'), (['--crop', '99', '20000'], '--crop: 20000: must be'),
    (['--height', '30000'], '--height: 30000: must be'), (['--dropout', '1'], '--dropout: 1: must'),
    (['--output', 'a[1]/run'], r'a\[1\]/run: .*rename'), (['--vgg16', 'x', '--init_from', 'y'], 'not allowed with'),
    (['--encoder_rate', '0.1', '--optimizer', 'adam'], '--encoder_rate 0.1: needs'),
    (['--class_weights', 'no.csv'], '--class_weights no.csv'), (['--class_weights', 'BAD'], 'row 2: weight'),
    (['--data_dir', '/no/such'], 'no such folder'), (['--output', 'TAKEN'], 'holds files but no run'),
    (['--output', 'BAD'], 'bad.csv: is a file'), (['--init_from', ''], 'no such run folder'),
    (['--jit', '0'], 'unrecognized arguments: --jit 0'), ([], 'val_03.png: the PNG is truncated')])
def test_bad_flags(camvid_folder, tmp_path, flags, said):
    output = str(tmp_path / 'run')
    for path in ('bad.csv', 'taken/notes.txt'):
        put_text(str(tmp_path), path, 'name,weight\nSky,heavy\n')
    if not flags:
        os.truncate(os.path.join(camvid_folder, 'val', 'val_03.png'), 99)
    flags = [{'BAD': str(tmp_path / 'bad.csv'), 'TAKEN': str(tmp_path / 'taken')}.get(flag, flag) for flag in flags]
    assert_refused(said, train, camvid_folder, output, '--steps', '2', *flags)
    assert not os.path.exists(output), 'nothing written half'


@pytest.mark.parametrize('config, said', [('{"flags": 3}', 'not the config of a run'), ('[1]', 'not a JSON object'),
                                          ('[]', 'not a JSON object'), ('{', 'not a JSON object'),
                                          (None, 'cannot be read')])
def test_bad_config(tmp_path, config, said):
    if config is not None:
        (tmp_path / 'config.json').write_text(config)
    assert_refused('config.json: .*' + said, read_config, str(tmp_path))


def test_exit_status(tmp_path):
    """A wrong flag gives status 2 and one line on standard error. No file is written."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, 'main.py'), '--dataset', 'camvid', '--data_dir', 'none'],
                          cwd=str(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout and not os.listdir(str(tmp_path))
    assert done.stderr.startswith('error: --data_dir none: no such folder; ') and done.stderr.count('\n') == 1


def test_device_gpu_refuses_without_one(monkeypatch):
    monkeypatch.setattr(devices, 'gpus', lambda: [])
    assert_refused('--device gpu', devices.device_name, 'gpu')
    assert devices.device_name('auto').startswith('CPU')
    monkeypatch.setattr(devices, 'gpus', lambda: ['device: 0, name: NVIDIA H200, pci bus id: 0'])
    assert devices.device_name('auto') == 'GPU NVIDIA H200'
    assert devices.session_config('auto', True).graph_options.optimizer_options.global_jit_level == 1
    assert_refused('--xla: there is no GPU', devices.session_config, 'cpu', True)


@pytest.mark.parametrize('capability, precision, tf32, expected', [
    ('9.0', 'float32', 'on', 'float32 (TF32)'),
    ('8.6', 'float32', 'off', 'float32'), ('7.5', 'float32', 'on', 'float32'),
    ('9.0', 'bfloat16', 'on', 'bfloat16')])
def test_the_first_line_says_whether_tf32_is_used(monkeypatch, capability, precision, tf32, expected):
    monkeypatch.setattr(devices, 'gpus', lambda: ['device: 0, name: A, compute capability: ' + capability])
    assert devices.precision_name(precision, 'auto', tf32) == expected
    assert devices.precision_name(precision, 'cpu', tf32) == precision


@pytest.mark.skipif(tf.__version__.startswith('1.'), reason='TensorFlow 1.15 has no TensorFloat-32')
def test_tf32_is_switched(monkeypatch):
    devices.session_config('cpu', tf32='off')
    devices.session_config('cpu')  # without the argument tf32, the TF32 setting is left unchanged
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    devices.session_config('cpu', tf32='on')
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_recipes_and_later_flags(monkeypatch):
    """Recipes have the paper's settings, and flags after a recipe override the recipe.

    The defaults of flags do not depend on the data set.
    """
    monkeypatch.chdir(ROOT)
    args = main.parse_args(['@recipes/paper-table1.txt', '--model', 'segnet-basic', '--batch_size', '6'])
    assert (args.momentum, args.batch_size, args.schedule, args.select_by) == (0.9, 6, 'constant', 'G')
    for name, rate, size, weights in (
            ('paper-table1', .1, 12, 'median'), ('released-segnet', .001, 4, 'released'),
            ('released-segnet-basic', .1, 4, 'released'), ('paper-benchmark', .001, 5, 'none'),
            ('paper-benchmark-sunrgbd', .001, 4, 'none')):
        args = main.parse_args(['@recipes/%s.txt' % name])
        assert (args.learning_rate, args.batch_size, args.class_weights, args.optimizer) == (rate, size, weights, 'sgd')
        assert args.weight_decay == 5e-4
    assert all(main.parse_args(['@recipes/' + name]) for name in os.listdir('recipes'))
    defaults = [dict(vars(main.parse_args(['--dataset', name])), dataset=None) for name in datasets.MODULES]
    assert defaults == [defaults[0]] * len(defaults)


def run_of(dataset, output, *flags):
    flags = vars(main.parse_args(['--batch_size', '2', '--output', output] + list(flags)))
    return main.Run(flags, dataset, vars(main.parse_args([])))


def test_runs_of_older_revisions_resume(camvid_folder, runs, output):
    """A flag that is missing in config.json has the default value.

    A run is refused if config.json sets a removed flag to a value that changed the result. A run is also refused if the
    class weights differ from the class weights in config.json.
    """
    copy_of(runs, 'whole', output)
    lacking = 'validate_every loss gamma rotate encoder_rate freeze_encoder flip_vertical'.split()
    edit_config(output, shift=0, recipe='quick', **dict.fromkeys(lacking))
    dataset = datasets.camvid.read(camvid_folder)
    run = run_of(dataset, output, *LONG, '--validate_every', '7steps', '--data_dir', camvid_folder)
    assert run.total == 9
    run.dataset, run.facts = datasets.preload(dataset, ('train', 'val'))
    assert_refused('class_weights was .1.18.*, is .2.0', run.write_config, 11 * [2.0], 'CPU')
    assert_refused('--gamma 1.5: the run in .* has 1.0', run_of, dataset, output, *LONG, '--gamma', '1.5')
    edit_config(output, shift=3)
    assert_refused('--shift 0: the run in .* has 3', run_of, dataset, output, *LONG)


def test_a_step_uses_the_class_weights_the_labelled_pixels_and_its_own_dropout(sess, monkeypatch):
    """The true classes of two pixels have probabilities 1/2 and 1/4 and weights 3 and 1; a third pixel is void.

    The loss is (3 log 2 + 1 log 4) / 2.
    """
    masks = []

    def network(spec, images, is_training, dropout):
        masks.append(dropout(tf.ones([100]), 'drop'))
        return tf.get_variable('logits', initializer=np.log([[[[1, 1], [3, 1], [1, 7]]]]).astype(np.float32))

    monkeypatch.setattr(networks, 'build', network)
    args = main.parse_args(['--dropout', '0.5', '--batch_size', '1'])
    batch = tf.zeros([1, 1, 3, 3], tf.uint8), tf.constant([[[0, 1, 255]]], tf.uint8)
    fetches = main.training_graph(args, networks.spec_of(vars(args), 2), [3.0, 1.0], batch, 9, distribute.Group())
    sess.run(tf.global_variables_initializer())
    assert sess.run(fetches['loss']) == pytest.approx((3 * np.log(2) + np.log(4)) / 2, rel=1e-6)
    first = sess.run(masks[0])
    sess.run(fetches['step_op'])
    assert 20 < (sess.run(masks[0]) != first).sum() < 80, 'half of 100 where the masks are independent'


def test_validation_is_due(camvid_folder, tmp_path):
    """By default, 5 validation images and 7 training images give a validation every ceil(6 * 5 / 7) = 5 epochs.

    An epoch has 3.5 steps.
    """
    dataset = datasets.camvid.read(camvid_folder)
    for flags, due in (
            ('--validate_every 1', [4, 7, 11, 14, 18, 21]), ('--validate_every 2', [7, 14, 21]), ('', [18, 21]),
            ('--validate_every 5steps', [5, 10, 15, 20, 21]), ('--validate_every 100', [21])):
        run = run_of(dataset, str(tmp_path / 'run'), '--steps', '21', *flags.split())
        assert [step for step in range(1, 22) if run.validation_due(step)] == due
    camvid = dataset._replace(examples={'train': ['x'] * 367, 'val': ['y'] * 101})
    run = run_of(camvid, str(tmp_path / 'run'), '--batch_size', '5', '--epochs', '25', '--validate_every', '15')
    assert run.total == 1835, '25 * 73.4 is above 1835 in floats'
    assert run.validation_due(1101) and not run.validation_due(1102), '15 * 367 = 5 * 1101'


def test_best_weights_and_patience_where_validation_falls(camvid_folder, output, monkeypatch, capsys):
    """With --patience 2, a run stops after two validations without a better mIoU.

    An equal mIoU is not better, and an mIoU of None is not better. If the stopped run is started again, no further step
    is trained.
    """
    real, means = evaluate.score_split, [0.3, 0.5, 0.5, None, 0.2]

    def falling(*args, **named):
        scores, shown, extremes = real(*args, **named)
        return dict(scores, mIoU=means.pop(0)), shown, extremes

    monkeypatch.setattr(evaluate, 'score_split', falling)
    for patience, last, left in (('2', 14, 1), ('2', 14, 1), ('3', 18, 0)):
        train(camvid_folder, output, '--steps', '60', '--patience', patience)
        assert 'done, step %d of 60' % last in capsys.readouterr().out and len(means) == left
        assert checkpoint(output, 'best').endswith('model-7') and checkpoint(output, 'last').endswith('model-%d' % last)


def test_best_weights_of_before_a_resume_are_replaced(camvid_folder, runs, output, monkeypatch):
    """If a validation score is the best so far, the best weights from before the resume are deleted.

    In this test, each validation score is the best so far.
    """
    copy_of(runs, '8', output)
    assert not checkpoint(output, 'best').endswith('model-9')
    monkeypatch.setattr(main.Run, 'log_scores', lambda *_: True)
    train(camvid_folder, output, *LONG)
    assert {name.split('.')[0] for name in os.listdir(os.path.join(output, 'best'))} == {'checkpoint', 'model-9'}


def test_training_time_is_steps_times_the_median_step(tmp_path):
    """Three steps with batches of 4 images run at 2, 8 and 1 images per second.

    The time spent on validation is not counted.
    """
    records = ['"step": 1, "images_per_second": 2.0', '"step": 2, "images_per_second": 8.0', '"step": 2, "mIoU": 0.5',
               '"step": 3, "images_per_second": 1.0']
    (tmp_path / 'log.jsonl').write_text(''.join('{%s}\n' % record for record in records))
    assert [training_seconds(str(tmp_path / name), 4) for name in ('', 'none')] == [3 * 4 / 2.0, 0]


# ---------------------------------------------------------------- rare cases

def test_recipe_files_of_any_editor(tmp_path):
    """A recipe may begin with a byte order mark, and comments may contain quotes.

    A # inside a word does not begin a comment. A recipe in UTF-16 and a recipe that includes itself are refused.
    """
    path = tmp_path / 'r.txt'
    lines = ['--steps 3 # don\'t', "# it's", "--output 'a #1' --data_dir run#2 #x", "--vgg16 it\\'s # 'x"]
    for encoding in ('utf-8', 'utf-8-sig'):
        path.write_text('\n'.join(lines), encoding=encoding)
        args = main.parse_args(['@%s' % path])
        assert (args.steps, args.output, args.data_dir, args.vgg16) == (3, 'a #1', 'run#2', "it's")
    for text, encoding in (('--steps 5', 'utf-16'), ('@%s' % path, 'utf-8')):
        path.write_text(text, encoding=encoding)
        assert_refused('recipe: .*save the file as UTF-8', main.parse_args, ['@%s' % path])


def test_deterministic_runs_and_scores_use_no_scatter(camvid_folder, tmp_path, monkeypatch):
    """With TF_DETERMINISTIC_OPS=1, neither training nor scoring calls `utils.scatter` on a GPU.

    `utils.scatter` uses the op MaxPoolGradWithArgmax, which is not deterministic on GPUs. A run that is trained with
    --tf32 off is scored without TF32.
    """
    monkeypatch.setenv('TF_DETERMINISTIC_OPS', '1')
    for name in ('kind', 'device_name', 'precision_name'):
        monkeypatch.setattr(devices, name, lambda *_: 'GPU')
    monkeypatch.setattr(utils, 'scatter', lambda *_: pytest.fail('scatter'))
    run = train(camvid_folder, str(tmp_path / 'run'), '--steps', '1', '--tf32', 'off')
    with mock.patch.object(devices, 'session_config', wraps=devices.session_config) as config:
        score(run, '--bf_images', '0')
    assert [call[0][2] for call in config.call_args_list] == ['off']
    assert_refused('--tile_overlap 0.2: needs --tile', score, run, '--tile_overlap', '0.2')


@pytest.mark.parametrize('command, flags, opens', [
    (main.train, main.parse_args([]), (main, 'open_dataset')),
    (evaluate.evaluate, evaluate.parse_args(['run']), (evaluate, 'open_inputs'))])
def test_processes_connect_before_they_open_the_data_or_the_gpu(monkeypatch, command, flags, opens):
    """Each process waits at most START_SECONDS for the other processes to connect."""
    for owner, name in (opens, (devices, 'device_name')):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail('opens the data or the GPU'))
    monkeypatch.setattr(distribute.Group, 'connect', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(flags)


def test_signal_during_the_last_validation():
    run = main.Run.__new__(main.Run)
    run.folder, run.first, run.step, run.total, run.stale = 'x', 0, 20, 20, 0
    run.flags = vars(main.parse_args([]))
    assert run.summary([signal.SIGTERM]).startswith('x: done, step 20 of 20')
    run.step = 19
    assert 'stopped at step 19 of 20' in run.summary([signal.SIGTERM])


def test_a_run_that_another_process_trained_in_between(tmp_path, output):
    """After a process has locked the run folder, the process compares the flags with config.json a second time."""
    dataset = datasets.open('folder', write_folder(str(tmp_path / 'data')))
    run, other = run_of(dataset, output, '--seed', '7'), run_of(dataset, output)
    os.makedirs(output)
    write_json(os.path.join(output, 'config.json'), {'flags': other.flags, 'class_names': ['a'], 'colors': [[0] * 3]})
    assert_refused('--seed 7: .* has 1', run.locked().__enter__)
    with other.locked():
        pass


def test_the_chief_decides_the_split(tmp_path, output):
    """This process uses the split of the chief, although the data set on this machine has one more image."""
    folder = write_folder(str(tmp_path / 'data'))
    args = main.parse_args(['--dataset', 'folder', '--data_dir', folder, '--output', output])
    group = distribute.Group()
    dataset, facts = datasets.preload(main.open_dataset(args, group), ('train', 'val'))
    config = {'flags': vars(args), 'depth': 8, 'class_names': dataset.class_names,
              'examples': record.make(dataset, facts, folder)}
    put_example(folder, 'more', np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8))
    assert sum(map(len, main.open_dataset(args, group).examples.values())) == 11
    group.all_gather = lambda value: [config, value]
    assert main.open_dataset(args, group).examples == dataset.examples


def test_scores_on_data_without_a_train_split(tmp_path):
    put_example(str(tmp_path), 'a', np.eye(9, dtype=np.uint8), np.eye(9, dtype=np.uint8))
    put_text(str(tmp_path), 'test.txt', 'a\n')
    put_text(str(tmp_path), 'classes.csv', 'name,id\nx,0\ny,1\n')
    flags = ['--weights', 'none.npz', '--model', 'segnet-basic', '--dataset', 'folder', '--data_dir', str(tmp_path)]
    assert_refused('train', evaluate.evaluate, evaluate.parse_args(flags + ['--split', 'test']))


def test_images_without_a_labelled_pixel_are_no_extremes():
    """The first image has an IoU of 1, the third an IoU of 0. The second image is all void."""
    dataset = data.Dataset('made', ['a', 'b'], [], (3, 5), {'val': 'xyz'}, None, 'predictions.png')
    predictions = [(i, np.full((3, 5), value, np.uint8), Prediction(np.zeros((3, 5), np.uint8)))
                   for i, value in enumerate((0, data.IGNORE, 1))]
    _, _, extremes = evaluate.score_split(predictions, dataset, 'val', num_extremes=2)
    assert [(score, i) for score, i, _ in extremes] == [(1.0, 0), (0.0, 2)]


def test_describe_starts_no_processes(monkeypatch, capsys):
    monkeypatch.setattr(main, 'parse_args', lambda parse=main.parse_args: parse(['--describe', '--gpus', '2']))
    monkeypatch.setattr(main.cluster, 'launch', None)
    main.main()
    assert capsys.readouterr().out.count('conv1_1 ') == 1
