"""The paper's tables as commands: python experiments.py table1 --data_dir DIR

Trains what is missing, goes on with what was stopped, scores it, and prints and saves ours beside the paper's.
`python experiments.py results --runs RUN ...` sets trained and scored runs in a table, in Output/results.
"""
from runtime import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import collections
import os
import shlex

import numpy as np
import scipy.stats

import benchmark
from runtime import cli
from paper import layers as describe
from runtime import devices
import evaluate
import main
from paper import tables as paper
from runtime import plots
from runtime import report
from paper import results
from runtime import run as runs
from datasets import sunrgbd as sun
from data import UserError

# paper: {split: (G, C, mIoU, BF)}; storage: of table 1; reason: why a row cannot be run, else None.
# steps: the paper's, unless --steps says otherwise.
Row = collections.namedtuple('Row', 'name model class_weights paper storage milliseconds reason steps')
# recipe: the paper's; note: what a reader must know to compare; classes: the
# paper's accuracy of each class, where the table gives it.
Table = collections.namedtuple('Table', 'title dataset recipe splits note rows classes')


def row(name, model=None, class_weights='none', scores=None, storage=None, milliseconds=None, reason=None, steps=10000):
    """One row; a network's flag value is its name in lower case."""
    return Row(name, model or name.lower(), class_weights, scores or {}, storage, milliseconds, reason, steps)


def table1():
    """Eight decoders, each with median frequency balancing and with natural frequencies."""
    rows = [row(variant.name, None, 'median', {'test': variant.balanced, 'train': variant.balanced_train + (None,)},
                variant.storage, variant.milliseconds) for variant in paper.TABLE1]
    rows += [row(variant.name, None, 'none', {'test': variant.natural, 'train': variant.natural_train + (None,)},
                 variant.storage, variant.milliseconds) for variant in paper.TABLE1]
    return Table('Table 1: decoder variants on CamVid', 'camvid', 'paper-table1', ('test', 'train'),
                 'Weights: median frequency balancing, or none. Storage: the multiplier that the paper gives.', rows,
                 None)


def benchmark_table(title, dataset, note, scores, steps):
    """Table 3 or 4; `steps`: of each network, in thousands."""
    rows = [row(name, scores={'test': values}, steps=1000 * steps[name]) for name, values in scores.items()]
    rows.append(row('DeepLab-LargeFOV-denseCRF', reason='needs dense CRF post-processing, which is no part of this'))
    return Table(title, dataset, 'paper-benchmark', ('test',), note + SCRATCH, rows, None)


ROAD = ("The paper's networks saw 3,433 road scenes (CamVid, KITTI, Stanford background, LabelMe), ours CamVid's 367: "
        'not comparable. ')
SCRATCH = ("The paper's networks start from VGG16's weights, ours from scratch unless --flags \"--vgg16 PATH\" says "
           'otherwise.')
LAST = "Split val is part of test here, so the last weights are scored, not the best. "


def tables():
    """{name: Table}; what has no recipe is measured, not trained."""
    classical = [row('SegNet', scores={'test': paper.TABLE3['SegNet']}, steps=140000)]
    classical += [row(name, reason='a method of others, not a network of this paper') for name in paper.TABLE2_OTHERS]
    steps = {'SegNet': 40000, 'Bayesian-SegNet': 60000}  # the released solvers; 10000 for both Basics
    bayesian = [row(name, class_weights='median', scores={'test': scores}, steps=steps.get(name, 10000))
                for name, scores in paper.BAYESIAN.items()]
    return {
        'table1': table1(),
        'table2': Table('Table 2: CamVid, accuracy of each class', 'camvid', 'paper-benchmark', ('test',),
                        ROAD + SCRATCH, classical, paper.TABLE2_CLASSES),
        'table3': benchmark_table('Table 3: CamVid', 'camvid', ROAD, paper.TABLE3, {
            'SegNet': 140, 'DeepLab-LargeFOV': 140, 'FCN': 200, 'FCN-Deconv': 160, 'DeconvNet': 260}),
        'table4': benchmark_table('Table 4: SUN RGB-D', 'sunrgbd', LAST, paper.TABLE4, {
            'SegNet': 240, 'DeepLab-LargeFOV': 240, 'FCN-Deconv': 200, 'DeconvNet': 380}),
        'table5': Table('Table 5: SUN RGB-D, accuracy of each class', 'sunrgbd', 'paper-benchmark', ('test',),
                        LAST + SCRATCH, [row('SegNet', scores={'test': paper.TABLE4['SegNet']}, steps=240000)],
                        dict(zip(sun.CLASSES, paper.TABLE5_CLASSES))),
        'table6': Table('Table 6: time and memory at 360x480', None, None, (),
                        'Backward: a training step of one image, updates and all, less a prediction.',
                        [row(name) for name in paper.TABLE6], None),
        'bayesian': Table('Bayesian SegNet on CamVid', 'camvid', 'released', ('test',),
                          'By 367 training images, as arXiv 1511.02680. ' + SCRATCH, bayesian, None),
    }


