"""Tests benchmark.py: measurements in subprocesses, and tables of results."""
import csv
import functools
import importlib.util
import os
import re
import sys

import pytest
import tensorflow.compat.v1 as tf
from conftest import assert_refused, write_camvid

import benchmark
from inference import engines
from runs.folder import read_config

def python(code):
    return benchmark.measure_in_subprocess(1, (sys.executable, '-c', code))


def test_result_is_the_last_line_of_output_whatever_else_is_written():
    """The subprocess writes 200,000 bytes to standard error, more than a pipe holds."""
    code = ("import sys; sys.stderr.write('x' * 200000 + '\\n'); print('a library greets'); "
            "print('{\"seconds\": [1.5], \"memory\": null}')")
    assert python(code) == {'seconds': [1.5], 'memory': None}


def test_failed_measurement_says_why():
    with pytest.raises(ChildProcessError, match=r'no message \(status 1\)'):
        benchmark.measure_in_subprocess(1, ['/bin/false'])
    with pytest.raises(ChildProcessError, match=r'ValueError: wrong size \(status 1\)'):
        python('raise ValueError("wrong size")')
    with pytest.raises(MemoryError, match='OOM when allocating'):
        python('import sys; sys.exit("OOM when allocating\\nOriginal stack trace:")')
    with pytest.raises(MemoryError):  # the kernel sends SIGKILL when memory runs out
        python('import os; os.kill(os.getpid(), 9)')


def test_prediction_and_training_in_a_process():
    """Training takes more memory than prediction, because all feature maps are kept for the gradients."""
    sizes = {'height': 90, 'width': 120, 'batch_size': 2, 'device': 'cpu'}
    predicted = benchmark.measure_in_subprocess(2, model='segnet-basic', training=False, **sizes)
    trained = benchmark.measure_in_subprocess(1, model='segnet-basic', training=True, **sizes)
    assert len(predicted['seconds']) == 2 and len(trained['seconds']) == 1
    assert min(predicted['seconds'] + trained['seconds']) > 0
    assert trained['memory'] > predicted['memory'] > 2 * 90 * 120 * 64 * 4  # 2 images with 64 feature maps


def test_ours_and_peers_take_turns():
    """Each network is timed in three rounds of two runs.

    The results are the median of the six durations and the memory that the last subprocess reports.
    """
    asked = []
    times = {'a': iter([[1, 9], [2, 3], [4, 5]]), 'b': iter([[1, 1]] * 3)}

    def measured(repeats, name):
        asked.append((name, repeats))
        return {'seconds': next(times[name]), 'memory': len(asked)}

    found = benchmark.measured_in_turns({name: functools.partial(measured, name=name) for name in 'ab'}, 5)
    assert asked == 3 * [('a', 2), ('b', 2)] and found == {'a': (3.5, 5), 'b': (1.0, 6)}
    benchmark.measured_in_turns({'a': lambda repeats: asked.append(repeats) or {'seconds': [1], 'memory': 1}}, 5)
    assert asked[-1] == 5 and len(asked) == 7


def test_table_beside_a_peer(tmp_path, monkeypatch, capsys):
    """Checks the table for predictions of 0.65 s (our SegNet), 0.7 s (PyTorch eager) and 0.5 s (compiled).

    The expected utilization follows from 0.65 s and 106.7 G MACs per prediction of our SegNet.
    """
    seconds = {('matrix-product', None): 0.5, ('segnet', None): 0.65, ('segnet', False): 0.7, ('segnet', True): 0.5}
    monkeypatch.setattr(benchmark, 'measure_in_subprocess', lambda repeats, model, compiled=None, **_: {
        'seconds': [seconds[model, compiled]] * repeats, 'memory': 3e6 if compiled is None else 2e6})
    run(*'segnet --peer pytorch --repeats 3 --device cpu --output'.split(), str(tmp_path))
    ours, eager, compiled = [[cell.strip() for cell in line.split('|')[1:-1]]
                             for line in (tmp_path / 'benchmark.md').read_text().splitlines()[-3:]]
    assert ours[:9] == ['segnet', 'predict', 'float32', '360x480', '1', 'ours', '650.0', '1.54', '3']
    utilization = (2 * 106.7e9 / 0.65) / (2 * 3072 ** 3 / 0.5)  # relative to the FLOP/s of the matrix product
    assert ours[9:] == ['29.449 M', '106.7 G', '%.2f' % utilization, '1.30', '1.50']
    assert eager[5:7] == ['PyTorch eager', '700.0'] and compiled[5:7] == ['PyTorch compiled', '500.0']
    assert set(eager[9:]) == {''} and sorted(os.listdir(str(tmp_path))) == ['benchmark.csv', 'benchmark.md']
    assert 'PyTorch eager' in capsys.readouterr().out


