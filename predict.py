"""Labels images and videos with a trained run: python predict.py Output/camvid-segnet-basic street.jpg

Batch norm uses the moving averages of training. By default `evaluate.py` uses statistics of the whole training split.
"""
from system import quiet  # noqa: F401  imported first, to suppress messages of TensorFlow
import argparse
import collections
import concurrent.futures
import contextlib
import functools
import glob
import os
import re
import sys
import time

import tensorflow.compat.v1 as tf
import tqdm

import data
import evaluate
import networks
from inference import export, outputs, predictor as inference, quantize, video
from runs.folder import file_names, read_config, run_folder
from system import cli, machine
from system.files import UserError, check_names, check_output, note, write_csv

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg')
LONGEST_NAME = 200        # maximum length of NAME in result files NAME-ids.png, in bytes; file systems allow 255 bytes
THREADS = 2               # number of threads that write results
PENDING_VALUES = 2 ** 24  # largest number of values (3 per pixel) in the images whose results are not yet written

# Flags that are allowed with --export when there is no image, video or camera to label.
OF_EXPORT = ('run', 'inputs', 'export', 'export_size', 'quantize', 'calibrate', 'checkpoint', 'device')

TOO_LARGE = 'too large for the memory of this machine; give --tile HEIGHTxWIDTH, or a smaller --batch_size'

# path: path of an image or video, or number of a camera.  name: prefix of the names of the output files.
Job = collections.namedtuple('Job', 'path name')


def parse_args(argv=None):
    """Parses the flags of predict.py from `argv`, or from the command line if `argv` is None.

    Raises UserError for a bad flag, or if no flag asks for a result.
    """
    parser = cli.Parser(description=__doc__)
    parser.add_argument('run', type=run_folder, help='run folder, or the name of a published run')
    parser.add_argument('inputs', nargs='*', metavar='PATH', help='images, folders of images, globs, or videos')
    parser.add_argument('--camera', type=cli.number(int, 0, 65535), metavar='N', help='label camera N until Ctrl-C')
    parser.add_argument('--output', default='predictions', help='folder for the results')
    parser.add_argument('--overwrite', action='store_true', help='replace existing results')
    parser.add_argument('--shard', type=shard, metavar='K/N', help='label every N-th input, beginning with the K-th')
    inference.add_flags(parser)
    parser.add_argument('--max_pixels', type=cli.positive_int, default=data.MAX_PIXELS,
                        help='largest number of pixels of an image; a larger image is refused without decoding')
    parser.add_argument('--alpha', type=cli.fraction, default=0.5, help='opacity of the class colours in the overlay')
    parser.add_argument('--side_by_side', action='store_true', help='also write image and class colours side by side')
    parser.add_argument('--confidence', action='store_true', help='also write the highest probability of each pixel')
    parser.add_argument('--probabilities', choices=('npz', 'png'), help='also write the probabilities of all classes')
    parser.add_argument('--submission', action='store_true', help='also write submission.csv, formatted as labels.csv')
    parser.add_argument('--export', type=export.checked_path, metavar='FILE.tflite|FILE.onnx|DIR',
                        help='write the network as a TFLite file, an ONNX file or a SavedModel (DIR)')
    parser.add_argument('--export_size', type=cli.size('free'), metavar='free|HEIGHTxWIDTH',
                        help='image size of the export; free: any size (default: free for DIR, else the training size)')
    parser.add_argument('--quantize', choices=('int8', 'float16'), help='export int8 convolutions, or float16 weights')
    parser.add_argument('--calibrate', nargs='+', metavar='PATH', default=[],
                        help='images to calibrate --quantize int8 (default: %d training images)' % quantize.NUM_IMAGES)
    args = parser.parse_intermixed_args(argv)
    if not (args.inputs or args.export or args.camera is not None):
        raise UserError('nothing to label: give images, folders or videos, --camera, or --export FILE')
    if args.shard and args.camera is not None:
        raise UserError('--shard: cannot be used with --camera; leave out one of the two flags')
    if args.export_size and not args.export:
        raise UserError('--export_size: needs --export FILE.tflite, FILE.onnx or DIR')
    if args.quantize and not (args.export and export.format_of(args.export)):
        raise UserError('--quantize %s: needs --export FILE.tflite or FILE.onnx' % args.quantize)
    if args.calibrate and args.quantize != 'int8':
        raise UserError('--calibrate: needs --quantize int8')
    if not args.inputs and args.camera is None:
        parser.refuse_unused(vars(args), OF_EXPORT, 'changes nothing in an export; leave out the flag, or give inputs')
    return args


