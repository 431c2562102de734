"""Manages a training run: the run folder, log, checkpoints, best weights and --patience.

This module draws no figures and builds no graph.
"""
import contextlib
import glob
import json
import os
import platform
import re
import shutil
import time

import filelock
import numpy as np
import tensorflow.compat.v1 as tf

import batches
import datasets
from datasets import record
from runs.folder import FOLDERS, check_folder_name, checkpoints, file_names, provenance, read_config, read_log
from system.files import UserError, check_names, check_output, note, read_bytes, read_text, write_json, write_text

# Flags that may get another value when a run is resumed. All other flags must keep the value of the first start.
MAY_CHANGE = ('cache', 'steps', 'epochs', 'patience', 'output', 'data_dir', 'device', 'gpus', 'xla', 'validate_every')
REMOVED_FLAGS = {'shift': 0}  # {flag of older revisions: value without effect}; runs with another value cannot resume
STARTED = r'\A(\.lock.*|\..*\.part|config\.json\.part)\Z'  # files that may remain if a process is killed while starting
SAVE_SECONDS = 600  # longest time between checkpoints in seconds; a killed process loses at most this much work


def output_folder(flags: dict) -> str:
    """Returns the path of the run folder: --output, or Output/<dataset>-<model>."""
    return flags['output'] or os.path.join('Output', '%s-%s' % (flags['dataset'], flags['model']))


