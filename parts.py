"""What is around the network: unpooling, input pipeline, training loop, RLE, BF, start-up, each beside a plain way.

Each function gives (ours, plain, unit) as text. The plain ways are what one would write first.
"""
import collections
import csv
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import scipy.optimize
import scipy.spatial.distance
import tensorflow.compat.v1 as tf

import batches
import data
import datasets
import devices
import metrics
import runs
import utils

HERE = os.path.dirname(os.path.abspath(__file__))


def seconds(run, repeats=9):
    """Median seconds of run(), after two runs that do not count."""
    taken = []
    for _ in range(2 + repeats):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[2:]))


def command(*arguments):
    """Runs a script of ours, or what Python's -c takes."""
    subprocess.run([sys.executable] + list(arguments), cwd=HERE, check=True, capture_output=True)


def unpooling(device):
    """SegNet's last unpooling, 4 x 180x240x64 -> 4 x 360x480x64, forward and gradient, above pooling alone."""
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(device)) as sess:
        maps = tf.get_variable('maps', initializer=np.random.RandomState(0).normal(size=(4, 360, 480, 64)).astype('f'))
        pooled, indices = utils.max_pool_with_argmax(maps)
        offsets = tf.reshape(tf.range(4, dtype=tf.int64) * 360 * 480 * 64, [-1, 1, 1, 1])
        flat = tf.reshape(indices + offsets, [-1, 1])
        plain = tf.reshape(tf.scatter_nd(flat, tf.reshape(pooled, [-1]), [4 * 360 * 480 * 64]), [4, 360, 480, 64])
        sess.run(tf.global_variables_initializer())
        ops = [[pooled.op, indices.op]] + [[y.op, tf.gradients(y, pooled, maps)[0].op, indices.op]
                                           for y in (utils.unpool(pooled, indices, maps), plain)]
        pooling, ours, scattered = (seconds(lambda op=op: sess.run(op)) for op in ops)
    ours, scattered = 1000 * (ours - pooling), 1000 * (scattered - pooling)
    return '%.1f' % ours, '%.1f' % scattered, 'ms above pooling: tf.scatter_nd'


def pipeline(dataset, device, count=1200):
    """Training batches of 4 at 360x480, flips and scale 1.4; plain: one example after the other in Python."""
    augmentation = dict(batches.NO_AUGMENTATION, flip=True, scale=1.4)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(device)) as sess:
        start, images, labels = batches.training_batches(dataset, 360, 480, 4, 1, augmentation)
        sess.run(*start(0))
        for _ in range(10):
            sess.run([images.op, labels.op])
        began = time.perf_counter()
        for _ in range(count // 4):
            sess.run([images.op, labels.op])
        ours = count / (time.perf_counter() - began)
        sess.run(*start(batches.END))
    began = time.perf_counter()
    for i in range(100):
        rng = np.random.RandomState([1, 0, i])
        batches.augment(*dataset.load('train', i), 360, 480, 'resize', rng, **augmentation)
    return '%.0f' % ours, '%.0f' % (100 / (time.perf_counter() - began)), 'images/s: in one thread'


def loop(data_dir, device, measure_apart, steps=16):
    """main.py --model segnet, batch 2, 360x480, flips and scale; plain: the bare step on constant data, in turns."""
    data_dir = os.path.abspath(data_dir)
    bare, ours = [], []
    for _ in range(2):
        bare += measure_apart(repeats=steps, model='segnet', height=360, width=480, batch_size=2,
                              training=True, device=device)['seconds']
        with tempfile.TemporaryDirectory() as folder:
            run = os.path.join(folder, 'run')
            command('main.py', '--dataset', 'camvid', '--data_dir', data_dir, '--model', 'segnet', '--batch_size', '2',
                    '--steps', str(steps + 3), '--flip', '--scale', '1.4', '--device', device, '--output', run)
            ours += [record['images_per_second'] for record in runs.read_log(run, steps + 3)
                     if 'images_per_second' in record][3:]
    return '%.3f' % np.median(ours), '%.3f' % (2 / np.median(bare)), 'images/s: bare step'


def rle(path):
    """Decodes each row of a train.csv; plain: a loop over the pixels of each run, of every twentieth row."""
    with open(path, newline='', encoding='utf-8') as file:
        rows = [(row['annotation'], int(row['height']), int(row['width'])) for row in csv.DictReader(file)]
    began = time.perf_counter()
    for row in rows:
        data.rle_decode(*row)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for text, height, width in rows[::20]:
        mask, numbers = np.zeros(height * width, bool), [int(x) for x in text.split()]
        for first, length in zip(numbers[::2], numbers[1::2]):
            for pixel in range(first - 1, first - 1 + length):
                mask[pixel] = True
    return '%.2f' % ours, '%.2f' % ((time.perf_counter() - began) * 20), 's, %d rows: a loop' % len(rows)


def boundary_f1(dataset):
    """BF of the validation labels against themselves moved by 3 pixels; plain: dense assignment, of the first image."""
    labels = [dataset.load('val', i)[1] for i in range(len(dataset.examples['val']))]
    moved, num_classes = [np.roll(label, 3, 1) for label in labels], len(dataset.class_names)
    began = time.perf_counter()
    for label, other in zip(labels, moved):
        metrics.boundary_f1(label, other, num_classes)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for class_id in range(num_classes):
        one, other = (np.argwhere(metrics.boundary(x[0] == class_id)) for x in (labels, moved))
        if len(one) and len(other):
            distances = scipy.spatial.distance.cdist(one, other)
            scipy.optimize.linear_sum_assignment(np.minimum(distances, 100.0))
    plain = (time.perf_counter() - began) * len(labels)
    return '%.1f' % ours, '%.0f' % plain, 's, %d images: scipy.optimize.linear_sum_assignment' % len(labels)


def start_up(device):
    """From the command to the end of step 1 on the bundled cells, SegNet-Basic; plain: importing TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        def first_step():
            command('main.py', '--model', 'segnet-basic', '--steps', '1', '--height', '48', '--width', '64',
                    '--device', device, '--output', tempfile.mkdtemp(dir=folder))
        ours = seconds(first_step, 1)
    plain = seconds(lambda: command('-c', 'import tensorflow'), 1)
    return '%.1f' % ours, '%.1f' % plain, 's: import tensorflow'


def rows(data_dir, sartorius_dir, device, measure_apart):
    """Each part that there is data for -> a list of {column: text}; `measure_apart` of benchmark.py."""
    dataset = data.preload(datasets.camvid(data_dir), ('train', 'val')) if data_dir else None
    found = {'unpooling': unpooling(device), 'start-up, first step and validation': start_up(device)}
    if dataset:
        found['input pipeline'] = pipeline(dataset, device)
        found['BF'] = boundary_f1(dataset)
        found['training loop'] = loop(data_dir, device, measure_apart)
    if sartorius_dir:
        found['RLE'] = rle(os.path.join(sartorius_dir, 'train.csv'))
    return [collections.OrderedDict([('part', part), ('ours', ours), ('plain', plain), ('unit and plain way', unit),
                                     ('ours / plain', '%.3f' % (float(ours) / float(plain)))])
            for part, (ours, plain, unit) in found.items()]
