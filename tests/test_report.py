"""Tests the self-contained report.html and the tables in Markdown and CSV."""
import base64
import csv
import html
import os
import pathlib
import re

import pytest
from conftest import write_sartorius
from test_main import score, train

from paper import tables
from runs import report
from runs.folder import read_config, read_json
from system.files import write_json


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Trains and scores a run of two steps. One class is named like an HTML tag."""
    folder = str(tmp_path_factory.mktemp('report') / 'run')
    train(write_sartorius(str(tmp_path_factory.mktemp('data'))), folder, '--dataset', 'sartorius', '--steps', '2')
    score(folder, '--bf_images', '1', '--bn', 'moving')
    config = read_config(folder)
    config['class_names'][1] = '<script>alert(1)</script>'
    metrics = read_json(os.path.join(folder, 'metrics.json'))
    for scores in metrics.values():
        scores['class_names'] = config['class_names']
    write_json(os.path.join(folder, 'config.json'), config)
    write_json(os.path.join(folder, 'metrics.json'), metrics)
    report.write(folder, tables.published_scores('camvid', 'segnet', 'median'),
                 tables.class_accuracies('camvid', 'segnet'))
    return folder


def test_page_holds_scores_pictures_and_command(run):
    text = pathlib.Path(run, 'report.html').read_text(encoding='utf-8')
    assert not re.search('<(script|iframe|object)', text)
    assert set(re.findall('(?:src|href)="(.*?)[:,]', text)) == {'data'}
    pictures = dict(re.findall('<img alt="(.*?)" src="data:image/png;base64,(.*?)">', text))
    assert list(pictures) == ['loss.png', 'cell_types.png', 'extremes.png', 'confusion-val.png']
    for name, content in pictures.items():
        assert base64.b64decode(content) == pathlib.Path(run, name).read_bytes()
    scores = read_json(os.path.join(run, 'metrics.json'))['val (moving)']
    cells = {html.unescape(cell.strip()) for cell in re.findall('<td[^>]*>(.*?)</td>', text)}
    percents = ['%.1f' % (100 * scores[name]) for name in ('G', 'mIoU')]
    assert {*percents, '<script>alert(1)</script>', 'moving'} <= cells
    assert '<pre>python ' in text and 'color-scheme: light dark' in text and 'width=device-width' in text


def test_markdown_and_csv_of_a_table(tmp_path):
    """Cells are escaped. A row may lack a column. Identical commands are printed only once, below the table."""
    quoted = 'python a.py "x | y"'
    rows = [{'network': 'a|b', 'G|C': '50.0', 'command': quoted}, {'network': 'c\nd', 'note': 'n', 'command': quoted},
            {'network': '1e3', 'command': 'python b.py'}]
    text = report.write_table(str(tmp_path / 'table'), 'Title', 'Note.', rows)
    assert (tmp_path / 'table.md').read_text() == text
    lines = [re.sub(' +', ' ', line) for line in text.splitlines()]
    assert lines[:5] == ['# Title', '', 'Note.', '', '| network | G\\|C | note |']
    assert lines[6:10] == ['| a\\|b | 50.0 | |', '| c<br>d | | n |', '| 1e3 | | |', '']
    assert lines[10:] == ['```', '# a|b', quoted, '# 1e3', 'python b.py', '```']
    with open(str(tmp_path / 'table.csv')) as file:
        assert list(csv.reader(file)) == [['network', 'G|C', 'command', 'note'], ['a|b', '50.0', quoted, ''],
                                          ['c\nd', '', quoted, 'n'], ['1e3', '', 'python b.py', '']]
