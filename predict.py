"""Labels pictures and videos by a trained run: python predict.py Output/camvid-segnet-basic street.jpg --output out

Batch norm takes the averages kept in training (`evaluate.py` recomputes them for scores).
"""
from runtime import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import collections
import glob
import os
import sys
import time

import cv2
import numpy as np
import scipy.ndimage
import tensorflow.compat.v1 as tf
import tqdm

import batches
from runtime import cli
import data
from runtime import devices
import evaluate
import networks
from runtime import plots
from runtime import run as runs
from runtime import weights
from data import UserError

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg')
LONGEST_NAME = 200  # bytes; a file system takes 255
SMALLEST_CELL = 30  # pixels: smaller components are no row of submission.csv

# images_ph [1, h, w, 3] uint8 and size_ph [1, 2] int32 lead to ids [h, w] uint8 and variance [h, w] float32.
Predictor = collections.namedtuple('Predictor', 'sess images_ph size_ph ids variance flags')


def parse_args(argv=None):
    """Every setting of a prediction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.Help)
    parser.add_argument('run', help='run folder, as written by main.py')
    parser.add_argument('inputs', nargs='*', metavar='PATH', help='pictures, folders of them, globs, or videos')
    parser.add_argument('--camera', type=int, metavar='N', help='label what camera N sees, until Ctrl-C')
    parser.add_argument('--output', default='predictions', help='folder that results are written to')
    parser.add_argument('--overwrite', action='store_true', help='replace results that are there')
    parser.add_argument('--side_by_side', action='store_true', help='also write picture and labels beside each other')
    parser.add_argument('--submission', action='store_true',
                        help="also write submission.csv in Sartorius' form: a row a cell, connected pixels of one type")
    parser.add_argument('--max_side', type=int, metavar='PIXELS',
                        help='label pictures whose longer side is more at that size; ids are then enlarged')
    parser.add_argument('--samples', type=int, help='samples of Monte-Carlo dropout, whose variance is written too '
                        '(default: 0; for the Bayesian networks as released, 4, and 8 for bayesian-segnet-basic)')
    parser.add_argument('--checkpoint', choices=('best', 'last'), default='best',
                        help='best by validation, or the newest')
    parser.add_argument('--export', metavar='DIR', help='write a TensorFlow SavedModel: uint8 pictures of any size in, '
                        'ids and probabilities out')
    parser.add_argument('--precision', choices=runs.PRECISIONS, help=devices.PRECISION_HELP)
    parser.add_argument('--device', choices=devices.DEVICES, default='auto', help='gpu refuses to run without one')
    args = parser.parse_intermixed_args(argv)
    cli.check_positive(args, 'max_side')
    if args.camera is not None and not 0 <= args.camera < 1 << 16:
        raise UserError('--camera %d: cameras are counted from 0' % args.camera)
    if not (args.inputs or args.export or args.camera is not None):
        raise UserError('nothing to label: give pictures, folders or videos, --camera, or --export DIR')
    return args


# ---------------------------------------------------------------- what to label, and where it goes

def expand(inputs):
    """Paths, folders and globs -> paths of pictures and videos, each once; UserError for what is not there."""
    found = []
    for one in inputs:
        if os.path.isdir(one):
            inside = sorted(name for name in os.listdir(one) if name.lower().endswith(data.IMAGE_FILES + VIDEOS))
            if not inside:
                raise UserError('%s: holds no pictures (%s)' % (one, ' '.join(data.IMAGE_FILES)))
            found += [os.path.join(one, name) for name in inside]
        elif os.path.exists(one):
            found.append(one)
        else:
            matches = sorted(glob.glob(one))
            if not matches:
                raise UserError('%s: no such file' % one)
            found += matches
    each = collections.OrderedDict()
    for path in found:
        each.setdefault(os.path.abspath(path), path)
    return list(each.values())


def output_names(paths):
    """One name a path, no two the same: the stem, with the extension, the folders or a number where that is needed."""
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    for longer in (os.path.basename, lambda path: os.path.abspath(path).strip(os.sep).replace(os.sep, '-')):
        count = collections.Counter(names)
        names = [name if count[name] == 1 else longer(path) for name, path in zip(names, paths)]
    unique = collections.OrderedDict()
    for name in names:  # what the file system takes, with room for what comes behind; and a number where need be
        short, number = name.encode()[-LONGEST_NAME:].decode(errors='ignore'), 1
        name = short
        while name in unique:
            number += 1
            name = '%s-%d' % (short, number)
        unique[name] = True
    return list(unique)


# ---------------------------------------------------------------- the graph

def predictor(sess, flags, loaded, class_names, samples, name):
    """The prediction graph of a run, with its weights, in the session's graph -> Predictor."""
    images_ph = tf.placeholder(tf.uint8, [1, None, None, 3], 'image')
    size_ph = tf.placeholder(tf.int32, [1, 2], 'size')
    ids, _, variance = networks.prediction_graph(flags, images_ph, len(class_names), size_ph, samples=samples)
    weights.load_into(sess, weights.match_all_variables(loaded, tf.get_collection(tf.GraphKeys.MODEL_VARIABLES), name))
    return Predictor(sess, images_ph, size_ph, ids[0], variance[0], flags)


