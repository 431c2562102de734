"""Time, memory, parameters and multiply-adds of the networks on constant input; beside PyTorch's; as input grows.

python benchmark.py segnet --what predict train --precision float32 bfloat16
python benchmark.py segnet --peer pytorch        ours and an equal PyTorch network, in turns
python benchmark.py segnet --sweep               batch 1 to 8, 180x240 to 720x960
"""
from runtime import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import collections
import contextlib
import json
import os
import sys

import numpy as np

from runtime import cli
from paper import layers as describe
from runtime import devices
import networks
from runtime import plots
from runtime import run as runs
import worker

HERE = os.path.dirname(os.path.abspath(__file__))
PEER = os.path.join(HERE, 'tests', 'peers', 'pytorch_segnet.py')
SWEEP = ((180, 240), (360, 480), (540, 720), (720, 960))
ROUNDS = 3  # ours and the peer's runs take turns so often


def ours(**settings):
    """Worker that runs one of our networks; settings as `measure.graph`, and device."""
    return worker.Worker([sys.executable, os.path.join(HERE, 'measure.py'), json.dumps(settings)])


def measure_in_subprocess(repeats=50, **settings):
    """One network in a process of its own: dict of `seconds` of each of `repeats` runs, and peak `memory` in bytes.

    The memory is that above the process after its imports; None on a GPU. MemoryError where there is not enough.
    """
    with ours(**dict({'precision': 'float32', 'xla': False}, **settings)) as process:
        process.run(worker.WARM_UP)
        return process.run(repeats)


def peers(python, **settings):
    """{name: Worker}: the same network by PyTorch, eager and compiled, both with channels last, its faster layout."""
    return {'PyTorch ' + kind: worker.Worker([python, PEER, json.dumps(dict(settings, compiled=kind == 'compiled',
                                                                          layout='channels_last'))])
            for kind in ('eager', 'compiled')}


