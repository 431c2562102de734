"""Reads SUN RGB-D in the two published layouts -> `Dataset`."""
import functools
import os
import re

import numpy as np
import scipy.io

import data
from data import Dataset
from datasets import files
from system.files import UserError

# The 37 classes of the SUN RGB-D benchmark (its seg37list), ids 1 to 37 in this order; 0 is void.
CLASSES = ('wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain '
           'dresser pillow mirror floor_mat clothes ceiling books fridge tv paper towel shower_curtain box whiteboard '
           'person night_stand toilet sink lamp bathtub bag').split()


def read(data_dir: str):
    """Reads SUN RGB-D -> `Dataset`, RGB only: 37 classes, id 0 is void; 5,285 training, 5,050 test images.

    Two layouts are read. The home page's layout has SUNRGBD/ and SUNRGBDtoolbox/, with the labels in a .mat file of
    MATLAB 7.3. The other layout has images and PNG labels in image/train/ and label37/train/ (the same for test),
    paired by the numbers in the file names.

    The official split has no validation part: 'val' is every tenth test image, to monitor a run. To compute scores on
    test, use `--checkpoint last`, because this checkpoint is not selected by scores on 'val'. The training size is
    360x480, as in the paper. Raises UserError for a missing or malformed list or .mat file. Images and labels are
    opened later, by `load` of the returned `Dataset`.
    """
    files.check_data_dir(data_dir, 'sunrgbd', 'SUNRGBD/ and SUNRGBDtoolbox/, or image/ and label37/')
    toolbox = os.path.isdir(os.path.join(data_dir, 'SUNRGBDtoolbox'))
    pairs = (mat_pairs if toolbox else png_pairs)(data_dir)
    pairs['val'] = pairs['test'][::10]

    def load(split, i):
        image, label = pairs[split][i]
        ids = label()
        data.refuse_pixels(ids, ids > len(CLASSES), 'label of ' + image, 'id', 'SUN RGB-D has ids 0 to 37')
        return data.read_image(image), ids.astype(np.uint8) - np.uint8(1)  # 0 becomes 255, which is IGNORE

    examples = {split: [image for image, _ in pairs[split]] for split in pairs}
    colors = [files.voc_color(i + 1) for i in range(len(CLASSES))]
    return Dataset('sunrgbd', CLASSES, colors, (360, 480), examples, load, 'predictions.png',
                   class_ids=list(range(1, len(CLASSES) + 1)))


def png_pairs(data_dir: str):
    """Pairs PNG files by the numbers in their names -> {split: [(image path, function () -> label)]}.

    The splits are train and test, sub-folders of image/ and label37/. Names without a number at the end are skipped.
    Labels hold the ids as stored, 0 for void. Raises UserError for a missing folder, a split without images, two files
    of a folder with the same number, and an image or label without its counterpart.
    """
    pairs = {}
    for split in ('train', 'test'):
        images, labels = {}, {}
        for kind, numbered in (('image', images), ('label37', labels)):
            for name, path in files.image_files(os.path.join(data_dir, kind, split)).items():
                digits = re.search(r'[0-9]+\Z', name)
                if digits and numbered.setdefault(int(digits.group()), path) != path:
                    raise UserError('%s: has the number of %s too; remove one' % (path, numbered[int(digits.group())]))
        alone = sorted(set(images) ^ set(labels))
        if alone or not images:
            raise UserError('%s: holds %d images, label37 %d labels; numbers without image or label: %s'
                            % (os.path.join(data_dir, 'image', split), len(images), len(labels), alone[:5]))
        pairs[split] = [(path, functools.partial(data.read_label, labels[number]))
                        for number, path in sorted(images.items())]
    return pairs


def mat_pairs(data_dir: str):
    """Pairs images and labels by the home page's .mat files -> {split: [(image path, function () -> label)]}.

    The splits are train and test. SUNRGBDMeta.mat names the 10,335 images. SUNRGBD2Dseg.mat holds the labels in the
    same order, transposed. allsplit.mat lists the folders of each split. Raises UserError for a missing or malformed
    file.
    """
    toolbox = os.path.join(data_dir, 'SUNRGBDtoolbox')
    meta = os.path.join(toolbox, 'Metadata', 'SUNRGBDMeta.mat')
    labels = os.path.join(toolbox, 'Metadata', 'SUNRGBD2Dseg.mat')
    split = os.path.join(toolbox, 'traintestSUNRGBD', 'allsplit.mat')
    references = read_variable(labels, 'SUNRGBD2Dseg/seglabel').ravel()
    images = [relative(getattr(entry, 'rgbpath', '')) for entry in read_variable(meta, 'SUNRGBDMeta')]
    for i, image in enumerate(images):
        if not image or '..' in image.split('/'):
            raise UserError('%s: entry %d of SUNRGBDMeta has rgbpath %r; expected a path without ..' % (meta, i, image))
    if len(images) != len(references):
        raise UserError('%s: has %d labels, %s %d images' % (labels, len(references), meta, len(images)))
    numbers = {os.path.dirname(os.path.dirname(image)): i for i, image in enumerate(images)}
    pairs = {}
    for name in ('train', 'test'):
        folders = [relative(folder) for folder in read_variable(split, 'all' + name)]
        unknown = [folder for folder in folders if folder not in numbers]
        if unknown:
            raise UserError('%s: %s is not in %s' % (split, unknown[0], meta))
        pairs[name] = [(os.path.join(data_dir, 'SUNRGBD', images[numbers[folder]]),
                        lambda key=references[numbers[folder]]: read_variable(labels, key).T) for folder in folders]
    return pairs


def read_variable(path: str, key):
    """Reads a variable of a .mat file -> array.

    An array from a file of MATLAB 7.3 has the axes in reverse order. From an array of an older file, axes of length 1
    are removed, but at least one axis is kept. Raises UserError for a damaged file or a missing variable.

    Args:
      key: name of the variable, or an HDF5 reference in a file of MATLAB 7.3.
    """
    import h5py  # installed with TensorFlow, which requires h5py
    try:
        if h5py.is_hdf5(path):  # a file of MATLAB 7.3
            with h5py.File(path, 'r') as file:
                return file[key][()]
        return np.atleast_1d(scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)[key])
    except Exception as error:  # h5py and SciPy raise many kinds of error for a damaged file
        raise UserError('%s: cannot read the variable %s (%s); unpack SUNRGBDtoolbox.zip again' % (path, key, error))


def relative(path) -> str:
    """Removes the authors' root, such as /n/fs/sun3d/data/SUNRGBD/, and slashes at both ends from a path."""
    return str(path).strip('/').split('SUNRGBD/', 1)[-1].strip('/')
