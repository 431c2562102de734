"""What keeps the code in its rooms: imports go downwards, each flag is read, TensorFlow is imported in one way."""
import ast
import glob
import os
import re

import pytest
from conftest import ROOT

import evaluate
import experiments
import main
import predict

RANK = {'experiments': 9, 'benchmark': 8, 'main': 8, 'predict': 8, 'evaluate': 7, 'measure': 7, 'weights': 6,
        'report': 4, 'results': 5, 'describe': 6, 'parts': 7, 'distribute': 7, 'devices': 6, 'networks': 5,
        'baselines': 4, 'runs': 3, 'optimize': 3, 'segnet': 3, 'utils': 2, 'batches': 2, 'datasets': 2, 'plots': 2,
        'sample': 1, 'own': 1, 'sun': 1, 'download': 1, 'caffe': 1, 'metrics': 1, 'paper': 0, 'data': 0, 'quiet': 0,
        'cli': 1, 'worker': 0}
FILES = sorted(glob.glob(os.path.join(ROOT, '*.py')))


def imports(path):
    tree = ast.parse(open(path, encoding='utf-8').read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize('path', FILES, ids=[os.path.basename(path) for path in FILES])
def test_imports_go_downwards(path):
    name = os.path.basename(path)[:-3]
    for module in imports(path):
        assert module not in RANK or RANK[module] < RANK[name], module
        assert module != 'tensorflow', 'import tensorflow.compat.v1 as tf'
    if name in ('data', 'metrics', 'sample', 'plots'):
        assert not any(module.startswith('tensorflow') for module in imports(path))
    if name in ('utils', 'segnet', 'baselines', 'networks'):
        assert not {'argparse', 'os', 'data', 'datasets', 'runs'} & set(imports(path))


@pytest.mark.parametrize('script', [main, evaluate, experiments, predict])
def test_each_flag_is_read(script):
    source = open(script.__file__, encoding='utf-8').read()
    names = re.findall(r"add_argument\('(?:--)?(\w+)'", source)
    assert len(names) > 5
    for name in names:
        read = re.search(r'args\.%s\b' % name, source) or (script is main and name in main.batches.NO_AUGMENTATION)
        read = read or re.search(r"for name in \(.*'%s'" % name, source)
        assert read, 'nothing reads --%s' % name
