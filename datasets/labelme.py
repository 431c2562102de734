"""Reads the JSON files, one per image, of labelme, AnyLabeling, X-AnyLabeling and ISAT."""
import collections
import functools
import os

from PIL import Image

from datasets import files, shapes
from datasets.annotations import (Example, Shape, count_unused, error_context, find_image, images_by_name, is_image,
                                  split_of)
from system.files import UserError


def read_labelme(documents: list, root: str, left_out: collections.Counter, line_width: float):
    """Reads JSON files of labelme -> (class names, list of `Example`).

    Classes of labels.txt come first, then other classes in the order of use.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder of the images, also in sub-folders, and of labels.txt.
      left_out: {reason: number}; images without a JSON file are counted here.
      line_width: width of lines, in pixels.
    Raises:
      UserError: a missing image, two JSON files of one image, or a malformed entry. The message names the file.
    """
    def image_of(content):
        return content.get('imagePath'), content.get('imageHeight'), content.get('imageWidth'), content.get('imageData')

    def shape_of(entry):
        kind = entry.get('shape_type') or 'polygon'
        return entry['label'], kind, functools.partial(shapes.labelme_mask, entry, line_width), 0

    return _read(documents, root, left_out, 'shapes', image_of, shape_of)


def read_isat(documents: list, root: str, left_out: collections.Counter):
    """Reads JSON files of ISAT -> (class names, list of `Example`); higher layers are drawn later.

    Classes of labels.txt come first, then other classes in the order of use.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder of the images, also in sub-folders, and of labels.txt.
      left_out: {reason: number}; images without a JSON file are counted here.
    Raises:
      UserError: a missing image, two JSON files of one image, or a malformed entry. The message names the file.
    """
    def image_of(content):
        return content['info']['name'], content['info'].get('height'), content['info'].get('width'), None

    def shape_of(entry):
        draw = functools.partial(shapes.polygon_mask, entry['segmentation'])
        return entry['category'], 'polygon', draw, float(entry.get('layer', 2))  # 2 is ISAT's own default

    return _read(documents, root, left_out, 'objects', image_of, shape_of)


def _read(documents, root, left_out, key, image_of, shape_of):
    """Reads one JSON file per image -> (class names, list of `Example`).

    Args:
      key: key of the list of annotations.
      image_of: function (content) -> (name, height, width, start of the embedded image or None).
      shape_of: function (annotation) -> (class, kind, function (height, width) -> mask, layer).
    """
    images = images_by_name(root)
    order = os.path.join(root, 'labels.txt')
    classes = files.read_names(order) if os.path.exists(order) else []
    examples = {}
    for path, content in documents:
        with error_context(path):
            name, height, width, code = image_of(content)
            size = (height, width) if height and width else None
            image, embedded = _find(images, str(name or ''), size, code, path)
            if image in examples:
                raise UserError('image %s has two JSON files' % image)
            split = split_of(root, os.path.dirname(image))
            examples[image] = Example(image, split, size, [], path if embedded else None)
        for i, entry in enumerate(content[key], 1):
            where = '%s: %s %d' % (path, key[:-1], i)
            with error_context(where):
                name, kind, draw, layer = shape_of(entry)
                if name not in classes:
                    classes.append(name)
                examples[image].shapes.append(Shape(where, name, kind, draw, layer))
    count_unused(images, examples, 'images without a JSON file', left_out)
    return classes, list(examples.values())


def _find(images, name, size, code, path):
    """Finds the image of a JSON file -> (path, whether the image embedded in the JSON file is used).

    labelme itself opens the embedded image, a compressed copy. Here the embedded image is used only if the file `name`,
    relative to the folder of the JSON file, does not exist or has another size. Without an embedded image, raises
    UserError unless exactly one image fits.

    Args:
      images: {file name: list of paths}.
      size: (height, width) in the JSON file, or None.
      code: first characters of the embedded image in base64, or None.
    """
    folder = os.path.dirname(path)
    beside = os.path.normpath(os.path.join(folder, name.replace('\\', '/')))
    if not code or is_image(beside) and _upright_size(beside) == size:
        return find_image(images, name, path), False
    stem = os.path.splitext(os.path.basename(beside if name else path))[0]
    return os.path.join(folder, stem + ('.jpg' if '/9j' in code else '.png')), True


def _upright_size(path):
    """Reads (height, width) after EXIF rotation from an image's header; None if the file is unreadable."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) > 4
            return image.size if turned else image.size[::-1]
    except Exception:  # Pillow raises many kinds of error for a damaged file
        return None
