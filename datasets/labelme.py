"""Reads the JSON files, one per image, of labelme, AnyLabeling, X-AnyLabeling and ISAT."""
import functools
import os

from PIL import Image

from datasets import files, shapes
from datasets.annotations import Example, error_context, find_image, is_image, shapes_of, split_of


def read_labelme(documents: list, root: str, images: dict, line_width: float):
    """Reads JSON files of labelme -> (class names in labels.txt, list of `Example`).

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds labels.txt (optional) and, directly or in sub-folders, the images.
      images: {file name: list of paths}, the images below `root`.
      line_width: width at which lines are drawn, in pixels.
    Raises:
      UserError: a missing image or a malformed entry. The message names the file.
    """
    def image_of(content):
        return content.get('imagePath'), content.get('imageHeight'), content.get('imageWidth'), content.get('imageData')

    def shape_of(entry):
        kind = entry.get('shape_type') or 'polygon'
        return entry['label'], kind, functools.partial(shapes.labelme_mask, entry, line_width)

    return _read(documents, root, images, 'shapes', image_of, shape_of)


def read_isat(documents: list, root: str, images: dict):
    """Reads JSON files of ISAT -> (class names in labels.txt, list of `Example`).

    Annotations of higher layers are drawn later and cover annotations of lower layers.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds labels.txt (optional) and, directly or in sub-folders, the images.
      images: {file name: list of paths}, the images below `root`.
    Raises:
      UserError: a missing image or a malformed entry. The message names the file.
    """
    def image_of(content):
        return content['info']['name'], content['info'].get('height'), content['info'].get('width'), None

    def shape_of(entry):
        draw = functools.partial(shapes.labelme_mask, {'points': entry['segmentation']}, 0)
        return entry['category'], 'polygon', draw, float(entry.get('layer', 2))  # ISAT's default layer is 2

    return _read(documents, root, images, 'objects', image_of, shape_of)


def _read(documents, root, images, key, image_of, shape_of):
    """Reads one JSON file per image -> (class names in labels.txt, list of `Example`).

    Args:
      key: key of the list of annotations in the content of a JSON file.
      image_of: function (content) -> (image name, height, width, start of the text of the embedded image or None).
      shape_of: function (annotation) -> (name, kind, draw) or (name, kind, draw, layer), fields of a `Shape`.
    """
    examples = []
    for path, content in documents:
        with error_context(path):
            name, height, width, code = image_of(content)
            size = (height, width) if height and width else None
            image, embedded = _find(images, str(name or ''), size, code, path)
        entries = shapes_of(content[key], '%s: %s' % (path, key[:-1]), shape_of)
        split = split_of(root, os.path.dirname(image))
        examples.append(Example(image, split, size, entries, embedded))
    order = os.path.join(root, 'labels.txt')
    return files.read_names(order) if os.path.exists(order) else [], examples


def _find(images, name, size, code, path):
    """Finds the image of a JSON file -> (path of the image, path of the JSON file or None).

    The second path is None unless the image is embedded in the JSON file.

    labelme itself opens the embedded image, which is a compressed copy of the image file. This function uses the
    embedded image only if the image file `name`, relative to the folder of the JSON file, does not exist or has another
    size. If no image is embedded, raises UserError unless exactly one image file fits `name`.

    Args:
      images: {file name: list of paths}, the image files to choose from.
      size: (height, width) in the JSON file, or None.
      code: first characters of the embedded image in base64; None if no image is embedded.
    """
    folder = os.path.dirname(path)
    beside = os.path.normpath(os.path.join(folder, name.replace('\\', '/')))
    if not code or is_image(beside) and _upright_size(beside) == size:
        return find_image(images, name, path), None
    stem = os.path.splitext(os.path.basename(beside if name else path))[0]
    return os.path.join(folder, stem + ('.jpg' if '/9j' in code else '.png')), path


def _upright_size(path):
    """Reads (height, width) after EXIF rotation from an image's header; None if the file is unreadable."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) > 4
            return image.size if turned else image.size[::-1]
    except Exception:  # Pillow raises many kinds of error for a damaged file
        return None
