"""Measures time and memory of the networks on constant input.

python benchmark.py segnet --what predict train --precision float32 bfloat16
python benchmark.py segnet --peer pytorch        # also measures the same network in PyTorch
python benchmark.py segnet --sweep               # measures batch sizes 1 to 8 and image sizes 180x240 to 720x960
python benchmark.py --engines --data_dir CAMVID  # compares predict.py with ONNX Runtime, OpenVINO, OpenCV and TFLite
"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import argparse
import collections
import errno
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

import networks
import optimize
import utils
from inference import engines
from runs import plots, report
from runs.folder import read_config, run_folder
from system import cli, devices, machine
from system.cli import ROOT, revision
from system.files import UserError, check_output

OURS = (sys.executable, os.path.join(ROOT, 'benchmark.py'), '--measure')
PEER = os.path.join(ROOT, 'tests', 'peers', 'pytorch_segnet.py')
PEERS = ('eager', 'compiled')  # modes of PyTorch; each uses the memory format channels_last, which is faster
SWEEP = ((180, 240), (360, 480), (540, 720), (720, 960))
ROUNDS = 3  # number of rounds; in each round, a new process measures each implementation
NUM_CLASSES = 11
# {mode: flags that have no effect in the mode}
UNUSED = {'with --engines': {'batch_size', 'what', 'precision', 'sweep', 'xla', 'device'},
          'with --sweep': {'batch_size', 'data_dir', 'images'},
          'without --engines': {'data_dir', 'images'}}
MATRIX_SIDES = {'CPU': 3072, 'GPU': 16384}  # side of the square matrices that are multiplied to measure the peak speed


# ---------------------------------------------------------------- functions that run in the subprocess

def network_op(device: str, model: str, height: int, width: int, batch_size: int, training: bool, precision: str):
    """Builds a network on fixed random images; returns the op that runs one training step or one prediction.

    The images are stored in a local variable, so the caller must initialize global and local variables. For training
    the labels are random.
    """
    rng = np.random.RandomState(0)
    values = rng.randint(0, 256, (batch_size, height, width, 3)).astype(np.float32)
    images = tf.get_local_variable('images', initializer=values)
    with optimize.cpu_gradients(devices.kind(device)):
        logits = networks.build(networks.Spec(model, NUM_CLASSES, precision=precision), images, training)
    if not training:
        return tf.argmax(logits, -1, name='ids').op
    labels = tf.constant(rng.randint(0, NUM_CLASSES, (batch_size, height, width)).astype(np.uint8))
    loss = optimize.loss(logits, labels, np.ones(NUM_CLASSES))
    return optimize.train_op(loss, 1e-4, 0.9, 5e-4, functools.partial(networks.multipliers, model), precision=precision)


def measure(repeats: int, device: str, model: str, precision: str = 'float32', xla: bool = False, **settings) -> dict:
    """Measures time and memory of one network in this process -> dict of seconds and memory.

    Args:
      repeats: number of timed runs; machine.WARM_UP untimed runs come first.
      model: key of NETWORKS, or 'matrix-product' to multiply two square matrices with MATRIX_SIDES rows.
      settings: the arguments height, width, batch_size and training of `network_op`; empty for 'matrix-product'.
    Returns:
      seconds: list of float, the time of each timed run.
      memory: peak memory of this process in bytes, minus the peak before the network is built; None on a GPU.
    """
    config = devices.session_config(device, xla)
    before = machine.peak_memory()
    portable = utils.portable_pooling(devices.needs_portable_pooling(device, xla))
    with tf.Graph().as_default(), portable, tf.Session(config=config) as sess:
        if model == 'matrix-product':
            shape = [MATRIX_SIDES[devices.kind(device)]] * 2
            matrix = tf.get_local_variable('matrix', initializer=tf.ones(shape, tf.as_dtype(precision)))
            op = tf.matmul(matrix, matrix).op
        else:
            op = network_op(device, model, precision=precision, **settings)
        sess.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        seconds = machine.seconds_of_runs(lambda: sess.run(op), repeats)
    return {'seconds': seconds, 'memory': None if devices.kind(device) == 'GPU' else machine.peak_memory() - before}


# ---------------------------------------------------------------- functions that run in the parent process

def measure_in_subprocess(repeats: int, command=OURS, **settings) -> dict:
    """Runs `measure` in a new process -> dict of seconds (list of float) and memory (bytes or None).

    Each measurement runs in a separate process, so that the peak memory belongs to a single network.

    Args:
      command: sequence of str, either OURS to measure our network, or (path of Python, PEER) to measure the same
        network in PyTorch. On a GPU the memory of PyTorch is the peak of PyTorch's allocator.
      settings: keyword arguments of `measure` or `engines.measure`. For PyTorch the keyword arguments are model,
        height, width, batch_size, training, precision, device and compiled (bool).
    Raises:
      MemoryError: the process ran out of memory or was killed by the kernel.
      ChildProcessError: the process failed for another reason.
    """
    command = [*command, json.dumps(dict(settings, repeats=repeats))]
    done = subprocess.run(command, capture_output=True)
    messages = done.stderr.decode('utf-8', 'replace').strip().splitlines() or ['no message']
    if done.returncode == 0:
        return json.loads(done.stdout.decode('utf-8', 'replace').splitlines()[-1])
    memory = [line for line in messages if re.search('OOM|out of memory|bad_alloc|allocate', line)]
    if memory or done.returncode == -signal.SIGKILL:
        raise MemoryError('%s: %s' % (' '.join(command[1:])[:100], (memory or messages)[-1][:300]))
    raise ChildProcessError(errno.ECHILD, '%s (status %d)' % (messages[-1][:300], done.returncode), command[0])


def measured_in_turns(participants: dict, repeats: int) -> dict:
    """Measures the implementations of a network in turns, in ROUNDS rounds.

    In each round, each implementation is timed for `repeats` / ROUNDS runs, rounded up. Because the implementations
    take turns, a change of the machine's load affects all implementations alike. If there is a single implementation,
    all runs are in one round.

    Args:
      participants: a dict from the names of the implementations to functions. Each function takes the number of timed
        runs and returns a dict of seconds (list of float) and memory (bytes or None).
      repeats: number of timed runs of each implementation.
    Returns:
      {name of an implementation: (seconds, memory)}: the median time of a run over all rounds, and the peak memory of
        the last round, in bytes or None.
    """
    rounds = ROUNDS if len(participants) > 1 else 1
    seconds = collections.defaultdict(list)
    memory = {}
    for _ in range(rounds):
        for name, function in participants.items():
            measured = function(-(-repeats // rounds))
            seconds[name] += measured['seconds']
            memory[name] = measured['memory']
    return {name: (float(np.median(seconds[name])), memory[name]) for name in participants}


def peak_operations(device: str, precision: str) -> float:
    """Measures the device's peak speed in operations per second: the fastest of five matrix products.

    The products are computed in a new process. A multiplication and an addition count as two operations.
    """
    measured = measure_in_subprocess(5, model='matrix-product', device=device, precision=precision)
    return 2 * MATRIX_SIDES[devices.kind(device)] ** 3 / min(measured['seconds'])


def benchmark_rows(args, settings: dict) -> list:
    """Measures a network, and with --peer the same network in PyTorch -> list of table rows {column: text}.

    `settings` are keyword arguments of `measure_in_subprocess`.
    """
    participants = {'ours': functools.partial(measure_in_subprocess, xla=args.xla, **settings)}
    measured = measured_in_turns(dict(participants, **peers(args, settings)), args.repeats)
    return [benchmark_row(args, settings, name, measured) for name in measured]


def peers(args, settings: dict) -> dict:
    """Makes the functions that `measured_in_turns` calls to measure the network in PyTorch.

    Returns:
      a dict from names, such as 'PyTorch eager', to functions; {} without --peer. Each function takes the number of
        timed runs and returns a dict of seconds and memory.
    """
    return {'PyTorch ' + kind: functools.partial(measure_in_subprocess, command=(args.peer_python, PEER),
                                                 compiled=kind == 'compiled', **settings)
            for kind in PEERS if args.peer}


def benchmark_row(args, settings: dict, name: str, measured: dict):
    """Formats the measurement of the implementation `name` as a table row {column: text}.

    The row of our network, 'ours', has additional columns: parameters, MACs, the speed as a fraction of the device's
    peak speed, and with --peer the ratios of our time and memory to the time and memory of PyTorch. If `name` is
    'ours', the call also measures the device's peak speed. A training step counts as three times the operations of a
    forward pass.

    Args:
      settings: dict of model, height, width, batch_size, training and precision.
      measured: {name of an implementation: (median seconds of a run, peak memory in bytes or None)}.
    """
    batch_size = settings['batch_size']
    seconds, memory = measured[name]
    row = {'network': settings['model'], 'what': 'train' if settings['training'] else 'predict',
           'precision': settings['precision'], 'size': '%dx%d' % (settings['height'], settings['width']),
           'batch': str(batch_size), 'by': name, 'ms/image': '%.1f' % (1000 * seconds / batch_size),
           'images/s': '%.2f' % (batch_size / seconds), 'peak MB': '%.0f' % (memory / 1e6) if memory else '-'}
    if name == 'ours':
        size = {'height': settings['height'], 'width': settings['width']}
        layers = networks.network_layers(networks.Spec(settings['model'], NUM_CLASSES, **size))
        macs = sum(layer.macs for layer in layers)
        operations = 2 * macs * batch_size * (3 if settings['training'] else 1)
        row['parameters'] = '%.3f M' % (sum(layer.parameters for layer in layers) / 1e6)
        row['MACs'] = '%.1f G' % (macs / 1e9)
        row['of the peak'] = '%.2f' % (operations / seconds / peak_operations(args.device, settings['precision']))
        if args.peer:
            best = min(measured['PyTorch ' + kind][0] for kind in PEERS)
            eager = measured['PyTorch eager'][1]
            row['time, ours / best peer'] = '%.2f' % (seconds / best)
            row['memory, ours / eager'] = '%.2f' % (memory / eager) if memory and eager else '-'
    return row


def engine_rows(args, run: str, folder: str) -> list:
    """Exports a run for each engine, measures and scores the engines -> list of table rows {column: text}.

    The engines are predict.py and programs that run an exported file. The engines are measured in turns. The exported
    files are written to `folder`. If an engine cannot run, the reason is printed, and the table has no row for the
    engine. Raises UserError if the images of the run's data set differ in size.
    """
    config = read_config(run)
    config['flags']['data_dir'] = args.data_dir or config['flags']['data_dir']
    images, labels = engines.validation_images(run, config, args.images)
    size = [args.height, args.width]
    reasons = {name: engines.missing(name) for name in engines.ENGINES}
    for name in filter(reasons.get, reasons):
        print('%s: left out, %s' % (name, reasons[name]))
    names = [name for name, reason in reasons.items() if not reason]
    paths = engines.export_files(folder, names, run, config, size, images)
    participants = {name: functools.partial(measure_in_subprocess, engine=name, run=run, path=paths[name], size=size,
                                            folder=folder) for name in names}
    participants.update(peers(args, {'model': config['flags']['model'], 'height': args.height, 'width': args.width,
                                     'batch_size': 1, 'training': False, 'precision': 'float32', 'device': 'cpu'}))
    measured = measured_in_turns(participants, args.repeats)
    rows = []
    for name, (seconds, memory) in measured.items():
        row = {'run': os.path.basename(os.path.abspath(run)), 'input': '%dx%d' % tuple(size), 'by': name,
               'ms/image': '%.1f' % (1000 * seconds), 'of predict.py': '%.2f' % (seconds / measured['predict.py'][0]),
               'peak MB': '%.0f' % (memory / 1e6)}
        if name in paths:
            row.update(engines.score_columns(folder, name, labels, len(config['class_names'])))
            row['file MB'] = '%.1f' % (os.path.getsize(paths[name]) / 1e6) if paths[name] else '-'
        rows.append(row)
    return rows


def settings_to_measure(args):
    """Yields the settings of each measurement: dict of keyword arguments for `measure_in_subprocess`.

    The measurements are all combinations of networks, --what, --precision and --batch_size. With --sweep, images
    of --height x --width are measured at batch sizes 1, 2, 4 and 8, and the other image sizes of SWEEP at batch size 1.
    """
    flag_size = args.height, args.width
    inputs = [(flag_size, batch_size) for batch_size in ((1, 2, 4, 8) if args.sweep else args.batch_size)]
    inputs += [(size, 1) for size in SWEEP if size != flag_size] * args.sweep
    for model, what, precision, (size, batch_size) in itertools.product(args.models, args.what, args.precision, inputs):
        yield {'model': model, 'height': size[0], 'width': size[1], 'batch_size': batch_size,
               'training': what == 'train', 'precision': precision, 'device': args.device}


def parse_args(argv=None):
    """Parses the flags of benchmark.py from `argv`, or from the command line if `argv` is None.

    Raises UserError for a bad flag or an unknown network.
    """
    parser = cli.Parser(description=__doc__)
    parser.add_argument('models', nargs='*', help='names of networks (default: segnet segnet-basic); '
                        'with --engines: runs (default: camvid-segnet camvid-segnet-basic)')
    parser.add_argument('--height', type=cli.side, default=360, help='image height in pixels')
    parser.add_argument('--width', type=cli.side, default=480, help='image width in pixels')
    parser.add_argument('--batch_size', type=cli.positive_int, nargs='+', default=[1], help='images per batch')
    parser.add_argument('--what', nargs='+', choices=('predict', 'train'), default=['predict'],
                        help='predict: measure a forward pass; train: measure a training step')
    parser.add_argument('--precision', nargs='+', choices=devices.PRECISIONS, default=['float32'], help='layer dtype')
    parser.add_argument('--peer', choices=('pytorch',), help='also measure the same network in PyTorch')
    parser.add_argument('--peer_python', default=sys.executable, help='path of a Python that has PyTorch')
    parser.add_argument('--sweep', action='store_true', help='measure several batch sizes and image sizes')
    parser.add_argument('--engines', action='store_true', help='compare predict.py with programs that run exports')
    parser.add_argument('--data_dir', help="with --engines: folder of the run's data set (default: as in training)")
    parser.add_argument('--images', type=cli.positive_int, default=12, help='with --engines: number of images')
    parser.add_argument('--repeats', type=cli.positive_int, default=50, help='number of timed runs; the paper uses 50')
    parser.add_argument('--output', default=os.path.join('Output', 'benchmark'), help='folder for the table')
    parser.add_argument('--into', metavar='FILE', help='also insert the table into this Markdown file')
    parser.add_argument('--xla', action='store_true', help='compile the TensorFlow graph with XLA (GPUs only)')
    parser.add_argument('--measure', type=json.loads, help=argparse.SUPPRESS)  # used by `measure_in_subprocess`
    devices.add_flags(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    mode = 'with --engines' if args.engines else 'with --sweep' if args.sweep else 'without --engines'
    parser.refuse_unused(vars(args), set(vars(args)) - UNUSED[mode], 'has no effect %s; leave the flag out' % mode)
    if args.engines:
        args.models = [run_folder(run) for run in args.models or ['camvid-segnet', 'camvid-segnet-basic']]
        return args
    args.models = args.models or ['segnet', 'segnet-basic']
    possible = ['segnet', 'segnet-basic'] if args.peer else sorted(networks.NETWORKS)
    for model in args.models:
        if model not in possible:
            raise UserError('%s: no such network%s; choose one of %s'
                            % (model, ' with --peer' * bool(args.peer), ', '.join(possible)))
    return args


def main(args):
    """Measures the networks; prints and writes a table as Markdown and CSV, with --sweep also a figure.

    With --into FILE the table is also inserted into the Markdown file FILE. With --measure, which only
    `measure_in_subprocess` passes, the function measures one network in this process and prints the result as JSON.
    """
    if args.measure:
        print(json.dumps((engines.measure if 'engine' in args.measure else measure)(**args.measure)))
        return
    device = devices.device_name(args.device)
    devices.session_config(args.device, args.xla)  # raises UserError for --xla without a GPU
    os.makedirs(args.output, exist_ok=True)  # a bad path fails here, before the measurements
    print(device, flush=True)
    rows = []
    for settings in args.models if args.engines else settings_to_measure(args):
        with tempfile.TemporaryDirectory() as folder:
            measured = engine_rows(args, settings, folder) if args.engines else benchmark_rows(args, settings)
        rows += measured
        print(report.plain_table(measured), end='\n\n', flush=True)
    path = os.path.join(args.output, 'sweep' if args.sweep else 'engines' if args.engines else 'benchmark')
    note = '%s; revision %s; `%s`' % (device, revision(), cli.command_line())
    text = report.write_table(path, 'Speed and memory', note, rows)
    if args.into:
        report.insert_tables(args.into, [text])
    if args.sweep:
        plots.growth([row for row in rows if row['by'] == 'ours'], path + '.png')
    print(path + '.md')


if __name__ == '__main__':
    cli.main(lambda: main(parse_args()))
