"""Reads custom data: a folder of images, labels and a table of classes -> `Dataset`.

docs/data.md shows the layouts: images/ and labels/ under several names, Pascal VOC's layout, Roboflow's layout, and
labels.csv with run-length encoded masks. Any other layout is an error.
"""
import glob
import os
import re

from PIL import Image

import data
from data import Dataset
from datasets import files, record, rle, splits, tables
from datasets.labels import read_class_label
from system.files import UserError, note

# {file with a table of classes: function (path) -> list of `tables.Class`}
TABLES = {'classes.csv': tables.read_classes, 'class_dict.csv': tables.read_classes,
          'labelmap.txt': tables.read_labelmap, 'class_names.txt': tables.read_class_names,
          'label_colors.txt': tables.read_label_colors}
TABLES.update({os.path.join(split, '_classes.csv'): lambda path: tables.read_classes(path, 'Class', 'Pixel Value')
               for split in files.FOLDERS})  # Roboflow writes a table of classes for each split
# Accepted names of folders, in lower case.
IMAGE_FOLDERS = 'images image imgs img img_dir jpegimages leftimg8bit default'.split()
LABEL_FOLDERS = ('labels label masks mask gts gt annot annots annotations ann_dir gtfine segmentationclass '
                 'segmentationclasspng defaultannot').split()


def read(data_dir: str, rle_order: str = None, depth: int = None):
    """Reads the data set in `data_dir` -> `Dataset`; the training size is the size of the first training image.

    Labels are opened later, by `load` of the returned `Dataset`.

    Args:
      rle_order: pixel order of the run-length encoding in labels.csv: 'rows', 'columns' or 'relative'. If None, the
        order is detected from the masks. `rle_order` is ignored if there is no labels.csv.
      depth: number of bits that pixel values use in images of 16 bits per channel. If None, the number of bits is
        measured from the training images.
    Raises:
      UserError: an unknown layout, or a fault in a list of images or in the table of classes.
    """
    files.check_data_dir(data_dir, 'folder', 'images/, labels/ or labels.csv, and classes.csv')
    root = voc_root(data_dir)
    table, classes = _classes(root or data_dir, data_dir)
    runs = os.path.exists(os.path.join(data_dir, 'labels.csv'))
    images, label, examples, runs_form = (rle.read_runs(data_dir, table, classes, rle_order) if runs else
                                          _labelled(root or data_dir, root, table, classes))
    first = next(iter(examples.values()))  # image names of the first split: train, or else val, or else test
    depth = depth or measured_depth([images[name] for name in first])

    def load(split, i):
        name = examples[split][i]
        image = data.read_image(images[name], depth)
        return image, label(name, image)

    named = [entry for entry in classes if not tables.is_void(entry)]
    colors = files.distinct_colors([entry.color for entry in named])
    size = data.read_image(images[first[0]], depth).shape[:2]
    return Dataset('folder', [entry.name for entry in named], colors, size, examples, load, 'predictions.png',
                   class_ids=[(entry.ids or [i])[0] for i, entry in enumerate(named)], depth=depth, rle=runs_form)


def voc_root(data_dir: str, name: str = 'VOC2*'):
    """Finds the folder that holds JPEGImages/ -> path, or None.

    The candidates are `data_dir`, `data_dir`/`name` and `data_dir`/VOCdevkit/`name`; in `name` the character * stands
    for any text. Raises UserError if several candidates hold JPEGImages/.
    """
    return _only([path for pattern in ('', name, os.path.join('VOCdevkit', name))
                  for path in sorted(glob.glob(os.path.join(glob.escape(data_dir), pattern)))
                  if os.path.isdir(os.path.join(path, 'JPEGImages'))])


def _only(paths):
    """Returns the single path in `paths`, or None if `paths` is empty; raises UserError for several paths."""
    if len(paths) > 1:
        raise UserError('which of these has the data? %s; rename or move the others' % ' or '.join(paths))
    return paths[0] if paths else None


