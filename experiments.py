"""Reproduces a table of the paper: python experiments.py table1 --data_dir DIR

The command trains and scores the network of each row, and writes our scores beside the paper's scores to
Output/table1. For table6 the command measures time and memory. The same command resumes an interrupted run.
`python experiments.py results --runs RUN ...` trains nothing: the command writes tables of runs that are already
scored, to Output/results.
"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import itertools
import os
import shlex

import numpy as np

import benchmark
import datasets
import evaluate
import main
import networks
from paper import results, tables
from runs import plots, report
from runs.folder import add_scores, checkpoints, read_config, read_json, read_scores
from system import cli, devices, distribute
from system.cli import ROOT, revision
from system.files import UserError, check_output, write_json

# Flags of main.py that --flags may not contain. experiments.py itself sets the first eight flags; the last three would
# have no effect.
NOT_IN_FLAGS = 'dataset data_dir model class_weights seed steps output device epochs gpus describe'.split()
# Flags that the tables `results` and `table6` use. All other tables use all flags except --runs and --into.
OF_RESULTS = ('table', 'runs', 'into', 'output')
OF_TABLE6 = ('table', 'rows', 'repeats', 'output', 'list', 'device')


def parse_args(argv=None):
    """Parses the flags of experiments.py from `argv`, or from the command line if `argv` is None.

    The default of --dataset is the data set of the paper's table. The default of --output is Output/TABLE. Raises
    UserError for a bad flag.
    """
    parser = cli.Parser(description=__doc__)
    parser.add_argument('table', choices=sorted(tables.TABLES) + ['results'], help='table of the paper, or results')
    parser.add_argument('--runs', nargs='+', default=[], metavar='RUN', help='with results: folders of scored runs')
    parser.add_argument('--into', metavar='FILE', help='with results: Markdown file to update')
    parser.add_argument('--data_dir', help="folder of the table's data set")
    parser.add_argument('--dataset', choices=datasets.MODULES, help="data set to use instead of the paper's")
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='run only these rows, named as in the paper')
    parser.add_argument('--class_weights', choices=('median', 'none'), help='run only rows with these class weights')
    parser.add_argument('--steps', type=cli.positive_int, help="training steps of each row (default: the paper's)")
    parser.add_argument('--height', type=cli.side, help='height in pixels to train at (default: set by the data set)')
    parser.add_argument('--width', type=cli.side, help='width in pixels to train at (default: set by the data set)')
    parser.add_argument('--batch_size', type=cli.positive_int, help="images per step (default: the paper's)")
    parser.add_argument('--seeds', type=cli.positive_int, default=1, metavar='K', help='number of runs per row')
    parser.add_argument('--split', help='split to score (default: test, as in the paper)')
    parser.add_argument('--bf_images', type=cli.number(int, 0, 10 ** 9), default=10 ** 9,
                        help='compute boundary F1 (BF) on the first N images; 0: no BF (default: all)', metavar='N')
    parser.add_argument('--repeats', type=cli.positive_int, default=50, help='timed runs per measurement')
    parser.add_argument('--flags', type=shlex.split, default='', metavar='"FLAGS"', help='main.py flags for all rows')
    parser.add_argument('--output', help='folder of the runs and the table (default: Output/<table>)')
    parser.add_argument('--list', action='store_true', help='only print the command of each row')
    devices.add_flags(parser)
    args = parser.parse_args(argv)
    clashes = {'--' + name for name in NOT_IN_FLAGS} & {flag.split('=')[0] for flag in args.flags}
    if clashes:
        raise UserError('--flags: %s: set by the rows, or without effect; leave out' % ', '.join(sorted(clashes)))
    used = {'results': OF_RESULTS, 'table6': OF_TABLE6}.get(args.table, set(vars(args)) - {'runs', 'into'})
    parser.refuse_unused(vars(args), used, 'has no effect with %s; leave it out' % args.table)
    if args.table == 'results' and not args.runs:
        raise UserError('results: needs --runs RUN, the folders of trained runs')
    if args.table in tables.TABLES:
        args.dataset = args.dataset or tables.TABLES[args.table].dataset
        names = {row.name for row in tables.TABLES[args.table].rows}
        if set(args.rows or []) - names:
            raise UserError('--rows %s: %s has %s' % (' '.join(args.rows), args.table, ', '.join(sorted(names))))
    args.output = args.output or os.path.join('Output', args.table)
    check_output(args.output)
    return args


# ---------------------------------------------------------------- commands

def row_folder(args, row, seed: int) -> str:
    """Returns the path of the run folder for a row and a seed; all run folders are in --output."""
    return os.path.join(args.output, '%s-%s-seed%d' % (row.model, row.class_weights, seed))


def row_flags(args, row, seed: int) -> list:
    """Returns the flags with which main.py trains the network of a row -> list of str.

    The recipe comes first, then the flags in --flags, then the flags of the row. Later flags override earlier flags.
    """
    recipe = os.path.relpath(os.path.join(ROOT, 'recipes', row.recipe + '.txt'))
    flags = ['@' + recipe, '--dataset', args.dataset, '--model', row.model, '--class_weights', row.class_weights,
             '--seed', str(seed), '--steps', str(args.steps or row.steps), '--output', row_folder(args, row, seed)]
    for name in ('data_dir', 'height', 'width', 'batch_size', 'device'):
        if getattr(args, name) not in (None, 'auto'):
            flags += ['--' + name, str(getattr(args, name))]
    return flags[:1] + args.flags + flags[1:]


def row_command(args, row, seed: int) -> str:
    """Returns the shell command that trains the network of a row, or for table 6 measures the network."""
    if row.recipe is None:
        return ('python benchmark.py %s --what predict train --batch_size 1 4 --repeats %d --device %s'
                % (row.model, args.repeats, args.device))
    return 'python main.py ' + ' '.join(shlex.quote(flag) for flag in row_flags(args, row, seed))


def shown_splits(args) -> list:
    """Returns the splits that the table shows: list of str. The first split is --split, by default 'test'."""
    more = [split for split in tables.TABLES[args.table].splits if split not in ('test', args.split)]
    return [args.split or 'test'] + more


# ---------------------------------------------------------------- training and scoring

def check_row(args, row, seed: int):
    """Raises UserError if the data set lacks a split that the table needs, or the run folder does not fit.

    The run folder does not fit if the folder holds a run whose flags differ from the flags of `args` and `row`, or a
    run that was trained for more steps than `args` and `row` ask for.
    """
    flags = main.parse_args(row_flags(args, row, seed))
    run = main.Run(vars(flags), main.open_dataset(flags, distribute.Group()), vars(main.parse_args([])))
    for split in shown_splits(args):
        datasets.check_split(run.dataset, split)
    done = checkpoints(run.folder, 'last')
    step = int(done[0].split('-')[-1]) if done else 0
    if step > run.total:
        raise UserError('--steps %d: %s is at step %d; give another --output' % (run.total, run.folder, step))
    if os.path.exists(run.path('config.json')):
        was = read_config(run.folder)['flags']['data_dir']
        if run.flags['data_dir'] != was:
            raise UserError('--data_dir %s: run %s has %s; give --output' % (run.flags['data_dir'], run.folder, was))


def is_scored(scores: dict, steps: int, bf_images: int) -> bool:
    """Returns whether `scores` come from a run of `steps` steps, with BF computed on `bf_images` images."""
    return scores.get('asked_steps') == steps and scores.get('bf_images') == min(bf_images, scores.get('images', 0))


def row_scores(args, row, seed: int) -> dict:
    """Trains and scores the network of a row -> {split: entry of metrics.json}.

    Scores that are already in metrics.json are not computed again. Raises UserError for bad flags or data. Raises
    FloatingPointError if the loss is not finite.
    """
    folder = row_folder(args, row, seed)
    # On SUN RGB-D the val images are a part of test. The best weights on val would thus be selected on test images.
    flags = [folder, '--device', args.device, '--checkpoint', 'last' if args.dataset == 'sunrgbd' else 'best',
             '--bf_images', str(args.bf_images), '--split']
    scoring = evaluate.parse_args(flags + shown_splits(args))
    names = {split: evaluate.entry_name(scoring, split) for split in scoring.split}  # {split: key in metrics.json}
    entries = read_scores(folder)
    steps = args.steps or row.steps
    missing = [split for split in names if not is_scored(entries.get(names[split], {}), steps, args.bf_images)]
    if missing:
        main.train(main.parse_args(row_flags(args, row, seed)))
        scores = evaluate.evaluate(evaluate.parse_args(flags + missing))
        add_scores(folder, {names[split]: dict(scores[split], asked_steps=steps) for split in missing})
    entries = read_scores(folder)
    return {split: entries[names[split]] for split in names}


def measured_cost(args, model: str, training: bool = False, batch_size: int = 1) -> dict:
    """Measures a prediction or a training step of one batch, in float32 at 360x480, in a new process.

    The result is stored in costs.json in --output. A stored result is not measured again.

    Returns:
      dict of ms (mean time in milliseconds), MB (peak memory in megabytes, None on a GPU) and revision (Git revision).
    """
    path = os.path.join(args.output, 'costs.json')
    key = '%s, %s, batch %d, %d runs, %s' % (model, 'training' if training else 'prediction', batch_size, args.repeats,
                                             devices.device_name(args.device))
    costs = read_json(path) if os.path.exists(path) else {}
    if key not in costs:
        measured = benchmark.measure_in_subprocess(args.repeats, model=model, height=360, width=480,
                                                   batch_size=batch_size, training=training, device=args.device)
        megabytes = measured['memory'] and measured['memory'] / 1e6
        costs[key] = {'ms': 1000 * float(np.mean(measured['seconds'])), 'MB': megabytes, 'revision': revision()}
        write_json(path, costs)
    return dict({'revision': 'unknown'}, **costs[key])  # costs.json files of older code have no revision


# ---------------------------------------------------------------- formatting

def num_parameters(model: str) -> int:
    """Counts the trainable parameters of a network for CamVid's 11 classes."""
    return sum(layer.parameters for layer in networks.network_layers(networks.Spec(model, benchmark.NUM_CLASSES)))


