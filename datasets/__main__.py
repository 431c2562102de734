"""Checks a data set before training: python -m datasets NAME --data_dir DIR [--download]."""
import collections
import os
import re
import sys
import zlib

if not __package__:  # true if started from another folder, as `python PROJECT/datasets NAME`
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import cv2
import numpy as np
import tabulate

import data
import datasets
from datasets import download, files, record
from runs import pictures
from system import cli
from system.files import UserError
from system.machine import read_ahead

FEW = 5  # a class that occurs in fewer than FEW training images is reported
CONTRAST = 4  # a split is reported if the largest image has more than CONTRAST times the area of the smallest
ALIKE = 0.5  # two images are alike if their difference is below ALIKE times the median difference of unrelated images

# Result of `read_split`. counts: int64 [images, num_classes + 1], number of pixels of each class, void last.
# sizes: [(height, width)] of the images. names: names of the images. digests: CRC-32 of the images. thumbs: the images
# as grey thumbnails, int16 [16, 16]. faults: one line of text per faulty example.
Split = collections.namedtuple('Split', 'counts sizes names digests thumbs faults')


def read_split(dataset, split: str):
    """Loads and checks all examples of a split -> `Split` of the intact examples.

    A faulty example appears only in the field `faults` of the `Split`, as a line of text.
    """
    def load(i):
        image, label = datasets.load_checked(dataset, split, i)
        thumb = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
        return (data.label_counts(label, len(dataset.class_names)), label.shape, dataset.examples[split][i],
                zlib.crc32(np.ascontiguousarray(image), image.shape[0]), thumb.astype(np.int16))

    intact, faults = [], []
    for _, result in read_ahead(load, range(len(dataset.examples[split])), datasets.ahead(dataset)):
        try:
            intact.append(result())
        except UserError as error:
            faults.append(str(error))
    counts, *columns = [list(column) for column in zip(*intact)] or [[]] * 5
    return Split(np.array(counts, np.int64).reshape(-1, len(dataset.class_names) + 1), *columns, faults)


def class_table(class_names: list, split: Split):
    """Formats a text table of the classes of a split: one row per class, and a last row for void.

    The columns are class name, number of pixels, share of all pixels, number of images with the class, and two class
    weights by median frequency balancing. For the weights in the column `median`, the median leaves out void. For the
    column `median-void`, the median includes void. The row of void has no weights. Raises UserError if no class has a
    pixel.
    """
    pixels, present = data.pixel_sums(split.counts)
    columns = [data.median_frequency_weights(pixels, present, void) for void in (False, True)]
    rows = [[name, pixels[i], '%.2f%%' % (100.0 * pixels[i] / pixels.sum()), (split.counts[:, i] > 0).sum()]
            + ['%.4f' % weights[i] for weights in columns if i < len(class_names)]
            for i, name in enumerate(list(class_names) + ['void'])]
    return tabulate.tabulate(rows, ['class', 'pixels', 'share', 'images', 'median', 'median-void'],
                             colalign=['left'] + ['right'] * 5, disable_numparse=True)


def advice(dataset, name: str, split: Split):
    """Yields a line of text for each likely cause of poor training results in a split.

    The causes are classes absent or rare in train, label files that contain a single id, images of very unequal sizes,
    and images that are resized. The split must have examples.

    Args:
      name: name of the split.
    """
    if name == 'train':
        images = dict(zip(dataset.class_names, (split.counts > 0).sum(0)))
        absent = [entry for entry, count in images.items() if not count]
        rare = ['%s (%d)' % (entry, count) for entry, count in images.items() if 0 < count < FEW]
        if absent:
            yield datasets.ABSENT % ', '.join(absent)
        if rare:
            yield 'classes in fewer than %d training images: %s' % (FEW, ', '.join(rare))
    uniform = np.flatnonzero((split.counts > 0).sum(1) == 1)
    if len(uniform):
        class_name = [*dataset.class_names, 'void'][split.counts[uniform[0]].argmax()]
        yield '%d of %d labels of %s hold a single id, as %s (%s)' % (
            len(uniform), len(split.names), name, split.names[uniform[0]], class_name)
    areas = split.counts.sum(1)
    small, large = areas.argmin(), areas.argmax()
    if areas[large] > CONTRAST * areas[small]:
        yield 'images of %s differ in size, from %dx%d (%s) to %dx%d (%s)' % (
            name, *split.sizes[small], split.names[small], *split.sizes[large], split.names[large])
    factors = dataset.size / np.array(split.sizes, float)
    resized = (factors != 1).any(1).sum()
    if resized:
        ranges = np.stack([factors.min(0), factors.max(0)], 1).ravel()
        yield ('%d of %d images of %s are resized to %dx%d by default (see --height, --width and --fit): heights by '
               '%.2f to %.2f, widths by %.2f to %.2f' % (resized, len(split.names), name, *dataset.size, *ranges))


