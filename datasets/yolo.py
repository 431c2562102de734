"""Reads YOLO's polygons in text files, in the layouts of Ultralytics, Roboflow, CVAT and Label Studio."""
import functools
import glob
import os
import re

import numpy as np
import yaml

import data
from datasets import files, shapes
from datasets.annotations import Example, Shape, error_context, lookup, split_of
from system.files import UserError, note, read_bytes

IMAGES = re.compile(r'(\A|.*[/\\])images(?=[/\\])', re.DOTALL)
ROW = re.compile(rb'\s*[0-9]+(\s+-?[0-9.]+){4}')


def data_yaml(source: str):
    """Finds the YAML file with the class names in the folder `source` -> (path, content), or None.

    YAML files without class names are ignored. Raises UserError for several files with class names, unless one of them
    is data.yaml, and for a data.yaml that is malformed or without class names.
    """
    found = {}
    for name in sorted(os.listdir(source)):
        if name.lower().endswith(('.yaml', '.yml')):
            path = os.path.join(source, name)
            try:
                content = yaml.load(read_bytes(path), Loader=yaml.BaseLoader)
            except (yaml.YAMLError, ValueError) as error:
                content = error
            if isinstance(content, dict) and 'names' in content:
                found[path] = content
            elif name == 'data.yaml':
                raise UserError('%s: malformed, or without class names (%s)' % (path, content))
    path = os.path.join(source, 'data.yaml')
    if path in found:
        return path, found[path]
    if len(found) > 1:
        raise UserError('%s both hold class names; rename the file to use to data.yaml' % ' and '.join(list(found)[:2]))
    return next(iter(found.items()), None)


def class_file(source: str):
    """Finds classes.txt in the folder `source` or in the sub-folder labels/ -> path, or None."""
    paths = [os.path.join(source, folder, 'classes.txt') for folder in ('', 'labels')]
    return next((path for path in paths if os.path.exists(path)), None)


def fits(source: str) -> bool:
    """Tells whether the folder `source` has YOLO's class names and a text file that begins with a YOLO row."""
    if not os.path.isdir(source) or data_yaml(source) is None and class_file(source) is None:
        return False
    texts = glob.iglob(os.path.join(glob.escape(source), '**', '*.txt'), recursive=True)
    return any(ROW.match(read_bytes(path)) for path in texts)


def class_names(source: str, config):
    """Reads the class names of a YOLO data set -> {class number: name}.

    Args:
      config: (path, content) of the YAML file with the names; None: classes.txt in `source` or in labels/ below
        `source` is read.
    Raises:
      UserError: malformed names, or a missing or empty classes.txt.
    """
    if not config:
        if not class_file(source):
            raise UserError('%s: has neither data.yaml nor classes.txt; write classes.txt, a class per line' % source)
        return dict(enumerate(files.read_names(class_file(source))))
    with error_context(config[0]):
        names = config[1]['names']
        return dict(enumerate(names)) if isinstance(names, list) else {int(i): names[i] for i in names}


def resolve(source: str, *names):
    """Finds the first of the paths `names` that exists relative to the folder `source` -> path, or None.

    A path may come from the machine that exported the data set, so leading folders of the path are dropped until the
    remaining path exists below `source`.
    """
    for name in names:
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
        for path in [name] + ['/'.join(parts[i:]) for i in range(len(parts))]:
            if os.path.exists(os.path.join(source, path)):
                return os.path.normpath(os.path.join(source, path))
    return None


def listed_images(source: str, path: str, content: dict):
    """Finds the images of the splits that a YAML file names -> {image path: split}.

    A split is a folder, a text file with one image path per line, or a list of folders and text files. An image that
    two splits name belongs to the first split. Notes report such images, and folders of val or test that do not exist.

    Args:
      source: folder of the data set.
      path, content: path of the YAML file, and its content as a dict.
    Raises:
      UserError: a missing folder of train, a listed image that does not exist, or two names for the same folder.
    """
    images = {}
    used = {}
    for key, value in content.items():
        split = files.FOLDERS.get(key.lower())
        for name in (value if isinstance(value, list) else [value]) if split and value else ():
            place = resolve(source, '%s/%s' % (content.get('path') or '.', name), name)
            if place is None and split == 'train':
                raise UserError('%s: %s: %s: no such folder; correct the path' % (path, key, name))
            if place is not None and used.setdefault(place, name) != name:
                raise UserError('%s: %s: %s: leads to %s, as %s does; remove one of the two'
                                % (path, key, name, place, used[place]))
            if place is None:
                note('%s: %s: %s: no such folder, so it is left out' % (path, key, name))
                continue
            if os.path.isdir(place):
                found = [image for _, image in files.files_below(place, data.IMAGE_FILES)]
            else:
                found = [resolve(source, line.strip()) for _, line in files.numbered_lines(place)]
                if None in found:
                    raise UserError('%s: image %d of the list does not exist' % (place, found.index(None) + 1))
            twice = sum(images.get(image, split) != split for image in found)
            if twice:
                note('%s: %d images of %s are in another split already, and stay there' % (path, twice, key))
            images.update((image, split) for image in found if image not in images)
    return images


