"""The paper's tables as commands: rows, what is run and what is not, resume, seeds, what is printed."""
import csv
import os

import numpy as np
import pytest

import evaluate
import experiments
import main
import networks
from paper import tables as paper
from paper import results
from data import UserError


def run(folder, output, *flags):
    args = ['table1', '--data_dir', folder, '--output', output, '--height', '23', '--width', '31', '--batch_size', '2',
            '--steps', '1', '--repeats', '1', '--bf_images', '2', '--split', 'val', '--rows', 'SegNet-Basic']
    experiments.run(experiments.parse_args(args + list(flags)))
    with open(os.path.join(output, 'table.csv')) as f:
        return list(csv.DictReader(f))


def test_every_row_is_a_network_or_says_why_not():
    for name, table in experiments.tables().items():
        for row in table.rows:
            assert row.reason or row.model in networks.NETWORKS, (name, row.name)
            if table.recipe and not row.reason:
                args = experiments.parse_args([name])
                main.parse_args(experiments.command(args, table, row, 1))  # knows every flag
    assert [row.model for row in experiments.tables()['table1'].rows] == 2 * list(networks.segnet.VARIANTS)
    assert len(experiments.tables()['table5'].classes) == 37


def test_table_trains_what_is_missing_and_prints_both(camvid_folder, tmp_path, capsys):
    output = str(tmp_path / 'table1')
    rows = run(camvid_folder, output)
    assert [(row['network'], row['weights']) for row in rows] == [('SegNet-Basic', 'median'), ('SegNet-Basic', 'none')]
    assert [row['paper test G'] for row in rows] == ['82.7', '84.0']
    assert rows[0]['paper train mIoU'] == '92.7' and rows[0]['parameters (M)'] == '1.417' and rows[0]['storage'] == '1'
    assert float(rows[0]['ms']) > 0 and rows[0]['budget'] == '1 steps of 2 at 23x31'
    assert rows[0]['command'].startswith('python main.py --dataset camvid --model segnet-basic')
    for row in rows:
        for name in ('val G', 'val C', 'val mIoU', 'val BF', 'train G'):
            assert 0 <= float(row[name]) <= 100
    assert {'table.md', 'table.csv', 'scores.png', 'costs.json', 'segnet-basic-median-seed1',
            'segnet-basic-none-seed1'} == set(os.listdir(output))
    assert '| SegNet-Basic | median ' in capsys.readouterr().out

    again = run(camvid_folder, output)
    assert again == rows and 'Training' not in capsys.readouterr().out, 'nothing is done twice'
    fewer = run(camvid_folder, output, '--bf_images', '1')
    assert 'step 1 of 1' in capsys.readouterr().out and fewer[0]['val G'] == rows[0]['val G']
    for other, said in ((['--height', '24'], '--height 24: the run in'),
                        (['--flags=--flip'], '--flip True: the run in'),
                        (['--data_dir', str(tmp_path)], '--data_dir .*: the run in')):
        with pytest.raises(UserError, match=said):
            run(camvid_folder, output, *other)
    more = run(camvid_folder, output, '--steps', '2')
    assert 'done, step 2 of 2 (1 in this run)' in capsys.readouterr().out
    assert more[0]['budget'] == '2 steps of 2 at 23x31'


def test_seeds_differ_and_one_seed_does_not(camvid_folder, tmp_path, monkeypatch):
    flags = ['--rows', 'Bilinear-Interpolation']
    monkeypatch.setattr(experiments.benchmark, 'measure_in_subprocess', lambda **_: {'seconds': [0.1], 'memory': 1e6})
    rows = run(camvid_folder, str(tmp_path / 'a'), '--seeds', '2', *flags)
    assert '+-' in rows[0]['val mIoU'] and '+- 0.0' not in rows[0]['train mIoU']
    scores = [main.runs.read_json(os.path.join(str(tmp_path / 'a'), 'bilinear-interpolation-median-seed%d' % seed,
                                               'metrics.json'))['train']['confusion'] for seed in (1, 2)]
    assert scores[0] != scores[1]
    run(camvid_folder, str(tmp_path / 'b'), *flags)
    again = main.runs.read_json(str(tmp_path / 'b' / 'bilinear-interpolation-median-seed1' / 'metrics.json'))
    assert again['train']['confusion'] == scores[0]


def test_list_shows_commands_and_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in experiments.tables():
        experiments.run(experiments.parse_args([name, '--list']))
    out = capsys.readouterr().out
    assert '# DeepLab-LargeFOV-denseCRF, none: needs dense CRF' in out and '--model fcn-basic-noaddition ' in out
    assert 'python benchmark.py deconvnet' in out and not list(tmp_path.iterdir())
    experiments.run(experiments.parse_args(['table1', '--list', '--class_weights', 'none']))
    out = capsys.readouterr().out
    assert out.count(', none') == 8 and ', median' not in out


