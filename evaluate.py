"""Scores a trained run on a split: python evaluate.py Output/camvid-segnet-basic --split test"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import contextlib
import os

import numpy as np
import tensorflow.compat.v1 as tf

import batches
import datasets
import metrics
import networks
import utils
from inference.predictor import Predictor, Settings, add_flags
from paper import tables as paper
from paper.results import MEASURES
from runs import plots, report, weights
from runs.folder import add_scores, read_config, run_folder, without_folders
from system import cli, cluster, devices, distribute
from system.files import UserError, check_output, write_csv

# ---------------------------------------------------------------- loading a run

def samples_of(samples, spec) -> int:
    """Returns the number of Monte-Carlo dropout samples; if `samples` is None, the default of the network.

    The default for a run without dropout is 0. Raises UserError if a run without dropout gets `samples` above 0.
    """
    if samples is None:
        return networks.SAMPLES.get(spec.model, 0) if spec.dropout else 0
    if samples and not spec.dropout:
        raise UserError('--samples %d: the run has no dropout to sample from; train with --dropout 0.5' % samples)
    return samples


@contextlib.contextmanager
def open_run(args, name: str, flags: dict, spec, group=None, confidence: bool = False, probabilities: bool = False):
    """Context manager: loads the network of a run into a session; yields (`Predictor`, `weights.Weights`).

    Prints a line with the weights, the number of samples, the precision and the device. Raises UserError if the weights
    do not fit the network, or if the device does not support --precision.

    Args:
      args: parsed flags of evaluate.py, predict.py or demo.py.
      name: path of a run folder or of a file with weights.
      flags: dict of the flags in the run's config.json; empty for a file with weights.
      spec: the run's `networks.Spec`.
      group: connected `distribute.Group`, or None for a single process.
      confidence, probabilities: bool, the fields of `Settings` with these names.
    """
    group = group or distribute.Group()
    device = devices.device_name(args.device)
    tf32 = args.tf32 or flags.get('tf32', 'on')
    spec = spec._replace(precision=devices.precision(args.precision, spec.precision, args.device))
    settings = Settings(samples_of(args.samples, spec), args.tile, args.tile_overlap, args.tta, args.batch_size,
                        confidence, probabilities)
    loaded = weights.load(name, args.checkpoint)
    session = tf.Session(group.target, graph=tf.Graph(), config=group.session_config(args.device, tf32=tf32))
    portable = utils.portable_pooling(devices.needs_portable_pooling(args.device))
    with session as sess, tf.device(group.place), portable:
        predictor = Predictor(sess, spec, settings)
        weights.load_all(sess, loaded, name)
        if group.chief:
            passes = '%d samples' % settings.samples if settings.samples else 'no dropout'
            passes += ', --tta ' + args.tta if args.tta else ''
            precision = devices.precision_name(spec.precision, args.device, tf32)
            print('%s: %s, %s, %s on %s' % (name, loaded.description, passes, precision, device), flush=True)
        yield predictor, loaded


# ---------------------------------------------------------------- scores

def score_split(predictions, dataset, split: str, bf_images: int = 0, num_extremes: int = 0,
                all_gather=lambda share: [share]):
    """Scores the predictions of a split. If several processes run, each process predicts a share of the split.

    Args:
      predictions: iterable of (example index, label uint8 [h, w], `Prediction`) of this process.
      bf_images: BF is computed on the first `bf_images` examples of the split.
      num_extremes: `extremes` holds this many images with the highest mIoU, and as many with the lowest mIoU.
      all_gather: function (results of this process) -> list of the results of all processes.
    Returns:
      scores: the dict that `metrics.scores` returns, with these additional keys:
        class_names: list of str. images: number of images in the split.
        confusion: list of lists of pixel counts, with a row per true class and a column per predicted class.
        BF: boundary F1 score 0..1, the mean over the images that have a boundary; None if no image has a boundary.
        bf_images: number of images scored for BF.
        ECE: expected calibration error 0..1; None if no pixel is labelled. The key is missing if the predictions have
          no confidence.
        most_certain: {'50%': {'G': ..., 'C': ..., 'mIoU': ...}, '90%': ..., '100%': ...}, the scores of the 50%, 90%
          and 100% of the pixels with the least variance. The key is missing if the predictions have no variance.
      shown: {example index: prediction uint8 [h, w]} for the examples that `plots.panel_examples` selects.
      extremes: list of (mIoU of the image, example index, prediction uint8 [h, w]), the highest mIoU first. Images
        without a labelled pixel have no mIoU and are left out.
    """
    num_classes = len(dataset.class_names)
    panel = plots.panel_examples(dataset, split)
    counts = np.zeros((num_classes, num_classes), np.int64)
    by_uncertainty, by_confidence = 0, 0
    bf = {}
    shown = {}
    extremes = []
    for i, label, (ids, variance, confidence, _) in predictions:
        image_counts = metrics.confusion(label, ids, num_classes)
        counts += image_counts
        if num_extremes and image_counts.any():
            extremes = best_and_worst(extremes + [(metrics.scores(image_counts)['mIoU'], i, ids)], num_extremes)
        if i < bf_images:
            bf[i] = metrics.boundary_f1(label, ids, num_classes)
        if i in panel:
            shown[i] = ids
        if variance is not None:
            by_uncertainty += metrics.confusion_by_uncertainty(label, ids, variance, num_classes)
        if confidence is not None:
            by_confidence += metrics.confidence_counts(label, ids, confidence, num_classes)
    *sums, bf, shown, extremes = zip(*all_gather((counts, by_uncertainty, by_confidence, bf, shown, extremes)))
    counts, by_uncertainty, by_confidence = map(sum, sums)
    bf, shown = [{i: value for share in of_shares for i, value in share.items()} for of_shares in (bf, shown)]
    extremes = best_and_worst(sum(extremes, []), num_extremes)
    scores = dict(metrics.scores(counts), confusion=counts.tolist(), BF=metrics.mean(bf[i] for i in sorted(bf)),
                  bf_images=len(bf), class_names=dataset.class_names, images=len(dataset.examples[split]))
    if np.ndim(by_confidence):
        scores['ECE'] = metrics.calibration_error(by_confidence)
    if np.any(by_uncertainty):
        scores['most_certain'] = {}
        for share in (50, 90, 100):
            values = metrics.scores(metrics.most_certain(by_uncertainty, share / 100.0))
            scores['most_certain']['%d%%' % share] = {name: values[name] for name in ('G', 'C', 'mIoU')}
    return scores, shown, extremes


def best_and_worst(extremes: list, count: int) -> list:
    """Selects the `count` images with the highest mIoU and the `count` images with the lowest mIoU -> list.

    `extremes` and the result are lists of (mIoU, example index, prediction). The result begins with the highest mIoU.
    If `extremes` is not empty, `count` must be at least 1.
    """
    extremes = sorted(extremes, key=lambda extreme: (-extreme[0], extreme[1]))
    return extremes[:count] + extremes[count:][-count:]


def population_statistics(sess, dataset, spec, batch_size: int, group):
    """Replaces batch norm's moving averages by averages over the training split, in one pass.

    Source: the authors' script compute_bn_statistics.py. Each moving mean becomes the average of the batch means, and
    each moving variance the average of the unbiased batch variances. During the pass batch norm normalizes each batch
    by the statistics of the batch. The images are not augmented. If the run was trained with --fit crop, the images are
    cropped at random, as in training.

    The order of the examples is random with a fixed seed. If the last batch is not full, the first examples of a second
    random order fill the batch. Each process of `group` computes a part of the batches. The statistics of all batches
    are averaged in order, so the result does not depend on the number of processes.

    Args:
      spec: the run's `networks.Spec`. For predictions without Monte-Carlo samples, the dropout rate must be set to 0.
      batch_size: number of images per batch, the same as in training.
    """
    steps = -(-len(dataset.examples['train']) // batch_size)
    start, images, _ = batches.training_batches(dataset, dict(
        batches.NO_AUGMENTATION, fit=spec.fit, height=spec.height, width=spec.width, batch_size=batch_size, seed=0))
    del tf.get_collection_ref(utils.BN_STATISTICS)[:]
    step = tf.placeholder(tf.int64, [])

    def dropout(x, name):
        return utils.dropout(x, spec.dropout, (spec.seed, step), name)

    networks.build(spec, images, True, dropout, reuse=True)
    moving, values = zip(*tf.get_collection(utils.BN_STATISTICS))
    first, last = [steps * i // group.size for i in (group.index, group.index + 1)]
    sess.run(*start(first))
    statistics = sum(group.all_gather([sess.run(values, {step: i}) for i in range(first, last)]), [])
    for variable, of_batches in zip(moving, zip(*statistics)):
        variable.load(np.mean(of_batches, 0, np.float64).astype(np.float32), sess)


def scores_text(class_names: list, scores: dict, papers=()) -> str:
    """Formats scores in percent as lines of text.

    Args:
      scores: dict that `score_split` returns, with fractions 0..1.
      papers: the paper's scores, which become the last lines: list of (text, scores). The text names the table and the
        settings. The scores are (G, C, mIoU, BF) in percent.
    """
    def line(values, text=report.percent):
        return '   '.join('%s %s' % (name, text(value)) for name, value in values.items())

    classes = []
    for i, name in enumerate(class_names):
        values = {column: report.percent(scores[column][i]) for column in ('accuracy', 'precision', 'F1', 'IoU')}
        classes.append({'class': name, **values, 'pixels': str(scores['pixels'][i])})
    rows = [report.plain_table(classes), line({name: scores[name] for name in ('G', 'C', 'mIoU', 'BF', 'fwIoU', 'ECE')
                                                     if name in scores})]
    rows += ['most certain %-4s of the pixels   %s' % (share, line(values))
             for share, values in scores.get('most_certain', {}).items()]
    rows += ['%s   the paper on the test split: %s' % (line(dict(zip(MEASURES, values)), report.decimal), where)
             for where, values in papers]
    return '\n'.join(rows)


def parse_args(argv=None):
    """Parses the flags of evaluate.py from `argv`, or from the command line if `argv` is None.

    Raises UserError for a bad flag or combination of flags.
    """
    parser = cli.Parser(description='Scores a trained run, or a file of weights, on a split.')
    parser.add_argument('run', nargs='?', type=run_folder, help='run folder, or the name of a published run')
    parser.add_argument('--split', nargs='+', default=['val'], help='names of the splits to score: train, val, test')
    parser.add_argument('--data_dir', help='folder of the data set (default: the folder that the run was trained on)')
    parser.add_argument('--bn', choices=('population', 'moving'), default='population',
                        help='population: statistics from one pass over the training split; moving: moving averages')
    add_flags(parser, batch_size=4)
    parser.add_argument('--bf_images', type=cli.number(int, 0, 10 ** 9), default=10 ** 9, metavar='N',
                        help='compute the boundary measure BF on the first N images; 0: no BF (default: all)')
    parser.add_argument('--publish', metavar='FOLDER', help='also write the run, with 8-bit kernels, to FOLDER')
    cluster.add_flag(parser)
    group = parser.add_argument_group('weights of a file, instead of a run')
    group.add_argument('--weights', metavar='FILE', help='.caffemodel file, or .npz file with an array per variable')
    group.add_argument('--model', choices=sorted(networks.NETWORKS), help='network that the weights belong to')
    group.add_argument('--dataset', choices=datasets.MODULES, help='data set to score the weights on')
    group.add_argument('--output', help='folder for the scores (default: Output/<dataset>-<model>-weights)')
    args = parser.parse_args(argv)
    args.split = list(dict.fromkeys(args.split))
    check_output(args.output or '')
    if args.weights and not args.weights.endswith(('.npz', '.caffemodel')):
        raise UserError('--weights %s: must be a .npz or .caffemodel file; a run needs no --weights' % args.weights)
    if args.publish and (not args.run or os.path.exists(args.publish)):
        raise UserError('--publish %s: needs a run to publish, and the folder must not exist yet' % args.publish)
    of_file = args.weights, args.model, args.dataset
    if any(of_file + (args.output,)) if args.run else not all(of_file):
        raise UserError('give a run folder alone, or --weights FILE with --model and --dataset (optional: --output)')
    return args


def open_inputs(args) -> tuple:
    """Opens the data set on which the weights are scored: the data set of the run, or --dataset.

    Returns (folder for the scores, `data.Dataset`, dict of the run's flags, `networks.Spec`). With --weights the dict
    is empty, and the network has default settings. The folder for the scores of a published run NAME is
    Output/NAME-published, because the files of a published run must not change. Raises UserError for a bad run or data
    set.
    """
    if args.run:
        config = read_config(args.run)
        flags = config['flags']
        folder = args.run
        if os.path.exists(os.path.join(args.run, 'weights.npz')):
            folder = os.path.join('Output', os.path.basename(os.path.abspath(args.run)) + '-published')
        dataset = datasets.open(flags['dataset'], args.data_dir or flags['data_dir'], config)
        return folder, dataset, flags, networks.spec_of(flags, len(config['class_names']))
    dataset = datasets.open(args.dataset, args.data_dir)
    folder = args.output or os.path.join('Output', '%s-%s-weights' % (args.dataset, args.model))
    height, width = dataset.size
    return folder, dataset, {}, networks.Spec(args.model, len(dataset.class_names), height=height, width=width)


def evaluate(args) -> dict:
    """Scores a run or a file of weights on each split. The processes of TF_CONFIG or Slurm share the work.

    The chief, which is the first process, prints the scores and writes metrics.json and figures, and report.html if the
    folder has a config.json. With --publish FOLDER the chief also writes the weights and config.json of the run to
    FOLDER. Raises UserError for bad weights, data or flags.

    Returns:
      {split: scores}. The scores are the dict that `score_split` returns, with the additional keys step, bn, samples,
      tile, tta, checkpoint, device, command and revision.
    """
    group = distribute.Group(*cluster.resolve_cluster())  # selects the GPU before TensorFlow starts
    group.connect(args.device, vars(args))
    folder, dataset, flags, spec = open_inputs(args)
    splits = set(args.split) | ({'train'} if args.bn == 'population' else set())
    for split in sorted(splits):
        datasets.check_split(dataset, split)
    results = {}
    opened = open_run(args, args.run or args.weights, flags, spec, group, confidence=True)
    with opened as (predictor, loaded), group.barrier():
        group.check_equal({'examples': {split: len(names) for split, names in dataset.examples.items()},
                           'weights': loaded.description, 'model': spec.model})
        dataset, _ = datasets.preload(dataset, sorted(splits))
        if args.bn == 'population':
            fitted = predictor.spec if predictor.settings.samples else predictor.spec._replace(dropout=0.0)
            # Files of weights have no batch size. The default of 4 is the batch size of compute_bn_statistics.py.
            population_statistics(predictor.sess, dataset, fitted, flags.get('batch_size', 4), group)
        published = paper.published_scores(dataset.name, spec.model, flags.get('class_weights', 'median'))
        for split in args.split:
            predictions = predictor.predict_split(dataset, split, group.index, group.size)
            scores, shown, _ = score_split(predictions, dataset, split, args.bf_images, all_gather=group.all_gather)
            scores.update(step=loaded.step, bn=args.bn, samples=predictor.settings.samples, tile=args.tile,
                          tta=args.tta, checkpoint=args.checkpoint, device=devices.device_name(args.device),
                          command=without_folders(cli.command_line()), revision=cli.revision())
            results[split] = scores
            if group.chief:
                print('%s, %d images, batch norm by %s statistics' % (split, scores['images'], args.bn))
                print(scores_text(dataset.class_names, scores, published), flush=True)
                write_scores(folder, dataset, split, entry_name(args, split), scores, shown)
        if args.publish and group.chief:
            weights.publish(args.publish, args.run, predictor.sess, loaded.step)
        if group.chief and os.path.exists(os.path.join(folder, 'config.json')):
            report.write(folder, published, paper.class_accuracies(dataset.name, spec.model))
    return results


def entry_name(args, split: str) -> str:
    """Returns the key of the scores of a split in metrics.json, such as 'val (moving, 20 samples)'.

    The parentheses list the flags that differ from the defaults. --samples, --tile_overlap and --precision are listed
    whenever the user gave them, even with the default value. --bf_images and --batch_size are never listed.
    """
    kinds = ['moving'] if args.bn == 'moving' else []
    kinds += ['last'] if args.checkpoint == 'last' else []
    kinds += [] if args.samples is None else ['%d samples' % args.samples]
    kinds += ['tta ' + args.tta] if args.tta else []
    kinds += [] if args.tile == 'auto' else ['tile off' if args.tile == 'off' else 'tile %dx%d' % args.tile]
    kinds += [] if args.tile_overlap is None else ['overlap %g' % args.tile_overlap]
    kinds += [args.precision] if args.precision else []
    return '%s (%s)' % (split, ', '.join(kinds)) if kinds else split


def write_scores(folder: str, dataset, split: str, entry: str, scores: dict, shown: dict):
    """Writes the scores of a split to `folder`: metrics.json, a figure of predictions, the confusion matrix.

    The figure shows images, labels and predictions. The attribute `dataset.panel` is the file name of the figure, such
    as 'predictions.png'. The confusion matrix is written as confusion-SPLIT.csv and confusion-SPLIT.png. An earlier
    entry `entry` in metrics.json is replaced, and earlier figures and CSV files are overwritten. The titles of the
    figures name `entry` and the step of the weights.

    Args:
      entry: key of the scores in metrics.json.
      shown: {example index: prediction uint8 [h, w]}, for the figure of predictions.
    """
    os.makedirs(folder, exist_ok=True)
    add_scores(folder, {entry: scores})
    title = '%s, weights of step %s' % (entry, scores['step'])
    plots.panel(dataset, split, shown, os.path.join(folder, dataset.panel), title=title)
    confusion = os.path.join(folder, 'confusion-' + split)
    rows = [[name] + row for name, row in zip(dataset.class_names, scores['confusion'])]
    write_csv(confusion + '.csv', [['truth \\ prediction'] + dataset.class_names] + rows)
    plots.confusion(np.array(scores['confusion']), dataset.class_names, confusion + '.png', title)


def main():
    """Scores a run with the flags of the command line; --gpus N starts N processes."""
    args = parse_args()
    cluster.launch(args.gpus, args.device)
    evaluate(args)


if __name__ == '__main__':
    cli.main(main, '--batch_size, or --bf_images (0 for no BF), or use --bn moving')
