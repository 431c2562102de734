"""Reads the annotations of other tools: COCO JSON, labelme and YOLO -> (class names, list of `Example`)."""
import collections
import contextlib
import functools
import glob
import json
import os
import re

import yaml

import data
from datasets import files, shapes
from system.files import UserError, read_bytes

SPLIT = re.compile(r'(?:^|[/_.-])(%s)(?:20\d\d)?(?:[/_.-]|$)' % '|'.join(files.FOLDERS), re.IGNORECASE)

# image: path; split: 'train', 'val', 'test' or ''; size: (height, width) in the annotations, or None
Example = collections.namedtuple('Example', 'image split size shapes')
# where: file and entry, for messages; name: class; draw: function (height, width) -> bool mask [height, width]
Shape = collections.namedtuple('Shape', 'where name draw')


@contextlib.contextmanager
def naming(where: str):
    """Context manager: errors in the block that bad data cause become a UserError.

    The text begins with `where`, the file and the entry.
    """
    try:
        yield
    except UserError as error:
        raise UserError('%s: %s' % (where, error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError('%s: malformed (%s: %s)' % (where, type(error).__name__, error))


def pick(table: dict, key, what: str):
    """Returns table[key]; UserError 'WHAT KEY is unknown' if the key is missing."""
    if key not in table:
        raise UserError('%s %r is unknown' % (what, key))
    return table[key]


def images_by_name(root: str):
    """Finds the images below the folder `root` -> {file name: list of paths}."""
    images = collections.defaultdict(list)
    for _, path in files.files_below(root, data.IMAGE_FILES):
        images[os.path.basename(path)].append(path)
    return images


def split_of(root: str, *paths):
    """'train', 'val' or 'test' by the first of `paths` whose part below `root` names a split, else ''."""
    found = [SPLIT.search(os.path.relpath(path, root).replace(os.sep, '/')) for path in paths]
    return next((files.FOLDERS[match.group(1).lower()] for match in found if match), '')


def find_image(images: dict, name: str, source: str):
    """Path of the image `name` of the JSON file `source`.

    The folders in `name` may be from another machine. Of several images with this file name, the image at `name` beside
    `source` is taken, else the image whose path ends with `name`. UserError unless exactly one image is left.

    Args:
      images: as from `images_by_name`.
    """
    name = name.replace('\\', '/')
    paths = images.get(name.split('/')[-1], [])
    beside = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(source)), name))
    fits = ([path for path in paths if os.path.abspath(path) == beside]
            or [path for path in paths if path.replace(os.sep, '/').endswith('/' + name)] or paths)
    if len(fits) != 1:
        raise UserError('image %s: %s' % (name, '%s or %s?' % tuple(fits[:2]) if fits else 'no such file'))
    return fits[0]


def read_json(source: str, keys: tuple, left_out: collections.Counter):
    """Yields (path, content) of the JSON file `source`, or of all JSON files below the folder `source`.

    Files without lists named `keys` are left out and counted in `left_out`. UserError for a file that is not JSON.
    """
    below = os.path.join(glob.escape(source), '**', '*.json')
    for path in sorted(glob.glob(below, recursive=True)) if os.path.isdir(source) else [source]:
        try:
            content = json.loads(read_bytes(path).decode('utf-8-sig'))
        except (ValueError, RecursionError) as error:
            raise UserError('%s: not JSON in UTF-8 (%s)' % (path, error))
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys):
            yield path, content
        else:
            left_out['JSON files without %s' % ', '.join(keys)] += 1


def read_coco(source: str, root: str, left_out: collections.Counter):
    """Reads COCO JSON -> (class names in the order of the files, list of `Example`).

    Masks are decoded when a shape is drawn.

    Args:
      source: JSON file, or folder of JSON files, also in sub-folders.
      root: folder of the images, also in sub-folders.
      left_out: {reason: number}; images that the JSON does not list and other JSON files are counted here.
    Raises:
      UserError: malformed JSON, a listed image that is missing or listed twice, an annotation of an unknown image or
        class. The message names the file and the entry.
    """
    images = images_by_name(root)
    classes = []
    examples = {}
    for path, content in read_json(source, ('images', 'annotations', 'categories'), left_out):
        names = {}
        by_id = {}
        for i, category in enumerate(content['categories'], 1):
            with naming('%s: category %d' % (path, i)):
                names[category['id']] = category['name']
        classes += [name for name in names.values() if name not in classes]
        for i, entry in enumerate(content['images'], 1):
            with naming('%s: image %d' % (path, i)):
                image = find_image(images, entry['file_name'], path)
                if image in examples:
                    raise UserError('%s is listed twice; SOURCE may be one of several JSON files' % image)
                split = split_of(root, os.path.dirname(image), path)
                by_id[entry['id']] = examples[image] = Example(image, split, (entry['height'], entry['width']), [])
        for i, annotation in enumerate(content['annotations'], 1):
            where = '%s: annotation %d' % (path, i)
            with naming(where):
                name = pick(names, annotation['category_id'], 'category_id')
                pick(by_id, annotation['image_id'], 'image_id').shapes.append(
                    Shape(where, name, functools.partial(shapes.coco_mask, annotation)))
    left_out['images that the JSON does not list'] += sum(map(len, images.values())) - len(examples)
    return classes, list(examples.values())