def text_path(image: str):
    """Returns the path of the text file of an image: labels/ replaces the last images/ of the image's path.

    If the text file exists only beside the image, the path beside the image is returned.
    """
    inside, beside = (os.path.splitext(path)[0] + '.txt' for path in (IMAGES.sub(r'\1labels', image), image))
    return beside if os.path.exists(beside) and not os.path.exists(inside) else inside


def read_yolo(source: str, root: str, images: dict):
    """Reads a YOLO data set of polygons -> (class names in the order of their numbers, list of `Example`).

    The images are in the folders and lists that the YAML file names. If the YAML file names no folders or lists, the
    images are all images in folders called images, and all images with a text file of the same name in the same folder.
    An image may have no text file.

    Args:
      source: folder of the data set.
      root: folder of the sub-folders, such as train/, that name the splits if the YAML file names no splits.
      images: {file name: list of paths}, the images below `source`.
    Raises:
      UserError: malformed class names or rows, a text file without an image in a folder of text files, or a split other
        than test without text files.
    """
    files.check_data_dir(source, 'yolo', 'images/, labels/ and data.yaml or classes.txt')
    config = data_yaml(source)
    names = class_names(source, config)
    if config and any(key.lower() in files.FOLDERS for key in config[1]):
        split_of_image = listed_images(source, *config)
    else:
        split_of_image = {path: split_of(root, os.path.dirname(path)) for paths in images.values() for path in paths
                          if IMAGES.match(os.path.relpath(path, source)) or os.path.exists(text_path(path))}
    check_texts(source, split_of_image)
    texts = {image: text_path(image) for image in split_of_image}
    rows = {image: read_rows(text, names) for image, text in texts.items() if os.path.exists(text)}
    draw = draw_of(config, [row for found in rows.values() for row in found])
    examples = [Example(image, split, None, []) for image, split in split_of_image.items()]
    for example in examples:
        for where, name, numbers in rows.get(example.image, ()):
            example.shapes.append(Shape(where, name, 'polygon', functools.partial(draw, numbers)))
    return [names[i] for i in sorted(names)], examples


def check_texts(source: str, images: dict):
    """Raises UserError for a text file without an image, and for a split without text files.

    A test split without text files is no error: its images are removed from `images`, {image path: split}. A note gives
    the number of text files in folders labels/ that belong to no folder of images.
    """
    texts = {text_path(image) for image in images}
    labelled = {split for image, split in images.items() if os.path.exists(text_path(image))}
    for image, split in list(images.items()):
        if split not in labelled:
            if split != 'test':
                raise UserError('%s: no image has its text file, as %s would be'
                                % (os.path.dirname(image), text_path(image)))
            del images[image]
    below = glob.glob(os.path.join(glob.escape(source), '**', 'labels', '**', '*.txt'), recursive=True)
    others = [path for path in below if path not in texts and os.path.basename(path) != 'classes.txt']
    folders = {os.path.dirname(text) for text in texts}
    for path in others:
        if os.path.dirname(path) in folders:
            raise UserError('%s: no image has the name of this text file' % path)
    if others:
        note('%s: %d text files outside the folders of the data set, as %s' % (source, len(others), others[0]))


def read_rows(path: str, names: dict):
    """Reads the rows of a text file -> list of (file and line, class name, numbers after the class).

    The numbers are a list of float. Raises UserError for a malformed row and for a class number that `names`,
    {class number: name}, does not have.
    """
    rows = []
    for i, line in files.numbered_lines(path):
        where = '%s line %d' % (path, i)
        with error_context(where):
            numbers = [float(number) for number in line.split()]
            rows.append((where, lookup(names, numbers[0], 'class'), numbers[1:]))
    return rows


def draw_of(config, rows: list):
    """Makes the function (numbers, height, width) -> mask bool [height, width] for the rows of a data set.

    Boxes and key points have no area: for such rows the function raises `shapes.NoArea`. `kpt_shape` of the YAML file
    gives the length of rows with key points. If every row has an odd number of values, the last value is a
    confidence, which is ignored. The function raises UserError for a row that is neither a polygon nor a box nor a box
    with key points.

    Args:
      config: (path, content) of the YAML file, or None.
      rows: all rows of the data set, list of (file and line, class name, numbers).
    Raises:
      UserError: a malformed kpt_shape, or rows that look like key points without kpt_shape.
    """
    points = None
    if config and 'kpt_shape' in config[1]:
        with error_context('%s: kpt_shape' % config[0]):
            number, values = map(int, config[1]['kpt_shape'])
            points = 4 + number * values
    sizes = {len(numbers) for _, _, numbers in rows}
    odd = {size % 2 for size in sizes} == {1} and not points
    if not points and len(sizes) == 1 and max(sizes) >= 7 and (max(sizes) - 4) % 3 == 0:
        if np.isin(np.array([numbers for _, _, numbers in rows])[:, 6::3], (0, 1, 2)).all():
            raise UserError('%s: looks like a box and key points; give kpt_shape in data.yaml' % rows[0][0])

    def draw(numbers, height, width):
        if points and len(numbers) not in (points, points + 1):
            raise UserError('%d numbers behind the class; kpt_shape says %d numbers' % (len(numbers), points))
        if points:
            raise shapes.NoArea('boxes with key points')
        return shapes.yolo_mask(numbers[:-1] if odd else numbers, height, width)

    return draw