def variant_columns(args, row):
    """Measures the forward pass of a network of table 1; formats the cost as table columns -> {column: text}.

    The columns are our and the paper's number of parameters, our and the paper's forward time, the paper's storage
    multiplier, and the Git revision that was measured.
    """
    variant = next(variant for variant in tables.TABLE1 if variant.name == row.name)
    cost = measured_cost(args, row.model)
    return {'parameters (M)': '%.3f' % (num_parameters(row.model) / 1e6),
            'paper parameters (M)': '%.3f' % variant.parameters, 'storage': variant.storage,
            'ms': '%.1f' % cost['ms'], 'paper ms': '%.1f' % variant.ms, 'ms measured at': cost['revision']}


def trained_row(args, row):
    """Trains and scores the network of a row; formats the scores as table columns -> {column: text}.

    For table 1 the row also has the columns of `variant_columns`. If a loss is not finite, the result has only the
    columns 'network', 'weights' and 'failed'.
    """
    columns = {'network': row.name, 'weights': row.class_weights}
    try:
        entries = [row_scores(args, row, seed) for seed in range(1, args.seeds + 1)]
    except FloatingPointError as error:  # the column 'failed' holds the error message
        return dict(columns, failed=str(error))
    for split in shown_splits(args):
        columns.update(results.score_columns(entries, row.published, split))
    accuracies = tables.TABLES[args.table].class_accuracies
    if accuracies:
        columns.update(results.class_columns(entries, accuracies, shown_splits(args)[0]))
    if args.table == 'table1':
        columns.update(variant_columns(args, row))
    config = read_config(row_folder(args, row, 1))
    size = '%(batch_size)d at %(height)dx%(width)d' % config['flags']
    start = config['invocations'][-1]
    return dict(columns, budget='%d steps of %s' % (args.steps or row.steps, size), device=start['device'],
                revision=start['revision'], command=row_command(args, row, 1))


