"""The notebook's cells run from top to bottom, on a copy of the code, and show their pictures."""
import glob
import os
import shutil

import pytest
from conftest import ROOT

nbformat = pytest.importorskip('nbformat', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')
nbclient = pytest.importorskip('nbclient', reason='Jupyter is not installed; TensorFlow 1.15 is tested without it')


def test_every_cell_runs(tmp_path):
    for path in glob.glob(os.path.join(ROOT, '*.py')) + [os.path.join(ROOT, 'train.csv')]:
        shutil.copy(path, str(tmp_path))
    notebook = nbformat.read(os.path.join(ROOT, 'SegNet_Implementation.ipynb'), 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert not any(cell.outputs for cell in code), 'is committed without outputs'
    nbclient.NotebookClient(notebook, timeout=180, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path)}}).execute()
    pictures = [sum('image/png' in output.get('data', {}) for output in cell.outputs) for cell in code]
    assert pictures == [0, 0, 0, 1, 1, 2, 2, 1]
    said = ''.join(output.get('text', '') for cell in code for output in cell.outputs)
    assert 'done, step 60 of 60' in said and 'mIoU' in said and '1 of 1 labelled' in said
