"""Trains a network: `python main.py` trains SegNet on the repository's sample images.

The run folder is Output/sample-segnet/. The same command resumes an interrupted run.
The argument `@recipes/NAME.txt` reads flags from that file. Flags after the argument override the flags of the file.
"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import collections
import contextlib
import functools
import os
import signal
import sys

import tensorflow.compat.v1 as tf
import tqdm

import batches
import data
import datasets
import evaluate
import networks
import optimize
import utils
from inference.predictor import Predictor, Settings
from paper import tables
from runs import pictures, plots, report, weights
from runs.folder import checkpoints, read_config
from runs.run import Run, output_folder
from system import cli, cluster, devices, distribute
from system.files import UserError

# start: function (number of finished steps) -> (op, feed_dict); the op starts the input pipeline at the next step.
# batch: (images, labels), the tensors that a training step reads.
# fetches: dict of the tensors and ops that a training step runs.
# signals: placeholder [2] for (stop, validate), each 0 or 1; a training step sums the signals of all processes.
# predictor: the `Predictor` that predicts the validation images with the training variables.
# init: op that initializes all variables.
# assignments: list of (variable, float32 array), the starting weights.
# uninitialized: names of the variables that have no starting weights.
# spread: op that copies the variables of the first process to all processes.
TrainingGraph = collections.namedtuple('TrainingGraph',
                                       'start batch fetches signals predictor init assignments uninitialized spread')


# ---------------------------------------------------------------- flags

def add_data_flags(parser):
    """Adds the flags of the data set, the training size and the augmentation to `parser`."""
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', choices=datasets.MODULES, default='sample', help='data set to train on')
    group.add_argument('--data_dir', help='folder of the data set; not needed for --dataset sample')
    group.add_argument('--rle_order', choices=data.RLE_ORDERS, help='order of pixels in RLE masks (default: detected)')
    group.add_argument('--depth', type=cli.number(int, 9, 16), help='bits that 16-bit images use (default: measured)')
    group.add_argument('--fold', metavar='K/N', help='without a val split: validate on part K of N (default: 1/5)')
    group.add_argument('--cache', type=cli.number(float, 0, 10 ** 6), metavar='GB',
                       help='memory for decoded images, in GB (default: half of the free memory, at most 8.6)')
    group.add_argument('--height', type=cli.side, help='height of training images, in pixels (default: by data set)')
    group.add_argument('--width', type=cli.side, help='width of training images, in pixels (default: by data set)')
    group.add_argument('--fit', choices=('resize', 'crop'), default='resize', help='resize: stretch; crop: cut or pad')
    group.add_argument('--flip', action='store_true', help='mirror half of the images left to right')
    group.add_argument('--flip_vertical', action='store_true', help='mirror half of the images top to bottom')
    group.add_argument('--rotate', type=int, choices=(90,), help='rotate images by a random multiple of 90 degrees')
    group.add_argument('--scale', type=cli.number(float, 1, 10), default=1.0, help='random zoom from 1/SCALE to SCALE')
    group.add_argument('--crop', type=cli.side, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='size of random crops')
    group.add_argument('--jitter', type=cli.fraction, default=0.0, help='largest change of contrast and brightness')
    group.add_argument('--gamma', type=cli.number(float, 1, 10), default=1.0, help='random gamma from 1/GAMMA to GAMMA')


def add_training_flags(parser):
    """Adds the flags of the network, the starting weights, the length of training, the loss and the optimizer."""
    group = parser.add_argument_group('training')
    group.add_argument('--model', choices=sorted(networks.NETWORKS), default='segnet', help='network to train')
    group.add_argument('--input', choices=sorted(networks.INPUTS), help='normalization of images (default: by --model)')
    group.add_argument('--dropout', type=cli.number(float, 0, 0.99), help='dropout rate (default: 0; Bayesian: 0.5)')
    start = group.add_mutually_exclusive_group()
    start.add_argument('--vgg16', metavar='PATH', help="start the encoder from Keras' VGG16: file or 'download'")
    start.add_argument('--init_from', metavar='RUN|FILE', help='start from the weights of a run, .npz or .caffemodel')
    group.add_argument('--encoder_rate', type=cli.fraction, default=1.0, help="encoder's learning-rate factor (sgd)")
    group.add_argument('--freeze_encoder', action='store_true', help="do not train the encoder's variables")
    group.add_argument('--epochs', type=cli.positive_int, default=16, help='total number of epochs')
    group.add_argument('--steps', type=cli.positive_int, help='total number of steps; overrides --epochs')
    group.add_argument('--batch_size', type=cli.number(int, 1, 10000), default=4, help='images per step')
    group.add_argument('--optimizer', choices=('sgd', 'adam'), default='adam', help='optimizer; the paper uses sgd')
    group.add_argument('--learning_rate', type=cli.positive_float, default=0.001, help='the paper: 0.1 or 0.001 (sgd)')
    group.add_argument('--schedule', choices=('constant', 'poly'), default='poly', help='poly: learning rate goes to 0')
    group.add_argument('--momentum', type=cli.fraction, default=0.9, help='momentum of sgd; the paper uses 0.9')
    group.add_argument('--weight_decay', type=cli.fraction, default=5e-4, help='weight decay; the authors use 5e-4')
    group.add_argument('--loss', choices=('ce', 'ce-dice'), default='ce', help='ce-dice: cross-entropy plus Dice loss')
    group.add_argument('--class_weights', default='median', help='none|median|median-sqrt|median-void|released|FILE')
    group.add_argument('--seed', type=cli.seed, default=1, help='seed of all random numbers of the run')


def add_run_flags(parser):
    """Adds the flags of the run folder, of validation and of the device to `parser`."""
    group = parser.add_argument_group('run')
    group.add_argument('--output', help='run folder (default: Output/<dataset>-<model>)')
    group.add_argument('--validate_every', type=cli.interval, metavar='N|Nsteps',
                       help='validate every N epochs or N steps (default: validation takes a tenth of the time)')
    group.add_argument('--select_by', choices=('mIoU', 'G', 'C'), default='mIoU', help='score that selects weights')
    group.add_argument('--patience', type=cli.positive_int, metavar='N', help='stop after N validations without a gain')
    group.add_argument('--describe', action='store_true', help='print the layers of --model and exit')
    group.add_argument('--precision', choices=devices.PRECISIONS, default='float32', help='precision of the layers')
    group.add_argument('--xla', action='store_true', help='compile the graph with XLA (GPUs only)')
    cluster.add_flag(group)
    devices.add_flags(group)
    devices.add_tf32_flag(group)


def parse_args(argv=None):
    """Parses the training flags from `argv`, or from the command line if `argv` is None.

    If --dropout or --input is missing, the default of the network is used. Raises UserError for bad flags.
    """
    parser = cli.Parser(description=__doc__)
    add_data_flags(parser)
    add_training_flags(parser)
    add_run_flags(parser)
    args = parser.parse_args(argv)
    spec = networks.spec_of(vars(args), num_classes=None)
    args.dropout, args.input = spec.dropout, spec.input
    if args.vgg16 and args.input != 'raw':
        raise UserError('--vgg16: needs --input raw and --model segnet, fcn, deconvnet or deeplab-largefov')
    if args.encoder_rate != 1 and (args.optimizer != 'sgd' or args.freeze_encoder):
        raise UserError('--encoder_rate %g: needs --optimizer sgd without --freeze_encoder' % args.encoder_rate)
    return args


# ---------------------------------------------------------------- graph

def training_graph(args, spec, class_weights, batch, total: int, group):
    """Builds the training step of this process; sums the gradients over all processes of `group`.

    Each process trains on a share of the batch. Batch norm normalizes with the statistics of the share. The loss is
    divided by the number of labelled pixels in the whole batch.

    Args:
      spec: the run's `networks.Spec`.
      class_weights: num_classes floats, the weights of the classes in the loss.
      batch: images [n, h, w, 3] uint8 and labels [n, h, w] uint8, where n is the number of images in the share.
      total: number of steps of the run, for the learning-rate schedule.
      group: the `distribute.Group`.
    Returns:
      dict of `loss` and `learning_rate`, both scalar tensors, and the op `step_op`. The losses of all processes add up
      to the loss of the batch.
    """
    images, labels = batch
    step = tf.train.get_or_create_global_step()  # the global step must not be in the network's variable scope
    count = group.all_reduce([optimize.labelled_pixels(labels)])[0]
    masks = '-%d' % group.index if group.index else ''

    def dropout(x, name):
        return utils.dropout(x, spec.dropout, (spec.seed, step), name + masks)

    with optimize.cpu_gradients(devices.kind(args.device)):
        logits = networks.build(spec, images, True, dropout)
    loss = optimize.loss(logits, labels, class_weights, count)
    if args.loss == 'ce-dice':
        loss += optimize.dice_loss(logits, labels) * len(group.share(args.batch_size)) / args.batch_size

    def multipliers(variable):
        rate, decay = networks.multipliers(spec.model, variable)
        if networks.in_encoder(variable):
            rate *= 0.0 if args.freeze_encoder else args.encoder_rate
        return rate, decay

    rate = optimize.learning_rate(args.schedule, args.learning_rate, total)
    step_op = optimize.train_op(loss, rate, args.momentum, args.weight_decay, multipliers, args.optimizer,
                                spec.precision, functools.partial(group.all_reduce, device=devices.kind(args.device)))
    return {'loss': loss, 'learning_rate': rate, 'step_op': step_op}


def build(args, sess, run: Run, class_weights, group) -> TrainingGraph:
    """Builds the training and validation ops, the savers and the initializer; finalizes the default graph.

    The savers become attributes of `run`. Starting weights are loaded only for a new run, and only by the first
    process, the chief.
    """
    group.check_equal({'--class_weights': [float(weight) for weight in class_weights]})
    tf.set_random_seed(args.seed)
    class_names = run.dataset.class_names
    spec = networks.spec_of(run.flags, len(class_names))
    start, images, labels = batches.training_batches(run.dataset, run.flags, group.share(args.batch_size))
    fetches = training_graph(args, spec, class_weights, (images, labels), run.total, group)
    signals = tf.placeholder(tf.float32, [2], 'signals')
    fetches['loss'], fetches['signals'] = group.all_reduce([fetches['loss'], signals])
    predictor = Predictor(sess, spec, Settings(tile='off', batch_size=args.batch_size), reuse=True)
    values, flag = {}, ''
    if group.chief and not checkpoints(run.folder, 'last'):
        values, flag = weights.starting_weights(args.vgg16, args.init_from, class_names, spec.input)
    variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
    assignments, uninitialized = weights.match_variables(values, variables, spec.num_classes, flag)
    run.create_savers()
    graph = TrainingGraph(start, (images, labels), fetches, signals, predictor, tf.global_variables_initializer(),
                          assignments, uninitialized, group.broadcast(tf.global_variables()))
    tf.get_default_graph().finalize()
    return graph


# ---------------------------------------------------------------- session

def start(sess, graph: TrainingGraph, run: Run, group):
    """Restores the variables from the newest checkpoint, or in a new run loads the starting weights.

    Copies the variables and the number of finished steps from the first process to all processes. Prints the number of
    variables that were loaded from the starting weights.
    """
    sess.run(graph.init)
    if group.chief and run.restore(sess) == 0 and graph.assignments:
        weights.load_into(sess, graph.assignments)
        rest = ', '.join(graph.uninitialized[:4]) + ', ...' * (len(graph.uninitialized) > 4)
        print('starting weights: %d variables set; as initialized: %s' % (len(graph.assignments), rest or 'none'))
    sess.run(graph.spread)
    run.step = group.all_gather(run.step)[0]


def session_loop(sess, graph: TrainingGraph, run: Run, stop: list, group):
    """Runs the training steps after `run.step`, until the last step, a stop signal or the limit of --patience.

    Logs each step. Validates and saves checkpoints at the intervals that `run` sets. `stop` is the list of signals that
    this process received. If a signal reached another process but not this process, `stop` gets SIGTERM.
    """
    if group.chief and run.step == 0:
        draw_data(sess, graph, run)
    sess.run(*graph.start(run.step))
    bar = tqdm.tqdm(total=run.total, initial=run.step, unit='step', disable=None, dynamic_ncols=True)
    with bar, contextlib.ExitStack() as at_end:
        at_end.callback(sess.run, *graph.start(batches.END))  # an empty input pipeline lets the session close at once
        # If --patience has already ended the run, the loop below runs no step.
        last = run.step if group.all_gather(run.out_of_patience())[0] else run.total
        for step in range(run.step + 1, last + 1):
            fetched = sess.run(graph.fetches, {graph.signals: [bool(stop), group.chief and run.validation_due(step)]})
            stopping, due = (fetched['signals'] > 0).tolist()
            run.log_step(step, fetched)
            bar.update()
            bar.set_postfix_str('loss %.3f' % fetched['loss'])
            if due:
                validate(sess, graph, run, step, group)
            if group.chief and (due or stopping or run.save_due()):
                run.save(sess, step)
            if stopping or due and group.all_gather(run.out_of_patience())[0]:
                stop += [signal.SIGTERM] * (stopping and not stop)  # another process received the signal
                break


def validate(sess, graph: TrainingGraph, run: Run, step: int, group):
    """Scores the validation split, with batch norm's moving averages. Each process scores a share of the split.

    The first process prints a line of scores, draws loss.png and writes report.html. If the score is the best so far,
    the first process also saves the weights in best/, writes metrics.json and draws predictions.
    """
    predictions = graph.predictor.predict_split(run.dataset, 'val', group.index, group.size)
    scores, shown, extremes = evaluate.score_split(predictions, run.dataset, 'val', num_extremes=2,
                                                   all_gather=group.all_gather)
    if not group.chief:
        return
    if run.log_scores(step, scores):
        run.save_best(sess, step)
        scores.update(step=step, bn='moving', checkpoint='best')
        evaluate.write_scores(run.folder, run.dataset, 'val', 'val (while training)', scores, shown)
        plots.panel(run.dataset, 'val', {i: prediction for _, i, prediction in extremes}, run.path('extremes.png'),
                    {i: 'mIoU %.2f' % score for score, i, _ in extremes}, 'best and worst, weights of step %d' % step)
        run.log_image(step, run.path(run.dataset.panel))
    plots.loss_curves(run.records, run.path('loss.png'))
    model = run.flags['model']
    report.write(run.folder, tables.published_scores(run.dataset.name, model, run.flags['class_weights']),
                 tables.class_accuracies(run.dataset.name, model))
    tqdm.tqdm.write('epoch %.1f, step %d: validation G %.3f, C %.3f, mIoU %.3f' % (
        run.epochs(step), step, scores['G'], scores['C'] or 0, scores['mIoU'] or 0), file=sys.stdout)


def draw_data(sess, graph: TrainingGraph, run: Run):
    """Draws training images with their labels as examples.png, and the first training batch as batch.png.

    The user can then see wrong labels before the training starts.
    """
    pictures.draw_examples(run.dataset, 'train', run.facts['train'].counts, run.path('examples.png'))
    sess.run(*graph.start(0))
    images, labels = sess.run(graph.batch)
    names = batches.batch_names(run.dataset, 1, run.flags['batch_size'], run.flags['seed'])
    pictures.draw_batch(images, labels, names, run.dataset, run.path('batch.png'))
    print('labels: %s, %s' % (run.path('examples.png'), run.path('batch.png')))


def describe(args):
    """Prints the layers of --model for the classes of --dataset, at --height x --width (default: 360x480)."""
    classes = getattr(datasets.MODULES[args.dataset], 'CLASSES', None)
    classes = classes or datasets.open(args.dataset, args.data_dir).class_names
    flags = dict(vars(args), height=args.height or 360, width=args.width or 480)
    print(networks.layer_table(networks.spec_of(flags, len(classes))))


def open_dataset(args, group):
    """Opens the data set that --dataset names -> `data.Dataset`.

    In a resumed run, the split and the data settings come from config.json, which the first process of `group` reads
    for all processes. Raises UserError for bad data, or if the split train or val has no examples.
    """
    folder = output_folder(vars(args))
    config = read_config(folder) if os.path.exists(os.path.join(folder, 'config.json')) else None
    if config and config['flags']['dataset'] != args.dataset:
        config = None  # `Run` then reports that --dataset has changed
    config = group.all_gather(config)[0]  # the other processes may lack the run folder
    dataset = datasets.open(args.dataset, args.data_dir, config, args.rle_order, args.depth, args.fold)
    for split in ('train', 'val'):
        datasets.check_split(dataset, split)
    return dataset


def train(args):
    """Trains from the newest checkpoint, if any, until --steps or --epochs; returns the run folder's path.

    --patience may end the training earlier. After a stop signal the process exits with status 128 + signal number.
    """
    group = distribute.Group(*cluster.resolve_cluster())
    group.connect(args.device, vars(args))
    device = devices.device_name(args.device)
    devices.check_precision(args.precision, args.device)
    precision = devices.precision_name(args.precision, args.device, args.tf32)
    portable = devices.needs_portable_pooling(args.device, args.xla)
    run = Run(vars(args), open_dataset(args, group), vars(parse_args([])), group.scratch)
    group.check_equal({split: len(names) for split, names in run.dataset.examples.items()})
    print('Training %s on %s with %s, %s' % (args.model, args.dataset, device, precision), flush=True)
    run.dataset, run.facts = datasets.preload(run.dataset, ('train', 'val'), args.cache, group.local_size())
    class_weights = datasets.class_weights(args.class_weights, run.dataset, run.facts['train'].counts)
    session = tf.Session(group.target, graph=tf.Graph(), config=group.session_config(args.device, args.xla, args.tf32))
    with session as sess, tf.device(group.place), utils.portable_pooling(portable):
        graph = build(args, sess, run, class_weights, group)
        with run.locked(), cli.stop_signals() as stop, group.barrier():
            start(sess, graph, run, group)
            if run.step < run.total:
                run.write_config(class_weights, device)
                with run.open_log():
                    session_loop(sess, graph, run, stop, group)
    if group.chief:
        print(run.summary(stop))
    if stop:
        sys.exit(128 + stop[0])
    return run.folder


def main():
    """Trains with the flags of the command line, or prints the layers of the network with --describe."""
    args = parse_args()
    if not args.describe:
        cluster.launch(args.gpus, args.device)
    describe(args) if args.describe else train(args)


if __name__ == '__main__':
    cli.main(main)