def measured_row(args, row):
    """Measures time, memory and model size of the network in a row of table 6 -> {column: text}.

    A column NAME has our value, and the column 'paper NAME' has the paper's value.
    """
    forward = measured_cost(args, row.model)
    training = measured_cost(args, row.model, training=True)
    batch = measured_cost(args, row.model, training=True, batch_size=4)
    ours = {'forward ms': forward['ms'], 'backward ms': training['ms'] - forward['ms'],
            'training MB (batch 4)': batch['MB'], 'prediction MB': forward['MB'],
            'model MB': num_parameters(row.model) * 4 / 1e6}
    columns = {'network': row.name}
    for (name, value), published in zip(ours.items(), tables.TABLE6[row.name]):
        columns[name] = report.decimal(value)
        columns['paper ' + name] = '%g' % published
    revisions = dict.fromkeys(cost['revision'] for cost in (forward, training, batch))
    return dict(columns, device=devices.device_name(args.device), revision=', '.join(revisions))


# ---------------------------------------------------------------- a table

def run_table(args, rows: list):
    """Trains or measures the network of each row, writes table.md and table.csv, and prints the table.

    The files are written after each row, so an interrupted command leaves the finished rows. The table is printed after
    the last row. For table 1 the function also draws scores.png, the scores against the forward time. Raises
    FloatingPointError after the last row if a loss was not finite.
    """
    table = tables.TABLES[args.table]
    split = args.split or 'test'
    os.makedirs(args.output, exist_ok=True)
    done = []
    for row in rows:
        done.append(measured_row(args, row) if row.recipe is None else trained_row(args, row))
        note = table.note + (results.rank_correlation(done, split) if args.table == 'table1' else '')
        text = report.write_table(os.path.join(args.output, 'table'), table.title, note, done)
    print(text)
    if args.table == 'table1':
        points = [(row['network'], row['weights'], float(row['ms']), row['%s mIoU' % split], row['%s BF' % split])
                  for row in done if 'ms' in row]
        plots.scores_against_time(points, split, os.path.join(args.output, 'scores.png'))
    failed = ['%s, %s' % (row['network'], row['weights']) for row in done if 'failed' in row]
    if failed:
        raise FloatingPointError('%s: the loss is not finite; see %s/table.md' % ('; '.join(failed), args.output))


def run(args):
    """Trains or measures the networks of a table of the paper.

    With --list the command of each row is printed, and nothing is trained. If the table is `results`, the scores of the
    runs in --runs are written as tables, and nothing is trained. Raises UserError before any training if no row is
    selected, if the data set lacks a split, or if a run folder holds a run with different flags.
    """
    if args.table == 'results':
        results.write_results(args.runs, args.output, args.into)
        return
    rows = [row for row in tables.TABLES[args.table].rows if row.name in (args.rows or [row.name])
            and args.class_weights in (None, row.class_weights)]
    if not rows:
        raise UserError('--class_weights %s: %s has no such row' % (args.class_weights, args.table))
    for row, seed in itertools.product(rows, range(1, args.seeds + 1)):
        if row.recipe:
            main.parse_args(row_flags(args, row, seed)) if args.list else check_row(args, row, seed)
        if args.list:
            print('# %s, %s\n%s' % (row.name, row.class_weights, row_command(args, row, seed)))
    if not args.list:
        run_table(args, rows)


if __name__ == '__main__':
    cli.main(lambda: run(parse_args()))