def predict_image(model, image, max_side=None):
    """uint8 RGB [h, w, 3] -> ids uint8 [h, w] and the samples' variance float32 [h, w]."""
    height, width = image.shape[:2]
    scale = min(1.0, max_side / float(max(height, width))) if max_side else 1.0
    small = max(1, int(round(height * scale))), max(1, int(round(width * scale)))
    seen = batches.resize(image, *small)
    if model.flags['fit'] == 'resize':
        seen = batches.resize(seen, model.flags['height'], model.flags['width'])
    ids, variance = model.sess.run([model.ids, model.variance], {model.images_ph: seen[None], model.size_ph: [small]})
    return batches.resize_label(ids, height, width), cv2.resize(variance, (width, height))


# ---------------------------------------------------------------- results

def write_png(path, rgb_or_ids):
    """uint8 [h, w, 3] RGB or [h, w] -> PNG, whole or not at all."""
    array = rgb_or_ids[:, :, ::-1] if rgb_or_ids.ndim == 3 else rgb_or_ids
    with data.atomic_write(path) as part, open(part, 'wb') as file:
        file.write(cv2.imencode('.png', array)[1].tobytes())


def submission_rows(name, ids):
    """Rows 'name,RLE' of a cell each: connected pixels of one class other than the first; they cannot overlap."""
    rows = []
    for class_id in range(1, int(ids.max()) + 1):
        components, count = scipy.ndimage.label(ids == class_id)
        for i in range(1, count + 1):
            mask = components == i
            if mask.sum() >= SMALLEST_CELL:
                rows.append('%s,%s' % (name, data.rle_encode(mask)))
    return rows


def write_results(folder, name, image, ids, variance, config, args, samples):
    """The id map, the coloured map and the overlay of one picture; the uncertainty where there are samples."""
    colors = [tuple(color) for color in config['colors']]
    colored = plots.colored(ids, colors)
    overlay = plots.with_legend(plots.overlay(image, colored), config['class_names'], colors, np.unique(ids))
    write_png(os.path.join(folder, name + '-ids.png'), ids)
    write_png(os.path.join(folder, name + '-colors.png'), colored)
    write_png(os.path.join(folder, name + '-overlay.png'), overlay)
    if args.side_by_side:
        write_png(os.path.join(folder, name + '-side.png'), np.hstack([image, colored]))
    if samples:
        heat = cv2.applyColorMap(np.uint8(255 * np.minimum(variance / max(variance.max(), 1e-12), 1)),
                                 cv2.COLORMAP_VIRIDIS)
        write_png(os.path.join(folder, name + '-uncertainty.png'), np.ascontiguousarray(heat[:, :, ::-1]))


