"""Reads Sartorius Cell Instance Segmentation (Kaggle 2021) -> `Dataset`."""
import os

import numpy as np

from datasets import files, labels, rle

CLASSES = ['background', 'shsy5y', 'astro', 'cort']  # background and three cell types, as in the data set `sample`
INDICES = {'shsy5y': 1, 'astro': 2, 'cort': 3}
CELL_COLORS = [(40, 40, 40), (230, 159, 0), (86, 180, 233), (0, 158, 115)]  # distinct for colour-blind readers too


def stratified(images):
    """Groups images by the class of the first cell -> {class index: list of image ids}; index 0: no cell.

    Args:
      images: {image id: (height, width, [(row number, class index, RLE), ...])}.
    """
    groups = {}
    for name, (_, _, rows) in images.items():
        groups.setdefault(rows[0][1] if rows else 0, []).append(name)
    return groups


def read(data_dir: str):
    """Reads masks from train.csv and images train/ID.png -> `Dataset`.

    Val is a fifth, rounded up, of the images of each cell type, drawn with a fixed seed. The cell type of an image is
    the type of the first cell in the image. Raises UserError for a malformed train.csv, and for a missing
    or empty folder.
    """
    files.check_data_dir(data_dir, 'sartorius', "Kaggle's train.csv and train/")
    path = os.path.join(data_dir, 'train.csv')
    images = rle.read_cells(path, INDICES)
    examples = {'train': [], 'val': []}
    rng = np.random.RandomState(0)
    for group in stratified(images).values():
        shuffled = [group[i] for i in rng.permutation(len(group))]
        held_out = (len(group) + 4) // 5
        examples['val'] += sorted(shuffled[:held_out])
        examples['train'] += sorted(shuffled[held_out:])
    pairs = {split: [(name, os.path.join(data_dir, 'train', name + '.png'), images[name]) for name in examples[split]]
             for split in examples}
    return labels.dataset_of_pairs('sartorius', CLASSES, CELL_COLORS, (520, 704), pairs,
                                   lambda entry: rle.cells_label(path, entry), panel='cell_types.png')
