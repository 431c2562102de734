"""What the scripts share about a run: its folder (config.json, log.jsonl, checkpoints) and its data set.

Builds no tensors and knows no network.
"""
import contextlib
import datetime
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import cli
import data
from batches import FITS
from data import UserError

PRECISIONS = ('float32', 'bfloat16', 'float16')
# Flags that a resumed run may have otherwise.
MAY_CHANGE = ('steps', 'epochs', 'patience', 'output', 'data_dir', 'device', 'gpus', 'xla')


# ---------------------------------------------------------------- the run folder

@contextlib.contextmanager
def locked(folder):
    """Makes the run folder and keeps other processes from training in it; a process that died keeps nobody out."""
    os.makedirs(folder, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        path = os.path.join(folder, 'config.json')
        starts = read_config(folder).get('starts') if os.path.exists(path) else None
        raise UserError('--output %s: process %s trains there; wait for it, or name another folder'
                        % (folder, starts[-1].get('pid') if starts else 'of somebody else'))
    try:
        yield
    finally:
        os.close(handle)


def write_text(path, text):
    """Writes whole or not at all, so that a killed run leaves no half file."""
    with data.atomic_write(path) as part, open(part, 'w', encoding='utf-8') as f:
        f.write(text)


def write_json(path, value):
    """`value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + '\n')


def update_json(path, entries):
    """Sets top-level `entries` in a JSON file, which need not exist."""
    value = read_json(path) if os.path.exists(path) else {}
    value.update(entries)
    write_json(path, value)


def corrupt_file_error(path, what):
    """UserError for a file of a run folder that is not as it was written."""
    return UserError('%s: %s; restore the file, or train again into another --output' % (path, what))


def read_json(path):
    """The object in a JSON file; UserError if there is none."""
    try:
        value = json.loads(data.read_bytes(path).decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise corrupt_file_error(path, 'not JSON (%s)' % error)
    if not isinstance(value, dict):
        raise corrupt_file_error(path, 'holds no JSON object')
    return value


def check_folder(run):
    """Raises UserError for a name that TensorFlow, which takes names of checkpoints for patterns, would not find."""
    if set(run) & set('[]\\'):
        raise UserError('%s: [, ] and \\ in a run folder lead TensorFlow astray; rename the folder' % run)


def read_config(run):
    """config.json of a run folder."""
    check_folder(run)
    if not os.path.isdir(run):
        raise UserError('%s: no such run folder; main.py writes them, as Output/<dataset>-<model>' % run)
    path = os.path.join(run, 'config.json')
    config = read_json(path)
    flags = config.get('flags')
    needed = 'dataset data_dir model input fit height width batch_size seed dropout precision class_weights'
    if not isinstance(flags, dict) or not set(needed.split()) <= set(flags):
        raise corrupt_file_error(path, 'lacks the flags of a run')
    for names, fits in (('height width batch_size', lambda x: type(x) is int and 0 < x <= cli.MAX_SIDE),
                        ('seed', lambda x: type(x) is int and 0 <= x < 1 << 32),
                        ('dropout', lambda x: isinstance(x, (int, float)) and 0 <= x < 1),
                        ('fit', lambda x: x in FITS), ('precision', lambda x: x in PRECISIONS),
                        ('dataset model input class_weights', lambda x: isinstance(x, str)),
                        ('data_dir', lambda x: x is None or isinstance(x, str))):
        for name in names.split():
            if not fits(flags[name]):
                raise corrupt_file_error(path, 'flag %s is %r' % (name, str(flags[name])[:60]))
    classes, colors = config.get('class_names'), config.get('colors')
    if not isinstance(classes, list) or not 2 <= len(classes) <= 254 or not all(
            isinstance(c, str) and c.isprintable() for c in classes):
        raise corrupt_file_error(path, 'class_names is no list of names')
    if not isinstance(colors, list) or len(colors) != len(classes) or not all(
            isinstance(c, list) and len(c) == 3 and all(type(x) is int and 0 <= x <= 255 for x in c) for c in colors):
        raise corrupt_file_error(path, 'colors must be one [red, green, blue] a class')
    starts, balance = config.setdefault('starts', []), config.get('class_weights', [1.0] * len(classes))
    if not isinstance(starts, list) or not all(isinstance(s, dict) and isinstance(s.get(k), str) for s in starts
                                               for k in ('command', 'revision', 'device')):
        raise corrupt_file_error(path, 'starts must be a list, with command, revision and device')
    if not isinstance(balance, list) or len(balance) != len(classes) or not all(
            isinstance(x, (int, float)) for x in balance):
        raise corrupt_file_error(path, 'class_weights must be one number a class')
    return config


def read_scores(run):
    """metrics.json of a run folder -> {split: scores}; empty where there is none."""
    path = os.path.join(run, 'metrics.json')
    found = read_json(path) if os.path.exists(path) else {}
    for split, scores in found.items():
        if not isinstance(scores, dict) or not {'G', 'C', 'mIoU', 'accuracy', 'IoU', 'bn', 'step', 'images',
                                                'class_names', 'confusion'} <= set(scores):
            raise UserError('%s: %s holds no scores; delete the file, evaluate.py writes it again' % (path, split))
    return found


def check_same_run(config, flags, folder):
    """Raises UserError if `flags` shape another run than the one that `config` tells of."""
    for name in ['dataset', 'model'] + sorted(set(flags) | set(config['flags'])):  # what others follow from first
        was, now = config['flags'].get(name), flags.get(name)
        if name not in MAY_CHANGE and was != now:
            raise UserError('--%s %s: the run in %s has %s; give that, or another --output' % (name, now, folder, was))


def read_log(folder, last_step=np.inf):
    """Records of log.jsonl up to `last_step`; a line that is cut short, or that a power cut left behind, is none."""
    path, records = os.path.join(folder, 'log.jsonl'), []
    if os.path.exists(path):
        for line in data.read_bytes(path).decode('utf-8', 'replace').splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if is_record(record) and record['step'] <= last_step:
                    records.append(record)
    return records


def is_record(record):
    """Whether it is a line of log.jsonl as `Log` writes it: a step and its loss, or a step and its validation."""
    if not isinstance(record, dict) or type(record.get('step')) is not int:
        return False
    training = [record.get(name) for name in ('loss', 'learning_rate', 'images_per_second')]
    return (all(isinstance(value, float) and np.isfinite(value) for value in training)
            or all(name in record and isinstance(record[name], (float, type(None))) for name in ('G', 'C', 'mIoU')))


def training_seconds(folder, config):
    """Seconds that the steps of a run took, by their median: pauses do not count. Of a published run, as noted."""
    if 'seconds' in config:
        return config['seconds']
    speeds = [record['images_per_second'] for record in read_log(folder) if 'images_per_second' in record]
    return len(speeds) * config['flags']['batch_size'] / float(np.median(speeds)) if speeds else 0.0


def publish_config(folder, run, step):
    """Writes the config.json of `run` into `folder` without this machine's paths, with its time; a published one as is.

    `step`: that of the weights that are handed on, or None.
    """
    config = read_config(run)
    for start in config['starts']:
        start['command'] = re.sub(r"--data_dir[ =]('[^']*'|\S+)", '--data_dir DIR', start['command'])
        start.pop('pid', None)
    config.update(step=config.get('step', step), seconds=training_seconds(run, config),
                  flags=dict(config['flags'], data_dir=None, output=None, init_from=None, vgg16=None))
    write_json(os.path.join(folder, 'config.json'), config)


class Log:
    """log.jsonl and TensorBoard's event file; `records` are those of log.jsonl."""

    def __init__(self, folder, step, graph):
        self.records = read_log(folder, step)  # what stands behind it is dropped from the file too
        path = os.path.join(folder, 'log.jsonl')
        write_text(path, ''.join(json.dumps(record) + '\n' for record in self.records))
        self.file = open(path, 'a', encoding='utf-8')
        self.events = tf.summary.FileWriter(folder, graph)
        self.events.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step)

    def write(self, step, **values):
        """One record, a line in the file and a scalar each in TensorBoard."""
        self.records.append(dict(step=step, **values))
        self.file.write(json.dumps(self.records[-1]) + '\n')
        self.file.flush()
        scalars = [tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()
                   if isinstance(value, float)]
        self.events.add_summary(tf.Summary(value=scalars), step)

    def picture(self, step, path):
        """The file `path` as a picture in TensorBoard."""
        with open(path, 'rb') as f:
            image = tf.Summary.Image(encoded_image_string=f.read())
        self.events.add_summary(tf.Summary(value=[tf.Summary.Value(tag='predictions', image=image)]), step)
        self.events.flush()

    def validations(self, measure):
        """`measure` of each validation so far; 0 where it has none."""
        return [record[measure] or 0.0 for record in self.records if measure in record]

    def close(self):
        """Ends both files."""
        self.file.close()
        self.events.close()