def read_labelme(source: str, root: str, left_out: collections.Counter, line_width: float):
    """Reads JSON files of labelme -> (class names, list of `Example`); arguments and errors as `read_coco`.

    Classes of labels.txt come first, then other classes in the order of use. Lines are `line_width` pixels wide.
    If `source` is a folder, images without a JSON file are examples without shapes; else they are skipped, uncounted.
    """
    images = images_by_name(root)
    order = os.path.join(source, 'labels.txt')
    classes = files.read_names(order) if os.path.exists(order) else []
    examples = {}
    for path, content in read_json(source, ('shapes',), left_out):
        with naming(path):
            image = find_image(images, content['imagePath'], path)
            if image in examples:
                raise UserError('image %s has two JSON files' % image)
            size = content.get('imageHeight'), content.get('imageWidth')
            examples[image] = Example(image, split_of(root, os.path.dirname(image)), size if all(size) else None, [])
        for i, shape in enumerate(content['shapes'], 1):
            where = '%s: shape %d' % (path, i)
            with naming(where):
                if shape['label'] not in classes:
                    classes.append(shape['label'])
                draw = functools.partial(shapes.labelme_mask, shape, line_width)
                examples[image].shapes.append(Shape(where, shape['label'], draw))
    for image in sum(images.values(), []) if os.path.isdir(source) else []:
        examples.setdefault(image, Example(image, split_of(root, os.path.dirname(image)), None, []))
    return classes, list(examples.values())


def yolo_names(source: str):
    """Reads the class names of a YOLO data set -> {number: name}; from a YAML file, else from classes.txt.

    UserError if neither exists or the file is malformed.
    """
    for path in sorted(os.path.join(source, name) for name in os.listdir(source)):
        if path.lower().endswith(('.yaml', '.yml')):
            with naming(path):
                try:
                    names = yaml.load(read_bytes(path), Loader=yaml.BaseLoader)['names']
                except yaml.YAMLError as error:
                    raise UserError('not YAML (%s)' % error)
                return dict(enumerate(names)) if isinstance(names, list) else {int(i): names[i] for i in names}
    return dict(enumerate(files.read_names(os.path.join(source, 'classes.txt'))))


def read_yolo(source: str, root: str, left_out: collections.Counter):
    """Reads images and YOLO's text files of polygons -> (class names, list of `Example`); as `read_coco`.

    The text file of an image lies in labels/ instead of images/, or beside the image; an image may have none.
    Reads the images below `source`; `root` only serves to find the splits, and nothing is counted in `left_out`.
    UserError also for a text file in labels/ without an image.
    """
    files.check_data_dir(source, 'yolo', 'images/, labels/ and data.yaml or classes.txt')
    source = os.path.normpath(source)
    names = yolo_names(source)
    examples = []
    known = set()
    for name, image in files.files_below(source, data.IMAGE_FILES):
        name = re.sub(r'\A(.*/)?images/', r'\1labels/', name)
        path = os.path.join(source, *name.split('/')) + '.txt'
        known.add(path)
        example = Example(image, split_of(root, os.path.dirname(image)), None, [])
        for i, line in files.numbered_lines(path) if os.path.exists(path) else ():
            where = '%s line %d' % (path, i)
            with naming(where):
                numbers = [float(number) for number in line.split()]
                draw = functools.partial(shapes.yolo_mask, numbers[1:])
                example.shapes.append(Shape(where, pick(names, numbers[0], 'class'), draw))
        examples.append(example)
    for path in glob.glob(os.path.join(glob.escape(source), '**', 'labels', '**', '*.txt'), recursive=True):
        if path not in known:
            raise UserError('%s: no image has this name' % path)
    return [names[i] for i in sorted(names)], examples
