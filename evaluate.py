"""Scores a trained run on a split: python evaluate.py Output/camvid-segnet-basic --split test"""
from system import quiet  # noqa: F401  imported first: TensorFlow without its start-up messages
import functools
import os

import numpy as np
import tensorflow.compat.v1 as tf

import batches
import datasets
import metrics
import networks
import utils
from inference.predictor import Predictor, Settings, add_flags, check_overlap
from paper import tables as paper
from paper.results import MEASURES
from runs import plots, report, weights
from runs.folder import add_scores, corrupt_file_error, run_folder, without_folders
from runs.folder import read_config as read_run_config
from system import cli, cluster, devices, distribute
from system.cli import revision
from system.files import UserError, write_text


def scoring_graph(dataset, split: str, flags: dict, batch_size: int, reuse: bool = False) -> tuple:
    """Builds the prediction graph over the batches of `split` in the default graph.

    Args:
      flags: the run's flags, as in config.json. With --fit crop a batch has one image.
      reuse: reuse the variables of an earlier call.
    Returns:
      initializer: op that starts a pass.
      fetches: labels and predictions, uint8 [batch, h, w] at the labels' own sizes, padded to the largest of the batch,
        predictions with 0; and these sizes, int32 [batch, 2].
    """
    initializer, images, labels, sizes = batches.scoring_batches(dataset, split, flags, batch_size)
    predictions, _, _ = networks.prediction_graph(flags, images, len(dataset.class_names), sizes, reuse)
    return initializer, [labels, predictions, sizes]


def predictions_of_split(sess, scoring):
    """Yields (example index, label, prediction) in order; both are uint8 [h, w] at the label's own size.

    `scoring`: as from `scoring_graph`.
    """
    initializer, fetches = scoring
    sess.run(initializer)
    i = 0
    while True:
        try:
            fetched = sess.run(fetches)
        except tf.errors.OutOfRangeError:
            return
        for label, prediction, (height, width) in zip(*fetched):
            yield i, label[:height, :width], prediction[:height, :width]
            i += 1


def predictions_of_splits(sess, dataset, splits: list, flags: dict, settings: Settings) -> dict:
    """Builds a run's network to predict `splits`: {split: iterator as from `predictions_of_split`}.

    The network runs while iterating, so the caller loads the variables first.
    Images are predicted in batches, or one by one with --samples, with --tta, or where tiles may be used. With samples
    there is a fourth item, the variance of the samples, float32 [h, w].
    """
    if settings.samples or settings.tta or settings.uses_tiles(flags):
        predictor = Predictor(sess, flags, len(dataset.class_names), settings)

        def one_by_one(split):
            for i in range(len(dataset.examples[split])):
                image, label = dataset.load(split, i)
                prediction = predictor.predict([image])[0]
                yield (i, label, prediction.ids) + (prediction.variance,) * bool(settings.samples)

        return {split: one_by_one(split) for split in splits}
    scorings = [scoring_graph(dataset, split, flags, settings.batch_size, i > 0) for i, split in enumerate(splits)]
    return {split: predictions_of_split(sess, scoring) for split, scoring in zip(splits, scorings)}


def score_split(predictions, dataset, split: str, bf_images: int = 0, num_extremes: int = 0,
                gathered=lambda share: [share]):
    """Scores one pass over a split, which several processes may share.

    Args:
      predictions: iterable of (example index, label, prediction[, variance]), as from `predictions_of_split`.
      bf_images: BF is averaged over the first `bf_images` examples.
      num_extremes: number of the best and of the worst predictions to return.
      gathered: function from the share of this process to the list of all shares, as `Group.gathered`.
    Returns:
      scores: dict as from `metrics.scores`, with class_names, images (in the split), confusion (list of lists, rows:
        truth), BF (None if no image counts) and bf_images (images read for BF). Where there is a variance, `surest` has
        '50%', '90%' and '100%', each a dict of G, C and mIoU of that share of the pixels with the least variance.
      shown: {index: uint8 prediction [h, w]} of the `plots.panel_examples`.
      extremes: list of (mIoU of the image, index, prediction), the best, then the worst, the highest mIoU first.
    """
    num_classes = len(dataset.class_names)
    panel = plots.panel_examples(dataset, split)
    counts = np.zeros((num_classes, num_classes), np.int64)
    by_uncertainty = 0
    bf = {}
    shown = {}
    extremes = []
    for i, label, prediction, *variance in predictions:
        image_counts = metrics.confusion(label, prediction, num_classes)
        counts += image_counts
        if num_extremes:
            mean_iou = metrics.scores(image_counts)['mIoU'] or 0.0
            extremes = best_and_worst(extremes + [(mean_iou, i, prediction)], num_extremes)
        if i < bf_images:
            bf[i] = metrics.boundary_f1(label, prediction, num_classes)
        if i in panel:
            shown[i] = prediction
        if variance:
            by_uncertainty += metrics.confusion_by_uncertainty(label, prediction, variance[0], num_classes)
    shares = gathered((counts, by_uncertainty, bf, shown, extremes))
    counts, by_uncertainty = [sum(share[i] for share in shares) for i in (0, 1)]
    bf = {i: value for share in shares for i, value in share[2].items()}
    shown = {i: prediction for share in shares for i, prediction in share[3].items()}
    extremes = best_and_worst([extreme for share in shares for extreme in share[4]], num_extremes)
    scores = dict(metrics.scores(counts), confusion=counts.tolist(), BF=metrics.mean(bf[i] for i in sorted(bf)),
                  bf_images=len(bf), class_names=dataset.class_names, images=len(dataset.examples[split]))
    if np.any(by_uncertainty):
        surest = {share: metrics.scores(metrics.surest(by_uncertainty, share / 100.0)) for share in (50, 90, 100)}
        scores['surest'] = {'%d%%' % share: {name: values[name] for name in ('G', 'C', 'mIoU')}
                            for share, values in surest.items()}
    return scores, shown, extremes


