"""Reads custom data: a folder of images, labels and a table of classes -> `Dataset`, in three layouts.

1. Our own:
    images/NAME.png   or .jpg .tif .bmp .webp .gif .jp2, of any sizes; images/train/ and images/val/ are splits
    labels/NAME.png   class ids (a grey or palette image, or NPY) or the colours of classes.csv; also NAME_mask.png
    labels.csv        instead of labels/: run-length encoded masks, in the columns id, annotation, width, height,
                      cell_type or in Kaggle's ImageId, EncodedPixels (ClassId); a row for each image
    classes.csv       name,id,color: `id` may hold several ids (7 8 11), `color` is "red green blue" or empty; pixels of
                      a class named void are ignored
    train.txt val.txt (test.txt)    names, one a line; without lists and sub-folders a fifth of the images is val
2. Pascal VOC's, as CVAT exports segmentation masks: labelmap.txt, JPEGImages/, SegmentationClass/, ImageSets/.
3. Roboflow's semantic segmentation masks: train/ (valid/, test/) with NAME.jpg, NAME_mask.png and _classes.csv.
"""
import os

from PIL import Image

import data
from data import IGNORE, Dataset
from datasets import files, tables
from system.files import UserError, note

LAYOUT = 'images/, labels/ or labels.csv, and classes.csv'


def read(data_dir: str, rle_order: str = None, depth: int = None):
    """Reads the data set in `data_dir` -> `Dataset`; its size is the size of the first training image.

    Args:
      rle_order: 'rows' or 'columns', the order of the pixels in runs of labels.csv; None for `tables.rle_order`.
        Ignored without labels.csv.
      depth: bits in use in images of 16 bits a channel; None measures the training split.
    Raises:
      UserError: no known layout, or a fault in a list or table. The `load` of the result opens the labels and images.
    """
    files.check_data_dir(data_dir, 'folder', LAYOUT)
    if os.path.exists(os.path.join(data_dir, 'labelmap.txt')):
        classes, images, label, examples = _voc(data_dir)
    elif os.path.exists(os.path.join(data_dir, 'train', '_classes.csv')):
        classes, images, label, examples = _roboflow(data_dir)
    elif os.path.exists(os.path.join(data_dir, 'classes.csv')):
        classes, images, label, examples = _own(data_dir, rle_order)
    else:
        raise UserError('--data_dir %s: has neither classes.csv (%s) nor labelmap.txt (CVAT) nor '
                        'train/_classes.csv (Roboflow)' % (data_dir, LAYOUT))
    depth = depth or measured_depth([images[name] for name in examples['train']])

    def load(split, i):
        name = examples[split][i]
        image = data.read_image(images[name], depth)
        return image, label(name, image)

    named = [entry for entry in classes if not tables.is_void(entry)]
    colors = [entry.color or files.voc_color(i) for i, entry in enumerate(named)]
    size = data.read_image(images[examples['train'][0]], depth).shape[:2]
    return Dataset('folder', [entry.name for entry in named], colors, size, examples, load, 'predictions.png',
                   class_ids=[entry.ids[0] for entry in named], depth=depth)


def _own(data_dir, rle_order):
    """Reads layout 1 -> (classes, {name: image path}, function (name, image) -> label, {split: names}).

    The classes are a list of `tables.Class`. Prints the order of the pixels in runs of labels.csv, unless it is given.
    UserError for a malformed file, and if there are both labels.csv and labels/.
    """
    classes = tables.read_classes(os.path.join(data_dir, 'classes.csv'))
    images = files.image_files(os.path.join(data_dir, 'images'))
    examples = files.splits(data_dir, images)
    table = os.path.join(data_dir, 'labels.csv')
    folder = os.path.join(data_dir, 'labels')
    if not os.path.exists(table):
        return classes, images, _label_reader(folder, files.label_files(folder, images), classes), examples
    if os.path.isdir(folder):
        raise UserError('%s: holds both labels.csv and labels/; remove one of them' % data_dir)
    indices = {}
    for i, entry in enumerate(classes):
        index = IGNORE if tables.is_void(entry) else i
        for text in [str(number) for number in entry.ids] + [entry.name]:
            if indices.setdefault(text, index) != index:
                raise UserError('%s: %s is the name of one class and the id of another; rename the class'
                                % (os.path.join(data_dir, 'classes.csv'), text))
    if sum(not tables.is_void(entry) for entry in classes) == 2:
        indices[''] = 1  # a table without a column of classes
    cells = tables.read_cells(table, indices, images)
    order = rle_order or tables.rle_order(table)
    if not rle_order:
        note('%s: runs are read along the %s; --rle_order gives another order' % (table, order))
    return classes, images, lambda name, image: tables.cells_label(table, name, image, cells[name], order), examples