def shared(train: Split, other: Split, name: str):
    """Yields a line of text for each kind of overlap between the images of train and of the split `name`.

    The kinds are equal pixels, augmented versions of one picture, and frames of one video. To find frames, the images
    of train and of split `name` are sorted by the text before the last number in the image name, and then by this
    number. Two images that are neighbours in this order count as frames of one video if the text is equal and the
    images look alike. Frames are reported if more than a quarter of the images of split `name` have such a neighbour in
    train.
    """
    for kind, keys in (('the same pixels as an image', lambda split: split.digests),
                       ('another version of a picture', lambda split: map(files.picture, map(str, split.names)))):
        partners = dict(zip(keys(train), train.names))
        pairs = ['%s, in train %s' % (entry, partners[key]) for key, entry in zip(keys(other), other.names)
                 if key in partners]
        if pairs:
            yield '%d of %d images of %s have %s of train: %s' % (
                len(pairs), len(other.names), name, kind, record.some(pairs))
    numbered = [(re.match(r'(.*?)([0-9]{1,18})[^0-9/]*\Z', str(entry)), split is other, i)
                for split in (train, other) for i, entry in enumerate(split.names)]
    frames = sorted((match.group(1), int(match.group(2)), *place) for match, *place in numbered if match)
    pairs = [sorted((a, b), key=lambda frame: frame[2]) for a, b in zip(frames, frames[1:])
             if a[0] == b[0] and a[2] != b[2]]
    near = {i: np.abs(train.thumbs[k] - other.thumbs[i]).mean() for (*_, k), (*_, i) in pairs}
    far = [np.abs(train.thumbs[37 * i % len(train.thumbs)] - other.thumbs[i]).mean() for i in near]
    alike = [str(other.names[i]) for i in near if near[i] < ALIKE * np.median(far)]
    if len(alike) > len(other.names) / 4:
        yield ('%d of %d images of %s are like their neighbours by number in train: %s; keep the frames of a video '
               'in one split' % (len(alike), len(other.names), name, record.some(alike)))


def check(dataset, folder: str):
    """Checks all examples of a data set and returns a line of text for each faulty example -> list of str.

    Prints for each split: sizes, the table of classes, likely causes of poor training results, and images that are also
    in train. Writes a picture of examples of each split into `folder` and prints the path of the picture.
    """
    found = {name: read_split(dataset, name) for name in dataset.examples}
    for name, split in found.items():
        sizes = collections.Counter(split.sizes)
        shown = ['%dx%d (%d)' % (*size, count) for size, count in sizes.most_common(5)]
        shown += ['%d more' % (len(sizes) - 5)] if len(sizes) > 5 else []
        print('%s %s: %d examples; sizes %s' % (dataset.name, name, len(dataset.examples[name]), ', '.join(shown)))
        if not split.names:
            continue
        if split.counts[:, :-1].any():
            print(class_table(dataset.class_names, split))
        overlaps = shared(found['train'], split, name) if name != 'train' else ()
        for line in [*advice(dataset, name, split), *overlaps]:
            print('note: ' + line)
        path = os.path.join(folder, '%s-%s.png' % (dataset.name, name))
        os.makedirs(folder, exist_ok=True)
        pictures.draw_examples(record.with_splits(dataset, {name: split.names}), name, split.counts, path)
        print('picture: %s' % path)
    return [fault for split in found.values() for fault in split.faults]


def main(argv=None):
    """Checks the data set named on the command line; returns the exit status: 0, or 2 for a faulty example.

    With --download the data set is fetched first. Faults are printed on standard error, one line each.
    """
    parser = cli.Parser(prog='python -m datasets', description='Checks a data set: counts, sizes, class shares, class '
                        'weights, causes of poor training results, and faulty files.')
    parser.add_argument('name', choices=datasets.MODULES, help='the data set')
    parser.add_argument('--data_dir', help='folder of the data set; not needed for sample')
    parser.add_argument('--download', action='store_true',
                        help='download camvid or voc2012 into --data_dir first; for other data sets print the steps')
    parser.add_argument('--rle_order', choices=data.RLE_ORDERS, help='order of the pixels in run-length encoded labels')
    parser.add_argument('--depth', type=cli.number(int, 9, 16), help='bits that pixel values use in 16-bit images')
    parser.add_argument('--fold', metavar='K/N', help='if the data has no val: use part K of N as val (default: 1/5)')
    parser.add_argument('--pictures', metavar='FOLDER', default=os.path.join('Output', 'check'),
                        help='folder for pictures of examples with their labels')
    args = parser.parse_args(argv)
    places = [os.path.realpath(place) + os.sep for place in (args.pictures, args.data_dir) if place]
    if args.data_dir and places[0].startswith(places[1]):
        raise UserError('--pictures %s: lies in the data set; name another folder' % args.pictures)
    if args.download:
        download.download(args.name, args.data_dir)
    faults = check(datasets.open(args.name, args.data_dir, rle_order=args.rle_order, depth=args.depth, fold=args.fold),
                   args.pictures)
    sys.stdout.flush()  # so that the report appears before the faults on standard error
    for fault in faults:
        print('error: ' + cli.one_line(fault), file=sys.stderr)
    return 2 if faults else 0


if __name__ == '__main__':
    cli.main(lambda: sys.exit(main()), 'the size of the images')
