"""Tests experiments.py: the commands of the paper's tables, and the comparison of scores with the paper."""
import csv
import os
import pathlib
import shutil

import numpy as np
import pytest
from conftest import assert_refused
from test_main import score, train

import evaluate
import experiments
import main
import networks
from paper import results, tables
from runs import report
from runs.folder import read_scores


def table_of(output):
    """Returns the rows of table.csv as {column: text}."""
    return list(csv.DictReader(pathlib.Path(output, 'table.csv').read_text().splitlines()))


def command(*words):
    """Runs experiments.py with `words` as arguments."""
    experiments.run(experiments.parse_args(list(words)))


def run(folder, output, *flags):
    """Trains and scores a network of table 1 on CamVid for a few steps; returns the first row of table.csv."""
    words = ('table1 --height 23 --width 31 --batch_size 2 --steps 1 --bf_images 2 --split val '
             '--rows Bilinear-Interpolation --class_weights median --data_dir').split()
    command(*words, folder, '--output', output, *flags)
    return table_of(output)[0]


@pytest.fixture
def measured(monkeypatch):
    """Replaces each measurement with fixed numbers; returns the list of the requested measurements.

    A requested measurement is (network, training, batch size).
    """
    asked = []

    def measure(repeats, model, training, batch_size, **_):
        asked.append((model, training, batch_size))
        return {'seconds': [0.1, 0.3] if training else [0.05], 'memory': 5e6}

    monkeypatch.setattr(experiments.benchmark, 'measure_in_subprocess', measure)
    return asked


def test_every_row_is_a_network_and_its_flags_are_known():
    for name, table in tables.TABLES.items():
        args = experiments.parse_args([name])
        for row in table.rows:
            assert row.model in networks.NETWORKS, (name, row.name)
            if row.recipe:
                assert main.parse_args(experiments.row_flags(args, row, 1)).optimizer == 'sgd'
    assert [row.model for row in tables.TABLES['table1'].rows] == 2 * list(networks.segnet.VARIANTS)
    assert len(tables.TABLES['table5'].class_accuracies) == 37


def test_table_trains_what_is_missing_and_prints_both(camvid_folder, tmp_path, capsys, measured):
    output = str(tmp_path / 'table1')
    row = run(camvid_folder, output)
    assert (row['network'], row['weights'], row['storage']) == ('Bilinear-Interpolation', 'median', '0')
    assert (row['paper test G'], row['paper train mIoU']) == ('77.9', '82.7')
    assert (row['parameters (M)'], row['ms'], row['budget']) == ('0.613', '50.0', '1 steps of 2 at 23x31')
    assert row['command'].startswith('python main.py @recipes/paper-table1.txt --dataset camvid --model ')
    assert all(0 <= float(row[name]) <= 100 for name in ('val G', 'val C', 'val mIoU', 'val BF', 'train G'))
    assert set(os.listdir(output)) > {'table.md', 'scores.png', 'costs.json', 'bilinear-interpolation-median-seed1'}
    assert '| Bilinear-Interpolation | median ' in capsys.readouterr().out

    assert run(camvid_folder, output) == row and 'Training' not in capsys.readouterr().out, 'nothing is done twice'
    fewer = run(camvid_folder, output, '--bf_images', '1')
    assert 'step 1 of 1' in capsys.readouterr().out and fewer['val G'] == row['val G']
    shutil.copytree(camvid_folder, str(tmp_path / 'other'))
    for other, said in ((['--height', '24'], '--height 24: the run in'),
                        (['--flags=--flip'], '--flip True: the run in'),
                        (['--data_dir', str(tmp_path / 'other')], '--data_dir .* has ')):
        assert_refused(said, run, camvid_folder, output, *other)

    more = run(camvid_folder, output, '--steps', '2', '--seeds', '2')
    out = capsys.readouterr().out
    assert 'step 2 of 2 (1 in this run)' in out and 'step 2 of 2 (2 in this run)' in out
    folder = os.path.join(output, 'bilinear-interpolation-median-seed%d')
    scores = [read_scores(folder % seed)['train'] for seed in (1, 2)]
    values = [100 * entry['mIoU'] for entry in scores]
    assert scores[0]['confusion'] != scores[1]['confusion'] and more['budget'] == '2 steps of 2 at 23x31'
    assert more['train mIoU'] == '%.1f +- %.1f' % (sum(values) / 2, abs(values[0] - values[1]) / 2 ** 0.5)


