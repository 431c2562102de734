"""Recognizes JSON files of annotations, finds their images and splits; defines `Example` and `Shape`."""
import collections
import contextlib
import glob
import json
import os
import re

import data
from datasets import files
from system.files import UserError, read_bytes

SPLIT = re.compile(r'(?:^|[/_.-])(%s)(?:20\d\d)?(?:[/_.-]|$)' % '|'.join(files.FOLDERS), re.IGNORECASE)

# image: path; split: 'train', 'val', 'test' or ''; size: (height, width) in the annotations, or None;
# embedded: path of the JSON file that contains the image, or None; with it, `image` only gives the name of the image
Example = collections.namedtuple('Example', 'image split size shapes embedded', defaults=(None,))
# where: file and entry, for messages; name: class; kind: 'polygon', 'mask', ...; draw: function (height, width) -> bool
# mask [height, width]; layer: shapes of a lower layer are drawn first
Shape = collections.namedtuple('Shape', 'where name kind draw layer', defaults=(0,))


@contextlib.contextmanager
def error_context(where: str):
    """Context manager that turns errors which malformed data cause in its block into UserError.

    The message begins with `where`, which names the file and the entry.
    """
    try:
        yield
    except UserError as error:
        raise UserError('%s: %s' % (where, error))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError('%s: malformed (%s: %s)' % (where, type(error).__name__, error))


def lookup(table: dict, key, what: str):
    """Returns table[key]; raises UserError 'WHAT KEY is unknown' if the key is missing."""
    if key not in table:
        raise UserError('%s %s is unknown' % (what, key))
    return table[key]


def kind_of(content):
    """Recognizes the format of a JSON file's content -> 'coco', 'labelme', 'isat', 'via' or 'another form'."""
    if isinstance(content, dict):
        via = content.get('_via_img_metadata', content)
        if all(isinstance(content.get(key), list) for key in ('images', 'annotations', 'categories')):
            return 'coco'
        if isinstance(content.get('shapes'), list):
            return 'labelme'
        if isinstance(content.get('objects'), list) and isinstance(content.get('info'), dict):
            return 'isat'
        if isinstance(via, dict) and via and all(
                isinstance(entry, dict) and {'filename', 'regions'} <= set(entry) for entry in via.values()):
            return 'via'
    return 'another form'


def read_documents(source: str):
    """Reads a JSON file, or all JSON files below a folder -> {kind: list of (path, content)}.

    The kinds are the results of `kind_of`. Content of 'another form' is dropped (None). An image embedded in a JSON
    file of labelme is cut to its first 9 characters. Raises UserError for a file that is not JSON.
    """
    documents = collections.defaultdict(list)
    below = os.path.join(glob.escape(source), '**', '*.json')
    for path in sorted(glob.glob(below, recursive=True)) if os.path.isdir(source) else [source]:
        content = read_json(path)
        kind = kind_of(content)
        if kind == 'labelme' and isinstance(content.get('imageData'), str):
            content['imageData'] = content['imageData'][:9]
        documents[kind].append((path, None if kind == 'another form' else content))
    return documents


def read_json(path: str):
    """Reads a JSON file -> parsed content; raises UserError if the file is not JSON in UTF-8."""
    try:
        return json.loads(read_bytes(path).decode('utf-8-sig'))
    except (ValueError, RecursionError) as error:
        raise UserError('%s: not JSON in UTF-8 (%s)' % (path, error))


def images_by_name(root: str):
    """Finds the images below the folder `root` -> {file name: list of paths}."""
    images = collections.defaultdict(list)
    for _, path in files.files_below(root, data.IMAGE_FILES):
        images[os.path.basename(path)].append(path)
    return images


def count_unused(images: dict, examples: dict, reason: str, left_out: collections.Counter):
    """Counts the images without an annotation file or entry and adds the number to `left_out[reason]`.

    Args:
      images: {file name: list of paths}, all images.
      examples: {path: `Example`}, the annotated images.
    """
    left_out[reason] += sum(path not in examples for paths in images.values() for path in paths)


def split_of(root: str, *paths):
    """Returns the split that a path names below `root`: 'train', 'val', 'test', or '' for none.

    The first of `paths` that names a split decides. A folder valid/ and a file instances_val2017.json both name val.
    """
    found = [SPLIT.search(os.path.relpath(path, root).replace(os.sep, '/')) for path in paths]
    return next((files.FOLDERS[match.group(1).lower()] for match in found if match), '')


def find_image(images: dict, name: str, source: str):
    """Finds the image that the JSON file `source` names -> path.

    The path `name`, relative to the folder of `source`, comes first. If no image is there, the folders in `name` may be
    from another machine: of the images with the same file name, the image is taken whose last folders agree with most
    folders of `name`. Raises UserError unless exactly one image fits best.

    Args:
      images: {file name: list of paths}, the candidates.
      name: file name or path in the JSON file.
    """
    name = name.replace('\\', '/')
    paths = images.get(name.split('/')[-1], [])
    beside = os.path.normpath(os.path.join(os.path.dirname(source), name))
    same = [path for path in paths if os.path.abspath(path) == os.path.abspath(beside)]
    if same or is_image(beside):
        return (same or [beside])[0]
    tails = [len(os.path.commonprefix([path.split(os.sep)[::-1], name.split('/')[::-1]])) for path in paths]
    fits = [path for path, tail in zip(paths, tails) if tail == max(tails)]
    if len(fits) != 1:
        raise UserError('image %s: %s' % (name, '%s or %s?' % tuple(fits[:2]) if fits else 'no such file'))
    return fits[0]


def is_image(path: str) -> bool:
    """Tells whether `path` is a file with the extension of an image."""
    return os.path.splitext(path)[1].lower() in data.IMAGE_FILES and os.path.isfile(path)
