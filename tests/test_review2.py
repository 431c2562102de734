"""Tests of refused flags and of files that other processes change."""
import json
import os
import tracemalloc

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import assert_refused, put, put_text, write_folder

import data
import datasets
import evaluate
import experiments
import main
import predict
from datasets import record
from inference import outputs, video
from inference.predictor import Prediction
from runs import weights
from runs.run import Run
from system import devices, distribute
from system.files import write_json


def run_of(folder, output, *flags):
    """`Run` of a small training, and the parsed flags."""
    args = main.parse_args(['--dataset', 'folder', '--data_dir', folder, '--output', output] + list(flags))
    return Run(vars(args), main.open_dataset(args, distribute.Group()), vars(main.parse_args([]))), args


def test_a_run_that_another_process_trained_in_between(tmp_path, output):
    """The flags are compared again inside the lock."""
    folder = write_folder(str(tmp_path / 'data'))
    run, _ = run_of(folder, output, '--seed', '7')
    other, _ = run_of(folder, output)
    os.makedirs(output)
    write_json(os.path.join(output, 'config.json'), {'flags': other.flags, 'class_names': ['a'], 'colors': [[0] * 3]})
    assert_refused('--seed 7: .* has 1', run.locked().__enter__)
    with other.locked():
        pass


def test_the_chief_decides_the_split(tmp_path, output):
    """Another machine has no run folder, and its data set has grown."""
    folder = write_folder(str(tmp_path / 'data'))
    run, args = run_of(folder, output)
    dataset, facts = datasets.preload(run.dataset, ('train', 'val'))
    config = {'flags': run.flags, 'depth': 8, 'class_names': dataset.class_names,
              'examples': record.make(dataset, facts, folder)}
    put(folder, 'images/more.png', np.zeros((12, 16), np.uint8))
    put(folder, 'labels/more.png', np.zeros((12, 16), np.uint8))
    group = distribute.Group()
    assert sum(map(len, main.open_dataset(args, group).examples.values())) == 11
    group.all_gather = lambda value: [config, value]
    assert main.open_dataset(args, group).examples == run.dataset.examples


def test_scores_on_data_without_a_train_split(tmp_path):
    for name in ('images/a.png', 'labels/a.png'):
        put(str(tmp_path), name, np.eye(9, dtype=np.uint8))
    put_text(str(tmp_path), 'test.txt', 'a\n')
    put_text(str(tmp_path), 'classes.csv', 'name,id\nx,0\ny,1\n')
    flags = ['--weights', 'none.npz', '--model', 'segnet-basic', '--dataset', 'folder', '--data_dir', str(tmp_path)]
    assert_refused('train', evaluate.evaluate, evaluate.parse_args(flags + ['--split', 'test']))


def test_images_without_a_labelled_pixel_are_no_extremes():
    labels = [np.full((3, 5), value, np.uint8) for value in (0, data.IGNORE, 1)]
    dataset = data.Dataset('made', ['a', 'b'], [], (3, 5), {'val': 'xyz'}, None, 'predictions.png')
    predictions = [(i, label, Prediction(np.zeros((3, 5), np.uint8))) for i, label in enumerate(labels)]
    _, _, extremes = evaluate.score_split(predictions, dataset, 'val', num_extremes=2)
    assert [(score, i) for score, i, _ in extremes] == [(1.0, 0), (0.0, 2)]


def test_tf32_stays_off():
    if tf.__version__.startswith('1.'):
        pytest.skip('TensorFlow 1.15 has no TensorFloat-32')
    devices.session_config('cpu', tf32='off')
    devices.session_config('cpu')  # as for an export
    try:
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        devices.session_config('cpu', tf32='on')


def test_last_weights_of_a_file(tmp_path):
    np.savez(str(tmp_path / 'weights.npz'), a=np.ones(2))
    for path in (str(tmp_path), str(tmp_path / 'weights.npz')):
        assert_refused('--checkpoint last: .* has one set of weights', weights.load, path, 'last')


def test_describe_starts_no_processes(monkeypatch, capsys):
    monkeypatch.setattr(main, 'parse_args', lambda parse=main.parse_args: parse(['--describe', '--gpus', '2']))
    monkeypatch.setattr(main.cluster, 'launch', None)
    main.main()
    assert capsys.readouterr().out.count('conv1_1 ') == 1


def test_recipes_that_cannot_be_read(tmp_path):
    (tmp_path / 'utf16.txt').write_text('--steps 5', encoding='utf-16')
    (tmp_path / 'itself.txt').write_text('@%s' % (tmp_path / 'itself.txt'))
    for name in ('utf16.txt', 'itself.txt'):
        assert_refused('recipe: .*save the file as UTF-8', main.parse_args, ['@%s' % (tmp_path / name)])