def test_rows_are_checked_before_the_first_is_trained(camvid_folder, tmp_path, monkeypatch):
    """experiments.py checks all rows before the first network is trained.

    An error is raised if an existing run of a row has more steps than --steps or has other flags than the row. An
    unknown split is an error too. A recipe in --flags does not override the flags of the row.
    """
    monkeypatch.setattr(experiments, 'measured_cost', lambda *_: {'ms': 1.0, 'MB': 1.0, 'revision': 'r'})
    run(camvid_folder, str(tmp_path / 'a'), '--rows', 'FCN-Basic', '--steps', '2')
    monkeypatch.setattr(main, 'train', lambda args: pytest.fail('trained'))
    rows = ['--rows', 'Bilinear-Interpolation', 'FCN-Basic']
    assert_refused('--flip True', run, camvid_folder, str(tmp_path / 'a'), '--steps', '2', '--flags=--flip', *rows)
    assert_refused('--steps 1: .* is at step 2; ', run, camvid_folder, str(tmp_path / 'a'), *rows)
    assert_refused('split tset, only in train, val', run, camvid_folder, str(tmp_path / 'b'), '--split', 'tset')
    (tmp_path / 'r.txt').write_text('--model fcn-basic --class_weights median --gamma 1.5')
    args = experiments.parse_args(['table1', '--flags=@%s' % (tmp_path / 'r.txt')])
    row = next(row for row in tables.TABLES['table1'].rows if row.class_weights == 'none')
    parsed = main.parse_args(experiments.row_flags(args, row, 1))
    assert (parsed.model, parsed.class_weights, parsed.gamma) == (row.model, 'none', 1.5)


def scores_of(split_scores):
    """Converts {split: (G, C, mIoU, BF) in percent} to metrics.json entries, each for the classes Sky and Pole."""
    entry = {'accuracy': [0.5, 0.25], 'IoU': [0.5, 0.25], 'class_names': ['Sky', 'Pole'], 'images': 3, 'bf_images': 3}
    return {split: dict(zip(results.MEASURES, np.array(four) / 100), **entry) for split, four in split_scores.items()}


def test_scores_on_the_training_split(tmp_path, monkeypatch):
    """The table compares our scores on the training split with the paper's scores on the training split."""
    train = {row.model: row.published['train'][:3] for row in tables.TABLES['table1'].rows[:3]}
    config = {'flags': {'batch_size': 2, 'height': 45, 'width': 61}, 'invocations': [{'device': 'd', 'revision': 'r'}]}
    for name, function in (('row_scores', lambda args, row, seed: scores_of({'train': train[row.model] + (10.0,)})),
                           ('check_row', lambda *_: None), ('read_config', lambda folder: config),
                           ('measured_cost', lambda *_: {'ms': 1.0, 'revision': 'r'})):
        monkeypatch.setattr(experiments, name, function)
    command('table1', '--split', 'train', '--class_weights', 'median', '--output', str(tmp_path),
            '--rows', 'Bilinear-Interpolation', 'SegNet-Basic', 'SegNet-Basic-EncoderAddition')
    page = (tmp_path / 'table.md').read_text()
    assert 'paper\'s train column (1: the same order): G 1.00, C 1.00, mIoU 1.00.' in page and ' test ' not in page
    assert [(row['train mIoU'], row['paper train mIoU']) for row in table_of(tmp_path)] == [
        ('82.7', '82.7'), ('92.7', '92.7'), ('92.0', '92.0')]


