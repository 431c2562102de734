"""Checks a data set before training: python -m datasets NAME --data_dir DIR (--download fetches it first)."""
import collections
import os
import sys

if not __package__:  # started from another folder, as `python PROJECT/datasets NAME`
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import tabulate

import data
import datasets
from datasets import download
from system import cli
from system.files import UserError

FEW = 5  # a class in fewer images is reported
CONTRAST = 4  # a larger ratio of the largest to the smallest image is reported

# counts: int64 [images, num_classes + 1], pixels of each class, void last.
# sizes: [(height, width)] of the images. names: names of the images. faults: [a line for each faulty example].
Split = collections.namedtuple('Split', 'counts sizes names faults')


def read_split(dataset, split: str):
    """Loads and checks all examples of a split -> `Split` of the intact examples, and a line for each fault."""
    found = Split([], [], [], [])
    for i, name in enumerate(dataset.examples[split]):
        try:
            label = datasets.load_checked(dataset, split, i)[1]
        except UserError as error:
            found.faults.append(str(error))
            continue
        found.counts.append(data.label_counts(label, len(dataset.class_names)))
        found.sizes.append(label.shape)
        found.names.append(name)
    counts = np.array(found.counts, np.int64).reshape(-1, len(dataset.class_names) + 1)
    return found._replace(counts=counts)


def class_table(class_names: list, split: Split):
    """Formats a table of the classes of a split as text, one row a class and one for void.

    The columns: pixels, share, images, and the median frequency weights without and with void in the median. The row
    of void has no weights. UserError if no class has a pixel.
    """
    pixels = split.counts.sum(0)
    areas = split.counts.sum(1, keepdims=True)
    present = ((split.counts > 0) * areas).sum(0)
    columns = [data.median_frequency_weights(pixels, present, void) for void in (False, True)]
    rows = [[name, pixels[i], '%.2f%%' % (100.0 * pixels[i] / pixels.sum()), (split.counts[:, i] > 0).sum()]
            + ['%.4f' % weights[i] for weights in columns if i < len(class_names)]
            for i, name in enumerate(list(class_names) + ['void'])]
    return tabulate.tabulate(rows, ['class', 'pixels', 'share', 'images', 'median', 'median-void'],
                             colalign=['left'] + ['right'] * 5, disable_numparse=True)


def advice(dataset, name: str, split: Split):
    """Yields a line for each likely cause of a bad training in a split that has examples.

    The causes: absent and rare classes (for train), labels of a single id, unequal sizes, resized images.

    Args:
      name: name of the split.
    """
    if name == 'train':
        images = (split.counts[:, :-1] > 0).sum(0)
        absent = [entry for entry, count in zip(dataset.class_names, images) if not count]
        rare = ['%s (%d)' % (entry, count) for entry, count in zip(dataset.class_names, images) if 0 < count < FEW]
        if absent:
            yield datasets.ABSENT % ', '.join(absent)
        if rare:
            yield 'classes in fewer than %d training images: %s' % (FEW, ', '.join(rare))
    uniform = np.flatnonzero((split.counts > 0).sum(1) == 1)
    if len(uniform):
        i = uniform[0]
        class_name = (list(dataset.class_names) + ['void'])[split.counts[i].argmax()]
        yield '%d of %d labels of %s hold a single id, as %s (%s)' % (len(uniform), len(split.names), name,
                                                                      split.names[i], class_name)
    areas = split.counts.sum(1)
    small, large = areas.argmin(), areas.argmax()
    if areas[large] > CONTRAST * areas[small]:
        yield 'images of %s differ in size, from %dx%d (%s) to %dx%d (%s)' % (
            (name,) + split.sizes[small] + (split.names[small],) + split.sizes[large] + (split.names[large],))
    factors = dataset.size / np.array(split.sizes, float)
    resized = (factors != 1).any(1)
    if resized.any():
        yield ('%d of %d images of %s are resized to %dx%d by default (see --height, --width and --fit): '
               'heights by %.2f to %.2f, widths by %.2f to %.2f'
               % ((resized.sum(), len(split.names), name) + tuple(dataset.size)
                  + (factors[:, 0].min(), factors[:, 0].max(), factors[:, 1].min(), factors[:, 1].max())))


def check(dataset):
    """Loads all examples; prints sizes, classes and notes of each split; returns a list, a line for each fault."""
    faults = []
    for name in dataset.examples:
        split = read_split(dataset, name)
        faults += split.faults
        sizes = collections.Counter(split.sizes)
        print('%s %s: %d examples; sizes %s' % (dataset.name, name, len(dataset.examples[name]), ', '.join(
            '%dx%d (%d)' % (size + (count,)) for size, count in sizes.most_common(5))
            + (' and %d more' % (len(sizes) - 5) if len(sizes) > 5 else '')))
        if split.counts[:, :-1].any():
            print(class_table(dataset.class_names, split))
        for line in advice(dataset, name, split) if split.names else ():
            print('note: ' + line)
    return faults


def main(argv=None):
    """Checks the data set named on the command line; returns the exit status: 0, or 2 for a faulty example.

    With --download the data set is fetched first. Faults are printed on standard error, a line each.
    """
    parser = cli.Parser(prog='python -m datasets', description='Checks a data set: counts, sizes, class shares, class '
                        'weights, likely causes of a bad training, and faults of each file.')
    parser.add_argument('name', choices=datasets.MODULES, help='the data set')
    parser.add_argument('--data_dir', help='folder of the data set; sample needs none')
    parser.add_argument('--download', action='store_true',
                        help='first download into --data_dir (camvid, voc2012; for the others: print the steps)')
    parser.add_argument('--rle_order', choices=('rows', 'columns'), help='order of the pixels in runs of labels.csv')
    parser.add_argument('--depth', type=cli.number(int, 9, 16), help='bits in use in 16-bit images')
    args = parser.parse_args(argv)
    if args.download:
        download.download(args.name, args.data_dir)
    faults = check(datasets.open(args.name, args.data_dir, rle_order=args.rle_order, depth=args.depth))
    sys.stdout.flush()  # before the faults
    for fault in faults:
        print('error: ' + cli.one_line(fault), file=sys.stderr)
    return 2 if faults else 0


if __name__ == '__main__':
    cli.main(lambda: sys.exit(main()), 'the size of the images')