def suffixes(args, samples):
    """What the results of a picture are called behind its name."""
    return ['-ids.png', '-colors.png', '-overlay.png'] + ['-side.png'] * args.side_by_side + (
        ['-uncertainty.png'] if samples else [])


def label_video(model, source, path, config, max_side):
    """Frames of a video file or a camera -> the overlay as a video `path`; returns (frames, images/s).

    UserError where no frame can be read, fewer than the file says (the video of those is kept), or where not all can be
    written.
    """
    if isinstance(source, str):
        data.check_file(source)
    capture = cv2.VideoCapture(source)
    rate, total = capture.get(cv2.CAP_PROP_FPS) or 25.0, int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    writer, count, began, done = None, 0, time.time(), False
    colors = [tuple(color) for color in config['colors']]
    part = os.path.splitext(path)[0] + '.part.mp4'  # OpenCV goes by the extension
    with tqdm.tqdm(total=total or None, unit='frame', disable=None) as bar:
        try:
            while True:
                there, frame = capture.read()
                if not there:
                    break
                image = np.ascontiguousarray(frame[:, :, ::-1])
                ids, _ = predict_image(model, image, max_side)
                shown = plots.overlay(image, plots.colored(ids, colors))
                speed = (count + 1) / (time.time() - began)
                shown = cv2.putText(np.ascontiguousarray(shown[:, :, ::-1]), '%.1f images/s' % speed, (8, 20),
                                    cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
                if writer is None:
                    writer = cv2.VideoWriter(part, cv2.VideoWriter_fourcc(*'mp4v'), rate, shown.shape[1::-1])
                writer.write(shown)
                count += 1
                bar.update()
            done = True
        except KeyboardInterrupt:
            done = not isinstance(source, str)  # a camera has no other end
            if not done:
                raise
        finally:
            capture.release()
            if writer is not None:
                writer.release()
            if not done and os.path.exists(part):
                os.remove(part)
    if not count:
        raise UserError('%s: no frame of it can be read' % source)
    written = frames_of(part)
    if written < count:
        if os.path.exists(part):
            os.remove(part)
        raise UserError('%s: could not be written (%d of %d frames): is there room on the disk? Is %dx%d too small '
                        'for a video?' % ((path, written, count) + shown.shape[:2]))
    os.replace(part, path)
    if count < 0.9 * total - rate:  # some containers tell the duration alone, which sound may prolong
        raise UserError('%s: ends after frame %d, its header tells of %d; these are in %s'
                        % (source, count, total, path))
    return count, count / (time.time() - began)


def frames_of(path):
    """Frames that a video file says it has; 0 for none that can be opened."""
    capture = cv2.VideoCapture(path) if os.path.exists(path) else None
    count = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0)) if capture and capture.isOpened() else 0
    if capture:
        capture.release()
    return count


# ---------------------------------------------------------------- export

def export(args, flags, class_names, loaded):
    """Writes a SavedModel: 'images' uint8 [batch, h, w, 3] -> 'ids' uint8 [batch, h, w], 'probabilities' float32.

    Its weights are constants, with batch norm folded in.
    """
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(args.device)) as sess:
        images = tf.placeholder(tf.uint8, [None, None, None, 3], 'images')
        shape, seen = tf.shape(images), tf.cast(images, tf.float32)
        if flags['fit'] == 'resize':
            size = [flags['height'], flags['width']]
            shrinks = tf.less(flags['height'] * flags['width'], shape[1] * shape[2])
            seen = tf.cond(shrinks, lambda: tf.image.resize_area(seen, size),
                           lambda: tf.image.resize_bilinear(seen, size, half_pixel_centers=True))
            seen = tf.round(tf.ensure_shape(seen, [None] + size + [3]))
        sizes = tf.tile(shape[None, 1:3], [shape[0], 1])
        flags = dict(flags, precision='float32')
        ids, probabilities, _ = networks.prediction_graph(flags, seen, len(class_names), sizes)
        variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
        weights.load_into(sess, weights.match_all_variables(loaded, variables, args.run))
        outputs = [tf.identity(ids, 'ids'), tf.identity(probabilities, 'probabilities')]
        frozen = tf.graph_util.convert_variables_to_constants(sess, sess.graph_def, [out.op.name for out in outputs])
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.import_graph_def(frozen, name='')
        tensors = {name: sess.graph.get_tensor_by_name(name + ':0') for name in ('images', 'ids', 'probabilities')}
        tf.saved_model.simple_save(sess, args.export, {'images': tensors.pop('images')}, tensors)
    runs.write_json(os.path.join(args.export, 'classes.json'), {'class_names': class_names})


