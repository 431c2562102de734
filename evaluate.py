"""Scores a trained run on a split: python evaluate.py Output/camvid-segnet-basic --split test

Also holds the one prediction graph that validation, scoring, prediction and benchmark share.
"""
import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import collections
import os

import numpy as np
import tensorflow.compat.v1 as tf

import batches
import data
import metrics
import networks
import paper
import plots
import runs
import utils

Scoring = collections.namedtuple('Scoring', 'initializer images labels predictions sizes')


def prediction_graph(flags, images, num_classes, sizes, bn='moving', reuse=False):
    """The one way predictions are made.

    Args:
      flags: those of the run, as in config.json; model and input are read.
      images: [batch, height, width, 3] uint8 or float32 RGB, at the size that the network sees.
      sizes: [batch, 2] int32, the height and width at which each prediction is wanted.
      bn: 'moving' normalizes by the kept statistics, 'batch' by the batch at hand (to show the harm).
    Returns:
      predictions: [batch, max height, max width] uint8 class ids; 0 beyond an image's own size.
      probabilities: [batch, height, width, num_classes] float32, at the network's size.
    """
    logits = networks.build(flags['model'], images, num_classes, bn == 'batch', flags['input'], reuse=reuse)
    probabilities = tf.nn.softmax(logits)
    height, width = tf.reduce_max(sizes[:, 0]), tf.reduce_max(sizes[:, 1])

    def at_own_size(item):
        one, size = item
        one = tf.image.resize_bilinear(one[None], size, half_pixel_centers=True)[0]
        ids = tf.cast(tf.argmax(one, -1), tf.uint8)
        return tf.pad(ids, [[0, height - size[0]], [0, width - size[1]]])

    predictions = tf.map_fn(at_own_size, (probabilities, sizes), dtype=tf.uint8, parallel_iterations=1)
    return predictions, probabilities


def scoring_graph(dataset, split, flags, batch_size, bn='moving', reuse=False):
    """Batches of `split` and their predictions by the run of `flags`, at the labels' own sizes -> Scoring."""
    initializer, images, labels, sizes = batches.scoring_batches(dataset, split, flags['height'], flags['width'],
                                                                 batch_size, flags['fit'])
    predictions, _ = prediction_graph(flags, images, len(dataset.class_names), sizes, bn, reuse)
    return Scoring(initializer, images, labels, predictions, sizes)


def predictions_of_split(sess, scoring):
    """Yields (i, label, prediction), uint8 [h, w] of the label's own size, for each example in order."""
    sess.run(scoring.initializer)
    i = 0
    while True:
        try:
            fetched = sess.run([scoring.labels, scoring.predictions, scoring.sizes])
        except tf.errors.OutOfRangeError:
            return
        for label, prediction, (height, width) in zip(*fetched):
            yield i, label[:height, :width], prediction[:height, :width]
            i += 1


def score_split(sess, scoring, num_classes, panel=(), bf_images=0, bf_form='matching'):
    """One pass over the split.

    Args:
      panel: examples whose predictions are wanted.
      bf_images: examples that BF is taken over, the first ones.
      bf_form: as `metrics.boundary_f1`.
    Returns:
      scores: dict as from `metrics.scores`, with confusion (rows the truth), BF and bf_images.
      shown: {i: uint8 prediction [h, w]} for the examples `panel`, at their labels' own sizes.
    """
    counts, shown, bf = np.zeros((num_classes, num_classes), np.int64), {}, []
    for i, label, prediction in predictions_of_split(sess, scoring):
        counts += metrics.confusion(label, prediction, num_classes)
        if i < bf_images:
            bf.append(metrics.boundary_f1(label, prediction, num_classes, bf_form))
        if i in panel:
            shown[i] = prediction
    known = [value for value in bf if value is not None]
    return dict(metrics.scores(counts), confusion=counts.tolist(), BF=float(np.mean(known)) if known else None,
                bf_images=len(bf)), shown


