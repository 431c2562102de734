"""Reads JSON of VGG Image Annotator (VIA 1 and 2): exported annotations and project files."""
import collections
import functools
import os

from datasets import shapes
from datasets.annotations import Example, error_context, find_image, shapes_of, split_of
from system.files import UserError, note


def read_via(documents: list, root: str, images: dict, line_width: float, attribute: str = None):
    """Reads JSON files of VIA -> ([], list of `Example`); the shapes hold the class names.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds the images, directly or in sub-folders.
      images: {file name: list of paths}, the images below `root`.
      line_width: width at which polylines are drawn, in pixels.
      attribute: the attribute of the regions that holds the class; None if the regions have a single attribute. If no
        region has an attribute, all regions are of the class 'object', and a note is printed.
    Raises:
      UserError: a listed image that is missing, a region without a class, or several attributes if
        `attribute` is None. The message names the file.
    """
    entries = [(path, content, entry) for path, content in documents
               for entry in content.get('_via_img_metadata', content).values()]
    attribute = attribute or _only_attribute(entries)
    examples = []
    for path, content, entry in entries:
        def shape_of(region, content=content):
            name = _class_of(content, region, attribute) if attribute else 'object'
            shape = region['shape_attributes']
            return name, shape['name'], functools.partial(shapes.via_mask, shape, line_width)

        where = '%s: %s' % (path, entry['filename'])
        with error_context(where):
            image = find_image(images, entry['filename'], path)
        regions = shapes_of(_regions(entry), where + ': region', shape_of)
        examples.append(Example(image, split_of(root, os.path.dirname(image), path), None, regions))
    return [], examples


def _regions(entry):
    """Returns the regions of an image as a list; VIA 1 stores a dict with numbers as keys."""
    return list(entry['regions'].values() if isinstance(entry['regions'], dict) else entry['regions'])


def _only_attribute(entries):
    """Finds the only attribute that the regions use -> name, or None.

    If no region has an attribute, a note is printed and the result is None. Raises UserError if the regions use several
    attributes.
    """
    values = collections.defaultdict(set)
    for path, _, entry in entries:
        with error_context('%s: %s' % (path, entry['filename'])):
            for region in _regions(entry):
                for name, value in region['region_attributes'].items():
                    if value not in ('', {}):
                        values[name].add(str(value).strip())
    if len(values) > 1:
        known = ('%s (%s)' % (name, ', '.join(sorted(values[name])[:3])) for name in sorted(values))
        raise UserError('%s: which attribute is the class? --attribute takes one of: %s'
                        % (entries[0][0], '; '.join(known)))
    if not values:
        note('%s: no region has an attribute; all are of one class, object' % entries[0][0])
    return next(iter(values), None)


def _class_of(content, region, attribute):
    """Returns the class of a region: the text, the chosen option or the only ticked box of `attribute`.

    Raises UserError for an empty attribute, and unless exactly one box is ticked.
    """
    value = region['region_attributes'].get(attribute)
    if isinstance(value, dict):
        ticked = [key for key, on in value.items() if on]
        if len(ticked) != 1:
            raise UserError('attribute %s has %d ticked boxes; tick exactly one, the class' % (attribute, len(ticked)))
        value = ticked[0]
    text = '' if value is None else str(value).strip()
    if not text:
        raise UserError('attribute %s is empty; give the region its class in VIA' % attribute)
    settings = content.get('_via_attributes', {}).get('region', {}).get(attribute, {})
    options = settings.get('options', {})
    return options[text].strip() or text if isinstance(options.get(text), str) else text