def shard(text: str) -> tuple:
    """Argparse type of --shard: converts 'K/N' to the ints (K, N), with 1 <= K <= N."""
    match = re.match(r'\A([0-9]{1,6})/([0-9]{1,6})\Z', text)
    if not match or not 1 <= int(match.group(1)) <= int(match.group(2)):
        raise argparse.ArgumentTypeError('%s: must be K/N, with K from 1 to N' % text[:60])
    return int(match.group(1)), int(match.group(2))


# ---------------------------------------------------------------- inputs and outputs

def expand(inputs: list) -> list:
    """Lists the files of the paths, globs and folders in `inputs` -> list of paths, each file once.

    A folder stands for the images and videos directly in the folder, except hidden files. A printed note names the
    files and sub-folders that are left out. Raises UserError for an input that matches no file.
    """
    paths = {}  # {absolute path: path as given in `inputs` or found in a folder}
    for path in inputs:
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path))
        files = [match for match in matches if not os.path.isdir(match)]
        passed = []  # names of the files and sub-folders that are left out
        for folder in filter(os.path.isdir, matches):
            for entry in sorted(glob.glob(os.path.join(glob.escape(folder), '*'))):
                if entry.lower().endswith(data.IMAGE_FILES + VIDEOS) and not os.path.isdir(entry):
                    files.append(entry)
                else:
                    passed.append(os.path.basename(entry))
        if passed:
            note(cli.one_line('%s: %d entries are not labelled: %s%s; name sub-folders as inputs, convert images to PNG'
                              % (path, len(passed), ', '.join(passed[:5]), ', ...' if passed[5:] else '')))
        if not files:
            raise UserError('%s: no such file, or a folder without files of %s' % (path, ' '.join(data.IMAGE_FILES)))
        for file in files:
            paths.setdefault(os.path.abspath(file), file)
    return list(paths.values())


def output_names(paths: list) -> list:
    """Chooses a unique name for the results of each file in `paths` -> list of str.

    The name is the file name without extension. If names are equal, the extensions are kept. If names are still equal,
    the folders of the path are prepended. If names are equal even then, a number is appended to all but the first. A
    name with more than LONGEST_NAME bytes is shortened to the last LONGEST_NAME bytes.
    """
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    for longer in (os.path.basename, lambda path: os.path.abspath(path).strip(os.sep).replace(os.sep, '-')):
        count = collections.Counter(names)
        names = [name if count[name] == 1 else longer(path) for name, path in zip(names, paths)]
    unique = {}
    for name in names:
        name = short = name.encode()[-LONGEST_NAME:].decode(errors='ignore')
        number = 1
        while name in unique:
            number += 1
            name = '%s-%d' % (short, number)
        unique[name] = True
    return list(unique)


def plan(args) -> list:
    """Lists the images, videos and camera that this process labels -> list of `Job`.

    With --shard the list has only the inputs of this process. Raises UserError if an input is missing, or if an output
    file exists already and --overwrite is not given.
    """
    paths = expand(args.inputs)
    check_names(paths, 'images')
    jobs = [Job(path, name) for path, name in zip(paths, output_names(paths))]
    if args.shard:
        jobs = jobs[args.shard[0] - 1::args.shard[1]]
    if args.camera is not None:
        jobs.append(Job(args.camera, 'camera%d' % args.camera))
    check_output(args.output)
    endings = list(outputs.ENDINGS)
    endings += [outputs.probability_ending(i) for i in range(256)] if args.probabilities == 'png' else []
    written = [submission_name(args)] * args.submission
    written += [job.name + ending for job in jobs for ending in ([video.SUFFIX] if is_video(job) else endings)]
    existing = set(file_names(args.output)).intersection(written)
    if existing and not args.overwrite:
        path = os.path.join(args.output, min(existing))
        raise UserError('%s: exists already; give --overwrite, or another --output' % path)
    return jobs


def is_video(job: Job) -> bool:
    """Returns whether the input of a job is a video file or a camera."""
    return isinstance(job.path, int) or job.path.lower().endswith(VIDEOS)


def submission_name(args) -> str:
    """Returns the file name of the submission: submission.csv, or submission-K-of-N.csv with --shard K/N."""
    return 'submission-%d-of-%d.csv' % args.shard if args.shard else 'submission.csv'


# ---------------------------------------------------------------- labelling

