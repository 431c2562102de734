"""Reads and writes the files of a run folder: the config, the scores, the log and the checkpoints."""
import contextlib
import datetime
import json
import os
import platform
import re
import shlex

import filelock
import numpy as np
import tensorflow.compat.v1 as tf

import networks
from system import cli, cluster
from system.files import UserError, read_bytes, write_json

FOLDERS = {'best': 'best', 'last': 'checkpoints'}  # {value of --checkpoint: folder inside the run folder}


def read_json(path: str) -> dict:
    """Reads a JSON object from a file -> dict; raises UserError if the file is unreadable or not a JSON object."""
    try:
        content = json.loads(read_bytes(path).decode('utf-8'))
        if not isinstance(content, dict):
            raise ValueError('found a %s' % type(content).__name__)
    except (ValueError, RecursionError) as error:
        raise UserError('%s: not a JSON object (%s); restore the file, or train into another --output' % (path, error))
    return content


def file_names(folder: str):
    """Lists the names of the files and folders in `folder` -> list of str; empty if `folder` does not exist."""
    return os.listdir(folder) if os.path.isdir(folder) else []


def run_folder(path: str) -> str:
    """Argparse type of a run: converts the path of a run folder, or the name of a published run, to a path.

    Published runs are the folders in Output/pretrained/. An existing file or folder `path` takes precedence over a
    published run of the same name.
    """
    published = os.path.join(cli.ROOT, 'Output', 'pretrained', path)
    by_name = path and path == os.path.basename(path) and not os.path.exists(path) and os.path.isdir(published)
    return published if by_name else path


def check_folder_name(folder: str):
    """Raises UserError if a path contains `[`, `]` or `\\`; TensorFlow reads checkpoint paths as glob patterns."""
    if set(folder) & set('[]' if os.sep == '\\' else '[]\\'):
        raise UserError('%s: TensorFlow cannot read checkpoints in a path with [, ] or \\; rename the folder' % folder)


def read_config(folder: str) -> dict:
    """Reads config.json of a run folder -> dict; adds 'invocations' and 'class_ids' if the file lacks the keys.

    Raises UserError if the file is missing or not the config of a run, or if the value of --model or --input is
    unknown.
    """
    check_folder_name(folder)
    if not os.path.isdir(folder):
        raise UserError('%s: no such run folder; main.py writes run folders: Output/<dataset>-<model>' % folder)
    path = os.path.join(folder, 'config.json')
    config = read_json(path)
    flags = config.get('flags')
    if not ('class_names' in config and isinstance(flags, dict) and flags.get('model') in networks.NETWORKS
            and flags.get('input') in networks.INPUTS):
        raise UserError('%s: not the config of a run, or of an unknown network; train into another --output' % path)
    config['invocations'] = config.pop('starts', config.get('invocations', []))  # older runs call the key 'starts'
    config.setdefault('class_ids', list(range(len(config['class_names']))))
    return config


def read_scores(folder: str) -> dict:
    """Reads metrics.json of a run folder -> {split: scores}; empty if the file does not exist.

    Raises UserError if the file holds no JSON object.
    """
    path = os.path.join(folder, 'metrics.json')
    return read_json(path) if os.path.exists(path) else {}


def add_scores(folder: str, entries: dict):
    """Adds or replaces `entries`, {split: scores}, in metrics.json of a run folder.

    A lock file prevents two processes from overwriting each other's entries.
    """
    with filelock.FileLock(os.path.join(folder, '.metrics.lock'), mode=0o666):  # 0o666: other users can lock
        write_json(os.path.join(folder, 'metrics.json'), dict(read_scores(folder), **entries))


def read_log(folder: str, last_step=np.inf) -> list:
    """Reads the records of log.jsonl up to step `last_step` -> list of dicts; empty if there is no log.

    Skips lines without a step, and truncated lines, which a killed process may leave.
    """
    path = os.path.join(folder, 'log.jsonl')
    records = []
    if os.path.exists(path):
        for line in read_bytes(path).decode('utf-8', 'replace').splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get('step'), int) and record['step'] <= last_step:
                    records.append(record)
    return records


def checkpoints(folder: str, which: str) -> list:
    """Lists the checkpoints of the kind `which` in a run folder -> paths without a suffix such as .index.

    `which` is 'best' or 'last'. The newest checkpoint comes first.
    """
    folder = os.path.join(folder, FOLDERS[which])
    names = [name for name in file_names(folder) if re.match(r'\Amodel-[0-9]+\.index\Z', name)]
    steps = sorted([int(name[len('model-'):-len('.index')]) for name in names], reverse=True)
    return [os.path.join(folder, 'model-%d' % step) for step in steps]


def checkpoint(folder: str, which: str) -> str:
    """Returns the path of a run's newest checkpoint of the kind `which`, without a suffix such as .index.

    `which` is 'best' or 'last'. Raises UserError if the run has no checkpoint of this kind.
    """
    paths = checkpoints(folder, which)
    if not paths:
        raise UserError('%s: has no %s checkpoint; train the run with main.py first' % (folder, which))
    return paths[0]


def provenance(device: str) -> dict:
    """Collects command, revision, versions, device and start time of this process -> dict for config.json.

    The entry `processes` is the number of processes that train together; `pid` is the id of this process.
    """
    return {'command': cli.command_line(), 'revision': cli.revision(), 'device': device,
            'processes': len(cluster.resolve_cluster()[0]),
            'python': platform.python_version(), 'tensorflow': tf.__version__, 'numpy': np.__version__,
            'pid': os.getpid(), 'started': datetime.datetime.now().isoformat(timespec='seconds')}


def training_seconds(folder: str, batch_size: int) -> float:
    """Estimates the training time of a run in seconds: the number of steps times the median time of a step.

    A few slow steps, for example after a pause, hardly change the median. Without a log the result is 0.
    """
    speeds = [record['images_per_second'] for record in read_log(folder) if 'images_per_second' in record]
    return len(speeds) * batch_size / float(np.median(speeds)) if speeds else 0.0


def without_folders(command: str) -> str:
    """Removes local folders from a command: the value of --data_dir becomes DIR, and /a/b/name becomes name."""
    words = [re.sub(r'\A(--data_dir=).*', r'\1DIR', word, flags=re.DOTALL) for word in shlex.split(command)]
    words = ['DIR' if before == '--data_dir' else word for before, word in zip([''] + words, words)]
    return ' '.join(shlex.quote(re.sub(r'\A(--\w+=|@)?/.*/', r'\1', word.rstrip('/'))) for word in words)


def publish_config(folder: str, run: str, step):
    """Copies config.json of the run folder `run` to `folder`; adds step and training time, removes local paths.

    If config.json already has a step and a training time, as in a run written by --publish, the two values are kept.

    Args:
      step: training step of the published weights; None if unknown.
    """
    config = read_config(run)
    for start in config['invocations']:
        start['command'] = without_folders(start['command'])
        start.pop('pid', None)
    flags = config['flags']
    config.setdefault('step', step)
    config.setdefault('seconds', training_seconds(run, flags['batch_size']))
    class_weights = os.path.basename(flags['class_weights'])
    flags.update(data_dir=None, output=None, init_from=None, vgg16=None, class_weights=class_weights)
    write_json(os.path.join(folder, 'config.json'), config)
