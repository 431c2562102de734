"""Reads the JSON files, one per image, of labelme, AnyLabeling, X-AnyLabeling and ISAT."""
import contextlib
import functools
import os

from PIL import Image

from datasets import files, shapes
from datasets.annotations import Example, error_context, find_image, is_image, shapes_of, split_of

# Keys of a JSON file: name, height and width of the image, list of annotations; class and points of an annotation.
LABELME = ('imagePath', 'imageHeight', 'imageWidth', 'shapes', 'label', 'points')
ISAT = ('name', 'height', 'width', 'objects', 'category', 'segmentation')


def read_labelme(documents: list, root: str, images: dict, line_width: float, keys: tuple = LABELME):
    """Reads JSON files of labelme or ISAT, one per image -> (class names in labels.txt, list of `Example`).

    In files of ISAT, annotations of higher layers cover annotations of lower layers.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds labels.txt (optional) and, directly or in sub-folders, the images.
      images: {file name: list of paths}, the images below `root`.
      line_width: width at which lines are drawn, in pixels.
      keys: LABELME or ISAT.
    Raises:
      UserError: a missing image or a malformed annotation. The message names the file.
    """
    def shape_of(entry):
        kind = entry.get('shape_type') or 'polygon'
        if kind in ('point', 'points'):
            return entry[class_key], 'points', None
        draw = functools.partial(shapes.labelme_mask, dict(entry, points=entry[points_key]), line_width)
        return entry[class_key], kind, draw, float(entry.get('layer', 2)) if keys is ISAT else 0  # ISAT's default is 2

    name_key, height_key, width_key, list_key, class_key, points_key = keys
    examples = []
    for path, content in documents:
        with error_context(path):
            info = content['info'] if keys is ISAT else content
            size = info.get(height_key), info.get(width_key)
            size = size if all(size) else None
            image, embedded = _find(images, str(info.get(name_key) or ''), size, content.get('imageData'), path)
        entries = shapes_of(content[list_key], '%s: %s' % (path, list_key[:-1]), shape_of)
        examples.append(Example(image, split_of(root, os.path.dirname(image)), size, entries, embedded))
    order = os.path.join(root, 'labels.txt')
    return files.read_names(order) if os.path.exists(order) else [], examples


def _find(images, name, size, code, path):
    """Finds the image of a JSON file -> (path of the image, path of the JSON file or None).

    The second path is the JSON file if the embedded image is used, else None. The embedded image is a compressed copy
    of the image file, so the image file is preferred: the embedded image is used only if the image file `name`,
    relative to the folder of the JSON file, does not exist or has another size. If the JSON file has no embedded image,
    `annotations.find_image` finds the image file.

    Args:
      images: {file name: list of paths}, the image files to choose from.
      size: (height, width) in the JSON file, or None.
      code: first characters of the embedded image in base64, or None.
    """
    folder = os.path.dirname(path)
    beside = os.path.normpath(os.path.join(folder, name.replace('\\', '/')))
    if not code or is_image(beside) and _upright_size(beside) == size:
        return find_image(images, name, path), None
    stem = os.path.splitext(os.path.basename(beside if name else path))[0]
    return os.path.join(folder, stem + ('.jpg' if '/9j' in code else '.png')), path


def _upright_size(path):
    """Reads an image's header -> (height, width) after EXIF rotation, or None if the file is unreadable."""
    with contextlib.suppress(Exception), Image.open(path) as image:  # Pillow raises many kinds of errors
        turned = image.getexif().get(0x0112, 1) > 4
        return image.size if turned else image.size[::-1]
