"""SUN RGB-D, in the two forms that it is passed on in -> `Dataset`."""
import functools
import os
import re

import numpy as np
import scipy.io

import data
from data import IGNORE, Dataset, UserError
from datasets import files

# The 37 classes of the SUN RGB-D benchmark (its seg37list), ids 1 to 37 in this order; 0 is void.
CLASSES = ('wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain '
           'dresser pillow mirror floor_mat clothes ceiling books fridge tv paper towel shower_curtain box whiteboard '
           'person night_stand toilet sink lamp bathtub bag').split()


def read(data_dir):
    """SUN RGB-D, RGB only: 37 classes, 0 void, 5,285 training and 5,050 test images of several sizes.

    As its home page has it (SUNRGBD/ and SUNRGBDtoolbox/, labels in a .mat of MATLAB 7.3), or as images and PNG
    labels (image/train, label37/train and test alike; the numbers in the names pair them).

    The official split has no validation part: 'val' is every tenth test image, to watch a run by. Scores to publish
    are of split test with `--checkpoint last`, which chooses nothing by it. Trained at 360x480, as the paper.
    """
    files.check_data_dir(data_dir, 'sunrgbd', 'SUNRGBD/ and SUNRGBDtoolbox/, or image/ and label37/')
    toolbox = os.path.isdir(os.path.join(data_dir, 'SUNRGBDtoolbox'))
    pairs = (mat_pairs if toolbox else png_pairs)(data_dir)
    pairs['val'] = pairs['test'][::10]
    table = np.arange(-1, 255).astype(np.uint8)  # ids 1 to 37 -> 0 to 36
    table[0] = IGNORE
    table[len(CLASSES) + 1:] = np.arange(len(CLASSES) + 1, 256)  # no class: refused under their own numbers

    def load(split, i):
        image, label = pairs[split][i]
        return data.read_image(image), table[label() if callable(label) else data.read_label(label)]

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    colors = [files.voc_color(i + 1) for i in range(len(CLASSES))]
    return Dataset('sunrgbd', CLASSES, colors, (360, 480), examples, load, 'predictions.png',
                   class_ids=list(range(1, len(CLASSES) + 1)))


def png_pairs(data_dir):
    """{'train' and 'test': [(image path, label path)]}; image and label have the same number in their names."""
    pairs = {}
    for split in ('train', 'test'):
        numbered = []
        for kind in ('image', 'label37'):
            folder = os.path.join(data_dir, kind, split)
            if not os.path.isdir(folder):
                raise UserError('%s: no such folder; sunrgbd has SUNRGBD/ and SUNRGBDtoolbox/, or image/train, '
                                'image/test, label37/train and label37/test' % folder)
            found = [re.match(r'.*?([0-9]+)\.(jpg|png)\Z', name) for name in sorted(os.listdir(folder))]
            numbered.append({int(match.group(1)): os.path.join(folder, match.group(0)) for match in found if match})
        images, labels = numbered
        alone = sorted(set(images) ^ set(labels))
        if alone or not images:
            raise UserError('%s: %s' % (os.path.join(data_dir, 'image', split), 'holds no images' if not images else
                                        'image and label37 do not pair up: number %d has only one' % alone[0]))
        pairs[split] = [(images[number], labels[number]) for number in sorted(images)]
    return pairs


def mat_pairs(data_dir):
    """{'train' and 'test': [(image path, function () -> label)]} of the home page's files.

    SUNRGBDMeta.mat names the 10,335 images, SUNRGBD2Dseg.mat has their labels in the same order, transposed, and
    allsplit.mat the folders of each split; all paths begin with the authors' own /n/fs/sun3d/data/.
    """
    import h5py  # TensorFlow brings it along
    root = os.path.join(data_dir, 'SUNRGBDtoolbox')
    path = {name: os.path.join(root, *name.split('/')) for name in (
        'Metadata/SUNRGBDMeta.mat', 'Metadata/SUNRGBD2Dseg.mat', 'traintestSUNRGBD/allsplit.mat')}
    for name in path.values():
        if not os.path.isfile(name):
            raise UserError('%s: is not there; unpack SUNRGBDtoolbox.zip in --data_dir' % name)
    meta, labels, split = path.values()

    def matlab(name, variable):
        try:
            return np.atleast_1d(scipy.io.loadmat(name, squeeze_me=True, struct_as_record=False)[variable])
        except Exception as error:  # SciPy raises many kinds for a damaged file
            raise UserError('%s: has no variable %s to read (%s: %s)' % (name, variable, type(error).__name__, error))

    def below(place):  # what follows .../data/SUNRGBD/
        path = str(place).strip('/').split('SUNRGBD/', 1)[-1].strip('/')
        if '..' in path.split('/'):
            raise UserError('%s: %r leads out of the folder' % (root, path[:80]))
        return path

    try:
        with h5py.File(labels, 'r') as file:
            references = file['SUNRGBD2Dseg/seglabel'][()].ravel()
    except Exception as error:  # h5py raises many kinds for a file of another form
        raise UserError('%s: has no SUNRGBD2Dseg/seglabel to read (%s: %s)' % (labels, type(error).__name__, error))
    images = [str(getattr(one, 'rgbpath', '')) for one in matlab(meta, 'SUNRGBDMeta')]
    if '' in images:
        raise UserError('%s: entry %d of SUNRGBDMeta has no rgbpath' % (meta, images.index('')))
    if len(images) != len(references):
        raise UserError('%s: has %d labels, %s %d images' % (labels, len(references), meta, len(images)))

    def label(i):
        try:
            with h5py.File(labels, 'r') as file:
                return file[references[i]][()].T.astype(np.uint8)
        except Exception as error:
            raise UserError('%s: label %d cannot be read (%s: %s)' % (labels, i, type(error).__name__, error))

    number = {below(os.path.dirname(os.path.dirname(image))): i for i, image in enumerate(images)}
    pairs = {}
    for name, variable in (('train', 'alltrain'), ('test', 'alltest')):
        folders = [below(folder) for folder in matlab(split, variable)]
        unknown = [folder for folder in folders if folder not in number]
        if unknown:
            raise UserError('%s: %s is not in %s' % (split, unknown[0], meta))
        pairs[name] = [(os.path.join(data_dir, 'SUNRGBD', below(images[number[folder]])),
                        functools.partial(label, number[folder])) for folder in folders]
    return pairs