def _classes(*folders):
    """Reads the table of classes in the first of `folders` that has a table -> (path, list of `tables.Class`).

    Raises UserError if no folder has a table, if a folder has several tables, or if the tables that Roboflow wrote for
    the splits differ.
    """
    for folder in folders:
        found = {os.path.join(folder, name): name for name in TABLES if os.path.exists(os.path.join(folder, name))}
        if len(set(map(os.path.basename, found))) > 1:
            raise UserError('--data_dir %s: has several tables of classes; remove %s' % (folder, ' or '.join(found)))
        read = [TABLES[name](path) for path, name in found.items()]
        if any(classes != read[0] for classes in read):
            raise UserError('%s: the tables _classes.csv of the splits differ; export the data set again' % folder)
        if found:
            return next(iter(found)), read[0]
    raise UserError('--data_dir %s: has no table of classes, but %s; write classes.csv (name,id,color), or name a '
                    'published data set as --dataset' % (folders[0], record.some(sorted(os.listdir(folders[0])))))


def _folders(parent):
    """Lists the paths of the sub-folders of `parent`, sorted, without names that begin with . or _."""
    return [path for path in sorted(glob.glob(os.path.join(glob.escape(parent), '[!_.]*'))) if os.path.isdir(path)]


def _pair(parent):
    """Finds the folders of images and of labels in `parent` -> (images, labels), each a path or None.

    Raises UserError if several folders have names in IMAGE_FOLDERS, or if several folders have names in LABEL_FOLDERS.
    A third folder with images is ignored if the labels are in labels/, label/ or Pascal VOC's SegmentationClass/.
    Otherwise UserError is raised for a third folder with images, because the third folder may hold the labels.
    """
    holding = [(os.path.basename(path).lower(), path) for path in _folders(parent) if _holds_images(path)]
    images = _only([path for name, path in holding if name in IMAGE_FOLDERS])
    found = [path for name, path in holding if name in LABEL_FOLDERS]
    # labelme writes labels as NPY files into SegmentationClass/ and as PNG files into SegmentationClassPNG/.
    labels = _only([path for path in found if path.lower().endswith('classpng')] or found)
    others = [path for name, path in holding if path not in (images, labels) and name not in files.FOLDERS]
    if images and labels and others and not re.match('labels?$|SegmentationClass', os.path.basename(labels)):
        raise UserError('%s or %s: which holds the labels? rename this folder to labels' % (labels, others[0]))
    return images, labels


def _holds_images(folder):
    """Tells whether any file below a folder has the extension of an image or of a label."""
    return any(name.lower().endswith(data.IMAGE_FILES + data.LABEL_FILES)
               for _, _, names in os.walk(folder, followlinks=True) for name in names)


def find_pairs(data_dir: str):
    """Finds the folders of images and of labels -> list of (name, path of the images, path of the labels).

    `name` is the folder of a split, such as train, or '' if the splits have no folders. Accepted layouts: images/ and
    labels/; these two folders in train/ and in val/; train/ and train_labels/; images and labels together in train/ or
    in `data_dir`. IMAGE_FOLDERS and LABEL_FOLDERS list other names for images/ and labels/. Raises UserError if several
    folders in the same parent folder have names in IMAGE_FOLDERS, or have names in LABEL_FOLDERS.
    """
    images, labels = _pair(data_dir)
    if images:
        labels = labels or os.path.join(data_dir, 'labels')
        if not os.path.isdir(labels):
            others = record.some(os.path.basename(path) for path in _folders(data_dir) if path != images)
            raise UserError('%s: no such folder; give the folder of labels this name; found: %s' % (labels, others))
        return [('', images, labels)]
    pairs = []
    for path in _folders(data_dir):
        name = os.path.basename(path)
        if name.lower() in files.FOLDERS:
            inner = _pair(path)
            beside = [other for other in _folders(data_dir) if other[:len(path)] == path
                      and other[len(path):].lstrip('-_').lower() in LABEL_FOLDERS]
            pairs.append((name,) + (inner if all(inner) else (path, _only(beside) or path)))
    loose = sorted(name for name in os.listdir(data_dir) if name.lower().endswith(data.IMAGE_FILES))
    if pairs and loose:
        raise UserError('%s: has images beside the folders of the splits, as %s; move them away' % (data_dir, loose[0]))
    return pairs or [('', data_dir, data_dir)]


