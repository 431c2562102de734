"""Reads the bundled data set of synthetic cell images -> `Dataset`."""
import os

import numpy as np

from data import Dataset
from datasets import cells, rle
from datasets.sartorius import CELL_COLORS, CLASSES, INDICES, stratified

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(data_dir: str = None):
    """Reads the masks of train.csv -> `Dataset`, whose `load` renders the images.

    `data_dir` is the folder of train.csv; if None, the bundled train.csv is read. Images are grouped by the type of the
    first cell; every fourth image of a group is in val. Raises UserError for a malformed table.
    """
    path = os.path.join(data_dir or ROOT, 'train.csv')
    images = rle.read_cells(path, INDICES)
    groups = stratified(images).values()
    examples = {'train': [name for group in groups for i, name in enumerate(group) if i % 4 != 3],
                'val': [name for group in groups for name in group[3::4]]}

    def load(split, i):
        name = examples[split][i]
        height, width, rows = images[name]
        masks = list(rle.cell_masks(path, (height, width), rows)) or [np.zeros((height, width), bool)]
        grey = cells.render(masks, [CLASSES[class_id] for _, class_id, _ in rows], name)
        return np.repeat(grey[:, :, None], 3, 2), rle.cells_label(path, images[name])

    size = next(iter(images.values()))[:2]
    return Dataset('sample', CLASSES, CELL_COLORS, size, examples, load, 'cell_types.png')