def population_statistics(sess, dataset, flags):
    """Sets each batch norm's mean and variance to those of one pass over the training split, as the authors did.

    compute_bn_statistics.py: no augmentation, no dropout, the layers upstream normalized by their batch; the mean of
    the batches' means and of their (unbiased) variances, in batches of the run's own size. The last batch is filled
    up from the split's start.
    """
    steps = -(-len(dataset.examples['train']) // flags['batch_size'])
    start, images, _ = batches.training_batches(dataset, flags['height'], flags['width'], flags['batch_size'], 0,
                                                batches.NO_AUGMENTATION, flags['fit'])
    del tf.get_collection_ref(utils.BN_STATISTICS)[:]
    networks.build(flags['model'], images, len(dataset.class_names), True, flags['input'], reuse=True)
    moving, values = zip(*tf.get_collection(utils.BN_STATISTICS))
    sess.run(*start(0))
    totals = [np.zeros(variable.shape.as_list()) for variable in moving]
    for _ in range(steps):
        for total, value in zip(totals, sess.run(values)):
            total += value
    for variable, total in zip(moving, totals):
        variable.load((total / steps).astype(np.float32), sess)


def table(class_names, scores, papers=()):
    """Scores in percent as lines of text; `papers`: rows as from `paper.rows`, put below."""
    def cell(x):
        return '     -' if x is None else '%6.1f' % (100 * x)

    rows = ['%-16s %8s %6s' % ('class', 'accuracy', 'IoU')]
    rows += ['%-16s   %s %s' % (name[:16], cell(accuracy), cell(iou))
             for name, accuracy, iou in zip(class_names, scores['accuracy'], scores['IoU'])]
    rows += ['   '.join('%s %s' % (name, cell(scores[name]).strip()) for name in ('G', 'C', 'mIoU', 'BF', 'fwIoU'))]
    rows += ['   '.join('%s %s' % (name, '-' if value is None else '%.1f' % value)
                        for name, value in zip(('G', 'C', 'mIoU', 'BF'), values))
             + '   the paper on the test split: ' + where for where, values in papers]
    return '\n'.join(rows)


def parse_args(argv=None):
    """Every setting of a scoring."""
    parser = argparse.ArgumentParser(description='Scores a trained run on a split.',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('run', help='run folder, as written by main.py')
    parser.add_argument('--split', default='val', help='train, val or test, where the data set has it')
    parser.add_argument('--data_dir', help='folder of the data set (default: that of the run)')
    parser.add_argument('--bn', choices=('population', 'moving', 'batch'), default='population',
                        help='batch-norm statistics: of one pass over the training split, as the paper; the averages '
                             'kept in training; or of each batch, to show the harm')
    parser.add_argument('--checkpoint', choices=('best', 'last'), default='best',
                        help='best by validation, or the newest')
    parser.add_argument('--bf_images', type=int, help='take the boundary measure BF over the first so '
                        'many images only; 0 for none (default: all)')
    parser.add_argument('--bf_form', choices=('matching', 'distance'), default='matching',
                        help="BF as the authors' script, by one-to-one matching, or by distance as Csurka et al. 2013")
    parser.add_argument('--batch_size', type=int, default=4, help='images at a time; scores do not depend on it')
    parser.add_argument('--device', choices=runs.DEVICES, default='auto', help='gpu refuses to run without one')
    return parser.parse_args(argv)


def evaluate(args):
    """Scores `args.run`; prints a table, writes metrics.json, pictures and confusion-SPLIT.csv. Returns the scores."""
    config = runs.read_config(args.run)
    flags = config['flags']
    runs.check_positive(args, 'batch_size')
    device = runs.device_name(args.device)
    dataset = runs.open_dataset(flags['dataset'], args.data_dir or flags['data_dir'], config)
    runs.check_split(dataset, args.split)
    splits = {args.split, 'train'} if args.bn == 'population' else {args.split}
    dataset = data.preload(dataset, sorted(splits))
    num_classes = len(dataset.class_names)
    with tf.Graph().as_default():
        scoring = scoring_graph(dataset, args.split, flags, args.batch_size, args.bn)
        saver = tf.train.Saver(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES))
        with tf.Session(config=runs.session_config(args.device, flags['precision'])) as sess:
            step = runs.restore(sess, saver, args.run, args.checkpoint)
            print('%s: %s weights of step %d, batch norm by %s statistics, %s'
                  % (args.run, args.checkpoint, step, args.bn, device))
            if args.bn == 'population':
                population_statistics(sess, dataset, flags)
            panel = plots.panel_examples(dataset, args.split)
            images = len(dataset.examples[args.split])
            result, shown = score_split(sess, scoring, num_classes, panel,
                                        images if args.bf_images is None else args.bf_images, args.bf_form)
    print(table(dataset.class_names, result, paper.rows(dataset.name, flags['model'], flags['class_weights'])))
    result.update(class_names=dataset.class_names, step=step, bn=args.bn, checkpoint=args.checkpoint, images=images,
                  bf_form=args.bf_form,
                  command=runs.command(), revision=runs.revision())
    runs.update_json(os.path.join(args.run, 'metrics.json'), {args.split: result})
    plots.panel(dataset, args.split, shown, os.path.join(args.run, dataset.panel))
    confusion = os.path.join(args.run, 'confusion-' + args.split)
    runs.write_text(confusion + '.csv', metrics.confusion_csv(result['confusion'], dataset.class_names))
    plots.confusion(np.array(result['confusion']), dataset.class_names, confusion + '.png')
    return result


if __name__ == '__main__':
    runs.main(lambda: evaluate(parse_args()))
