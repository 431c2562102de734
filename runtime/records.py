"""Reads and writes the files of a run folder: JSON, config, scores, log and checkpoints."""
import contextlib
import datetime
import json
import os
import platform
import re
import subprocess

import numpy as np
import tensorflow.compat.v1 as tf

import data
from data import UserError
from runtime import cli

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = {'best': 'best', 'last': 'checkpoints'}  # value of --checkpoint -> folder below the run folder


def write_text(path: str, text: str):
    """Writes a text file atomically."""
    with data.atomic_write(path) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(text)


def write_json(path: str, value):
    """Writes `value` as JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + '\n')


def update_json(path: str, entries: dict):
    """Sets the top-level `entries` of a JSON file; makes the file if there is none."""
    value = read_json(path) if os.path.exists(path) else {}
    value.update(entries)
    write_json(path, value)


def corrupt_file_error(path: str, reason) -> UserError:
    """UserError for a file of a run folder that main.py cannot have written."""
    return UserError('%s: %s; restore the file, or train again into another --output' % (path, reason))


def read_json(path: str) -> dict:
    """Reads the object in a JSON file; UserError for other contents."""
    try:
        value = json.loads(data.read_bytes(path).decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise corrupt_file_error(path, 'not JSON (%s)' % error)
    if not isinstance(value, dict):
        raise corrupt_file_error(path, 'holds no JSON object')
    return value


def file_names(folder: str):
    """Names of the files in `folder`; empty if there is no such folder."""
    return os.listdir(folder) if os.path.isdir(folder) else []


def run_folder(path: str) -> str:
    """Argparse type of a run: a run folder, or the name of a published folder in Output/pretrained/."""
    published = os.path.join(ROOT, 'Output', 'pretrained', path)
    by_name = os.path.basename(path) == path and not os.path.exists(path) and os.path.isdir(published)
    return published if by_name else path


def check_folder_name(folder: str):
    """Raises UserError for `[`, `]` and `\\` in a path: TensorFlow reads checkpoint paths as glob patterns."""
    if set(folder) & set('[]' if os.sep == '\\' else '[]\\'):
        raise UserError('%s: TensorFlow reads no checkpoints below a name with [, ] or \\; rename the folder' % folder)


def read_config(folder: str) -> dict:
    """Reads config.json of a run folder; UserError if the file or a required entry is missing."""
    check_folder_name(folder)
    if not os.path.isdir(folder):
        raise UserError('%s: no such run folder; main.py writes run folders, as Output/<dataset>-<model>' % folder)
    path = os.path.join(folder, 'config.json')
    config = read_json(path)
    try:
        config.setdefault('starts', [])
        missing = {'dataset', 'data_dir', 'model', 'input', 'fit', 'height', 'width', 'batch_size', 'seed', 'dropout',
                   'precision', 'class_weights'} - set(config['flags'])
        sizes = [config['flags'][name] for name in ('height', 'width', 'batch_size')]
        colors = np.array(config['colors'], np.uint8)
        if missing or min(sizes) < 1 or colors.shape != (len(config['class_names']), 3) or len(colors) < 2:
            raise ValueError(', '.join(sorted(missing)) or 'sizes, class_names or colors')
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise corrupt_file_error(path, 'not the config of a run (%s)' % error)
    return config


def read_scores(folder: str) -> dict:
    """Reads metrics.json of a run folder -> {split: scores}; empty if there is none.

    UserError for an entry without scores.
    """
    path = os.path.join(folder, 'metrics.json')
    found = read_json(path) if os.path.exists(path) else {}
    for split, scores in found.items():
        if not isinstance(scores, dict) or not {'G', 'C', 'mIoU', 'accuracy', 'IoU', 'class_names'} <= set(scores):
            raise UserError('%s: %s holds no scores; delete the file, evaluate.py writes it again' % (path, split))
    return found


def read_log(folder: str, last_step=np.inf) -> list:
    """Reads the records of log.jsonl up to `last_step`; drops truncated lines and lines without a step."""
    path = os.path.join(folder, 'log.jsonl')
    records = []
    if os.path.exists(path):
        for line in data.read_bytes(path).decode('utf-8', 'replace').splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get('step'), int) and record['step'] <= last_step:
                    records.append(record)
    return records


def checkpoints(folder: str, which: str) -> list:
    """Paths of the 'best' or 'last' checkpoints of a run, the newest first; found by their file names."""
    folder = os.path.join(folder, FOLDERS[which])
    matches = [re.match(r'\Amodel-([0-9]+)\.index\Z', name) for name in file_names(folder)]
    steps = sorted((int(match.group(1)) for match in matches if match), reverse=True)
    return [os.path.join(folder, 'model-%d' % step) for step in steps]


def checkpoint(folder: str, which: str) -> str:
    """Path of the newest 'best' or 'last' checkpoint of a run; UserError if there is none."""
    paths = checkpoints(folder, which)
    if not paths:
        raise UserError('%s: has no %s checkpoint; train it with main.py first' % (folder, which))
    return paths[0]


def revision() -> str:
    """Git commit of the code, with '-dirty' for uncommitted changes; 'unknown' outside a checkout."""
    try:
        return subprocess.check_output(['git', '-C', ROOT, 'describe', '--always', '--dirty', '--abbrev=12',
                                        '--exclude', '*'], stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def provenance(device: str) -> dict:
    """Provenance of an invocation: command, revision, versions, device and time, for `starts` of config.json."""
    return {'command': cli.command_line(), 'revision': revision(), 'device': device,
            'python': platform.python_version(), 'tensorflow': tf.__version__, 'numpy': np.__version__,
            'pid': os.getpid(), 'started': datetime.datetime.now().isoformat(timespec='seconds')}


def training_seconds(folder: str, config: dict) -> float:
    """Seconds of training: the number of steps times the median time of a step, so that pauses do not count."""
    if 'seconds' in config:  # a published run
        return config['seconds']
    speeds = [record['images_per_second'] for record in read_log(folder) if 'images_per_second' in record]
    return len(speeds) * config['flags']['batch_size'] / float(np.median(speeds)) if speeds else 0.0


def publish_config(folder: str, run: str, step):
    """Writes config.json of the run folder `run` into `folder`, with the training time, without local paths.

    Args:
      step: step of the published weights, or None.
    """
    config = read_config(run)
    for start in config['starts']:
        start['command'] = re.sub(r"--data_dir[ =]('[^']*'|\S+)", '--data_dir DIR', start['command'])
        start.pop('pid', None)
    config.update(step=config.get('step', step), seconds=training_seconds(run, config),
                  flags=dict(config['flags'], data_dir=None, output=None, init_from=None, vgg16=None))
    write_json(os.path.join(folder, 'config.json'), config)