@contextlib.contextmanager
def collect_errors(jobs: list, faults: list):
    """Context manager: catches UserError and out-of-memory errors, and adds a line for each job to `faults`.

    `faults` is a list of str. Each line has the path of a job and the error.
    """
    try:
        yield
    except (UserError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        reason = str(error) if isinstance(error, UserError) else TOO_LARGE
        for job in jobs:
            name = '%s: ' % job.path
            faults.append(reason if reason.startswith(name) else name + reason)


def read_images(jobs: list, read, ahead: int, faults: list):
    """Yields (job, image) in order, while threads decode up to `ahead` later images; shows a progress bar.

    Images that cannot be read are left out.

    Args:
      read: function (job) -> image.
      faults: list of str, to which a line is added for each image that cannot be read.
    """
    for job, result in tqdm.tqdm(machine.read_ahead(read, jobs, ahead), total=len(jobs), unit='image', disable=None):
        with collect_errors([job], faults):
            yield job, result()


def label_images(predictor, jobs: list, writer: outputs.Writer, depth, max_pixels: int) -> tuple:
    """Labels the images of `jobs` and writes the results, while threads decode the next images.

    Prints a note if an image is shrunk to less than half its height or width, as --fit resize may do.

    Args:
      depth: number of bits that the values in 16-bit images use, 9 to 16; None: the number is measured for each image.
      max_pixels: an image with more pixels is not decoded, and a line is added to `faults`.
    Returns:
      faults: list of str, a line for each image that could not be labelled.
      rows: list of tuples of str, the rows of submission.csv; empty without --submission.
    """
    faults = []
    rows = []
    writing = collections.deque()  # pairs (number of values in an image, Future of writing the results)

    def wait(values):
        """Waits until the images whose results are not yet written have at most `values` values in total."""
        while writing and sum(size for size, _ in writing) > values:
            rows.extend(writing.popleft()[1].result())

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        batch_size = predictor.batch_size
        images = read_images(jobs, lambda job: data.read_image(job.path, depth, max_pixels), batch_size, faults)
        for batch in inference.batches_of_one_size(images, batch_size):
            predictions = []
            with collect_errors([job for job, _ in batch], faults):
                predictions = predictor.predict([image for _, image in batch])
            for (job, image), prediction in zip(batch, predictions):
                writing.append((image.size, pool.submit(writer.write, job.name, image, prediction)))
                if predictor.shrinks(*image.shape[:2]):
                    note('%s: shrinks by more than half to %dx%d; --tile HEIGHTxWIDTH keeps the scale of such images'
                         % (job.path, predictor.spec.height, predictor.spec.width), 'shrunk')
            wait(PENDING_VALUES)
        wait(-1)
    return faults, rows


def label_video(predictor, job: Job, writer: outputs.Writer, max_pixels: int):
    """Writes the overlay of each frame of a video or camera to NAME-overlay.mp4; prints the number of frames.

    Raises UserError if the video cannot be read or ends too early, if a frame has more than `max_pixels` pixels, or if
    the overlay cannot be written.
    """
    began = time.time()
    count, codec = video.write_overlays(job.path, os.path.join(writer.folder, job.name + video.SUFFIX), predictor,
                                        writer.config['colors'], writer.alpha, max_pixels,
                                        functools.partial(tqdm.tqdm, disable=None))
    print('%s: %d frames, %.1f images/s, written as %s' % (job.path, count, count / (time.time() - began), codec))


def predict(args) -> int:
    """Labels all inputs, and with --export writes the network; returns the exit status, 0 or 2.

    The status is 2 if an input could not be labelled. The errors are printed at the end, and all other inputs are
    labelled. Before writing any file, raises UserError for a bad run or flag, a missing input, or an output file that
    exists already.
    """
    config = read_config(args.run)
    spec = networks.spec_of(config['flags'], len(config['class_names']))
    writer = outputs.Writer(args.output, config, args.alpha, args.side_by_side, args.probabilities, args.submission)
    jobs = plan(args)
    images = []
    if args.quantize == 'int8':
        images = quantize.calibration_images(expand(args.calibrate), config, spec, args.export_size)
    quantization = args.quantize and quantize.Quantization(args.quantize, images)
    with evaluate.open_run(args, args.run, config['flags'], spec, confidence=args.confidence,
                           probabilities=args.probabilities is not None) as (predictor, loaded):
        if args.export:
            facts = export.export(args.export, spec, config, loaded, args.export_size, quantization)
            print('%s: %s, %s%s' % (args.export, args.run, loaded.description, facts))
        if not jobs and not (args.inputs and args.submission):  # with --shard, a process may have no image to label
            return 0
        os.makedirs(args.output, exist_ok=True)
        images = [job for job in jobs if not is_video(job)]
        faults, rows = label_images(predictor, images, writer, config.get('depth', 16), args.max_pixels)
        for job in filter(is_video, jobs):
            with collect_errors([job], faults):
                label_video(predictor, job, writer, args.max_pixels)
    if args.submission:
        columns = (config.get('rle') or [('id', 'predicted')])[0]
        write_csv(os.path.join(args.output, submission_name(args)), [columns] + rows)
    for fault in faults:
        print('error: ' + cli.one_line(fault), file=sys.stderr)
    print('%s: %d of %d labelled' % (args.output, len(jobs) - len(faults), len(jobs)))
    return 2 if faults else 0


if __name__ == '__main__':
    cli.main(lambda: sys.exit(predict(parse_args())), '--batch_size, or give --tile')
