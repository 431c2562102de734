"""Trains SegNet. `python main.py` alone trains on the bundled cells and writes Output/sample-segnet/.

The same command again goes on where the run stopped.
"""
from runtime import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import os
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import batches
from runtime import cli
import data
import datasets
from paper import layers as describe
from runtime import devices
from runtime import distribute
import evaluate
import networks
import optimize
from runtime import plots
from runtime import report
from runtime import run as runs
import utils
from runtime import weights
from data import UserError

SAVE_SECONDS = 600  # at most so much work is lost when a run is killed between validations


def recipe(name, model, dataset):
    """The flags that `--recipe` sets: what an experiment of the paper, or the released files, trained with.

    'quick' learns the bundled cells in minutes.
    """
    if name == 'quick':
        return {'optimizer': 'adam', 'learning_rate': 0.001, 'schedule': 'poly'}
    sgd = {'optimizer': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4, 'schedule': 'constant'}  # the released solvers
    if name == 'paper-table1':  # section 3
        return dict(sgd, learning_rate=0.1, batch_size=12, class_weights='median', select_by='G')
    if name == 'paper-benchmark':  # section 4
        return dict(sgd, learning_rate=0.001, batch_size=4 if dataset == 'sunrgbd' else 5, class_weights='none',
                    dropout=0.5, select_by='G')
    # Models/segnet_solver.prototxt, segnet_basic_solver.prototxt
    return dict(sgd, learning_rate=0.1 if networks.is_basic(model) else 0.001, batch_size=4,
                class_weights='released' if dataset == 'camvid' else 'median')


