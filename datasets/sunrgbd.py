"""Reads SUN RGB-D in the two published layouts -> `Dataset`."""
import os
import re

import numpy as np
import scipy.io

import data
from datasets import files, labels
from system.files import UserError

# The 37 classes of the SUN RGB-D benchmark, in the order of seg37list. The ids are 1 to 37; id 0 is void.
CLASSES = ('wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain '
           'dresser pillow mirror floor_mat clothes ceiling books fridge tv paper towel shower_curtain box whiteboard '
           'person night_stand toilet sink lamp bathtub bag').split()


def read(data_dir: str):
    """Reads the RGB images of SUN RGB-D -> `Dataset`: 37 classes, 5,285 training and 5,050 test images.

    Two layouts are read. The home page's layout has SUNRGBD/ and SUNRGBDtoolbox/, with the labels in a MATLAB 7.3 file.
    The other layout has images in image/train/ and PNG labels in label37/train/ (the same for test), paired by the
    numbers in the file names.

    The official split has no val, so val is every tenth test image. To compute scores on test, use `--checkpoint last`,
    because this checkpoint is not selected by scores on val. The training size is 360x480, as in the paper. Images and
    labels are opened later, by `load` of the returned `Dataset`. Raises UserError for a missing or malformed list or
    .mat file.
    """
    files.check_data_dir(data_dir, 'sunrgbd', 'SUNRGBD/ and SUNRGBDtoolbox/, or image/ and label37/')
    pairs = (mat_pairs if os.path.isdir(os.path.join(data_dir, 'SUNRGBDtoolbox')) else png_pairs)(data_dir)
    pairs['val'] = pairs['test'][::10]

    def read_label(label):
        image, path, key = label
        ids = data.read_label(path) if key is None else read_variable(path, key).T
        data.refuse_pixels(ids, ids > len(CLASSES), 'label of ' + image, 'id', 'SUN RGB-D has ids 0 to 37')
        return ids.astype(np.uint8) - np.uint8(1)  # 0 becomes 255, which is IGNORE

    ids = list(range(1, len(CLASSES) + 1))
    colors = map(files.voc_color, ids)
    return labels.dataset_of_pairs('sunrgbd', CLASSES, colors, (360, 480), pairs, read_label, class_ids=ids)


def png_pairs(data_dir: str):
    """Pairs images with PNG labels by the number in the file name -> {split: list of (image path, label)}.

    A label is (image path, label path, None). The image path in a label is for error messages. None marks a PNG label.
    The splits are train and test, sub-folders of image/ and label37/. An image and its label have the same number at
    the end of the file name. Names without a number at the end are skipped. Raises UserError for a missing folder, a
    split without images, two files of a folder with the same number, an image without a label, and a label without an
    image.
    """
    pairs = {}
    for split in ('train', 'test'):
        found = {'image': {}, 'label37': {}}
        for kind in found:
            for name, path in files.image_files(os.path.join(data_dir, kind, split)).items():
                digits = re.search(r'[0-9]+\Z', name)
                if digits and found[kind].setdefault(int(digits.group()), path) != path:
                    raise UserError('%s: number %s occurs twice; remove one file' % (path, digits.group()))
        images, masks = found.values()
        if not images or set(images) != set(masks):
            raise UserError('%s: image/%s has %d images, label37/%s %d labels; numbers without image or label: %s'
                            % (data_dir, split, len(images), split, len(masks), sorted(set(images) ^ set(masks))[:5]))
        pairs[split] = [(path, (path, masks[number], None)) for number, path in sorted(images.items())]
    return pairs


def mat_pairs(data_dir: str):
    """Pairs images with the labels in the .mat file -> {split: list of (image path, label)}.

    A label is (image path, path of the .mat file, HDF5 reference of the label in the file). The image path in a label
    is for error messages. The splits are train and test. SUNRGBDMeta.mat names the 10,335 images. SUNRGBD2Dseg.mat
    holds the labels in the same order, transposed. allsplit.mat lists the folders of each split. Raises UserError for a
    missing or malformed file.
    """
    meta, masks, lists = (os.path.join(data_dir, 'SUNRGBDtoolbox', name) for name in (
        'Metadata/SUNRGBDMeta.mat', 'Metadata/SUNRGBD2Dseg.mat', 'traintestSUNRGBD/allsplit.mat'))
    references = read_variable(masks, 'SUNRGBD2Dseg/seglabel').ravel()
    images = [relative(getattr(entry, 'rgbpath', '')) for entry in read_variable(meta, 'SUNRGBDMeta')]
    if len(images) != len(references):
        raise UserError('%s: has %d labels, %s %d images' % (masks, len(references), meta, len(images)))
    examples = {}
    for image, reference in zip(images, references):
        if not image or '..' in image.split('/'):
            raise UserError('%s: SUNRGBDMeta has rgbpath %.80r; expected a path without ..' % (meta, image))
        path = os.path.join(data_dir, 'SUNRGBD', image)
        examples[os.path.dirname(os.path.dirname(image))] = path, (path, masks, reference)
    pairs = {}
    for split in ('train', 'test'):
        folders = [relative(folder) for folder in read_variable(lists, 'all' + split)]
        unknown = [folder for folder in folders if folder not in examples]
        if unknown:
            raise UserError('%s: %s is not in %s' % (lists, unknown[0], meta))
        pairs[split] = [examples[folder] for folder in folders]
    return pairs


def read_variable(path: str, key):
    """Reads a variable of a .mat file -> array.

    An array from a MATLAB 7.3 file has the axes in reverse order. An array from an older file loses axes of length 1,
    but keeps at least one axis. Raises UserError for a damaged file or a missing variable.

    Args:
      key: name of the variable, or an HDF5 reference in a MATLAB 7.3 file.
    """
    import h5py  # installed with TensorFlow, which requires h5py
    try:
        if h5py.is_hdf5(path):  # a MATLAB 7.3 file
            with h5py.File(path, 'r') as file:
                return file[key][()]
        return np.atleast_1d(scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)[key])
    except Exception as error:  # h5py and SciPy raise many kinds of error for a damaged file
        raise UserError('%s: cannot read the variable %s (%s); unpack SUNRGBDtoolbox.zip again' % (path, key, error))


def relative(path) -> str:
    """Removes the root folder of the authors' machine, such as /n/fs/sun3d/data/SUNRGBD/, from a path.

    Leading and trailing slashes are removed too.
    """
    return str(path).strip('/').split('SUNRGBD/', 1)[-1].strip('/')