FOLDERS = {'best': 'best', 'last': 'checkpoints'}


def checkpoints(folder, which):
    """Paths of the 'best' or 'last' checkpoints of a run, the newest first; by the files that are there."""
    place = os.path.join(folder, FOLDERS[which])
    found = [re.match(r'\Amodel-([0-9]+)\.index\Z', name) for name in files(place)]
    return [os.path.join(place, 'model-%d' % step)
            for step in sorted((int(match.group(1)) for match in found if match), reverse=True)]


def files(place):
    """Names in a folder; none where there is no such folder."""
    return os.listdir(place) if os.path.isdir(place) else []


def checkpoint(folder, which):
    """Path of the `which` ('best' or 'last') checkpoint of a run."""
    paths = checkpoints(folder, which)
    if not paths:
        raise UserError('%s: has no %s checkpoint; train it with main.py first' % (folder, which))
    return paths[0]


def resume(sess, saver, best_saver, folder):
    """Restores the newest checkpoint of a run that is whole, if there is one; returns its step, or 0.

    Damaged ones are told of and passed over; UserError if there are checkpoints and all are damaged. What a killed
    process left half written is removed.
    """
    for which in FOLDERS:
        place = os.path.join(folder, FOLDERS[which])
        for name in files(place):
            path = os.path.join(place, name)
            if re.match(r'\Amodel-[0-9]+.*temp', name) and not os.path.islink(path):
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    paths = checkpoints(folder, 'last')
    for i, path in enumerate(paths):
        try:
            saver.restore(sess, path)
        except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError, ValueError) as error:
            print('%s: damaged (%s); going on from the one before' % (path, str(error).split('\n')[0][:100]))
            continue
        saver.recover_last_checkpoints(paths[i:][::-1])
        best_saver.recover_last_checkpoints(checkpoints(folder, 'best')[::-1])
        return int(path.split('-')[-1])
    if paths:
        raise UserError('%s: all %d checkpoints are damaged; delete the folder to begin again, or give another --output'
                        % (os.path.dirname(paths[0]), len(paths)))
    return 0


# ---------------------------------------------------------------- what a run was

def revision():
    """Git commit of this code, with '-dirty' behind it if files differ; 'unknown' outside a checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        return subprocess.check_output(['git', '-C', here, 'describe', '--always', '--dirty', '--abbrev=12',
                                        '--exclude', '*'], stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def provenance(device):
    """What a run was made by: command, revision, versions, device, time."""
    return {'command': cli.command(), 'revision': revision(), 'device': device, 'python': platform.python_version(),
            'tensorflow': tf.__version__, 'numpy': np.__version__, 'pid': os.getpid(),
            'started': datetime.datetime.now().isoformat(timespec='seconds')}