@pytest.mark.parametrize('flags, message', [
    (['table1', '--runs', 'x'], '--runs: has no effect with table1'),
    (['results', '--runs', 'x', '--list'], '--list: has no effect with results'),
    (['results'], 'results: needs --runs'),
    (['table6', '--height', '45'], '--height: has no effect with table6'),
    (['table6', '--flags=--flip'], '--flags: has no effect with table6'),
    (['table1', '--flags=--device cpu'], '--flags: --device: set by the rows'),
    (['table1', '--output', __file__], '--output .*is a file')])
def test_flags_without_effect_in_a_table(flags, message):
    assert_refused(message, experiments.parse_args, flags)


def test_table6_lists_the_measurements(capsys):
    experiments.run(experiments.parse_args('table6 --rows SegNet --repeats 5 --device cpu --list'.split()))
    assert capsys.readouterr().out.endswith(
        'benchmark.py segnet --what predict train --batch_size 1 4 --repeats 5 --device cpu\n')


def test_scores_of_last_weights_have_one_name(tmp_path, monkeypatch):
    """SUN RGB-D: the scores of a row are the entry that evaluate.py wrote."""
    def score(args):
        entry = {'images': 2, 'bf_images': 2, 'G': 0.5}
        evaluate.add_scores(args.run, {evaluate.entry_name(args, 'test'): entry})
        return {'test': entry}

    args = experiments.parse_args(['table4', '--rows', 'SegNet', '--steps', '3', '--output', str(tmp_path)])
    row = experiments.tables.TABLES['table4'].rows[0]
    folder = experiments.row_folder(args, row, 1)
    os.makedirs(folder)
    monkeypatch.setattr(main, 'train', lambda args: None)
    monkeypatch.setattr(evaluate, 'evaluate', score)
    assert experiments.row_scores(args, row, 1)['test']['G'] == 0.5
    with open(os.path.join(folder, 'metrics.json')) as file:
        assert list(json.load(file)) == ['test (last)']
    monkeypatch.setattr(main, 'train', None)  # is not called again
    assert experiments.row_scores(args, row, 1)['test']['asked_steps'] == 3


@pytest.mark.parametrize('name, flags', [('a-overlay.png', []), ('a-confidence.png', []), ('b-overlay.mp4', []),
                                         ('a-probability-7.png', ['--probabilities', 'png']),
                                         ('submission.csv', ['--submission'])])
def test_existing_results_are_kept(tmp_path, name, flags):
    for each in ('a.png', 'b.mp4', name):
        (tmp_path / each).touch()
    inputs = [str(tmp_path / each) for each in ('a.png', 'b.mp4')]
    flags = ['run'] + inputs + ['--output', str(tmp_path)] + flags
    assert_refused('%s: exists already; give --overwrite' % name, predict.plan, predict.parse_args(flags))
    assert len(predict.plan(predict.parse_args(flags + ['--overwrite']))) == 2
    flags[flags.index('--output') + 1] = inputs[0]
    assert_refused('--output .*a.png: is a file', predict.plan, predict.parse_args(flags))


@pytest.mark.parametrize('columns', [('id', 'predicted'), ('ImageId', 'ClassId', 'EncodedPixels')])
def test_memory_of_a_submission(columns):
    """An image of 400 cells takes the memory of a few masks."""
    ids = np.kron(np.pad(np.ones((20, 20), np.uint8), 0), np.pad(np.ones((7, 7), np.uint8), 2))  # [220, 220]
    config = {'class_names': ['ground', 'cell'], 'class_ids': [0, 1], 'rle': (columns, 'rows', '')}
    tracemalloc.start()
    rows = outputs.submission_rows('im', ids, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == (1 if 'ClassId' in columns else 400) and peak < 40 * ids.size


def test_frames_that_are_too_large(tmp_path):
    path = str(tmp_path / 'v.mp4')
    with video.VideoFile(path, 10) as out:
        for _ in range(3):
            out.write(np.zeros((48, 64, 3), np.uint8))
    settings = (lambda image: image[:, :, 0], [[0, 0, 0]], 0.5)
    for max_pixels in (48 * 64 - 1, 48 * 64):
        def write(limit=max_pixels):
            video.write_overlays(path, str(tmp_path / 'o.mp4'), *settings, limit, lambda frames, **_: frames)
        if max_pixels < 48 * 64:
            assert_refused('frames have more than 3071 pixels', write)
            assert not os.path.exists(str(tmp_path / 'o.mp4'))
        else:
            write()
