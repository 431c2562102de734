"""Writes a report of tests, benchmark and short trainings on this machine's GPU: make gpu-report

The benchmark includes PyTorch if PyTorch is installed. SegNet is trained on the bundled cells in each precision.
"""
from runtime import quiet  # noqa: F401  imported first: TensorFlow without its start-up messages
import importlib.util
import os
import subprocess
import sys
import tempfile
import time

import tensorflow.compat.v1 as tf

import data
from data import UserError
from runtime import cli, devices, records, report


def run(*command: str) -> tuple:
    """Prints a command and runs it with this Python -> (exit status, last 12 lines of the output, seconds)."""
    print(' '.join(command), flush=True)
    began = time.time()
    done = subprocess.run((sys.executable,) + command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = done.stdout.decode('utf-8', 'replace').strip().splitlines()
    return done.returncode, '\n'.join(lines[-12:]), time.time() - began


def usable_precisions(asked: list, device: str) -> list:
    """Precisions of the list `asked` that the device can train in; prints the reason for each other one."""
    found = []
    for precision in asked:
        try:
            devices.check_precision(precision, device)
            found.append(precision)
        except UserError as error:
            print(error, flush=True)
    return found


def shared_flags(args) -> tuple:
    """Flags of both benchmark and training: device and size of the images."""
    return '--device', args.device, '--height', str(args.height), '--width', str(args.width)


def training_row(args, precision: str, folder: str) -> dict:
    """Trains SegNet on the bundled cells in `precision` -> row {column: text} of losses, speed and score.

    A training that fails gives a row with the column 'error'.
    """
    status, output, seconds = run('main.py', '--model', 'segnet', '--steps', str(args.steps), '--precision', precision,
                                  '--batch_size', '2', '--output', folder, *shared_flags(args))
    row = {'precision': precision, 'exit status': str(status), 'seconds': '%.0f' % seconds}
    if status:
        return dict(row, error=(output.splitlines() or ['no output'])[-1])
    log = [record for record in records.read_log(folder) if 'loss' in record]
    speeds = sorted(record['images_per_second'] for record in log)
    mean_iou = records.read_scores(folder)['val (while training)']['mIoU']
    return dict(row, **{'first loss': '%.3f' % log[0]['loss'], 'last loss': '%.3f' % log[-1]['loss'],
                        'images/s (median)': '%.1f' % speeds[len(speeds) // 2], 'mIoU': '%.3f' % (mean_iou or 0)})


def parse_args(argv=None):
    """Parses the flags of a report (`argv` None: of this process); UserError for a bad flag."""
    parser = cli.Parser(description=__doc__)
    devices.add_flags(parser)
    parser.add_argument('--precision', nargs='+', choices=devices.PRECISIONS, default=list(devices.PRECISIONS),
                        help='precisions of benchmark and training')
    parser.add_argument('--steps', type=cli.positive_int, default=200, help='steps of each training')
    parser.add_argument('--repeats', type=cli.positive_int, default=50, help='runs that the benchmark counts')
    parser.add_argument('--height', type=cli.side, default=360, help='of benchmark and training, in pixels')
    parser.add_argument('--width', type=cli.side, default=480, help='of benchmark and training, in pixels')
    parser.add_argument('--output', default=os.path.join('Output', 'gpu-report.md'), help='Markdown file to write')
    return parser.parse_args(argv)


def main(args):
    """Runs the tests, the benchmark and the trainings; writes the Markdown file --output."""
    device = devices.device_name(args.device)
    precisions = usable_precisions(args.precision, args.device)
    torch = importlib.util.find_spec('torch')
    status, tests, seconds = run('-m', 'pytest', '-q', '-m', 'gpu', '-rs', 'tests/test_kernels.py')
    parts = ['# GPU report', '%s; float32 is %s; TensorFlow %s; revision %s; `%s`' % (
        device, devices.precision_name('float32', args.device, 'on'), tf.__version__, records.revision(),
        cli.command_line()), '## Tests that need a GPU', 'Exit status %d after %.0f s.' % (status, seconds),
        '```\n%s\n```' % tests, '## Speed' + ('' if torch else ' (PyTorch is not installed)')]
    with tempfile.TemporaryDirectory() as folder:
        status, output, _ = run('benchmark.py', 'segnet', '--what', 'predict', 'train', '--precision', *precisions,
                                '--repeats', str(args.repeats), '--output', folder, *shared_flags(args),
                                *(('--peer', 'pytorch') if torch else ()))
        table = os.path.join(folder, 'benchmark.md')
        parts.append('```\n%s\n```' % output if status else data.read_text(table).split('\n', 1)[1].strip())
        rows = [training_row(args, precision, os.path.join(folder, precision)) for precision in precisions]
    parts += ['## SegNet on the bundled cells, %d steps of 2 images' % args.steps, report.markdown_table(rows)]
    records.write_text(args.output, '\n\n'.join(parts) + '\n')
    print(args.output)


if __name__ == '__main__':
    cli.main(lambda: main(parse_args()))
