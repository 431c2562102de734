"""The notebook is committed with its outputs, and its cells run from top to bottom on a copy of the code."""
import os
import re
import shutil

import pytest
from conftest import ROOT

nbformat = pytest.importorskip('nbformat', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')
nbclient = pytest.importorskip('nbclient', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')
PATH = os.path.join(ROOT, 'SegNet_Implementation.ipynb')
IMAGES = [0, 0, 0, 1, 0, 1, 2, 1, 2, 1]  # of each code cell


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def settings(notebook):
    return next(cell for cell in code_cells(notebook) if 'STEPS = ' in cell.source)


def num_images(notebook):
    """Number of PNG images among the outputs of each code cell."""
    return [sum('image/png' in output.get('data', {}) for output in cell.outputs) for cell in code_cells(notebook)]


def printed(notebook):
    return ''.join(output.get('text', '') for cell in code_cells(notebook) for output in cell.outputs)


def test_committed_with_outputs():
    notebook = nbformat.read(PATH, 4)
    nbformat.validate(notebook)
    assert num_images(notebook) == IMAGES
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(IMAGES) + 1))
    steps = re.search(r'^STEPS = (\d+)$', settings(notebook).source, re.MULTILINE).group(1)
    assert 'done, step %s of %s' % (steps, steps) in printed(notebook)
    assert os.path.getsize(PATH) < 400000


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    ignore = shutil.ignore_patterns('.*', 'Output', 'tests', 'docs', 'shared', '__pycache__')
    shutil.copytree(ROOT, str(tmp_path / 'copy'), ignore=ignore)
    notebook = nbformat.read(PATH, 4)
    settings(notebook).source += '\nSTEPS = 2\nHEIGHT, WIDTH = 45, 61\n'
    nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path / 'copy')}}).execute()
    assert num_images(notebook) == IMAGES
    text = printed(notebook)
    assert 'done, step 2 of 2' in text and 'predicted: ' in text and 'mIoU' in text and '1 of 1 labelled' in text