def test_sunrgbd_is_scored_by_the_last_weights(tmp_path, monkeypatch):
    """The validation images of SUN RGB-D are test images, so the last weights are scored, not the best weights.

    A network whose row already has scores is neither trained nor scored again.
    """
    asked = []

    def evaluated(args):
        asked.append((args.checkpoint, args.bf_images))
        entry = {'images': 2, 'bf_images': args.bf_images, 'G': 0.5}
        evaluate.add_scores(args.run, {evaluate.entry_name(args, 'test'): entry})
        return {'test': entry}

    monkeypatch.setattr(evaluate, 'evaluate', evaluated)
    for words, checkpoint, steps in (('table3 --dataset sunrgbd', 'last', 140000), ('table4 --steps 3', 'last', 3),
                                     ('table3', 'best', 140000), ('table4 --dataset camvid', 'best', 240000)):
        args = experiments.parse_args(words.split() + ['--bf_images', '0', '--output', str(tmp_path / str(len(asked)))])
        row = tables.TABLES[args.table].rows[0]
        os.makedirs(experiments.row_folder(args, row, 1))
        for trained in (lambda args: None, lambda args: pytest.fail('trained again')):
            monkeypatch.setattr(main, 'train', trained)
            scores = experiments.row_scores(args, row, 1)['test']
            assert (scores['asked_steps'], scores['G'], asked[-1]) == (steps, 0.5, (checkpoint, 0))
        entries = read_scores(experiments.row_folder(args, row, 1))
        assert list(entries) == ['test (last)' if checkpoint == 'last' else 'test']
    assert len(asked) == 4


def test_a_row_that_diverges_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    def diverge(args, row, seed):
        raise FloatingPointError('the loss became nan at step 3')

    monkeypatch.setattr(experiments, 'check_row', lambda *_: None)
    monkeypatch.setattr(experiments, 'row_scores', diverge)
    with pytest.raises(FloatingPointError, match='SegNet, none; DeconvNet, none: the loss is not finite'):
        command('table3', '--rows', 'SegNet', 'DeconvNet', '--output', str(tmp_path))
    assert [row['failed'] for row in table_of(tmp_path)] == 2 * ['the loss became nan at step 3']


def test_accuracy_of_each_class_beside_the_papers():
    columns = results.class_columns([scores_of({'test': (1, 2, 3, 4)})], {'Pole': 32.1}, 'test')
    assert dict(columns) == {'Sky': '50.0', 'paper Sky': '-', 'Pole': '25.0', 'paper Pole': '32.1'}


def test_list_shows_commands_and_runs_nothing(tmp_path, capsys, monkeypatch):
    """--class_weights selects the rows to list. The commands of table 6 are commands of benchmark.py."""
    monkeypatch.chdir(tmp_path)
    for name in ('table1', 'table2', 'table3', 'table6', 'bayesian'):
        command(name, '--list')
    out = capsys.readouterr().out
    assert '--model fcn-basic-noaddition ' in out and 'python benchmark.py deconvnet' in out
    assert 'released-segnet-basic.txt --dataset camvid --model bayesian-segnet-basic ' in out
    assert not list(tmp_path.iterdir())
    command('table1', '--list', '--class_weights', 'none')
    out = capsys.readouterr().out
    assert out.count(', none') == 8 and ', median' not in out
    command(*'table6 --rows SegNet --repeats 5 --device cpu --list'.split())
    assert capsys.readouterr().out.endswith(
        'benchmark.py segnet --what predict train --batch_size 1 4 --repeats 5 --device cpu\n')


def test_mean_and_spread():
    for values, text in (([], '-'), ([None], '-'), ([0.0125, None], '1.2'), ([0.01, 0.03], '2.0 +- 1.4')):
        assert results.mean_and_spread(values) == text