def test_measurements_of_a_sweep():
    args = benchmark.parse_args('segnet --sweep --height 45 --width 61'.split())
    measured = [tuple(settings[name] for name in ('height', 'width', 'batch_size'))
                for settings in benchmark.settings_to_measure(args)]
    assert measured == [(45, 61, 1), (45, 61, 2), (45, 61, 4), (45, 61, 8), (180, 240, 1), (360, 480, 1),
                        (540, 720, 1), (720, 960, 1)]
    # The size 360x480 occurs in both parts of the sweep, but is measured once.
    assert len(list(benchmark.settings_to_measure(benchmark.parse_args(['segnet', '--sweep'])))) == 7


def run(*words):
    """Runs benchmark.py with `words` as arguments."""
    benchmark.main(benchmark.parse_args(list(words)))


def test_engines_beside_predict(tmp_path, monkeypatch, capsys):
    """Each engine predicts almost the same ids as predict.py. The output lists missing engines.

    The class ids of the run go from 20 down to 10. So the test fails if benchmark.py computes scores from class ids
    instead of class indices.
    """
    monkeypatch.setattr(benchmark, 'read_config', lambda run: dict(read_config(run), class_ids=list(range(20, 9, -1))))
    monkeypatch.setattr(benchmark, 'measure_in_subprocess', lambda repeats, **settings: engines.measure(
        **settings, repeats=repeats))
    monkeypatch.setattr(benchmark, 'ROUNDS', 1)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name != 'openvino' and find_spec(name))
    write_camvid(str(tmp_path), {'train': 1, 'val': 3, 'test': 1})
    run(*'camvid-segnet-basic --engines --images 2 --height 45 --width 61 --repeats 1'.split(),
        '--data_dir', str(tmp_path), '--output', str(tmp_path))
    assert re.search('OpenVINO: left out, .*openvino is not installed', capsys.readouterr().out)
    with open(str(tmp_path / 'engines.csv')) as file:
        rows = {row['by']: row for row in csv.DictReader(file)}
    assert rows['predict.py']['equal ids'] == '1.0000' and rows['predict.py']['of predict.py'] == '1.00'
    assert len(rows) > 1 or tf.__version__.startswith('1.')
    exact = [name for name in rows if 'int8' not in name and 'bfloat16' not in name]
    for name, row in rows.items():
        assert float(row['equal ids']) > (0.99 if name in exact else 0.9), name
        assert float(row['ms/image']) > 0 and row['input'] == '45x61'
        assert abs(float(row['mIoU']) - float(rows['predict.py']['mIoU'])) < 5


@pytest.mark.parametrize('flags, message', [
    (['--engines', '--sweep'], '--sweep: has no effect with --engines'), (['unet', '--peer', 'pytorch'], 'with --peer'),
    (['--engines', '--precision', 'bfloat16'], '--precision: has no effect with --engines'),
    (['segnet', '--images', '5'], '--images: has no effect .*without --engines'), (['nonet'], 'nonet: no such network'),
    (['segnet', '--sweep', '--batch_size', '2'], '--batch_size: has no effect with --sweep'),
    (['segnet', '--output', __file__], '--output .*is a file'),
    (['segnet', '--xla', '--device', 'cpu'], '--xla: there is no GPU'),
    (['--batch_size', '2', '0'], '--batch_size: 0: must be')])
def test_bad_flags_are_refused(flags, message):
    assert_refused(message, run, *flags)