def parse_args(argv=None):
    """Every setting of an experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.Help)
    parser.add_argument('table', choices=sorted(tables()) + ['results'], help='the table of the paper; or the results '
                        'of --runs')
    parser.add_argument('--runs', nargs='+', default=[], metavar='RUN', help='with results: run folders')
    parser.add_argument('--into', metavar='FILE', help='with results: also write the tables into this Markdown file')
    parser.add_argument('--data_dir', help="folder of the table's data set")
    parser.add_argument('--dataset', help="another data set than the table's, to try the path")
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='these rows only, by their names in the paper')
    parser.add_argument('--class_weights', choices=('median', 'none'), help='the rows of this balancing only')
    parser.add_argument('--steps', type=int, help="training steps of each row (default: the paper's)")
    parser.add_argument('--height', type=int, help="size trained at (default: the data set's own)")
    parser.add_argument('--width', type=int, help="size trained at (default: the data set's own)")
    parser.add_argument('--batch_size', type=int, help="images a step (default: the paper's)")
    parser.add_argument('--seeds', type=int, default=1, metavar='K',
                        help='runs of each row; with several: mean and spread')
    parser.add_argument('--split', help="score this split instead of the paper's test split")
    parser.add_argument('--bf_images', type=int, help='take BF over the first so many images only (default: all)')
    parser.add_argument('--repeats', type=int, default=50,
                        help='forward passes that time is the mean of; the paper: 50')
    parser.add_argument('--flags', default='', metavar='"FLAGS"', help='more flags of main.py, for every row')
    parser.add_argument('--output', help='folder of the runs and the table (default: Output/<table>)')
    parser.add_argument('--list', action='store_true', help='show the commands of the rows, run nothing')
    parser.add_argument('--device', choices=devices.DEVICES, default='auto', help='gpu refuses to start without one')
    args = parser.parse_args(argv)
    cli.check_positive(args, 'steps', 'height', 'width', 'batch_size', 'seeds', 'bf_images', 'repeats')
    try:
        more = {flag.split('=')[0] for flag in shlex.split(args.flags)}
    except ValueError as error:
        raise UserError('--flags %s: %s' % (args.flags, error))
    own = ['--' + name for name in 'dataset data_dir model recipe class_weights seed steps output'.split()]
    ours = [flag for flag in more if flag[:2] == '--' and any(name.startswith(flag) for name in own)]
    if ours:
        raise UserError('--flags %s: the rows set %s themselves' % (args.flags, ', '.join(sorted(ours))))
    if (args.table == 'results') != bool(args.runs):
        raise UserError('--runs: name run folders, with results and only there')
    known = [one.name for one in tables()[args.table].rows] if args.table in tables() else []
    for name in args.rows or []:
        if name not in known:
            raise UserError('--rows %s: %s has %s' % (name, args.table, ', '.join(sorted(set(known)))))
    args.output = args.output or os.path.join('Output', args.table)
    return args


def folder(args, one, seed):
    """Run folder of a row."""
    return os.path.join(args.output, '%s-%s-seed%d' % (one.model, one.class_weights, seed))


def command(args, table, one, seed):
    """main.py's flags for a row: list of str."""
    flags = ['--dataset', args.dataset or table.dataset, '--model', one.model, '--recipe', table.recipe,
             '--class_weights', one.class_weights, '--seed', str(seed), '--steps', str(args.steps or one.steps),
             '--output', folder(args, one, seed), '--device', args.device]
    for name in ('data_dir', 'height', 'width', 'batch_size'):
        if getattr(args, name):
            flags += ['--' + name, str(getattr(args, name))]
    return flags + shlex.split(args.flags)


def shown_splits(args, table):
    """The splits of a table's columns, `--split` in place of test."""
    return [args.split or 'test'] + [split for split in table.splits if split == 'train' != args.split]


