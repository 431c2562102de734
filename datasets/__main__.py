"""Checks a data set: python -m datasets NAME --data_dir DIR, with --download after fetching it."""
import argparse
import collections
import os
import signal
import sys

import numpy as np

import data
import datasets
from data import UserError
from datasets import download


def check(dataset):
    """Reads every example; prints counts, sizes, class shares and weights; returns the faults, a line each."""
    faults = []
    for split, names in dataset.examples.items():
        sizes, num_classes = collections.Counter(), len(dataset.class_names)
        pixels, present = np.zeros((2, num_classes + 1), np.int64)
        for i, name in enumerate(names):
            try:
                image, label = dataset.load(split, i)
                data.check_example(image, label, num_classes, name)
            except UserError as error:
                faults.append(str(error))
                continue
            sizes[label.shape] += 1
            counts = data.label_counts(label, num_classes)
            pixels, present = pixels + counts, present + (counts > 0) * label.size
        print('%s %s: %d examples; sizes %s' % (dataset.name, split, len(names), ', '.join(
            '%dx%d (%d)' % (size + (count,)) for size, count in sizes.most_common(5))
            + (' and %d more' % (len(sizes) - 5) if len(sizes) > 5 else '')))
        if not pixels[:-1].any():
            continue
        weights = [data.median_frequency_weights(pixels, present, void) for void in (False, True)]
        print('%-16s %12s %7s %9s %12s' % ('class', 'pixels', 'share', 'median', 'median-void'))
        for i, name in enumerate(list(dataset.class_names) + ['void']):
            print('%-16s %12d %6.2f%%' % (name, pixels[i], 100.0 * pixels[i] / pixels.sum())
                  + (' %9.4f %12.4f' % (weights[0][i], weights[1][i]) if i < num_classes else ''))
    return faults


def main(argv=None):
    """`python -m datasets NAME --data_dir DIR`: checks a data set; exit status 2 where something is wrong."""
    parser = argparse.ArgumentParser(description='Checks a data set: counts, sizes, class shares, class weights, and '
                                                 'what is wrong with which file.')
    parser.add_argument('name', choices=datasets.names(), help='the data set')
    parser.add_argument('--data_dir', help='its folder; sample needs none')
    parser.add_argument('--download', action='store_true',
                        help='first fetch it into --data_dir (camvid, voc2012; for the others: says how to get it)')
    args = parser.parse_args(argv)
    try:
        if args.download:
            download.download(args.name, args.data_dir)
        faults = check(datasets.open(args.name, args.data_dir))
        sys.stdout.flush()
    except UserError as error:
        faults = [str(error)]
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        faults = ['%s: %s' % (error.filename or args.data_dir, error.strerror or error)]
    for fault in faults:
        print('error: ' + ' '.join(fault.split()), file=sys.stderr)
    return 2 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