def _voc(data_dir):
    """Reads layout 2, Pascal VOC's with CVAT's labelmap.txt; returns the same as `_own`.

    Without ImageSets/Segmentation/train.txt only labelled images count; prints the number of the others.
    """
    classes = tables.read_labelmap(os.path.join(data_dir, 'labelmap.txt'))
    folder = os.path.join(data_dir, 'SegmentationClass')
    images = files.image_files(os.path.join(data_dir, 'JPEGImages'))
    labels = files.label_files(folder, images)
    lists = os.path.join(data_dir, 'ImageSets', 'Segmentation')
    if os.path.exists(files.split_lists(lists)['train']):
        return classes, images, _label_reader(folder, labels, classes), files.splits(lists, images)
    labelled = {name: path for name, path in images.items() if name in labels}
    if len(labelled) < len(images):  # CVAT exports frames that nobody has labelled yet
        note('%s: %d images have no label and are not used' % (data_dir, len(images) - len(labelled)))
    return classes, images, _label_reader(folder, labels, classes), files.splits(lists, labelled)


def _roboflow(data_dir):
    """Reads layout 3, Roboflow's train/, valid/ and test/; returns the same as `_own`.

    UserError if the tables of classes differ.
    """
    tables_found = [os.path.join(data_dir, split, '_classes.csv') for split in files.FOLDERS]
    all_classes = [tables.read_classes(path, ('Class', 'Pixel Value')) for path in tables_found if os.path.exists(path)]
    if any(classes != all_classes[0] for classes in all_classes):
        raise UserError('%s: the tables _classes.csv of the splits differ; export them again' % data_dir)
    paths = files.image_files(data_dir)
    images = {name: path for name, path in paths.items() if not name.endswith('_mask')}
    labels = {name[:-len('_mask')]: [path] for name, path in paths.items() if name.endswith('_mask')}
    label = _label_reader(data_dir, labels, all_classes[0], '%s_mask.png')
    return all_classes[0], images, label, files.splits(data_dir, images)


def _label_reader(folder, labels, classes, *expected):
    """Makes the function (name, image) -> label uint8 [h, w] of class indices, IGNORE for void.

    The function ignores `image`; `datasets.load_checked` compares the sizes. UserError as `tables.read_class_label`.

    Args:
      folder: folder of the labels, for messages.
      labels: as from `files.label_files`.
      classes: list of `tables.Class`.
      expected: as for `files.label_path`.
    """
    return lambda name, _: tables.read_class_label(files.label_path(folder, labels, name, *expected), classes)


def measured_depth(paths: list):
    """Bits in use in the images of 16 bits a channel among `paths`, 9 to 16; None if all images have 8 bits.

    Decodes all these images. Images of 32-bit integers are included: values above 65535 give more than 16 bits, and
    `read_image` refuses the image.
    """
    deep = [path for path in paths if _is_deep(path)]
    return max([9] + [int(data.decode(path)[1].max()).bit_length() for path in deep]) if deep else None


def _is_deep(path):
    """Whether the header of an image says 16 bits a channel, or integers of 32; False if it cannot be opened."""
    try:
        with Image.open(path) as image:
            return image.mode.startswith('I') or ';16' in str([tile[3] for tile in image.tile])
    except Exception:  # Pillow raises many kinds of error for a damaged file, which `read_image` reports
        return False
