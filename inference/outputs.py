"""Writes the results of predict.py for an image: ids, colours, overlay, probabilities, submission rows."""
import os
import re

import cv2
import numpy as np
import scipy.ndimage

import data
from runs import plots
from system.files import atomic_write, write_bytes

SMALLEST_CELL = 30  # pixels of a row in submission.csv


def write_png(path: str, rgb_or_ids):
    """Writes uint8 [h, w, 3] RGB or [h, w] grey to `path` as a PNG, atomically."""
    array = rgb_or_ids[:, :, ::-1] if rgb_or_ids.ndim == 3 else rgb_or_ids
    write_bytes(path, cv2.imencode('.png', array)[1])


def submission_rows(name: str, ids) -> list:
    """Rows 'name,RLE', one a cell: pixels of a class other than the first, connected by edges.

    Components of fewer than SMALLEST_CELL pixels get no row.
    """
    rows = []
    name = '"%s"' % name.replace('"', '""') if re.search('[,"\n]', name) else name  # as in CSV
    for class_id in range(1, int(ids.max()) + 1):
        components, count = scipy.ndimage.label(ids == class_id)
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        rows += ['%s,%s' % (name, data.rle_encode(components == i)) for i in range(1, count + 1)
                 if sizes[i] >= SMALLEST_CELL]
    return rows


def suffixes(args, samples: int, ids_of_classes) -> list:
    """Endings of the files that `write` writes for one image: list of str, such as '-ids.png'.

    Args:
      args: flags of predict.py.
      samples: number of Monte-Carlo samples.
      ids_of_classes: ids of the classes, for the files of --probabilities png.
    """
    endings = ['-ids.png', '-colors.png', '-overlay.png']
    endings += ['-side.png'] * args.side_by_side
    endings += ['-confidence.png'] * args.confidence
    endings += ['-uncertainty.png'] * (samples > 0)
    endings += ['-probabilities.npz'] * (args.probabilities == 'npz')
    if args.probabilities == 'png':
        endings += ['-probability-%d.png' % class_id for class_id in ids_of_classes]
    return endings


def write(name: str, image, prediction, config: dict, args) -> list:
    """Writes the files of `suffixes` for one image; returns the submission's rows, [] without --submission.

    Args:
      name: name of the results in --output, without ending.
      image: uint8 RGB [h, w, 3].
      prediction: `predictor.Prediction`.
      config: config.json of the run.
      args: flags of predict.py.
    """
    stem = os.path.join(args.output, name)
    colors = config['colors']
    ids, variance, confidence, probabilities = prediction
    ids_of_classes = class_ids(config)
    write_png(stem + '-ids.png', ids_of_classes[ids])
    colored = plots.colored(ids, colors)
    write_png(stem + '-colors.png', colored)
    if args.side_by_side:
        write_png(stem + '-side.png', np.hstack([image, colored]))
    overlay = plots.overlay(image, colored, args.alpha)
    write_png(stem + '-overlay.png', plots.with_legend(overlay, config['class_names'], colors, np.unique(ids)))
    if confidence is not None:
        write_png(stem + '-confidence.png', confidence)
    if variance is not None:
        write_png(stem + '-uncertainty.png', plots.uncertainty(variance, len(colors)))
    if args.probabilities == 'npz':
        with atomic_write(stem + '-probabilities.npz') as part, open(part, 'wb') as file:
            np.savez_compressed(file, probabilities=probabilities, class_names=config['class_names'],
                                class_ids=ids_of_classes)
    if args.probabilities == 'png':
        for i, class_id in enumerate(ids_of_classes):
            write_png('%s-probability-%d.png' % (stem, class_id),
                      np.round(255 * probabilities[:, :, i].astype(np.float32)).astype(np.uint8))
    return submission_rows(name, ids) if args.submission else []


def class_ids(config: dict):
    """Ids of the classes in label files, uint8 [num_classes]; 0, 1, 2... if config.json has none."""
    return np.array(config.get('class_ids') or range(len(config['class_names'])), np.uint8)