def best_and_worst(extremes: list, count: int) -> list:
    """The `count` best and the `count` worst (mIoU, index, prediction), the highest mIoU first; `count` from 1."""
    extremes = sorted(extremes, key=lambda extreme: (-extreme[0], extreme[1]))
    return extremes[:count] + extremes[count:][-count:]


def population_statistics(sess, dataset, flags: dict, group):
    """Sets the batch-norm statistics by a pass over the training split, as compute_bn_statistics.py does.

    Each batch of the run's batch size is normalized by the statistics of the batch, without augmentation and dropout;
    --fit crop cuts out random parts as in training. A layer's mean becomes the average of the batch means, its variance
    the average of the unbiased batch variances. The examples come in a fixed random order; the last batch is filled
    with the first examples of another order. Each process of `group` computes a part of the batches; the statistics of
    all batches are averaged in order, so the result does not depend on the number of processes.
    """
    steps = -(-len(dataset.examples['train']) // flags['batch_size'])
    start, images, _ = batches.training_batches(dataset, dict(flags, seed=0, **batches.NO_AUGMENTATION))
    del tf.get_collection_ref(utils.BN_STATISTICS)[:]
    networks.build(flags['model'], images, len(dataset.class_names), True, flags['input'], reuse=True,
                   precision=flags['precision'])
    moving, values = zip(*tf.get_collection(utils.BN_STATISTICS))
    first, last = [steps * i // group.size for i in (group.index, group.index + 1)]
    sess.run(*start(first))
    found = sum(group.gathered([sess.run(values) for _ in range(first, last)]), [])
    for variable, of_batches in zip(moving, zip(*found)):
        variable.load(np.mean(of_batches, 0, np.float64).astype(np.float32), sess)


def table(class_names: list, scores: dict, papers=()) -> str:
    """Formats scores in percent as lines of text.

    Args:
      papers: rows as from `paper.published_scores`, added below.
    """
    def line(values, text=report.percent):
        return '   '.join('%s %s' % (name, text(value)) for name, value in values.items())

    rows = ['%-16s %8s %6s' % ('class', 'accuracy', 'IoU')]
    rows += ['%-16s %8s %6s' % (name[:16], report.percent(accuracy), report.percent(iou))
             for name, accuracy, iou in zip(class_names, scores['accuracy'], scores['IoU'])]
    rows.append(line({name: scores[name] for name in ('G', 'C', 'mIoU', 'BF', 'fwIoU')}))
    rows += ['surest %-4s of the pixels   %s' % (share, line(values))
             for share, values in scores.get('surest', {}).items()]
    rows += ['%s   the paper on the test split: %s' % (line(dict(zip(MEASURES, values)), report.decimal), where)
             for where, values in papers]
    return '\n'.join(rows)


def parse_args(argv=None):
    """Parses the flags of a scoring (`argv` None: of this process); UserError for a bad flag or combination."""
    parser = cli.Parser(description='Scores a trained run, or a file of weights, on a split.')
    parser.add_argument('run', nargs='?', type=run_folder, help='run folder, or the name of a published run')
    parser.add_argument('--split', nargs='+', default=['val'], help='train, val or test, if the data set has the split')
    parser.add_argument('--data_dir', help='folder of the data set (default: the folder that the run was trained on)')
    parser.add_argument('--bn', choices=('population', 'moving'), default='population',
                        help='batch-norm statistics: population, of a pass over the training split, as in the paper; '
                             'moving, the moving averages of training')
    add_flags(parser, batch_size=4)
    parser.add_argument('--bf_images', type=cli.number(int, 0, 10 ** 9), default=10 ** 9, metavar='N',
                        help='compute the boundary measure BF on the first N images; 0: no BF (default: all)')
    parser.add_argument('--publish', metavar='FOLDER', help='also write the weights, with the statistics of --bn, as '
                        'a small folder that evaluate.py and predict.py accept like a run')
    cluster.add_flag(parser)
    group = parser.add_argument_group('weights of a file, instead of a run')
    group.add_argument('--weights', metavar='FILE', help="a .npz by layer names, or the authors' .caffemodel (with "
                       '--bn moving for a file of compute_bn_statistics.py)')
    group.add_argument('--model', choices=sorted(networks.NETWORKS), help='the network of --weights')
    group.add_argument('--dataset', choices=datasets.MODULES, help='the data set to score --weights on')
    group.add_argument('--output', help='folder for the scores (default: Output/<dataset>-<model>-weights)')
    args = parser.parse_args(cli.spread(argv))
    args.tile = cli.word_or_size('--tile', args.tile, 'auto', 'off')
    args.split = list(dict.fromkeys(args.split))
    if args.run and (args.model or args.dataset or args.output):
        raise UserError('--model, --dataset and --output: only with --weights; a run folder has its own')
    if args.weights and not args.weights.endswith(('.npz', '.caffemodel')):
        raise UserError('--weights %s: must be a .npz or a .caffemodel; a run folder goes without --weights'
                        % args.weights)
    if args.publish and (not args.run or os.path.exists(args.publish)):
        raise UserError('--publish %s: needs a run folder to publish, and must not exist yet' % args.publish)
    if bool(args.run) == bool(args.weights) or args.weights and not (args.model and args.dataset):
        raise UserError('give a run folder, or --weights FILE with --model and --dataset')
    return args


def samples_of(samples, flags: dict) -> int:
    """Number of Monte-Carlo samples for a value of --samples; None selects the default of the run's network.

    The default of a run without dropout is 0. UserError for samples of such a run.
    """
    if samples is None:
        return networks.default_samples(flags['model']) if flags['dropout'] else 0
    if samples and not flags['dropout']:
        raise UserError('--samples %d: the run has no dropout to sample from; train with --dropout 0.5' % samples)
    return samples


def read_config(run: str) -> dict:
    """Reads config.json of a run folder -> dict; UserError for a bad file or an unknown network."""
    config = read_run_config(run)
    model, input_norm = config['flags']['model'], config['flags']['input']
    if model not in networks.NETWORKS or input_norm not in networks.INPUTS:
        raise corrupt_file_error(os.path.join(run, 'config.json'),
                                         'no network %r, or no input %r' % (model, input_norm))
    return config


def open_inputs(args) -> tuple:
    """Opens the data set of a run, or --dataset -> (folder for the scores, `Dataset`, flags of training).

    With --weights the flags are the defaults of those flags that scoring needs; the file of weights is not read here.
    UserError for a bad run or data set.
    """
    if args.run:
        config = read_config(args.run)
        flags = config['flags']
        return args.run, datasets.open(flags['dataset'], args.data_dir or flags['data_dir'], config), flags
    dataset = datasets.open(args.dataset, args.data_dir)
    flags = {'model': args.model, 'input': networks.default_input(args.model), 'fit': 'resize', 'seed': 1,
             'height': dataset.size[0], 'width': dataset.size[1], 'batch_size': 4,  # as in compute_bn_statistics.py
             'class_weights': 'median', 'dropout': networks.default_dropout(args.model), 'precision': 'float32'}
    folder = args.output or os.path.join('Output', '%s-%s-weights' % (args.dataset, args.model))
    return folder, dataset, flags


def evaluate(args) -> dict:
    """Scores a run or a file of weights on each --split; the processes of TF_CONFIG share the work.

    The chief prints tables and writes scores, figures, report.html of a run and, with --publish, the published folder.
    UserError for bad weights, data or flags.

    Returns:
      {split: dict of scores, as from `score_split`, with the settings of the scoring}.
    """
    group = distribute.Group(*cluster.from_environment())  # first: under srun it selects this process's GPU
    folder, dataset, flags = open_inputs(args)
    args.tf32 = args.tf32 or flags.get('tf32', 'on')
    device = devices.device_name(args.device)
    flags = dict(flags, precision=devices.precision(args.precision, flags['precision'], args.device))
    for split in args.split:
        datasets.check_split(dataset, split)
    settings = Settings(samples_of(args.samples, flags), args.tile, args.tile_overlap, args.tta,
                                  args.batch_size)
    check_overlap(settings, flags)
    name = args.weights or args.run
    loaded = weights.load(name, args.checkpoint)
    config = devices.session_config(args.device, tf32=args.tf32)
    group.connect(config, dict(vars(args), weights=loaded.description, model=flags['model']), dataset)
    dataset = datasets.preload(dataset, sorted(set(args.split) | ({'train'} if args.bn == 'population' else set())))
    shared = functools.reduce(group.dataset_share, set(args.split), dataset)
    results = {}
    session = tf.Session(group.target, graph=tf.Graph(), config=config)
    with session as sess, tf.device(group.place), group.together(), utils.portable_pooling(
            devices.needs_portable_pooling(args.device)):
        predictions = predictions_of_splits(sess, shared, args.split, flags, settings)
        weights.load_all(sess, loaded, name)
        if group.chief:
            print('%s: %s, batch norm by %s statistics, %s, %s on %s%s'
                  % (name, loaded.description, args.bn,
                     '%d samples' % settings.samples if settings.samples else 'no dropout',
                     devices.precision_name(flags['precision'], args.device, args.tf32), device,
                     ', --tta ' + args.tta if args.tta else ''), flush=True)
        if args.bn == 'population':
            population_statistics(sess, dataset, flags, group)
        if args.publish and group.chief:
            weights.publish(args.publish, args.run, sess, loaded.step)
        for split in args.split:
            scores, shown, _ = score_split(group.numbered(predictions[split]), dataset, split, args.bf_images,
                                           gathered=group.gathered)
            scores.update(step=loaded.step, bn=args.bn, samples=settings.samples, tile=args.tile, tta=args.tta,
                          checkpoint=args.checkpoint, device=device,
                          command=without_folders(cli.command_line()), revision=revision())
            results[split] = scores
            if group.chief:
                print('%s, %d images' % (split, scores['images']))
                print(table(dataset.class_names, scores,
                            paper.published_scores(dataset.name, flags['model'], flags['class_weights'])), flush=True)
                write_scores(folder, dataset, split, entry_name(args, split), scores, shown)
        if group.chief and os.path.exists(os.path.join(folder, 'config.json')):
            report.write(folder, paper.published_scores(dataset.name, flags['model'], flags['class_weights']),
                         paper.class_accuracies(dataset.name, flags['model']))
    return results


def entry_name(args, split: str) -> str:
    """Names the scores of a split in metrics.json: 'val', or with other settings 'val (moving, 20 samples)'.

    --samples, --tile_overlap and --precision count even with the default's value; --bf_images does not count.
    """
    kinds = ['moving'] if args.bn == 'moving' else []
    kinds += ['last'] if args.checkpoint == 'last' else []
    kinds += [] if args.samples is None else ['%d samples' % args.samples]
    kinds += ['tta ' + args.tta] if args.tta else []
    kinds += [] if args.tile == 'auto' else ['tile off' if args.tile == 'off' else 'tile %d %d' % args.tile]
    kinds += [] if args.tile_overlap is None else ['overlap %g' % args.tile_overlap]
    kinds += [args.precision] if args.precision else []
    return '%s (%s)' % (split, ', '.join(kinds)) if kinds else split


def write_scores(folder: str, dataset, split: str, entry: str, scores: dict, shown: dict):
    """Writes the scores to `entry` of metrics.json, the panel, and the confusion matrix as CSV and figure.

    Any later entry overwrites the panel, and one of the same split the confusion matrix.
    """
    os.makedirs(folder, exist_ok=True)
    add_scores(folder, {entry: scores})
    plots.panel(dataset, split, shown, os.path.join(folder, dataset.panel))
    confusion = os.path.join(folder, 'confusion-' + split)
    write_text(confusion + '.csv', metrics.confusion_csv(scores['confusion'], dataset.class_names))
    plots.confusion(np.array(scores['confusion']), dataset.class_names, confusion + '.png')


def main():
    """Scores with the flags of the command line and writes the scores; with --gpus in as many processes."""
    args = parse_args()
    cluster.launch(args.gpus, args.device)
    evaluate(args)


if __name__ == '__main__':
    cli.main(main, '--batch_size, or --bf_images (0 for no BF), or use --bn moving')