def check_same(flags, run_folder):
    """Raises UserError if the run in a row's folder was made by other flags, or on other data."""
    if os.path.exists(os.path.join(run_folder, 'config.json')):
        config, wanted = runs.read_config(run_folder), vars(main.parse_args(flags))
        for name in ('height', 'width'):  # the data set's own, unless they are given
            wanted[name] = wanted[name] or config['flags'][name]
        runs.check_same_run(config, wanted, run_folder, vars(main.parse_args([])))
        data_dir = wanted['data_dir'] and os.path.abspath(wanted['data_dir'])
        if data_dir != config['flags']['data_dir']:
            raise UserError('--data_dir %s: the run in %s has %s; give that, or another --output'
                            % (data_dir, run_folder, config['flags']['data_dir']))


def scored(args, table, one, seed):
    """Trains and scores a row as far as that is not done yet -> {split: its entry in metrics.json}."""
    flags, run_folder, steps = command(args, table, one, seed), folder(args, one, seed), args.steps or one.steps
    path = os.path.join(run_folder, 'metrics.json')
    check_same(flags, run_folder)
    entries, missing = runs.read_scores(run_folder), []
    for split in shown_splits(args, table):
        entry = entries.get(split, {})
        images = entry.get('images', 0) if args.bf_images is None else min(args.bf_images, entry.get('images', 0))
        if entry.get('asked_steps') != steps or entry.get('bf_images') != images:
            missing.append(split)
    if missing:
        main.train(main.parse_args(flags))
        bf_images = [] if args.bf_images is None else ['--bf_images', str(args.bf_images)]
        results = evaluate.evaluate(evaluate.parse_args([run_folder, '--device', args.device, '--checkpoint',
                                                         'last' if table.dataset == 'sunrgbd' else 'best', '--split']
                                                        + missing + bf_images))
        runs.update_json(path, {split: dict(results[split], asked_steps=steps) for split in missing})
    return runs.read_json(path)


def cost(args, model, training=False, batch_size=1):
    """Seconds and memory of a network at the paper's 360x480, measured once and kept in costs.json."""
    path = os.path.join(args.output, 'costs.json')
    key = '%s, %s, batch %d, %d runs, %s' % (model, 'training' if training else 'prediction', batch_size, args.repeats,
                                             devices.device_name(args.device))
    costs = runs.read_json(path) if os.path.exists(path) else {}
    if key not in costs:
        got = benchmark.measure_in_subprocess(model=model, height=360, width=480, batch_size=batch_size,
                                              training=training, device=args.device, repeats=args.repeats)
        megabytes = got['memory'] and got['memory'] / 1e6
        runs.update_json(path, {key: {'ms': 1000 * float(np.mean(got['seconds'])), 'MB': megabytes}})
    return runs.read_json(path)[key]


def number(values, form='%.1f'):
    """One value as text, or of several their mean and spread (standard deviation); '-' where there is none."""
    values = [value for value in values if value is not None]
    if not values:
        return '-'
    text = form % np.mean(values)
    return text + (' +- ' + form % np.std(values, ddof=1) if len(values) > 1 else '')


def score_columns(entries, expected, split):
    """{column: text} of one split: ours of each seed's entry, and the paper's, in percent."""
    columns = collections.OrderedDict()
    for name, value in zip(results.MEASURES, expected or (None,) * 4):
        columns['%s %s' % (split, name)] = number([None if entry[split][name] is None else 100 * entry[split][name]
                                                   for entry in entries])
        columns['paper %s %s' % ('train' if split == 'train' else 'test', name)] = number([value])
    return columns


def run_row(args, table, one):
    """Trains, scores and measures a row -> {column: text}, in the table's order."""
    columns = collections.OrderedDict([('network', one.name)])
    if one.reason:
        columns['not run'] = one.reason
        return columns
    columns['weights'] = one.class_weights
    entries = [scored(args, table, one, seed) for seed in range(1, args.seeds + 1)]
    shown = shown_splits(args, table)
    for split in shown:
        columns.update(score_columns(entries, one.paper.get('train' if split == 'train' else 'test'), split))
    if table.classes:
        columns.update(class_columns(entries, table.classes, shown[0]))
    if one.storage:
        columns['parameters (M)'] = '%.3f' % (sum(layer.parameters for layer in layers(one.model)) / 1e6)
        columns['paper parameters (M)'] = '%.3f' % next(v.parameters for v in paper.TABLE1 if v.name == one.name)
        columns['storage'] = one.storage
        columns['ms'], columns['paper ms'] = '%.1f' % cost(args, one.model)['ms'], '%.1f' % one.milliseconds
    config = runs.read_config(folder(args, one, 1))
    columns['budget'] = '%d steps of %d at %dx%d' % (args.steps or one.steps, config['flags']['batch_size'],
                                                     config['flags']['height'], config['flags']['width'])
    columns['device'] = config['starts'][-1]['device']
    columns['command'] = 'python main.py ' + ' '.join(shlex.quote(f) for f in command(args, table, one, 1))
    columns['revision'] = config['starts'][-1]['revision']
    return columns


