"""Reads JSON of VGG Image Annotator (VIA 1 and 2): exported annotations and project files."""
import collections
import functools
import os

from datasets import shapes
from datasets.annotations import Example, error_context, find_image, shapes_of, split_of
from system.files import UserError, note


def read_via(documents: list, root: str, images: dict, line_width: float, attribute: str = None):
    """Reads JSON files of VIA -> ([], list of `Example`).

    The list of class names is empty, because the order of the classes is the order of first use in the regions.

    Args:
      documents: list of (path, content) of the JSON files.
      root: folder that holds the images, directly or in sub-folders.
      images: {file name: list of paths}, the images below `root`.
      line_width: width at which polylines are drawn, in pixels.
      attribute: name of the attribute of the regions that gives the class; None if the regions have a single attribute.
        If no region has an attribute, all regions get the class 'object', and a note is printed.
    Raises:
      UserError: a listed image that is missing, a region without a class, or several attributes although `attribute` is
        None. The message names the file.
    """
    entries = []  # ('FILE: IMAGE' for messages, content of the file, Example, list of regions)
    for path, content in documents:
        for entry in content.get('_via_img_metadata', content).values():
            where = '%s: %s' % (path, entry['filename'])
            with error_context(where):
                image = find_image(images, entry['filename'], path)
                regions = entry['regions']  # VIA 1 stores a dict with numbers as keys
                regions = list(regions.values() if isinstance(regions, dict) else regions)
                example = Example(image, split_of(root, os.path.dirname(image), path), None, [])
            entries.append((where, content, example, regions))
    attribute = attribute or _only_attribute(documents[0][0], entries)
    for where, content, example, regions in entries:
        def shape_of(region, content=content):
            name = _class_of(content, region, attribute) if attribute else 'object'
            shape = region['shape_attributes']
            if shape['name'] == 'point':
                return name, 'points', None
            return name, shape['name'], functools.partial(shapes.via_mask, shape, line_width)

        example.shapes.extend(shapes_of(regions, where + ': region', shape_of))
    return [], [example for _, _, example, _ in entries]


def _only_attribute(path, entries):
    """Finds the single attribute that the regions use -> name, or None.

    If no region has an attribute, a note is printed and the result is None. Raises UserError if the regions use several
    attributes. `path`: path of the first JSON file, for the messages.
    """
    values = collections.defaultdict(set)
    for where, _, _, regions in entries:
        with error_context(where):
            for name, value in [pair for region in regions for pair in region['region_attributes'].items()]:
                if value not in ('', {}):
                    values[name].add(str(value).strip())
    if len(values) > 1:
        known = '; '.join('%s (%s)' % (name, ', '.join(sorted(values[name])[:3])) for name in sorted(values))
        raise UserError('%s: which attribute is the class? --attribute takes one of: %s' % (path, known))
    if not values:
        note('%s: no region has an attribute; all are of one class, object' % path)
    return next(iter(values), None)


def _class_of(content, region, attribute):
    """Returns the class of a region: the text, the chosen option or the only ticked box of `attribute`.

    Raises UserError if the attribute is empty, or if no box or several boxes are ticked.
    """
    value = region['region_attributes'].get(attribute)
    ticked = [key for key, on in value.items() if on] if isinstance(value, dict) else [value]
    if len(ticked) != 1:
        raise UserError('attribute %s has %d ticked boxes; tick exactly one, the class' % (attribute, len(ticked)))
    text = '' if ticked[0] is None else str(ticked[0]).strip()
    if not text:
        raise UserError('attribute %s is empty; give the region its class in VIA' % attribute)
    settings = content.get('_via_attributes', {}).get('region', {}).get(attribute, {})
    return str(settings.get('options', {}).get(text) or text).strip()
