"""Reads COCO JSON, including the variants of VGG Image Annotator, makesense.ai and COCO Annotator."""
import functools
import os

from datasets import shapes
from datasets.annotations import Example, Shape, error_context, find_image, lookup, split_of
from system.files import UserError

NO_SEGMENTATION = 'annotations without a segmentation (boxes or key points)'


def key_of(entry: dict, key: str):
    """Returns the id entry[key] as text, so that the ids 5, 5.0 and '5' are equal.

    Raises UserError if the id is missing, a list, a dict or a bool.
    """
    value = entry.get(key)
    if value is None or isinstance(value, (bool, list, dict)):
        raise UserError('has no %s' % key if value is None else 'malformed %s %s' % (key, value))
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def read_coco(documents: list, root: str, images: dict):
    """Reads COCO JSON -> (class names in the order of the files, list of `Example`).

    Annotations with `iscrowd` 1 (crowds) are drawn below the other annotations.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds the images, directly or in sub-folders.
      images: {file name: list of paths}, the images below `root`.
    Raises:
      UserError: a listed image that is missing, two images or two classes with the same id, or an annotation with a
        missing or unknown image or class. The message names the file and the entry.
    """
    classes = []
    examples = []
    for path, content in documents:
        names, by_id = {}, {}
        for i, category in enumerate(content['categories'], 1):
            with error_context('%s: category %d' % (path, i)):
                key = key_of(category, 'id')
                if names.setdefault(key, category['name']) != category['name']:  # VIA may list a category twice
                    raise UserError('id %s is %r already' % (key, names[key]))
        classes += names.values()
        for i, entry in enumerate(content['images'], 1):
            with error_context('%s: image %d' % (path, i)):
                key = key_of(entry, 'id')
                name = entry['file_name']
                longer = str(entry.get('path'))  # COCO Annotator gives the folder in path, not in file_name
                image = find_image(images, longer if longer.endswith('/' + name) else name, path)
                split = split_of(root, os.path.dirname(image), path)
                size = entry.get('height'), entry.get('width')
                if key in by_id:
                    raise UserError('id %s is already the id of %s' % (key, by_id[key].image))
                by_id[key] = Example(image, split, size if all(size) else None, [])
        examples += by_id.values()
        for i, annotation in enumerate(content['annotations'], 1):
            where = '%s: annotation %d' % (path, i)
            with error_context(where):
                # makesense.ai may write COCO without categories; then the only class is called object.
                is_nameless = not names and annotation.get('category_id') is None
                name = 'object' if is_nameless else lookup(names, key_of(annotation, 'category_id'), 'category_id')
                segmentation = annotation.get('segmentation')
                kind = NO_SEGMENTATION if not segmentation else 'mask' if isinstance(segmentation, dict) else 'polygon'
                draw = functools.partial(shapes.coco_mask, segmentation) if segmentation else None
                layer = -1 if int(annotation.get('iscrowd') or 0) else 0
                example = lookup(by_id, key_of(annotation, 'image_id'), 'image_id')
                example.shapes.append(Shape(where, name, kind, draw, layer))
    return classes, examples