def order(found, split):
    """How the order of a table's rows agrees with the paper's: a sentence; '' for fewer than three rows.

    By Spearman's rank correlation of each measure's means with the paper's test column.
    """
    rows = [columns for columns in found if 'not run' not in columns]
    said = []
    for name in results.MEASURES:
        pairs = [(columns['%s %s' % (split, name)].split()[0], columns['paper test %s' % name]) for columns in rows]
        pairs = [(float(ours), float(theirs)) for ours, theirs in pairs if '-' not in (ours, theirs)]
        if len(pairs) > 2:
            said.append('%s %.2f' % (name, scipy.stats.spearmanr(*zip(*pairs))[0]))
    if not said:
        return ''
    return " Rank correlation of the rows' order with the paper's test column (1: the same): %s." % ', '.join(said)


def layers(model):
    """Layer table of a network for CamVid's 11 classes at the paper's size."""
    return describe.network_layers(model, 360, 480, 11)


def class_columns(entries, expected, split):
    """{class: accuracy in percent}, ours and the paper's `expected`."""
    columns = collections.OrderedDict()
    for i, name in enumerate(entries[0][split]['class_names']):
        accuracies = [entry[split]['accuracy'][i] for entry in entries]
        columns[name] = number([None if value is None else 100 * value for value in accuracies])
        columns['paper ' + name] = number([expected.get(name)])
    return columns


def cost_row(args, one):
    """A row of table 6: time, memory and size of a network."""
    forward, training = cost(args, one.model), cost(args, one.model, training=True)
    batch = cost(args, one.model, training=True, batch_size=4)
    theirs = paper.TABLE6[one.name]
    ours = (forward['ms'], training['ms'] - forward['ms'], batch['MB'], forward['MB'],
            sum(layer.parameters for layer in layers(one.model)) * 4 / 1e6)
    columns = collections.OrderedDict([('network', one.name)])
    for name, our, their in zip(('forward ms', 'backward ms', 'training MB (batch 4)', 'prediction MB', 'model MB'),
                                ours, theirs):
        columns[name], columns['paper ' + name] = number([our]), '%g' % their
    columns['device'] = devices.device_name(args.device)
    columns['revision'] = runs.revision()
    return columns


def run(args):
    """Runs a table, or the rows of it that are asked for; writes table.md, table.csv and scores.png."""
    if args.table == 'results':
        results.write(args.runs, args.output, args.into)
        return
    table = tables()[args.table]
    wanted = [one for one in table.rows if (not args.rows or one.name in args.rows)
              and args.class_weights in (None, one.class_weights)]
    if args.list:
        for one in wanted:
            print('# %s, %s%s' % (one.name, one.class_weights, ': ' + one.reason if one.reason else ''))
            if not one.reason and table.recipe:
                for seed in range(1, args.seeds + 1):
                    print('python main.py ' + ' '.join(shlex.quote(f) for f in command(args, table, one, seed)))
            elif not one.reason:
                print('python benchmark.py %s --batch_size 1' % one.model)
        return
    os.makedirs(args.output, exist_ok=True)
    found, diverged, text = [], [], ''
    for one in wanted:
        try:
            found.append(run_row(args, table, one) if table.recipe else cost_row(args, one))
        except FloatingPointError as error:  # a result too: it is told, and the other rows go on
            diverged.append('%s, %s' % (one.name, one.class_weights))
            found.append({'network': one.name, 'weights': one.class_weights, 'not run': str(error)})
        note = table.note + order(found, args.split or 'test') if args.table == 'table1' else table.note
        text = report.write_table(os.path.join(args.output, 'table'), table.title, note, found)
    if args.table == 'table1':
        split = args.split or 'test'
        plots.scores_against_time(
            [(columns['network'], columns['weights'], float(columns['ms']), columns['%s mIoU' % split],
              columns['%s BF' % split]) for columns in found if 'ms' in columns], split,
            os.path.join(args.output, 'scores.png'))
    print(text)
    if diverged:
        raise FloatingPointError('%s: no finite loss; see %s' % ('; '.join(diverged),
                                                                  os.path.join(args.output, 'table.md')))


if __name__ == '__main__':
    cli.main(lambda: run(parse_args()))
