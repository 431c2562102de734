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
    """Finds the YAML file with the class names in the folder `source` -> (path, content), or ('', {}).

    If data.yaml exists, no other YAML file is read. Without data.yaml all YAML files are read, and files without class
    names are ignored. Raises UserError if data.yaml is malformed or has no class names. Also raises UserError if
    data.yaml is missing and several YAML files have class names.
    """
    names = [name for name in sorted(os.listdir(source)) if name.lower().endswith(('.yaml', '.yml'))]
    found = {}
    for name in ['data.yaml'] if 'data.yaml' in names else names:
        path = os.path.join(source, name)
        try:
            content = yaml.load(read_bytes(path), Loader=yaml.BaseLoader)
        except (yaml.YAMLError, ValueError) as error:
            content = error
        if isinstance(content, dict) and 'names' in content:
            found[path] = content
        elif name == 'data.yaml':
            raise UserError('%s: malformed, or without class names (%s)' % (path, content))
    if len(found) > 1:
        raise UserError('%s both hold class names; rename the file to use to data.yaml' % ' and '.join(list(found)[:2]))
    return next(iter(found.items()), ('', {}))


def class_file(source: str):
    """Finds classes.txt in the folder `source` or in the sub-folder labels/ -> path, or None."""
    paths = [os.path.join(source, folder, 'classes.txt') for folder in ('', 'labels')]
    return next(filter(os.path.exists, paths), None)


def fits(source: str) -> bool:
    """Tells whether the folder `source` has YOLO's class names and a text file that begins with a YOLO row."""
    if not os.path.isdir(source) or not (data_yaml(source)[0] or class_file(source)):
        return False
    texts = glob.iglob(os.path.join(glob.escape(source), '**', '*.txt'), recursive=True)
    return any(ROW.match(read_bytes(path)) for path in texts)


def class_names(source: str, path: str, content: dict):
    """Reads the class names of a YOLO data set -> {class number: name}.

    Args:
      path, content: path and content of the YAML file with the names. If the path is '', the function reads the names
        from classes.txt in `source` or in labels/ below `source`.
    Raises:
      UserError: malformed names, or a missing or empty classes.txt.
    """
    if path:
        with error_context(path):
            names = content['names']
            return dict(enumerate(names)) if isinstance(names, list) else {int(i): names[i] for i in names}
    if not class_file(source):
        raise UserError('%s: has neither data.yaml nor classes.txt; write classes.txt, a class per line' % source)
    return dict(enumerate(files.read_names(class_file(source))))


def resolve(source: str, *names):
    """Finds the first of the paths `names` that exists relative to the folder `source` -> path, or None.

    A path may come from another machine, which exported the data set. So leading folders of the path are dropped until
    the remaining path exists below `source`.
    """
    for name in names:
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
        for path in [name] + ['/'.join(parts[i:]) for i in range(len(parts))]:
            if os.path.exists(os.path.join(source, path)):
                return os.path.normpath(os.path.join(source, path))
    return None


def listed_images(source: str, path: str, content: dict):
    """Finds the images of the splits that a YAML file names -> {image path: split}.

    The YAML file gives each split as a folder, as a text file with one image path per line, or as a list of folders and
    text files. If two splits name an image, the image belongs to the first split, and a note is printed. A note is
    printed too if a validation or test folder does not exist.

    Args:
      source: folder of the data set.
      path, content: path and content of the YAML file.
    Raises:
      UserError: a missing training folder, a listed image that does not exist, or two different paths that lead to the
        same folder or text file.
    """
    images, used = {}, {}
    listed = [(key, name) for key, value in content.items() if value and key.lower() in files.FOLDERS
              for name in (value if isinstance(value, list) else [value])]
    for key, name in listed:
        where = '%s: %s: %s' % (path, key, name)
        split = files.FOLDERS[key.lower()]
        place = resolve(source, '%s/%s' % (content.get('path') or '.', name), name)
        if place is None and split == 'train':
            raise UserError('%s: no such folder; correct the path' % where)
        if place is None:
            note('%s: no such folder, so it is left out' % where)
            continue
        if used.setdefault(place, name) != name:
            raise UserError('%s: leads to %s, as %s does; remove one of the two' % (where, place, used[place]))
        if os.path.isdir(place):
            found = [image for _, image in files.files_below(place, data.IMAGE_FILES)]
        else:
            found = [resolve(source, line.strip()) for _, line in files.numbered_lines(place)]
            if None in found:
                raise UserError('%s: image %d of the list does not exist' % (place, found.index(None) + 1))
        twice = sum(images.setdefault(image, split) != split for image in found)
        if twice:
            note('%s: %d images of %s are in another split already, and stay there' % (path, twice, key))
    return images


def text_path(image: str):
    """Returns the path of the text file with the annotations of an image.

    The last images/ in the image's path is replaced by labels/, and the extension by .txt. If a text file exists only
    in the folder of the image, the result is the path of this text file.
    """
    inside, beside = (os.path.splitext(path)[0] + '.txt' for path in (IMAGES.sub(r'\1labels', image), image))
    return beside if os.path.exists(beside) and not os.path.exists(inside) else inside