class Run:
    """Manages a training run: counts the steps, and reads and writes the files of the run folder.

    The run folder has the config, the log, checkpoints and the best weights.

    Attributes:
      folder: path of the run folder.
      flags: dict of all flags, as stored in config.json.
      size: number of training images.
      total: number of steps of the whole run, including the steps before a resume.
      step: step of the newest checkpoint.
      records: records of log.jsonl.
      facts: {split: `datasets.Facts`}, as returned by `datasets.preload`.
    """

    def __init__(self, flags: dict, dataset, defaults: dict, folder: str = None):
        """Checks the run folder and writes nothing. The folder may be missing or empty, or may hold this run.

        Raises UserError if the folder holds a run whose flags differ from `flags`, or files that belong to no run.

        Args:
          flags: {name: value} of all flags. If height or width is None, `datasets.training_size` sets the value.
          defaults: {name: default value} of the flags, for flags that the config.json of an older run lacks.
          folder: path of the run folder; None means the path that `output_folder` returns for `flags`.
        """
        self.folder = folder or output_folder(flags)
        height, width = datasets.training_size(dataset, flags['height'], flags['width'])
        self.flags = dict(flags, height=height, width=width,
                          data_dir=flags['data_dir'] and os.path.abspath(flags['data_dir']))
        self.dataset = dataset
        check_names([self.flags['data_dir'] or ''], '--data_dir')
        self.size = len(dataset.examples['train'])
        self.total = flags['steps'] or -(-flags['epochs'] * self.size // flags['batch_size'])
        self.first = self.step = 0  # first: step of the restored checkpoint; step: step of the newest checkpoint
        self.records = []
        self.facts = {}
        self.best = -1.0  # best validation value so far of the score in --select_by
        self.stale = 0    # number of validations since the best score
        self.defaults = defaults
        check_folder_name(self.folder)
        check_output(self.folder)
        self.check_folder()

    def check_folder(self):
        """Raises UserError if the run folder holds a run with different flags, or files that belong to no run.

        Only the flags in MAY_CHANGE may differ from the flags in config.json.
        """
        if os.path.exists(self.path('config.json')):
            was = dict(self.defaults, **read_config(self.folder)['flags'])
            now = dict(REMOVED_FLAGS, **self.flags)
            for name in ['dataset', 'model'] + sorted(now):  # first the flags on which defaults of other flags depend
                if name not in MAY_CHANGE and was.get(name, now[name]) != now[name]:
                    raise UserError('--%s %s: the run in %s has %s; give another --output'
                                    % (name, now[name], self.folder, was[name]))
        elif any(not re.match(STARTED, name) for name in file_names(self.folder)):
            raise UserError('--output %s: holds files but no run; name an empty or a new folder' % self.folder)

    def epochs(self, step: int) -> float:
        """Converts a number of steps to epochs."""
        return step * self.flags['batch_size'] / self.size

    def path(self, *names: str) -> str:
        """Joins `names` to the path of the run folder."""
        return os.path.join(self.folder, *names)

    @contextlib.contextmanager
    def locked(self):
        """Context manager: makes the run folder, and locks the folder until the end of the block.

        Raises UserError if another process holds the lock, or if another run began in the folder after `__init__`.
        """
        os.makedirs(self.folder, exist_ok=True)
        owner = self.path('.lock.pid')  # not in .lock, because each attempt to lock truncates .lock
        try:
            with filelock.FileLock(self.path('.lock'), timeout=0):
                write_text(owner, '%d on %s' % (os.getpid(), platform.node()))
                self.check_folder()
                yield
        except filelock.Timeout:
            raise UserError('--output %s: process %s trains there; wait for the process, or name another folder'
                            % (self.folder, read_text(owner) if os.path.exists(owner) else 'of unknown id'))

    def create_savers(self):
        """Adds two savers to the default graph, `saver` of all variables and `best_saver` of the model's variables."""
        self.saver = tf.train.Saver(max_to_keep=3)
        self.best_saver = tf.train.Saver(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES), max_to_keep=1)

    def restore(self, sess) -> int:
        """Restores the newest intact checkpoint into `sess`; sets and returns `step`, which is 0 for a new run.

        Damaged checkpoints are reported and skipped. Unfinished files of a killed process are deleted.
        Raises UserError if all checkpoints are damaged, or the folder checkpoints/ was removed from a trained run.
        """
        for path in glob.glob(os.path.join(glob.escape(self.folder), '*', 'model-[0-9]*temp*')):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        paths = checkpoints(self.folder, 'last')
        for i, path in enumerate(paths):
            try:
                self.saver.restore(sess, path)
            except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError, ValueError) as error:
                print('%s: damaged (%s); resuming from the one before' % (path, str(error).split('\n')[0][:100]))
                continue
            self.saver.recover_last_checkpoints(paths[i:][::-1])
            self.best_saver.recover_last_checkpoints(checkpoints(self.folder, 'best')[::-1])
            self.first = self.step = int(path.split('-')[-1])
            return self.step
        if paths or checkpoints(self.folder, 'best') and not os.path.isdir(self.path('checkpoints')):
            raise UserError('%s: no intact checkpoint is left; give another --output' % self.path('checkpoints'))
        return 0

    def write_config(self, class_weights, device: str):
        """Writes config.json: flags, classes, class weights, split sizes and the provenance of each invocation.

        Args:
          class_weights: num_classes floats.
          device: name of the device, for the provenance.
        Raises:
          UserError: the classes, the class weights, the images or the labels changed since the run began.
        """
        path = self.path('config.json')
        config = read_config(self.folder) if os.path.exists(path) else {'invocations': []}
        examples = record.make(self.dataset, self.facts, self.flags['data_dir'])
        changes = record.changes(config.get('examples', examples), examples)
        if changes:
            raise UserError('%s: the data changed: %s; restore the data, or give another --output' % (path, changes))
        settings = {'class_names': list(self.dataset.class_names),
                    'class_weights': [float(weight) for weight in class_weights],
                    'sizes': {split: len(names) for split, names in self.dataset.examples.items()}}
        for name, value in settings.items():
            if config.get(name, value) != value:
                raise UserError('%s: %s was %s, is %s; restore the data, or give another --output'
                                % (path, name, config[name], value))
        config.update(settings, examples=examples, flags=self.flags, colors=self.dataset.colors,
                      class_ids=self.dataset.class_ids or list(range(len(self.dataset.class_names))),
                      depth=self.dataset.depth, rle=self.dataset.rle)
        start = dict(provenance(device), step=self.step)
        before = config['invocations'][-1].get('processes') if config['invocations'] else None  # old runs lack the key
        if before not in (None, start['processes']):
            note('%s: resumes with processes: %d, before: %d; batch norm now averages over other shares of a batch'
                 % (self.folder, start['processes'], before))
        config['invocations'].append(start)
        write_json(path, config)

    @contextlib.contextmanager
    def open_log(self):
        """Context manager: opens log.jsonl and TensorBoard's event file; makes the folders best/ and checkpoints/.

        Reads `records` and the best score from the log, and counts the validations since the best score. Records after
        `step` are dropped.
        """
        for place in FOLDERS.values():
            os.makedirs(self.path(place), exist_ok=True)
        self.records = read_log(self.folder, self.step)
        for line in self.records:
            if 'mIoU' in line:
                self.note_score(line)
        write_text(self.path('log.jsonl'), ''.join(json.dumps(line) + '\n' for line in self.records))
        self.events = tf.summary.FileWriter(self.folder, tf.get_default_graph())
        self.events.add_session_log(tf.SessionLog(status=tf.SessionLog.START), self.step)
        self.saved = self.clock = time.time()
        try:
            with open(self.path('log.jsonl'), 'a', buffering=1, encoding='utf-8') as self.file:  # 1: flushes each line
                yield
        finally:
            self.events.close()

    def log(self, step: int, **values):
        """Appends the record {step, **values} to log.jsonl and `records`; each float becomes a TensorBoard scalar."""
        self.records.append(dict(step=step, **values))
        self.file.write(json.dumps(self.records[-1]) + '\n')
        scalars = [tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()
                   if isinstance(value, float)]
        self.events.add_summary(tf.Summary(value=scalars), step)

    def log_step(self, step: int, fetched: dict):
        """Logs the loss, the learning rate and the speed of a training step.

        Raises FloatingPointError with the names of the images in the batch if the loss is not finite.

        Args:
          fetched: dict with loss and learning_rate.
        """
        if not np.isfinite(fetched['loss']):
            last = [round(record['loss'], 4) for record in self.records if 'loss' in record][-5:]
            names = batches.batch_names(self.dataset, step, self.flags['batch_size'], self.flags['seed'])
            raise FloatingPointError(
                'the loss became %s at step %d, after %s; lower --learning_rate, now %g, or check the images %s'
                % (fetched['loss'], step, last, fetched['learning_rate'], ', '.join(names)))
        began, self.clock = self.clock, time.time()  # the time of a step includes the logging
        self.log(step, loss=float(fetched['loss']), learning_rate=float(fetched['learning_rate']),
                 images_per_second=self.flags['batch_size'] / (self.clock - began))

    def log_scores(self, step: int, scores: dict) -> bool:
        """Logs the scores of a validation; returns True if the score of --select_by is the best so far.

        Args:
          scores: dict of G, C, mIoU, fwIoU, and the lists accuracy and IoU.
        """
        self.log(step, epoch=round(self.epochs(step), 2),
                 **{name: scores[name] for name in ('G', 'C', 'mIoU', 'fwIoU', 'accuracy', 'IoU')})
        return self.note_score(self.records[-1])

    def note_score(self, record: dict) -> bool:
        """Updates `best` and `stale` with the record of a validation; returns True if the score is the best so far."""
        score = record.get(self.flags['select_by']) or 0.0
        self.stale = 0 if score > self.best else self.stale + 1
        self.best = max(score, self.best)
        return self.stale == 0

    def log_image(self, step: int, path: str):
        """Adds the PNG file `path` to TensorBoard's event file as 'predictions'."""
        image = tf.Summary.Image(encoded_image_string=read_bytes(path))
        self.events.add_summary(tf.Summary(value=[tf.Summary.Value(tag='predictions', image=image)]), step)
        self.events.flush()

    def validation_due(self, step: int) -> bool:
        """Returns whether to validate after `step`: at intervals of --validate_every, and after the last step.

        The default interval is 6 * (validation images) / (training images) epochs, rounded up. Validation then takes
        about a tenth of the time, if predicting an image takes two thirds as long as training on an image. The interval
        does not depend on measured times, so that a repeated run validates at the same steps and keeps the same best
        weights.
        """
        every = self.flags['validate_every'] or str(-(-6 * len(self.dataset.examples['val']) // self.size))
        images = self.flags['batch_size']  # images per step; the interval is counted in images, not in steps
        interval = int(every[:-5]) * images if every.endswith('steps') else int(every) * self.size
        return step == self.total or step * images // interval > (step - 1) * images // interval

    def save_due(self) -> bool:
        """Returns whether the last checkpoint was saved more than SAVE_SECONDS ago.

        If this process has not saved a checkpoint yet, the time since the start of training counts.
        """
        return time.time() - self.saved > SAVE_SECONDS

    def save(self, sess, step: int):
        """Saves all variables as the checkpoint of `step`; the three newest checkpoints are kept."""
        self.saver.save(sess, self.path('checkpoints', 'model'), global_step=step, write_meta_graph=False)
        self.step = step
        self.saved = self.clock = time.time()

    def save_best(self, sess, step: int):
        """Saves the model's variables as the best weights; the earlier best weights are deleted."""
        self.best_saver.save(sess, self.path('best', 'model'), global_step=step, write_meta_graph=False)

    def out_of_patience(self) -> bool:
        """Returns whether the last --patience validations gave no better score; False if --patience is not set."""
        return bool(self.flags['patience'] and self.stale >= self.flags['patience'])

    def summary(self, stop: list) -> str:
        """Describes in one line how the run ended: by a signal in `stop`, at the last step, or by --patience."""
        if self.first >= self.total:
            return '%s: finished at step %d of %d; raise --steps to continue' % (self.folder, self.first, self.total)
        if stop and self.step < self.total:
            return '%s: stopped at step %d of %d; the same command resumes there' % (self.folder, self.step, self.total)
        early = '; %d validations without a better %s' % (self.stale, self.flags['select_by'])
        done = '%s: done, step %d of %d (%d in this run)' % (self.folder, self.step, self.total, self.step - self.first)
        return done + early if self.step < self.total else done
