"""Recognizes JSON annotations, finds the images and the splits, and draws the labels."""
import collections
import contextlib
import glob
import json
import os
import re

import numpy as np

import data
from datasets import files, tables
from system.files import UserError, check_file, read_text

SPLIT = re.compile(r'(?:^|[/_.-])(%s)(?:20\d\d)?(?:[/_.-]|$)' % '|'.join(files.FOLDERS), re.IGNORECASE)

# An image with its annotations. image: path of the image. split: 'train', 'val', 'test' or ''. size: (height, width) in
# the annotations, or None. shapes: list of `Shape`. embedded: path of the JSON file that contains the image, or None.
# An embedded image is written to OUT under the file name of `image`.
Example = collections.namedtuple('Example', 'image split size shapes embedded', defaults=(None,))
# An annotation. where: text for messages that names the file and the entry. name: class name. kind: type of the
# annotation, such as 'polygon' or 'mask'. draw: function (height, width) -> mask bool [height, width], or None for an
# annotation that is not drawn, such as a point. `convert.report` prints the number of undrawn annotations of each kind.
# layer: number (z-order); annotations with a lower `layer` are drawn first.
Shape = collections.namedtuple('Shape', 'where name kind draw layer', defaults=(0,))
# Counts made during a conversion. left_out: {reason: number of omitted annotations, images or files}. read: {kind of
# shape: number of visible annotations}. drawn: {class: number of pixels in annotations of the class}. lost: {class:
# number of pixels in annotations of the class that lie under annotations of other classes}. pixels: {image name: int64
# [256], number of pixels of each id}.
Tally = collections.namedtuple('Tally', 'left_out read drawn lost pixels')
MAX_CLASSES = 253  # largest number of class names; `tables` allows 254 classes, including background
# {class name in lower case, without spaces and underscores at both ends: id}
MEANINGS = {'background': 0, 'void': data.IGNORE, 'ignore': data.IGNORE}