def test_order_is_compared_with_the_papers():
    """The order of the rows by each score is compared with the paper's order.

    Sorted by C, the rows have the paper's order. Sorted by mIoU, the rows have the reverse order. Sorted by G, the last
    two rows are swapped.
    """
    found = [{'val G': g, 'val C': c + ' +- 0.5', 'val mIoU': m, 'val BF': '-', 'paper test G': t, 'paper test C': t,
              'paper test mIoU': t, 'paper test BF': t} for g, c, m, t in (
                  ('50.0', '5.0', '9.0', '1.0'), ('61.0', '6.0', '8.0', '2.0'), ('60.0', '7.0', '7.0', '3.0'))]
    found.append({'network': 'x', 'failed': 'why'})
    assert results.rank_correlation(found, 'val').endswith(': G 0.50, C 1.00, mIoU -1.00.')
    assert results.rank_correlation(found[:2], 'val') == ''


def test_table6_measures(tmp_path, measured):
    command('table6', '--output', str(tmp_path), '--rows', 'SegNet')
    row, = table_of(tmp_path)
    assert measured == [('segnet', False, 1), ('segnet', True, 1), ('segnet', True, 4)]
    assert (row['forward ms'], row['backward ms'], row['prediction MB']) == ('50.0', '150.0', '5.0')
    assert row['paper forward ms'] == '422.5' and row['model MB'] == '117.8'


def test_times_are_shown_with_the_revision_that_measured_them(tmp_path, monkeypatch, measured):
    """The prediction time is measured at revision A, the training times at revision B.

    A time without a recorded revision is shown as unknown.
    """
    args = experiments.parse_args(['table6', '--output', str(tmp_path), '--rows', 'SegNet'])
    row = tables.TABLES['table6'].rows[0]
    monkeypatch.setattr(experiments, 'revision', lambda: 'A')
    experiments.measured_cost(args, row.model)
    monkeypatch.setattr(experiments, 'revision', lambda: 'B')
    assert experiments.measured_row(args, row)['revision'] == 'A, B'
    path = tmp_path / 'costs.json'
    path.write_text(path.read_text().replace('"revision": "B"', '"x": 1'))
    assert experiments.measured_row(args, row)['revision'] == 'A, unknown'
    variant = tables.TABLES['table1'].rows[0]
    experiments.measured_cost(args, variant.model)
    monkeypatch.setattr(experiments, 'revision', lambda: 'C')
    assert experiments.variant_columns(args, variant)['ms measured at'] == 'B'


def test_the_papers_numbers_are_whole():
    """For each network variant of table 1, all scores that the paper gives are recorded.

    The mean of the class accuracies equals the mean that the paper prints, for table 2 and for table 5.
    """
    for variant in tables.TABLE1:
        assert len(variant.balanced) == len(variant.natural) == 4
        assert len(variant.balanced_train) == len(variant.natural_train) == 3
    assert abs(np.mean(list(tables.TABLE5_CLASSES.values())) - 44.75) < 0.1
    assert abs(np.mean(list(tables.TABLE2_CLASSES.values())) - 71.20) < 0.1


def test_results_come_from_the_runs_own_files(camvid_folder, tmp_path, monkeypatch, capsys):
    """`experiments.py results` writes the scores in metrics.json to a Markdown page, without local paths.

    Copies of the run folders give the same page.
    """
    monkeypatch.chdir(tmp_path)
    train(camvid_folder, os.path.join('Output', 'run'), '--steps', '1')
    scores = score(os.path.join('Output', 'run'))['val']
    (tmp_path / 'PAGE.md').write_text('before\n%s\nstale text\n%s\nafter\n' % (report.BEGIN, report.END))
    to_page = ['results', '--into', 'PAGE.md', '--output', 'kept', '--runs']
    command(*to_page, 'Output/run')
    page = (tmp_path / 'PAGE.md').read_text()
    cells = [cell.strip() for cell in next(line for line in page.splitlines() if 'val, 5 images' in line).split('|')]
    assert cells[1:5] == ['run', 'segnet-basic', 'val, 5 images', 'population']
    assert cells[5:9] == ['%.1f' % (100 * scores[name]) for name in results.MEASURES]
    cells = [[cell.strip() for cell in line.split('|')] for line in page.splitlines() if '| table 1, median' in line]
    assert [row[1:9] for row in cells] == [['the paper', 'segnet-basic', 'test', 'population',
                                            '82.7', '62.0', '47.7', '35.8']], 'once'
    assert page.startswith('before\n') and page.endswith('after\n') and 'stale text' not in page
    assert camvid_folder not in page
    assert not {'predictions.png', 'extremes.png', 'report.html'} & set(os.listdir('kept/run'))
    command(*to_page, 'kept/run')
    assert (tmp_path / 'PAGE.md').read_text() == page
    itself = 'results --runs Output/run --output Output'.split()
    assert_refused('--output Output: Output/run is the run itself', command, *itself)
    for text in ('no marks', '%s\n%s\n' % (report.END, report.BEGIN)):
        (tmp_path / 'PAGE.md').write_text(text)
        assert_refused('--into PAGE.md: needs the lines', command, *to_page, 'kept/run')
    pathlib.Path('kept/run/metrics.json').write_text('{}')
    assert_refused('kept/run: has no scores; run evaluate.py', command, *to_page, 'kept/run')


