"""Writes the result files of predict.py for an image, and makes the rows of submission.csv."""
import collections
import os

import cv2
import numpy as np
import scipy.ndimage

import data
from runs import plots
from system.files import atomic_write, write_bytes

SMALLEST_CELL = 30  # number of pixels; a smaller connected component has no row in submission.csv
ENDINGS = ('-ids.png', '-colors.png', '-overlay.png', '-side.png', '-confidence.png', '-uncertainty.png',
           '-probabilities.npz')  # file-name suffixes of the results, except those of --probabilities png


def write_png(path: str, rgb_or_ids):
    """Writes uint8 [h, w, 3] RGB or [h, w] grey to `path` as a PNG, atomically."""
    array = rgb_or_ids[:, :, ::-1] if rgb_or_ids.ndim == 3 else rgb_or_ids
    write_bytes(path, cv2.imencode('.png', array)[1])


def probability_ending(class_id: int) -> str:
    """Returns the file-name suffix of the probability map of a class, such as '-probability-3.png'."""
    return '-probability-%d.png' % class_id


def cells(mask):
    """Yields the mask of each cell in `mask`, bool [h, w].

    A cell is a connected component of at least SMALLEST_CELL pixels. Pixels that touch only at a corner do not connect.
    """
    components, count = scipy.ndimage.label(mask)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    yield from (components == cell for cell in range(1, count + 1) if sizes[cell] >= SMALLEST_CELL)


def submission_rows(name: str, ids, config: dict) -> list:
    """Makes the rows of submission.csv for one image -> list of tuples of str, one item per column.

    If ClassId is a column, each class in the image has a row. Otherwise each cell of a class has a row (see `cells`).
    The class named background has no row. If no class is named background, the first class has no row. If ImageId is a
    column, an image that would have no row gets one row with an empty mask: '', or '-1' for relative run lengths.

    Args:
      name: name of the image, for the columns id and ImageId.
      ids: uint8 [h, w], class indices.
      config: config.json of the run. The entry 'rle' is (columns, order of the pixels in the runs, file
        extension of the names in the column ImageId). If 'rle' is None, the columns are id and predicted, and pixels
        are counted along the rows.
    """
    columns, order, extension = config.get('rle') or (('id', 'predicted'), 'rows', '')
    names = [class_name.lower() for class_name in config['class_names']]
    background = names.index('background') if 'background' in names else 0
    runs = []  # (class id, run-length encoding), one pair per row of submission.csv
    for i in np.unique(ids[ids != background]):
        masks = [ids == i] if 'ClassId' in columns else cells(ids == i)
        runs += [(str(config['class_ids'][i]), data.rle_encode(mask, order)) for mask in masks]
    if 'ImageId' in columns and not runs:
        runs = [('', '-1' if order == 'relative' else '')]
    rows = [{'id': name, 'ImageId': name + extension, 'ClassId': class_id, 'EncodedPixels': rle, 'predicted': rle}
            for class_id, rle in runs]
    return [tuple(row[column] for column in columns) for row in rows]


class Writer(collections.namedtuple('Writer', 'folder config alpha side_by_side probabilities submission')):
    """Writes the predictions for images as files to `folder`.

    config: config.json of the run, for the class names, ids and colours.  alpha: weight of the colours in the overlay.
    side_by_side: bool, whether to write NAME-side.png.  submission: bool, whether to return rows of submission.csv.
    probabilities: 'npz' or 'png', the format of the files with probabilities; None: no such files.
    """

    def write(self, name: str, image, prediction) -> list:
        """Writes the result files of one image; returns the rows of submission.csv, [] if `submission` is False.

        Args:
          name: prefix of the file names, such as 'street' in street-ids.png.
          image: uint8 RGB [h, w, 3].
          prediction: a `predictor.Prediction`. The confidence and the variance are also written, if not None.
        """
        stem = os.path.join(self.folder, name)
        class_names, colors = self.config['class_names'], self.config['colors']
        class_ids = np.array(self.config['class_ids'], np.uint8)
        ids, variance, confidence, probabilities = prediction
        write_png(stem + '-ids.png', class_ids[ids])
        colored = plots.colored(ids, colors)
        write_png(stem + '-colors.png', colored)
        if self.side_by_side:
            write_png(stem + '-side.png', np.hstack([image, colored]))
        overlay = plots.overlay(image, colored, self.alpha)
        write_png(stem + '-overlay.png', plots.with_legend(overlay, class_names, colors, np.unique(ids)))
        if confidence is not None:
            write_png(stem + '-confidence.png', confidence)
        if variance is not None:
            write_png(stem + '-uncertainty.png', plots.uncertainty(variance, len(colors)))
        if self.probabilities == 'npz':
            with atomic_write(stem + '-probabilities.npz') as part, open(part, 'wb') as file:
                np.savez_compressed(file, probabilities=probabilities, class_names=class_names, class_ids=class_ids)
        if self.probabilities == 'png':
            for i, class_id in enumerate(class_ids):
                grey = np.round(255 * probabilities[:, :, i].astype(np.float32)).astype(np.uint8)
                write_png(stem + probability_ending(class_id), grey)
        return submission_rows(name, ids, self.config) if self.submission else []
