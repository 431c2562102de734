"""Checks the rules of CONTRIBUTING.md: imports between code layers, use of every flag, and file sizes."""
import ast
import glob
import os
import re
import sys

import pytest
from conftest import ROOT

import demo
import evaluate
import experiments
import main
import predict
from system import cli

LAYERS = [  # from the lowest layer to the highest; a module imports no module of a higher layer
    {'system'},
    {'data', 'metrics', 'utils'},
    {'batches', 'datasets', 'segnet', 'optimize'},
    {'baselines', 'networks'},
    {'inference', 'runs'},
    {'paper'},
    {'main', 'evaluate', 'predict', 'demo', 'experiments', 'benchmark', 'datasets.__main__', 'datasets.convert'},
]
FILES = sorted(os.path.relpath(path, ROOT) for folder in ('', 'system', 'datasets', 'inference', 'runs', 'paper')
               for path in glob.glob(os.path.join(ROOT, folder, '*.py')))


def source(path):
    """Returns the text of a file of the project."""
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        return file.read()


def imports(path):
    """Yields the full names of imported modules, for example runs.run for `from runs import run`."""
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            prefix = node.module + '.' if isinstance(node, ast.ImportFrom) else ''
            yield from (prefix + alias.name for alias in node.names)


def layer(module):
    """Returns the index of a module in LAYERS, or None for a module outside the project."""
    heights = {name: height for height, names in enumerate(LAYERS) for name in names}
    parts = module.split('.')
    return heights.get('.'.join(parts[:2]), heights.get(parts[0]))


@pytest.mark.parametrize('path', FILES)
def test_imports_go_down(path):
    module = path[:-3].replace(os.sep, '.')
    assert layer(module) is not None, 'give %s a layer' % path
    found = list(imports(path))
    for name in found:
        assert layer(name) is None or layer(name) <= layer(module), name
        assert name != 'tensorflow', 'import tensorflow.compat.v1 as tf'
    if module in ('data', 'metrics', 'runs.plots', 'system.files', 'system.cli') or module.startswith('datasets'):
        assert not any(name.startswith('tensorflow') for name in found)
    if module in ('utils', 'segnet', 'baselines', 'networks', 'optimize'):
        assert not {'argparse', 'os', 'open'} & {name.split('.')[0] for name in found}
        assert not any(name.startswith('datasets') for name in found)
    if module == 'paper.tables':
        assert not any(layer(name) is not None for name in found)


@pytest.mark.skipif(not hasattr(sys, 'stdlib_module_names'), reason='Python 3.10 lists the standard library')
@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-tf1.txt'])
def test_imported_packages_are_required(name):
    """Each imported package is in the requirements file, even if another listed package installs it.

    An update of the other package may drop this dependency.
    """
    packages = {'cv2': 'opencv-python-headless', 'PIL': 'pillow', 'yaml': 'pyyaml'}
    required = re.findall(r'^([\w-]+)==', source(name), re.MULTILINE) + ['h5py'] * ('tf1' in name)  # TF 1 needs h5py
    found = {module.split('.')[0] for path in FILES for module in imports(path) if layer(module) is None}
    # requirements-export.txt lists tf2onnx, onnx and onnxruntime. requirements-demo.txt lists gradio. OpenVINO is an
    # optional engine of benchmark.py.
    found -= sys.stdlib_module_names | {'tf2onnx', 'onnx', 'onnxruntime'}
    found -= {'gradio', 'openvino'}
    assert {packages.get(module, module) for module in found} - set(required) == set()


def test_no_import_goes_in_a_circle():
    ours = {path[:-3].replace(os.sep, '.'): path for path in FILES}
    below = {}  # {module: modules of the project that the module imports}
    for module, path in ours.items():
        below[module] = {name for found in imports(path) for name in (found, found.rpartition('.')[0]) if name in ours}
    while below:
        leaves = {module for module, names in below.items() if not names & set(below) - {module}}
        assert leaves, 'a circle: %s' % sorted(below)
        below = {module: names for module, names in below.items() if module not in leaves}


@pytest.mark.parametrize('script', [main, evaluate, experiments, predict, demo])
def test_each_flag_is_read(script):
    names = re.findall(r"add_argument\('(?:--)?(\w+)'", source(script.__file__))
    assert len(names) >= 5
    code = '\n'.join(map(source, FILES))
    for name in names:
        read = re.search(r"(args\.|flags\[')%s\b" % name, code) or re.search(r"for name in \(.*'%s'" % name, code)
        read = read or (script is main and name in main.batches.NO_AUGMENTATION)
        assert read, 'nothing reads --%s' % name


def test_help_shows_defaults_as_they_are_typed():
    """The help shows lists without brackets, and hides the defaults [], '', None and False."""
    parser = cli.Parser()
    for name, default in {'size': [45, 61], 'none': [], 'text': '', 'unset': None, 'off': False, 'zero': 0}.items():
        parser.add_argument('--' + name, default=default, help='about ' + name)
    shown = re.findall(r'about (\w+)(?: \(default: (.*)\))?\n', parser.format_help())
    assert shown == [('size', '45 61'), ('none', ''), ('text', ''), ('unset', ''), ('off', ''), ('zero', '0')]


TAKE_FLAGS = {('runs/run.py', 'output_folder'), ('runs/run.py', '__init__'),
              ('batches.py', 'training_batches'), ('networks.py', 'spec_of')}  # these functions take a dict of flags


@pytest.mark.parametrize('path', FILES)
def test_parsed_flags_stay_in_the_commands(path):
    if path[:-3].replace(os.sep, '.') in LAYERS[-1]:
        return
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            names = {parameter.arg for parameter in node.args.args + node.args.kwonlyargs}
            assert 'args' not in names, node.lineno
            assert 'flags' not in names or (path, getattr(node, 'name', '')) in TAKE_FLAGS, node.lineno


@pytest.mark.parametrize('path', FILES)
def test_sizes(path):
    """A file has at most 350 lines; a function has at most 60 lines (main.train: 30) and 8 parameters."""
    assert len(source(path).splitlines()) <= 350
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first_line = (ast.get_docstring(node) or '').split('\n')[0]
            assert len(first_line) <= 105, first_line
        if isinstance(node, ast.FunctionDef):
            last = max(getattr(child, 'lineno', 0) for child in ast.walk(node))
            assert last - node.lineno < (30 if (path, node.name) == ('main.py', 'train') else 60), node.name
            assert len(node.args.args + node.args.kwonlyargs) <= 8, node.name