def measured(workers, repeats):
    """{name: (median seconds of a run, peak memory)} of `workers`, which take turns."""
    seconds, taken = collections.defaultdict(list), {}
    for process in workers.values():
        process.run(worker.WARM_UP)
    for _ in range(ROUNDS):
        for name, process in workers.items():
            got = process.run(-(-repeats // ROUNDS))
            seconds[name] += got['seconds']
            taken[name] = got['memory']
    return {name: (float(np.median(seconds[name])), taken[name]) for name in workers}


def rows(args, model, height, width, batch_size, what, precision):
    """Measures one network, and the peers where asked for -> a list of {column: text}."""
    settings = {'model': model, 'height': height, 'width': width, 'batch_size': batch_size,
                'training': what == 'train', 'precision': precision, 'device': args.device, 'xla': args.xla}
    found = describe.layers(model, height, width, 11)
    multiply_adds = sum(layer.multiply_adds for layer in found)
    with contextlib.ExitStack() as stack:
        workers = {'ours': stack.enter_context(ours(**settings))}
        if args.peer:
            for name, peer in peers(args.peer_python, **settings).items():
                workers[name] = stack.enter_context(peer)
        got = measured(workers, args.repeats)
        peak = matrix_peak(workers['ours'])
    best = min([seconds for name, (seconds, _) in got.items() if name != 'ours'] or [np.nan])
    table = []
    for name, (seconds, taken) in got.items():
        row = collections.OrderedDict([
            ('network', model), ('what', what), ('precision', precision), ('size', '%dx%d' % (height, width)),
            ('batch', str(batch_size)), ('by', name), ('ms/image', '%.1f' % (1000 * seconds / batch_size)),
            ('images/s', '%.2f' % (batch_size / seconds)), ('peak MB', '%.0f' % (taken / 1e6) if taken else '-')])
        if name == 'ours':
            operations = 2 * multiply_adds * batch_size * (3 if what == 'train' else 1)
            row.update({'parameters': '%.3f M' % (sum(layer.parameters for layer in found) / 1e6),
                        'multiply-adds': '%.1f G' % (multiply_adds / 1e9),
                        'of the peak': '%.2f' % (operations / seconds / peak)})
            if args.peer:
                eager = got['PyTorch eager'][1]
                row['time, ours / best peer'] = '%.2f' % (seconds / best)
                row['memory, ours / eager'] = '%.2f' % (taken / eager) if taken and eager else '-'
        table.append(row)
    return table


def matrix_peak(process, size=3072):
    """Operations a second of a product of two matrices of size x size in a worker, its best of five."""
    process.run(2, 'multiply')
    return 2 * size ** 3 / min(process.run(5, 'multiply')['seconds'])


def sweep(args):
    """Rows by batch size at --height and --width, then by size at batch 1, and the picture of both."""
    table = []
    settings = [(args.height, args.width, batch) for batch in (1, 2, 4, 8)] + [(h, w, 1) for h, w in SWEEP]
    for model in args.models:
        for what in args.what:
            for precision in args.precision:
                for height, width, batch_size in settings:
                    table += show(rows(args, model, height, width, batch_size, what, precision))
    return table


def show(table):
    """Prints rows as they come; returns them."""
    for row in table:
        print('  '.join('%s %s' % (value, name) if name in ('ms/image', 'images/s', 'peak MB') else
                        '%s: %s' % (name, value) if name.startswith(('of', 'time', 'memory')) else value
                        for name, value in row.items()), flush=True)
    return table


def parse_args(argv=None):
    """Every setting of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpAsWritten)
    parser.add_argument('models', nargs='*', default=['segnet', 'segnet-basic'], metavar='MODEL',
                        help='networks: ' + ', '.join(sorted(networks.NETWORKS)))
    parser.add_argument('--height', type=int, default=360)
    parser.add_argument('--width', type=int, default=480)
    parser.add_argument('--batch_size', type=int, nargs='+', default=[1], help='images a run; several for several rows')
    parser.add_argument('--what', nargs='+', choices=('predict', 'train'), default=['predict'],
                        help='a prediction, with batch norm folded in, or a training step')
    parser.add_argument('--precision', nargs='+', choices=runs.PRECISIONS, default=['float32'],
                        help='what the layers compute in')
    parser.add_argument('--peer', choices=('pytorch',), help='measure an equal network of PyTorch too, eager and '
                        'compiled, in turns with ours (segnet and segnet-basic)')
    parser.add_argument('--peer_python', default=sys.executable, metavar='PYTHON',
                        help='the Python that has PyTorch (default: this one)')
    parser.add_argument('--sweep', action='store_true', help='how time and memory grow with the batch and the size')
    parser.add_argument('--repeats', type=int, default=50, help='runs that are counted; the paper: 50')
    parser.add_argument('--output', default=os.path.join('Output', 'benchmark'),
                        help='folder of benchmark.md and .csv, or of sweep.md and its picture')
    parser.add_argument('--xla', action='store_true', help='compile our graph by XLA (GPUs)')
    parser.add_argument('--device', choices=devices.DEVICES, default='auto', help='gpu refuses to run without one')
    args = parser.parse_args(argv)
    cli.check_positive(args, 'height', 'width', 'repeats')
    if min(args.batch_size) < 1:
        raise runs.UserError('--batch_size %s: must be above 0' % min(args.batch_size))
    for model in args.models:
        if model not in networks.NETWORKS:
            raise runs.UserError('%s: no such network; one of %s' % (model, ', '.join(sorted(networks.NETWORKS))))
        if args.peer and model not in ('segnet', 'segnet-basic'):
            raise runs.UserError('--peer %s: has segnet and segnet-basic, not %s' % (args.peer, model))
    return args


def main(args):
    """Measures, prints, and writes the table as Markdown and CSV, and the sweep's picture."""
    device = devices.device_name(args.device)
    print(device, flush=True)
    name = 'sweep' if args.sweep else 'benchmark'
    if args.sweep:
        table = sweep(args)
    else:
        table = [row for model in args.models for what in args.what for precision in args.precision
                 for batch_size in args.batch_size
                 for row in show(rows(args, model, args.height, args.width, batch_size, what, precision))]
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, name)
    runs.write_table(path, 'Speed and memory', '%s; %s; `%s`' % (device, runs.revision(), cli.command()), table)
    if args.sweep:
        plots.growth([row for row in table if row['by'] == 'ours'], path + '.png')
    print(path + '.md')


if __name__ == '__main__':
    cli.main(lambda: main(parse_args()))
