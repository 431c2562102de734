"""Reads YOLO's polygons in text files, as Ultralytics, Roboflow, CVAT and Label Studio lay them out."""
import collections
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

    Other YAML files are ignored. UserError for several such files, unless one is data.yaml, and for a data.yaml that is
    malformed or without names.
    """
    found = {}
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if name.lower().endswith(('.yaml', '.yml')):
            try:
                content = yaml.load(read_bytes(path), Loader=yaml.BaseLoader)
                if isinstance(content, dict) and 'names' in content:
                    found[path] = content
                elif name == 'data.yaml':
                    raise UserError('%s: malformed, has no names' % path)
            except (yaml.YAMLError, ValueError) as error:
                if name == 'data.yaml':
                    raise UserError('%s: not YAML (%s)' % (path, error))
    path = os.path.join(source, 'data.yaml')
    if len(found) > 1 and path not in found:
        raise UserError('%s name classes; rename the one to use to data.yaml' % ' and '.join(list(found)[:2]))
    path = path if path in found else next(iter(found), None)
    return (path, found[path]) if found else None


def class_file(source: str):
    """Path of classes.txt in the folder `source` or in its labels/, or None."""
    paths = [os.path.join(source, folder, 'classes.txt') for folder in ('', 'labels')]
    return next((path for path in paths if os.path.exists(path)), None)


def fits(source: str) -> bool:
    """Whether the folder `source` has YOLO's class names and text files that begin with a row of numbers."""
    if not os.path.isdir(source) or data_yaml(source) is None and class_file(source) is None:
        return False
    texts = glob.iglob(os.path.join(glob.escape(source), '**', '*.txt'), recursive=True)
    return any(ROW.match(read_bytes(path)) for path in texts)


def class_names(source: str, config):
    """Class names of a YOLO data set -> {number: name}; of the YAML file `config`, else of classes.txt."""
    if not config:
        return dict(enumerate(files.read_names(class_file(source) or os.path.join(source, 'classes.txt'))))
    with error_context(config[0]):
        names = config[1]['names']
        return dict(enumerate(names)) if isinstance(names, list) else {int(i): names[i] for i in names}


def resolve(source: str, *names):
    """First of the paths `names` that exists from the folder `source`, else None.

    The first folders of a path are dropped if they are not here: they are from the machine of the export.
    """
    for name in names:
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
        for path in [name] + ['/'.join(parts[i:]) for i in range(len(parts))]:
            if os.path.exists(os.path.join(source, path)):
                return os.path.normpath(os.path.join(source, path))
    return None


def listed_images(source: str, path: str, content: dict, left_out: collections.Counter):
    """Finds the images in the folders and lists that a YAML file names -> {image: split}.

    Folders of val and test that do not exist are counted in `left_out`. UserError for a missing folder of train, a
    missing image of a list, and two names that lead to one folder. An image of two splits stays in the first.
    """
    images = {}
    used = {}
    for key, value in content.items():
        split = files.FOLDERS.get(key.lower())
        for name in (value if isinstance(value, list) else [value]) if split and value else ():
            place = resolve(source, '%s/%s' % (content.get('path') or '.', name), name)
            if used.setdefault(place, name) != name or place is None and split == 'train':
                raise UserError('%s: %s: %s: %s' % (path, key, name, 'no such folder' if place is None else
                                                    'leads to %s, as %s does' % (place, used[place])))
            if place is None:
                left_out['folders that %s names and that do not exist, as %s' % (path, name)] += 1
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
    """Path of the text file of an image: in labels/ instead of the last images/, or beside the image."""
    inside, beside = (os.path.splitext(path)[0] + '.txt' for path in (IMAGES.sub(r'\1labels', image), image))
    return beside if os.path.exists(beside) and not os.path.exists(inside) else inside


def read_yolo(source: str, root: str, left_out: collections.Counter):
    """Reads images and YOLO's text files of polygons -> (class names, list of `Example`); as `read_coco`.

    The images are those of the folders that the YAML file names; without a YAML file, the images below images/ and the
    images beside their text file. Other images are counted in `left_out`. An image may have no text file.
    UserError for a text file without an image in a folder labels/, and for a split without text files.
    """
    files.check_data_dir(source, 'yolo', 'images/, labels/ and data.yaml or classes.txt')
    source = os.path.normpath(source)
    config = data_yaml(source)
    names = class_names(source, config)
    every = [path for _, path in files.files_below(source, data.IMAGE_FILES)]
    if config and any(key.lower() in files.FOLDERS for key in config[1]):
        images = listed_images(source, *config, left_out)
    else:
        images = {path: split_of(root, os.path.dirname(path)) for path in every
                  if IMAGES.match(os.path.relpath(path, source)) or os.path.exists(text_path(path))}
    left_out['images outside the folders of the data set'] += sum(path not in images for path in every)
    texts = {image: text_path(image) for image in images}
    check_texts(source, images, texts, left_out)
    rows = {image: read_rows(texts[image], names) for image in images if os.path.exists(texts[image])}
    draw = draw_of(config, [row for found in rows.values() for row in found])
    return [names[i] for i in sorted(names)], [
        Example(image, split, None, [Shape(where, name, 'polygon', functools.partial(draw, numbers))
                                     for where, name, numbers in rows.get(image, ())])
        for image, split in images.items()]


def check_texts(source: str, images: dict, texts: dict, left_out: collections.Counter):
    """Raises UserError for a text file without an image, and for a split without text files.

    Text files are counted in `left_out` if they belong to no folder of images. `images` is {image: split}, `texts`
    {image: text file}. The images of a test split without text files are removed from `images`.
    """
    for split in sorted(set(images.values())):
        inside = [image for image in images if images[image] == split]
        if not any(os.path.exists(texts[image]) for image in inside):
            if split != 'test':
                raise UserError('%s: no text file, as for %s' % (os.path.dirname(inside[0]), inside[0]))
            left_out['images of test, which has no text files'] += len(inside)
            for image in inside:
                del images[image]
    known = set(texts.values())
    folders = {os.path.dirname(path) for path in known}
    for path in glob.glob(os.path.join(glob.escape(source), '**', 'labels', '**', '*.txt'), recursive=True):
        if path not in known and os.path.basename(path) != 'classes.txt':
            if os.path.dirname(path) in folders:
                raise UserError('%s: no image has this name' % path)
            left_out['text files outside the folders of the data set'] += 1


def read_rows(path: str, names: dict):
    """Reads the rows of a text file -> list of (where, class, numbers behind the class)."""
    rows = []
    for i, line in files.numbered_lines(path):
        where = '%s line %d' % (path, i)
        with error_context(where):
            numbers = [float(number) for number in line.split()]
            rows.append((where, lookup(names, numbers[0], 'class'), numbers[1:]))
    return rows


def draw_of(config, rows: list):
    """Function (numbers, height, width) -> mask for the rows of a data set.

    Tells boxes, key points and confidences from polygons: `kpt_shape` of the YAML file gives the numbers of a row with
    key points. If the numbers of each row are odd in number, the last is a confidence, and is dropped. UserError for
    other rows, and for rows that look like key points without `kpt_shape`.
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
            raise UserError('%d numbers behind the class; kpt_shape says %d' % (len(numbers), points))
        if points:
            raise shapes.NoArea('boxes with key points')
        return shapes.yolo_mask(numbers[:-1] if odd else numbers, height, width)

    return draw