def _labelled(root, is_voc, table, classes):
    """Finds the images, the label files and the splits of a data set that has no labels.csv.

    Prints the paths of the folders, unless the folders are images/ and labels/. A val or test split without any
    labelled image is left out. In Pascal VOC's layout without lists of splits, all images without a label are left out.

    Args:
      root: folder of the data set.
      is_voc: true for Pascal VOC's layout.
      table: path of the table of classes, for messages.
      classes: list of `tables.Class`.
    Returns:
      images: {image name: image path}.
      label: function (image name, image) -> label, uint8 [h, w]. The function reads a label file.
      examples: {split: list of image names}.
      rle: None, the field `rle` of the `Dataset`.
    """
    names = [files.words(entry.name) for entry in classes if not tables.is_void(entry)]
    if len(names) == 2 and any(tables.is_background(entry) and 0 in entry.ids for entry in classes):
        names = []  # with one class besides background, the class name is allowed as the suffix of a label
    images, labels = {}, {}
    pairs = find_pairs(root)
    for name, image_folder, label_folder in pairs:
        found = files.image_files(image_folder)
        if image_folder == label_folder:
            found = {name: path for name, path in found.items() if not files.is_label(name)}
        fitting = files.label_files(label_folder, found, names)
        if files.FOLDERS.get(name.lower(), 'train') != 'train' and not fitting:
            note('%s: no image has a label; this split is left out' % image_folder)
            continue
        prefix = name and name + '/'
        images.update((prefix + image, path) for image, path in found.items())
        labels.update((prefix + image, paths) for image, paths in fitting.items())
    if not labels and pairs[0][1] == pairs[0][2]:
        raise UserError('%s: no image has a label; put images into images/, labels of equal names into labels/' % root)
    if pairs[0][1:] != (os.path.join(root, 'images'), os.path.join(root, 'labels')):
        note('%s: read as images in %s and labels in %s, classes in %s%s'
             % (root, ', '.join(pair[1] for pair in pairs), ', '.join(pair[2] for pair in pairs), table,
                '; for the classes of Cityscapes give --dataset cityscapes' * pairs[0][2].endswith('gtFine')))
    if is_voc and len(labels) < len(images) and not splits.find_lists(root):  # CVAT also exports unlabelled frames
        note('%s: %d images have no label and are not used' % (root, len(images) - len(labels)))
        images = {name: path for name, path in images.items() if name in labels}
    return (images, lambda name, _: read_class_label(files.label_path(pairs[0][2], labels, name), classes, table),
            splits.find(root, images), None)


def measured_depth(paths: list):
    """Returns the number of bits needed for the largest value in the 16-bit images: int, at least 9.

    Images of 32-bit integers are measured too. Returns None if `paths` has neither 16-bit nor 32-bit integer images.
    For a value above 65535 the result is more than 16, and `read_image` later refuses the image.
    """
    deep = [path for path in paths if _is_deep(path)]
    return max([9] + [int(data.decode(path)[1].max()).bit_length() for path in deep]) if deep else None


def _is_deep(path):
    """Tells whether an image has 16 bits per channel or 32-bit integers; False for an unreadable file."""
    try:
        with open(path, 'rb') as file:
            header = file.read(25)
            # A JPEG has 8 bits per channel. Reading a PNG's bit depth here is faster than opening the PNG with Pillow.
            if header[:2] == b'\xff\xd8' or header[:4] == b'\x89PNG':
                return header[:4] == b'\x89PNG' and header[24] == 16
            image = Image.open(file, formats=data.FORMATS)
            return image.mode.startswith('I') or ';16' in str([tile[3] for tile in image.tile])
    except Exception:  # Pillow raises many kinds of error for a damaged file; `read_image` reports the file later
        return False