def test_results_show_test_first():
    """Scores on test come before scores on val. Scores from validations during training are left out."""
    keys = 'train', 'val', 'test (moving)', 'val (while training)', 'test', 'val (moving, 20 samples)', 'val (tta flip)'
    assert results.scored_entries({key: key for key in keys}) == [
        ('test', 'population', 'test'), ('test', 'moving', 'test (moving)'), ('val', 'population', 'val'),
        ('val', 'moving, 20 samples', 'val (moving, 20 samples)'), ('val', 'population, tta flip', 'val (tta flip)')]


def test_results_are_sorted_by_split_and_score():
    rows = [{'run': run, 'scored on': split, 'mIoU': text} for run, split, text in
            [('a', 'val, 5 images', '69.3'), ('a', 'test, 7 images', '8.8'), ('the paper', 'test', '50.2'),
             ('a', 'val, 5 images', '-'), ('b', 'test, 7 images', '50.2')]]
    assert sorted(rows, key=results.by_score) == [rows[4], rows[2], rows[1], rows[0], rows[3]]


def test_duration_has_its_unit():
    assert [results.duration(seconds) for seconds in (59.9, 1404, 3600, 12577)] == ['1 min', '23 min', '1.0 h', '3.5 h']


def test_results_of_any_weights_stand_beside_the_balanced_row():
    for class_weights, mean_iou in (('median', 47.7), ('weights.csv', 47.7), ('none', 46.3)):
        assert tables.published_scores('camvid', 'segnet-basic', class_weights)[0][1][2] == mean_iou
    assert tables.published_scores('sartorius', 'segnet', 'median') == []


@pytest.mark.parametrize('words, message', [
    (['table1', '--runs', 'x'], '--runs: has no effect with table1'), (['results'], 'results: needs --runs'),
    (['results', '--runs', 'x', '--list'], '--list: has no effect with results'),
    (['table6', '--height', '45'], '--height: has no effect with table6'),
    (['table6', '--flags=--flip'], '--flags: has no effect with table6'),
    (['table1', '--output', __file__], '--output .*is a file'), (['table1', '--flags="'], '--flags: invalid'),
    (['table1', '--flags=--device cpu'], '--flags: --device: set by the rows'),
    (['table1', '--flags=--steps 3'], '--steps: set by the rows'),
    (['table1', '--flags=--seed=3 --gpus 2'], '--gpus, --seed: set by the rows, or without effect'),
    (['table1', '--rows', 'SegNet'], '--rows SegNet: table1 has Bilinear-Interpolation, '),
    (['table3', '--class_weights', 'median'], '--class_weights median: table3 has no such row'),
    # Row 3 of the table `bayesian` is SegNet-Basic, which does not accept --vgg16.
    (['bayesian', '--list', '--flags=--vgg16 x'], '--vgg16: needs --input raw')])
def test_bad_words_are_refused(words, message):
    assert_refused(message, command, *words)