def parse_args(argv=None):
    """Every setting of a run, with its default; a flag given by hand wins over the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.Help)
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', choices=datasets.names(), default='sample', help='what to train on')
    group.add_argument('--data_dir', help='folder of the data set; sample needs none')
    group.add_argument('--height', type=int, help="size trained at (default: the data set's own)")
    group.add_argument('--width', type=int, help="size trained at (default: the data set's own)")
    group.add_argument('--fit', choices=batches.FITS, default='resize',
                       help='how an image of another size gets to --height and --width: stretched whole; or at its own '
                            'scale, a random part cut out, padded with void where it is smaller (it is then scored '
                            'whole, at its own size)')
    group.add_argument('--flip', action='store_true', help='mirror left and right, every second time')
    group.add_argument('--scale', type=float, default=1.0, help='zoom by between 1/SCALE and SCALE')
    group.add_argument('--crop', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='train on random crops')
    group.add_argument('--shift', type=int, default=0, help='move by up to so many pixels each way')
    group.add_argument('--jitter', type=float, default=0.0, help='change colours by up to this share')
    group = parser.add_argument_group('training')
    group.add_argument('--model', choices=sorted(networks.NETWORKS), default='segnet', help='the network')
    group.add_argument('--input', choices=sorted(networks.INPUTS),
                       help='what the network sees: raw, BGR 0..255 (default, as the released SegNet); lrn, local '
                            'response normalization (default of the networks of table 1, as SegNet-Basic); lcn, local '
                            'contrast normalization (section 3 of the paper)')
    group.add_argument('--dropout', type=float,
                       help="share dropped in training at the network's places for it (default: 0.5 for the Bayesian "
                            "networks, else 0; section 4 of the paper: 0.5)")
    group.add_argument('--vgg16', metavar='PATH', help="start the encoder with VGG16's weights: the path of Keras' "
                       'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5, or download')
    group.add_argument('--init_from', metavar='RUN|FILE', help='start with the weights of an earlier run (its best), '
                       "of a .npz or of the authors' .caffemodel; the classifier starts afresh where the number of "
                       'classes differs')
    group.add_argument('--recipe', choices=('paper-table1', 'paper-benchmark', 'released', 'quick'),
                       help='sets flags together: for section 3 or section 4 of the paper, or the released solvers, '
                            'optimizer, learning rate, schedule, momentum, weight decay, batch size, class weights '
                            '(section 4: dropout; both sections: --select_by G); quick (the default for sample): '
                            'Adam at 0.001, falling; a flag given by hand wins')
    group.add_argument('--epochs', type=int, default=16, help='passes over the training split, resumed ones included')
    group.add_argument('--steps', type=int, help='steps in all, resumed ones included; wins over --epochs')
    group.add_argument('--batch_size', type=int, default=4, help='images a step')
    group.add_argument('--learning_rate', type=float, default=0.1,
                       help='for sgd the paper has 0.1 (section 3) and 0.001 (section 4); 0.001 suits adam')
    group.add_argument('--schedule', choices=optimize.SCHEDULES, default='poly',
                       help='how the learning rate falls; the paper: constant')
    group.add_argument('--momentum', type=float, default=0.9, help='0.9: the paper')
    group.add_argument('--weight_decay', type=float, default=5e-4, help='5e-4: the released solvers')
    group.add_argument('--optimizer', choices=('sgd', 'adam'), default='sgd',
                       help='sgd with momentum: the paper; adam for those who compare')
    group.add_argument('--class_weights', default='median',
                       help='none; median: median frequency balancing over the training split; median-sqrt: the '
                            'square roots of these; median-void: with void in the median; released: the list in the '
                            "authors' prototxt (camvid only); or a CSV file with columns name,weight")
    group.add_argument('--seed', type=int, default=1, help='of the weights, the order and the augmentation')
    group = parser.add_argument_group('run')
    group.add_argument('--output', help='run folder (default: Output/<dataset>-<model>)')
    group.add_argument('--select_by', choices=('mIoU', 'G', 'C'), default='mIoU',
                       help='validation measure that best/ is selected by; the paper: G')
    group.add_argument('--patience', type=int, metavar='N',
                       help='stop when N validations in a row gained nothing in --select_by (default: never)')
    group.add_argument('--describe', action='store_true', help='print the layers of --model for --dataset, with output '
                       'shapes, parameters and multiply-adds at --height and --width (360x480), and end')
    group.add_argument('--precision', choices=runs.PRECISIONS, default='float32',
                       help='what the layers compute in; float16 with a loss scale')
    group.add_argument('--xla', action='store_true', help='compile the graph by XLA (GPUs)')
    group.add_argument('--gpus', type=int, default=1, help='devices of this machine that share each batch (with '
                       '--device cpu: parts of the CPU, to try it); for several machines see TF_CONFIG in the README')
    group.add_argument('--device', choices=devices.DEVICES, default='auto', help='gpu refuses to start without one')
    args = parser.parse_args(argv)
    args.recipe = args.recipe or ('quick' if args.dataset == 'sample' else None)
    if args.recipe:
        parser.set_defaults(recipe=args.recipe, **recipe(args.recipe, args.model, args.dataset))
        args = parser.parse_args(argv)
    cli.check_positive(args, 'height', 'width', 'epochs', 'steps', 'batch_size', 'learning_rate', 'patience', 'gpus')
    args.dropout = networks.default_dropout(args.model) if args.dropout is None else args.dropout
    for name, low, high in (('momentum', 0, 1), ('weight_decay', 0, 1), ('scale', 1, 10), ('shift', 0, 10000),
                            ('jitter', 0, 1), ('dropout', 0, 0.99), ('seed', 0, 2 ** 32 - 1)):
        if not low <= getattr(args, name) <= high:
            raise UserError('--%s %s: must lie between %s and %s' % (name, getattr(args, name), low, high))
    if args.crop and (min(args.crop) < 1 or args.crop[0] * args.crop[1] > data.MAX_PIXELS):
        raise UserError('--crop %d %d: must be above 0, and %d pixels at most' % (*args.crop, data.MAX_PIXELS))
    args.input = args.input or networks.default_input(args.model)
    if args.vgg16 and args.init_from:
        raise UserError('--vgg16 and --init_from: give one of them; both set the starting weights')
    if args.vgg16 and args.input != 'raw':
        raise UserError('--vgg16: its weights want --input raw and VGG16\'s encoder (--model segnet)')
    return args


def open_run(args, dataset):
    """Fills in the defaults that depend on others, makes or checks the run folder; returns (folder, flags)."""
    args.height, args.width = args.height or dataset.size[0], args.width or dataset.size[1]
    folder = args.output or os.path.join('Output', '%s-%s' % (args.dataset, args.model))
    runs.check_folder(folder)
    flags = dict(vars(args), data_dir=args.data_dir and os.path.abspath(args.data_dir))
    if os.path.exists(os.path.join(folder, 'config.json')):
        runs.check_same_run(runs.read_config(folder), flags, folder)
    elif set(runs.files(folder)) - {'config.json.part'}:  # that is what a start that was killed can leave
        raise UserError('--output %s: holds files but no run; name an empty or a new folder' % folder)
    return folder, flags


def training_graph(args, dataset, balance, total, towers):
    """The training graph: each of the devices `towers` takes its share of the batch; their gradients are added.

    Batch norm sees a tower's share; the loss is divided by the labelled pixels of the whole batch.

    Returns:
      start: function (step) -> (op, feed_dict) that starts the stream of batches there.
      fetches: what a step runs: loss, learning_rate and step_op.
    """
    tf.set_random_seed(args.seed)
    augmentation = {name: getattr(args, name) for name in batches.NO_AUGMENTATION}
    start, images, labels = batches.training_batches(dataset, args.height, args.width, args.batch_size, args.seed,
                                                     augmentation, args.fit)

    step = tf.train.get_or_create_global_step()  # here, outside the network's scope
    count = optimize.labelled_pixels(labels)
    shares = distribute.shares(args.batch_size, len(towers))
    losses = []
    for i, (tower, image, label) in enumerate(zip(towers, tf.split(images, shares), tf.split(labels, shares))):
        def drop(x, place, tower='-%d' % i if i else ''):
            return utils.dropout(x, args.dropout, (args.seed, step), place + tower) if args.dropout else x

        with tf.device(tower):
            logits = networks.build(args.model, image, len(dataset.class_names), True, args.input, drop, i > 0,
                                    args.precision)
            losses.append(optimize.loss(logits, label, balance, count))
    loss = tf.add_n(losses)
    rate = optimize.learning_rate(args.schedule, args.learning_rate, total)
    step_op = optimize.train_op(loss, rate, args.momentum, args.weight_decay,
                                lambda variable: networks.multipliers(args.model, variable), args.optimizer,
                                args.precision)
    return start, {'loss': loss, 'learning_rate': rate, 'step_op': step_op}


def check_finite(fetched, step, log, folder, names):
    """Raises FloatingPointError for a loss that is not finite, before anything is saved."""
    if not np.isfinite(fetched['loss']):
        last = [round(record['loss'], 4) for record in log.records if 'loss' in record][-5:]
        raise FloatingPointError('the loss became %s at step %d, after %s; lower --learning_rate (it is %g), or look '
                                 'at the images of the batch: %s. The checkpoint before it is kept in %s'
                                 % (fetched['loss'], step, last, fetched['learning_rate'], ', '.join(names(step)),
                                    folder))


def starting_weights(args):
    """What --vgg16 or --init_from names -> {name below the network's scope: array}, and the flag."""
    if args.vgg16:
        return weights.vgg16(args.vgg16).values, '--vgg16 %s' % args.vgg16
    if args.init_from:
        return weights.load(args.init_from).values, '--init_from %s' % args.init_from
    return {}, ''


def stalled(log, args):
    """Whether the last `--patience` validations gained nothing."""
    values = log.validations(args.select_by)
    return bool(args.patience and values and len(values) - 1 - int(np.argmax(values)) >= args.patience)


def session_loop(sess, fetches, step, total, batch_size, epoch_steps, folder, log, bar, names, done, validate_and_save,
                 save):
    """Steps from `step` to `total`, or until done() says so; returns the last step done.

    names(step) tells the examples of a step's batch; validate_and_save(step) runs after each epoch and at the end,
    save(step) every SAVE_SECONDS and when stopped.
    """
    saved = began = time.time()
    while step < total and not done():
        fetched = sess.run(fetches)
        step += 1
        check_finite(fetched, step, log, folder, names)
        speed, began = batch_size / (time.time() - began), time.time()  # of the whole round, writing included
        log.write(step, loss=float(fetched['loss']), learning_rate=float(fetched['learning_rate']),
                  images_per_second=speed)
        bar.update()
        bar.set_postfix_str('loss %.3f, %.1f images/s' % (fetched['loss'], speed))
        if step == total or int(step / epoch_steps) > int((step - 1) / epoch_steps):
            validate_and_save(step)
            saved = began = time.time()
        elif done() or time.time() - saved > SAVE_SECONDS:
            save(step)
            saved = began = time.time()
    return step


def train(args):
    """Trains to `--steps` or `--epochs`, from the newest checkpoint of the run if there is one; returns the folder."""
    if args.describe:
        classes = datasets.CLASS_NAMES.get(args.dataset) or datasets.open(args.dataset, args.data_dir).class_names
        print(describe.table(args.model, args.height or 360, args.width or 480, len(classes)))
        return None
    device = devices.device_name(args.device)
    devices.check_precision(args.precision, args.device)
    cluster = distribute.from_environment()
    config = distribute.session_config(cluster, args.device, args.gpus, args.xla)
    if cluster and cluster.index:
        return distribute.lend(cluster, config)
    towers = distribute.towers(cluster, args.device, args.gpus)
    dataset = datasets.open(args.dataset, args.data_dir)
    for split in ('train', 'val'):
        datasets.check_split(dataset, split)
    folder, flags = open_run(args, dataset)
    print('Training %s on %s with %s' % (args.model, args.dataset, device), flush=True)
    dataset = data.preload(dataset, ('train', 'val'))
    balance = data.class_weights(args.class_weights, dataset)
    values, flag = starting_weights(args) if not runs.checkpoints(folder, 'last') else ({}, '')
    epoch_steps = len(dataset.examples['train']) / args.batch_size
    total = args.steps or int(np.ceil(args.epochs * epoch_steps))

    with tf.Graph().as_default() as graph, tf.device(distribute.CHIEF if cluster else None):
        start, fetches = training_graph(args, dataset, balance, total, towers)
        validation = evaluate.scoring_graph(dataset, 'val', flags, args.batch_size, reuse=True)
        model_variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
        given, fresh = weights.match_variables(values, model_variables, len(dataset.class_names), flag)
        saver = tf.train.Saver(max_to_keep=3)
        best_saver = tf.train.Saver(model_variables, max_to_keep=1)
        init = tf.global_variables_initializer()
        farewell = distribute.farewells(len(cluster.hosts) - 1) if cluster else None
        graph.finalize()
        with runs.locked(folder), distribute.session(cluster, config, farewell) as sess, cli.stop_signals() as stop:
            sess.run(init)
            step = first = runs.resume(sess, saver, best_saver, folder)
            if step >= total:
                print('%s: finished, at step %d of %d; more with a larger --steps or --epochs' % (folder, step, total))
                return folder
            if step == 0 and given:
                weights.load_into(sess, given)
                print('%s: %d variables set; as initialized: %s' % (flag, len(given), ', '.join(fresh) or 'none'))
            write_config(folder, flags, dataset, balance, runs.provenance(device), step)
            os.makedirs(os.path.join(folder, 'best'), exist_ok=True)
            log = runs.Log(folder, step, graph)
            bar = tqdm.tqdm(total=total, initial=step, unit='step', disable=None, dynamic_ncols=True)

            def validate_and_save(step):
                validate(sess, dataset, validation, folder, step, step / epoch_steps, log, best_saver, args.select_by,
                         bar)
                save(sess, saver, folder, step)

            try:
                sess.run(*start(step))
                step = session_loop(sess, fetches, step, total, args.batch_size, epoch_steps, folder, log, bar,
                                    lambda step: batches.batch_names(dataset, step, args.batch_size, args.seed),
                                    lambda: stop or stalled(log, args), validate_and_save,
                                    lambda step: save(sess, saver, folder, step))
            except tf.errors.ResourceExhaustedError as error:
                raise error if 'OOM' not in error.message else MemoryError(
                    'it is --batch_size %d, --height %d, --width %d, --precision %s on %d devices; %s'
                    % (args.batch_size, args.height, args.width, args.precision, len(towers),
                       quiet.first_line(error)))
            finally:
                sess.run(*start(batches.END))
                bar.close()
                log.close()
            if stop:
                print('%s: stopped at step %d of %d; the same command goes on from there' % (folder, step, total))
                sys.exit(128 + stop[0])
    print('%s: done, step %d of %d (%d in this run)%s'
          % (folder, step, total, step - first,
             '; %d validations without gain in %s' % (args.patience, args.select_by) if step < total else ''))
    return folder


def write_config(folder, flags, dataset, balance, provenance, step):
    """config.json: what the run is; each start of it is one of `starts`."""
    path = os.path.join(folder, 'config.json')
    config = runs.read_config(folder) if os.path.exists(path) else {'starts': []}
    made_of = {'class_names': list(dataset.class_names), 'class_weights': [float(weight) for weight in balance],
               'sizes': {split: len(names) for split, names in dataset.examples.items()}}
    for name in made_of:
        if config.get(name, made_of[name]) != made_of[name]:
            raise UserError('%s: the data or the class weights changed since the run began: %s was %s, is %s; bring '
                            'back the old ones, or give another --output' % (path, name, config[name], made_of[name]))
    config.update(made_of, flags=flags, colors=[list(color) for color in dataset.colors])
    config['starts'].append(dict(provenance, step=step))
    runs.write_json(path, config)


def save(sess, saver, folder, step):
    """A checkpoint to resume from."""
    saver.save(sess, os.path.join(folder, 'checkpoints', 'model'), global_step=step, write_meta_graph=False)


def validate(sess, dataset, validation, folder, step, epoch, log, best_saver, select_by, bar):
    """Scores the validation split, by the moving averages; keeps the best weights; redraws the pictures."""
    entry, shown, extremes = evaluate.score_split(evaluate.predictions_of_split(sess, validation),
                                                  len(dataset.class_names), plots.panel_examples(dataset, 'val'),
                                                  num_extremes=2)
    scores = {name: entry[name] for name in ('G', 'C', 'mIoU', 'fwIoU', 'accuracy', 'IoU')}
    if (scores[select_by] or 0.0) > max([-1.0] + log.validations(select_by)):
        best_saver.save(sess, os.path.join(folder, 'best', 'model'), global_step=step, write_meta_graph=False)
    log.write(step, epoch=round(epoch, 2), **scores)
    plots.loss_curves(log.records, os.path.join(folder, 'loss.png'))
    picture = os.path.join(folder, dataset.panel)
    plots.panel(dataset, 'val', shown, picture)
    log.picture(step, picture)
    entry.update(class_names=dataset.class_names, step=step, bn='moving', images=len(dataset.examples['val']))
    runs.update_json(os.path.join(folder, 'metrics.json'), {'val (while training)': entry})
    plots.confusion(np.array(entry['confusion']), dataset.class_names, os.path.join(folder, 'confusion-val.png'))
    plots.panel(dataset, 'val', {i: prediction for _, i, prediction in extremes}, os.path.join(folder, 'extremes.png'),
                {i: 'mIoU %.2f' % score for score, i, _ in extremes})
    report.write(folder)
    bar.write('epoch %.1f, step %d: validation G %.3f, C %.3f, mIoU %.3f'
              % (epoch, step, scores['G'], scores['C'] or 0, scores['mIoU'] or 0), file=sys.stdout)


if __name__ == '__main__':
    cli.main(lambda: train(parse_args()))