@contextlib.contextmanager
def error_context(where: str):
    """Context manager: converts KeyError and similar errors, which malformed data cause, to UserError.

    The message begins with `where`, which names the file and the entry.
    """
    try:
        yield
    except UserError as error:
        raise UserError('%s: %s' % (where, error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError('%s: malformed (%s: %s)' % (where, type(error).__name__, error))


def shapes_of(entries: list, where: str, shape_of) -> list:
    """Makes a `Shape` from each entry of a list of annotations -> list of `Shape`.

    Args:
      where: file and kind of entry, such as 'a.json: shape'. Error messages add the index of the entry, counted from 1.
      shape_of: function (entry) -> (name, kind, draw) or (name, kind, draw, layer), the fields of the `Shape` after
        `where`.
    """
    numbered = [('%s %d' % (where, i), entry) for i, entry in enumerate(entries, 1)]
    return [Shape(place, *error_context(place)(shape_of)(entry)) for place, entry in numbered]


def lookup(table: dict, key, what: str):
    """Returns table[key]; raises UserError 'WHAT KEY is unknown' if the key is missing."""
    if key not in table:
        raise UserError('%s %s is unknown' % (what, key))
    return table[key]


def kind_of(content):
    """Recognizes the format of parsed JSON -> 'coco', 'labelme', 'isat', 'via' or 'another form'."""
    if isinstance(content, dict):
        via = content.get('_via_img_metadata', content)
        if all(isinstance(content.get(key), list) for key in ('images', 'annotations', 'categories')):
            # An annotation in COCO's caption files has the key 'caption', in panoptic files the key 'segments_info'.
            first = (content['annotations'] or [None])[0]
            return 'another form' if isinstance(first, dict) and {'caption', 'segments_info'} & set(first) else 'coco'
        if isinstance(content.get('shapes'), list):
            return 'labelme'
        if isinstance(content.get('objects'), list) and isinstance(content.get('info'), dict):
            return 'isat'
        if isinstance(via, dict) and via and all(
                isinstance(entry, dict) and {'filename', 'regions'} <= set(entry) for entry in via.values()):
            return 'via'
    return 'another form'


def find_images(source: str):
    """Finds the images of `source`, a folder or a JSON file -> (searched folder, {file name: list of paths}).

    The searched folder is `source` or, for a JSON file, the folder of the file. If the folder of the JSON file is
    called annotations, the parent folder is searched. Sub-folders are searched too. Raises UserError if `source` does
    not exist.
    """
    root = source
    if not os.path.isdir(source):
        check_file(source)
        root = os.path.dirname(os.path.abspath(source))
        root = os.path.dirname(root) if os.path.basename(root) == 'annotations' else root
    images = collections.defaultdict(list)
    for _, path in files.files_below(root, data.IMAGE_FILES):
        images[os.path.basename(path)].append(path)
    return root, images


def read_documents(source: str):
    """Reads a JSON file, or all JSON files below a folder -> {kind: list of (path, content)}.

    The kinds are the results of `kind_of`. For the kind 'another form' the content is None. An image embedded in a JSON
    file of labelme is cut to 9 characters of base64, which are enough to recognize the format of the image. Raises
    UserError for a file that is not JSON.
    """
    documents = collections.defaultdict(list)
    below = os.path.join(glob.escape(source), '**', '*.json')
    for path in sorted(glob.glob(below, recursive=True)) if os.path.isdir(source) else [source]:
        try:
            content = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise UserError('%s: not JSON (%s); move the file away, or name one JSON file as SOURCE' % (path, error))
        kind = kind_of(content)
        if kind == 'labelme' and isinstance(content.get('imageData'), str):
            content['imageData'] = content['imageData'][:9]
        documents[kind].append((path, None if kind == 'another form' else content))
    return documents


def split_of(root: str, *paths):
    """Finds the name of a split in `paths` -> 'train', 'val', 'test', or '' if no path contains a name.

    The function ignores folders above `root`. The first path that contains the name of a split decides. For example, a
    folder valid/ and a file instances_val2017.json both mean val.
    """
    found = [SPLIT.search(os.path.relpath(path, root).replace(os.sep, '/')) for path in paths]
    return next((files.FOLDERS[match.group(1).lower()] for match in found if match), '')


def find_image(images: dict, name: str, source: str):
    """Finds the image that the JSON file `source` names -> path.

    If `name` is the path of an image relative to the folder of `source`, the result is this image. Otherwise `name` may
    be a path on another machine. Then the result is the image with the same file name whose path shares the most
    trailing folders with `name`. Raises UserError if no image has this file name, or if two images share the same
    number of trailing folders with `name`.

    Args:
      images: {file name: list of paths}, the candidates.
      name: file name or path in the JSON file.
    """
    if not name:
        raise UserError('the name of the image is empty; write the file name')
    name = name.replace('\\', '/')
    beside = os.path.normpath(os.path.join(os.path.dirname(source), name))
    if is_image(beside):
        return beside
    tails = {path: len(os.path.commonprefix([path.split(os.sep)[::-1], name.split('/')[::-1]]))
             for path in images.get(name.split('/')[-1], ())}
    fits = [path for path in tails if tails[path] == max(tails.values())]
    if len(fits) != 1:
        fault = '%s or %s?' % tuple(fits[:2]) if fits else 'no such file in SOURCE; put the images there'
        raise UserError('image %s: %s' % (name, fault))
    return fits[0]


def is_image(path: str) -> bool:
    """Tells whether `path` is a file with the extension of an image."""
    return os.path.splitext(path)[1].lower() in data.IMAGE_FILES and os.path.isfile(path)


def class_ids(classes: list):
    """Numbers the classes 1, 2, ... in the given order -> {name: id}.

    A name that occurs several times gets a single id. The class background gets id 0; the classes void and ignore get
    id IGNORE. Raises UserError if a name is empty, unprintable or longer than tables.MAX_NAME characters, and if there
    are more than MAX_CLASSES names.
    """
    ids = {}
    for name in classes:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) <= tables.MAX_NAME:
            raise UserError('class %r: a name has 1 to %d printable characters' % (name, tables.MAX_NAME))
        if name not in ids:
            following = 1 + max((i for i in ids.values() if i < data.IGNORE), default=0)
            same = [ids[other] for other in ids if other.strip() == name.strip()]
            ids[name] = same[0] if same else MEANINGS.get(name.strip(' _').lower(), following)
    if len(ids) > MAX_CLASSES:
        raise UserError('%d classes; at most %d' % (len(ids), MAX_CLASSES))
    return ids


def draw_label(example: Example, size: tuple, ids: dict, tally: Tally, small_on_top: bool):
    """Draws the annotations of an image into a label, uint8 [h, w] of ids.

    Annotations with a lower `layer` (z-order) are drawn first, and later annotations cover earlier annotations. With
    `small_on_top`, among annotations with an equal `layer` the largest are drawn first. Adds the numbers of annotations
    and pixels to `tally`. Raises UserError for a malformed annotation, and if `size`, (height, width) of the image,
    differs from the size in the annotations.
    """
    if example.size not in (None, size):
        raise UserError('%s: the image has %dx%d, its annotations say %sx%s; if height and width are swapped, '
                        'remove the EXIF orientation of the photo' % ((example.image,) + size + example.size))

    def draw(shape):
        return error_context(shape.where)(shape.draw)(*size) if shape.draw else np.zeros(size, bool)

    def order(shape):
        return shape.layer, -np.count_nonzero(draw(shape)) if small_on_top else 0

    front = np.zeros(size, np.int32)  # index of the topmost annotation at each pixel, counted from 1; 0: no annotation
    drawn = []
    of_class = {}
    for shape in sorted(example.shapes, key=order):
        mask = draw(shape)
        if not mask.any():
            tally.left_out['annotations that hold no pixel centre' if shape.draw else shape.kind] += 1
            continue
        drawn.append(shape)
        np.copyto(front, len(drawn), where=mask)
        of_class[shape.name] = of_class.get(shape.name, False) | mask
    label = np.array([0] + [ids[shape.name] for shape in drawn], np.uint8)[front]
    for name, mask in of_class.items():
        tally.drawn[name] += np.count_nonzero(mask)
        tally.lost[name] += np.count_nonzero(label[mask] != ids[name])
    for shape, seen in zip(drawn, np.bincount(front.ravel(), minlength=len(drawn) + 1)[1:]):
        if seen or (label[draw(shape)] == ids[shape.name]).any():
            tally.read[shape.kind] += 1
        else:
            tally.left_out['annotations that lie wholly under others; --small_on_top draws the small ones over'] += 1
    return label


def out_names(examples: list):
    """Returns the path of each output image, relative to OUT/images -> list of SPLIT/FILE.

    If two files of a split have the same name, ignoring extension and case, all paths also contain the sub-folders of
    the source, as in SPLIT/FOLDER/FILE.
    """
    names = [(example.split, os.path.basename(example.image)) for example in examples]
    stems = collections.Counter((split, os.path.splitext(name)[0].lower()) for split, name in names)
    if examples and max(stems.values()) > 1:
        paths = [os.path.abspath(example.image) for example in examples]
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        parts = [os.path.relpath(path, common).split(os.sep) for path in paths]
        names = [(split,) + tuple(part for part in folders if part.lower() not in files.FOLDERS)
                 for (split, _), folders in zip(names, parts)]
    return [os.path.join(*name) for name in names]