def test_mean_and_spread():
    assert experiments.number([]) == '-' == experiments.number([None])
    assert experiments.number([1.25, None]) == '1.2'
    assert experiments.number([1.0, 3.0]) == '2.0 +- 1.4'


def test_order_is_compared_with_the_papers():
    """By hand: C in the paper's order, mIoU in the reverse, G with the last two changed over; BF too few."""
    found = [{'val G': g, 'val C': c + ' +- 0.5', 'val mIoU': m, 'val BF': '-', 'paper test G': t, 'paper test C': t,
              'paper test mIoU': t, 'paper test BF': t} for g, c, m, t in (
                  ('50.0', '5.0', '9.0', '1.0'), ('61.0', '6.0', '8.0', '2.0'), ('60.0', '7.0', '7.0', '3.0'))]
    found.append({'network': 'x', 'not run': 'why'})
    assert experiments.order(found, 'val').endswith(': G 0.50, C 1.00, mIoU -1.00.')
    assert experiments.order(found[:2], 'val') == ''


def test_bad_rows_are_refused():
    with pytest.raises(UserError, match='--rows SegNet: table1 has Bilinear-Interpolation, '):
        experiments.parse_args(['table1', '--rows', 'SegNet'])
    for flags, said in (('"', 'No closing quotation'), ('--steps 3', 'the rows set --steps themselves'),
                        ('--step 3', 'the rows set --step themselves')):
        with pytest.raises(UserError, match=said):
            experiments.parse_args(['table1', '--flags', flags])


def test_table6_measures(tmp_path, monkeypatch):
    asked = []

    def measured(**settings):
        asked.append((settings['model'], settings['training'], settings['batch_size']))
        return {'seconds': [0.1, 0.3] if settings['training'] else [0.05], 'memory': 5e6}

    monkeypatch.setattr(experiments.benchmark, 'measure_in_subprocess', measured)
    experiments.run(experiments.parse_args(['table6', '--output', str(tmp_path), '--rows', 'SegNet']))
    with open(str(tmp_path / 'table.csv')) as f:
        row, = csv.DictReader(f)
    assert asked == [('segnet', False, 1), ('segnet', True, 1), ('segnet', True, 4)]
    assert (row['forward ms'], row['backward ms'], row['prediction MB']) == ('50.0', '150.0', '5.0')
    assert row['paper forward ms'] == '422.5' and row['model MB'] == '117.8'


def test_the_papers_numbers_are_whole():
    """Every variant has all its scores; C of table 5's classes is near the mean printed there (44.75)."""
    for variant in paper.TABLE1:
        assert len(variant.balanced) == len(variant.natural) == 4
        assert len(variant.balanced_train) == len(variant.natural_train) == 3
    assert abs(np.mean(paper.TABLE5_CLASSES) - 44.75) < 0.1
    assert abs(np.mean(list(paper.TABLE2_CLASSES.values())) - 71.20) < 0.1


def test_results_come_from_the_runs_own_files(camvid_folder, tmp_path, monkeypatch, capsys):
    """Scores as in metrics.json, no path, between two marks; from what was kept, the very same text again."""
    monkeypatch.chdir(tmp_path)
    flags = ['--dataset', 'camvid', '--data_dir', camvid_folder, '--model', 'segnet-basic', '--height', '23', '--width',
             '31', '--steps', '1', '--output', 'run']
    main.train(main.parse_args(flags))
    scores = evaluate.evaluate(evaluate.parse_args(['run']))['val']
    (tmp_path / 'PAGE.md').write_text('before\n%s\nold\n%s\nafter\n' % (results.BEGIN, results.END))
    command = ['results', '--into', 'PAGE.md', '--output', 'kept', '--runs']
    experiments.run(experiments.parse_args(command + ['run']))
    page = (tmp_path / 'PAGE.md').read_text()
    cells = [cell.strip() for cell in next(line for line in page.splitlines() if 'segnet-basic' in line).split('|')]
    assert cells[5:9] == ['%.1f' % (100 * scores[name]) for name in ('G', 'C', 'mIoU', 'BF')]
    assert cells[9] == '82.7 / 62.0 / 47.7 / 35.8' and page.startswith('before\n') and page.endswith('after\n')
    assert 'old' not in page and camvid_folder not in page and cells[1:3] == ['segnet-basic', 'val, 5 images']
    assert not {'predictions.png', 'extremes.png', 'report.html'} & set(os.listdir('kept/run'))
    experiments.run(experiments.parse_args(command + ['kept/run']))
    assert (tmp_path / 'PAGE.md').read_text() == page
    (tmp_path / 'PAGE.md').write_text('no marks')
    with pytest.raises(UserError, match='--into PAGE.md: needs the lines'):
        experiments.run(experiments.parse_args(command + ['run']))
    with pytest.raises(UserError, match='--runs: name run folders, with results'):
        experiments.parse_args(['table1', '--runs', 'x'])