def predict(args):
    """Labels all inputs; returns the exit status: 2 where one of them could not be read."""
    config, device = runs.read_config(args.run), devices.device_name(args.device)
    flags, class_names = config['flags'], config['class_names']
    evaluate.check_network(flags, args.run)
    flags['precision'] = devices.precision(args.precision, flags['precision'], args.device)
    loaded = weights.load(args.run, args.checkpoint)
    samples = evaluate.samples_of(args.samples, flags)
    if args.export:
        if os.path.isdir(args.export) and os.listdir(args.export):
            raise UserError('--export %s: holds files already; name a new folder' % args.export)
        export(args, flags, class_names, loaded)
        print('%s: SavedModel of %s, %s' % (args.export, args.run, loaded.description))
    paths = expand(args.inputs)
    data.check_names(paths, 'pictures')
    names = output_names(paths)
    results = ['submission.csv'] * args.submission
    results += ['camera%d-overlay.mp4' % args.camera] if args.camera is not None else []
    for path, name in zip(paths, names):
        video = path.lower().endswith(VIDEOS)
        results += [name + suffix for suffix in (['-overlay.mp4'] if video else suffixes(args, samples))]
    for result in results:
        if os.path.exists(os.path.join(args.output, result)) and not args.overwrite:
            raise UserError('%s: is there already; give --overwrite, or another --output'
                            % os.path.join(args.output, result))
    if not paths and args.camera is None:
        return 0
    os.makedirs(args.output, exist_ok=True)
    faults, rows = [], ['id,predicted']
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(args.device)) as sess:
        model = predictor(sess, flags, loaded, class_names, samples, args.run)
        print('%s: %s, %s on %s' % (args.run, loaded.description, flags['precision'], device), flush=True)
        if args.camera is not None:
            label_video(model, args.camera, os.path.join(args.output, 'camera%d-overlay.mp4' % args.camera), config,
                        args.max_side)
        for path, name in zip(tqdm.tqdm(paths, unit='picture', disable=None), names):
            try:
                if path.lower().endswith(VIDEOS):
                    frames, speed = label_video(model, path, os.path.join(args.output, name + '-overlay.mp4'), config,
                                                args.max_side)
                    print('%s: %d frames, %.1f images/s' % (path, frames, speed))
                    continue
                image = data.read_image(path)
                ids, variance = predict_image(model, image, args.max_side)
            except UserError as error:
                faults.append(str(error))
                continue
            except (MemoryError, tf.errors.ResourceExhaustedError):
                faults.append('%s: too large for the memory here; give --max_side' % path)
                continue
            write_results(args.output, name, image, ids, variance, config, args, samples)
            rows += submission_rows(name, ids) if args.submission else []
            if samples:
                print('%s: mean variance of %d samples %.5f' % (path, samples, variance.mean()))
    if args.submission:
        runs.write_text(os.path.join(args.output, 'submission.csv'), '\n'.join(rows) + '\n')
    for fault in faults:
        print('error: ' + ' '.join(fault.split()), file=sys.stderr)
    print('%s: %d of %d labelled' % (args.output, len(paths) - len(faults), len(paths)))
    return 2 if faults else 0


if __name__ == '__main__':
    cli.main(lambda: sys.exit(predict(parse_args())), '--max_side')
