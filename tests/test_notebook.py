"""Tests the notebook: the committed outputs are outputs of the current code, and all cells run."""
import inspect
import os
import re
import shutil
import subprocess
import sys

import evaluate
import main
import networks
import pytest
import segnet
import utils
from conftest import ROOT
from datasets import sample
from inference.predictor import Prediction
from system import distribute

nbformat = pytest.importorskip('nbformat', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')
nbclient = pytest.importorskip('nbclient', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')
PATH = os.path.join(ROOT, 'SegNet_Implementation.ipynb')
RUN_AGAIN = 'delete Output/notebook and run: jupyter execute --inplace SegNet_Implementation.ipynb'


@pytest.fixture(scope='module')
def notebook():
    return nbformat.read(PATH, 4)


def code_cell(notebook, text):
    """Returns the code cell that contains `text`."""
    return next(cell for cell in notebook.cells if cell.cell_type == 'code' and text in cell.source)


def outputs(notebook, kind):
    """Returns the outputs of all cells as a list.

    If `kind` is 'text', the outputs are the printed text. Otherwise the outputs are the data of the MIME type `kind`.
    """
    found = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    return [output.text if kind == 'text' else output.data[kind] for output in found
            if kind in output or kind in output.get('data', {})]


def lines(notebook):
    """Returns the set of output lines; numbers, devices and the predicted class are removed from the lines."""
    return words_of_lines(''.join(outputs(notebook, 'text')))


def words_of_lines(text):
    """Returns the set of the lines of `text`; numbers, devices and the predicted class are removed from the lines."""
    text = re.sub(r'( on | with )[CG]PU .*|predicted: .*', '', text)
    return {' '.join(re.sub(r'[-\d.,]+', '', line).split()) for line in text.splitlines()}


def assert_whole(notebook):
    """Checks that all code cells ran in order, and that outputs have no warnings and no local paths."""
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(outputs(notebook, 'image/jpeg')) == 8
    assert not [output for cell in cells for output in cell.outputs if output.get('name') == 'stderr']
    assert not re.search(r'(^|[\s\'"=:(])/\w', ''.join(outputs(notebook, 'text'))), 'a path of this machine'


def test_committed_with_outputs(notebook):
    nbformat.validate(notebook)
    assert_whole(notebook)
    assert os.path.getsize(PATH) < 400000


def test_validation_steps(notebook, tmp_path):
    """The stored output of the training cell lists the steps at which main.py validates.

    main.py is given the flags in the training cell.
    """
    cell = code_cell(notebook, "'--steps'")
    typed = []
    names = {'command': lambda *arguments: typed.extend(arguments)}
    exec(code_cell(notebook, 'STEPS = ').source, names)
    exec(cell.source, names)
    args = main.parse_args(typed[1:])
    dataset = main.open_dataset(args, distribute.Group())
    run = main.Run(vars(args), dataset, vars(main.parse_args([])), str(tmp_path / 'run'))
    due = ['epoch %.1f, step %d' % (run.epochs(step), step) for step in range(1, run.total + 1)
           if run.validation_due(step)]
    text = ''.join(output.text for output in cell.outputs)
    assert re.findall(r'^(epoch .*): validation ', text, re.MULTILINE) == due, RUN_AGAIN
    assert 'done, step %d of %d ' % (run.total, run.total) in text, RUN_AGAIN


def test_sources_and_layers(notebook):
    """The function sources and the layer table in the notebook's outputs match the current code."""
    shown = ['```python\n%s```' % inspect.getsource(function) for function in (segnet.segnet, utils.unpool)]
    assert outputs(notebook, 'text/markdown') == shown, RUN_AGAIN
    text = ''.join(outputs(notebook, 'text'))
    assert 'ENCODER = %s ' % segnet.ENCODER in text, RUN_AGAIN
    assert networks.layer_table(networks.Spec('segnet', 4, height=128, width=176)) in text, RUN_AGAIN


def test_columns_of_scores(notebook):
    """The stored scores have the columns that evaluate.py prints."""
    dataset = sample.read()
    _, label = dataset.load('val', 0)
    scores, _, _ = evaluate.score_split([(0, label, Prediction(label, confidence=label))], dataset, 'val', bf_images=1)
    assert words_of_lines(evaluate.scores_text(dataset.class_names, scores)) <= lines(notebook), RUN_AGAIN


def test_command_prints_while_it_runs(notebook, tmp_path, monkeypatch):
    """The notebook prints the first line of a script's output while the script still runs.

    The script writes its last line after the notebook has printed the first line.
    """
    monkeypatch.delenv('PYTHONUNBUFFERED', raising=False)
    seen = tmp_path / 'seen'
    script = tmp_path / 'script.py'
    script.write_text("import os, signal\nsignal.alarm(20)\nprint('first')\n"
                      "while not os.path.exists(%r): pass\nprint('last')\n" % str(seen))
    printed = []

    def show(line, **_):
        printed.append(line)
        seen.touch()

    names = {'subprocess': subprocess, 'sys': sys, 'print': show}
    exec(code_cell(notebook, 'def command(').source, names)
    names['command'](str(script))
    assert printed == ['first\n', 'last\n']
    with pytest.raises(RuntimeError, match='-c: exit status 3'):
        names['command']('-c', 'raise SystemExit(3)')


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path):
    """All cells run with two training steps on smaller images.

    The outputs equal the committed outputs except for numbers, devices and the predicted class.
    """
    committed = lines(notebook)
    ignore = shutil.ignore_patterns('.*', 'Output', 'tests', 'docs', 'shared', '__pycache__')
    shutil.copytree(ROOT, str(tmp_path / 'copy'), ignore=ignore)
    notebook = nbformat.read(PATH, 4)  # read again, because other tests use the fixture unchanged
    code_cell(notebook, 'STEPS = ').source += '\nSTEPS = 2\nHEIGHT, WIDTH = 65, 99\n'
    nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path / 'copy')}}).execute()
    assert_whole(notebook)
    assert lines(notebook) == committed, RUN_AGAIN