def read_yolo(source: str, root: str, images: dict):
    """Reads a YOLO data set of polygons -> (class names in the order of their numbers, list of `Example`).

    The YAML file names the folders and lists of the images. Without folders and lists in the YAML file, the data set
    consists of all images in folders called images, and of all images with a text file of the same name in the same
    folder. An image may have no text file.

    Args:
      source: folder of the data set.
      root: folder with sub-folders such as train/. If the YAML file names no splits, the sub-folders name the splits.
      images: {file name: list of paths}, the images below `source`.
    Raises:
      UserError: malformed class names or rows, a text file without an image, or a split without text files, unless
        the split is test.
    """
    files.check_data_dir(source, 'yolo', 'images/, labels/ and data.yaml or classes.txt')
    path, content = data_yaml(source)
    names = class_names(source, path, content)
    if any(key.lower() in files.FOLDERS for key in content):
        split_of_image = listed_images(source, path, content)
    else:
        split_of_image = {path: split_of(root, os.path.dirname(path)) for paths in images.values() for path in paths
                          if IMAGES.match(os.path.relpath(path, source)) or os.path.exists(text_path(path))}
    examples = [Example(image, split, None, []) for image, split in checked(source, split_of_image).items()]
    add_shapes([row for example in examples for row in read_rows(example, names)], path, content)
    return [names[i] for i in sorted(names)], examples


def checked(source: str, images: dict):
    """Checks the text files with the annotations of `images`, {image path: split} -> {image path: split}.

    A test split without any text file is left out of the result. Raises UserError if any other split has no text file,
    or if a folder of annotation files contains a text file whose image is missing. A note gives the number of text
    files in folders called labels that belong to none of the images.
    """
    texts = {text_path(image) for image in images}
    labelled = {split for image, split in images.items() if os.path.exists(text_path(image))}
    for image, split in images.items():
        if split not in labelled and split != 'test':
            raise UserError('%s: no image has its text file, as %s' % (os.path.dirname(image), text_path(image)))
    below = glob.glob(os.path.join(glob.escape(source), '**', 'labels', '**', '*.txt'), recursive=True)
    others = [path for path in below if path not in texts and os.path.basename(path) != 'classes.txt']
    folders = {os.path.dirname(text) for text in texts}
    for path in others:
        if os.path.dirname(path) in folders:
            raise UserError('%s: no image has the name of this text file' % path)
    if others:
        note('%s: %d text files outside the folders of the data set, as %s' % (source, len(others), others[0]))
    return {image: split for image, split in images.items() if split in labelled}


def read_rows(example: Example, names: dict):
    """Reads the text file of an image -> list of (example, where, class name, numbers).

    `where` is the string 'FILE line N', for messages. `numbers` is the list of the floats after the class. Without a
    text file the result is empty. Raises UserError for a malformed row and for a class number that is not in `names`,
    {class number: name}.
    """
    path = text_path(example.image)
    rows = []
    for i, line in files.numbered_lines(path) if os.path.exists(path) else ():
        where = '%s line %d' % (path, i)
        with error_context(where):
            numbers = [float(number) for number in line.split()]
            rows.append((example, where, lookup(names, numbers[0], 'class'), numbers[1:]))
    return rows


def add_shapes(rows: list, path: str, content: dict):
    """Adds a `Shape` to the `Example` of each row.

    Only polygons are drawn; the output of the command gives the number of boxes and keypoints. `kpt_shape` in the YAML
    file gives the number of keypoints in a row and the number of values per keypoint. If every row has an odd number of
    values after the class, the last value is a confidence, which is ignored.

    Args:
      rows: all rows of the data set, a list of (example, 'FILE line N', class name, floats after the class).
      path, content: path and content of the YAML file; '' and {} without a YAML file.
    Raises:
      UserError: a malformed kpt_shape, a row whose length does not fit kpt_shape, or rows that look like keypoints
        although the YAML file has no kpt_shape.
    """
    pose = 0  # number of values of a box and its keypoints in each row; 0 if the YAML file has no kpt_shape
    if 'kpt_shape' in content:
        with error_context('%s: kpt_shape' % path):
            number, values = map(int, content['kpt_shape'])
            pose = 4 + number * values
    sizes = {len(numbers) for *_, numbers in rows}
    if not pose and len(sizes) == 1 and max(sizes) >= 7 and (max(sizes) - 4) % 3 == 0:
        if np.isin(np.array([numbers for *_, numbers in rows])[:, 6::3], (0, 1, 2)).all():
            raise UserError('%s: looks like a box and key points; give kpt_shape in data.yaml' % rows[0][1])
    odd = {size % 2 for size in sizes} == {1}
    for example, where, name, numbers in rows:
        if pose and len(numbers) not in (pose, pose + 1):
            raise UserError('%s: %d numbers behind the class; kpt_shape says %d numbers' % (where, len(numbers), pose))
        numbers = numbers[:-1] if odd else numbers
        kind = 'boxes with key points' if pose else 'boxes' if len(numbers) == 4 else 'polygon'
        draw = functools.partial(shapes.yolo_mask, numbers) if kind == 'polygon' else None
        example.shapes.append(Shape(where, name, kind, draw))
