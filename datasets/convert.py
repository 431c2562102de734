"""Converts the annotations of other tools into the `folder` layout: images/, labels/ and classes.csv.

    python -m datasets.convert coco SOURCE OUT      COCO JSON: polygons and masks in run lengths
    python -m datasets.convert labelme SOURCE OUT   JSON files of labelme
    python -m datasets.convert yolo SOURCE OUT      polygons in text files (Ultralytics)

Later annotations cover earlier annotations. `datasets/shapes.py` defines the pixels of an annotation.
docs/data.md has the command for each tool.
"""
import collections
import csv
import functools
import os
import shutil
import sys
import tempfile

if not __package__:  # started from another folder, as `python PROJECT/datasets/convert.py`
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import tqdm
from PIL import Image

import data
from datasets import annotations, files, shapes, tables
from datasets.annotations import naming
from system import cli
from system.files import UserError, check_file

MAX_CLASSES = 253  # names; the background makes the 254 classes of `tables`
MEANINGS = {'background': 0, 'void': data.IGNORE, 'ignore': data.IGNORE}  # in lower case, without underscores around


def image_folder(source: str):
    """Folder of the images of `source`, a folder itself or a JSON file; UserError if `source` does not exist.

    The images of a JSON file are beside it; of a file in annotations/, in the folder above.
    """
    if os.path.isdir(source):
        return source
    check_file(source)
    root = os.path.dirname(os.path.abspath(source))
    return os.path.dirname(root) if os.path.basename(root) == 'annotations' else root


def class_ids(classes: list):
    """Numbers the classes 1, 2, ... in the given order -> {name: id}.

    The id of background is 0, of void and ignore IGNORE. UserError for a bad name and for more than MAX_CLASSES names.
    """
    ids = {}
    for name in classes:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) <= tables.MAX_NAME:
            raise UserError('class %r: a name has 1 to %d printable characters' % (name, tables.MAX_NAME))
        following = 1 + max((i for i in ids.values() if i < data.IGNORE), default=0)
        same = [ids[other] for other in ids if other.strip() == name.strip()]
        ids[name] = same[0] if same else MEANINGS.get(name.strip(' _').lower(), following)
    if len(ids) > MAX_CLASSES:
        raise UserError('%d classes; at most %d' % (len(ids), MAX_CLASSES))
    return ids


def draw_label(example: annotations.Example, ids: dict, left_out: collections.Counter):
    """Draws the annotations of an example, later over earlier: label uint8 [h, w] of ids.

    Annotations without pixels are counted in `left_out`. UserError for a malformed annotation, and if the image has
    another size than the annotations say.
    """
    size = data.read_image(example.image).shape[:2]
    if example.size not in (None, size):
        raise UserError('%s: the image has %dx%d, its annotations say %sx%s' % ((example.image,) + size + example.size))
    label = np.zeros(size, np.uint8)
    for shape in example.shapes:
        try:
            with naming(shape.where):
                mask = shape.draw(*size)
            label[mask] = ids[shape.name]
            left_out['annotations that hold no pixel centre'] += not mask.any()
        except shapes.NoArea as error:
            left_out[str(error)] += 1
    return label


def write(out: str, examples: list, ids: dict, left_out: collections.Counter):
    """Writes images/, labels/ (palette PNGs with ids as indices) and classes.csv into the folder `out`.

    Each split has a sub-folder. UserError for two images of a split with one name, whatever the extensions, and as
    `draw_label`.
    """
    palette = [channel for i in range(256) for channel in files.voc_color(i)]
    for example in tqdm.tqdm(examples, unit='image', disable=None):
        name = os.path.join(example.split, os.path.basename(example.image))
        for kind in ('images', 'labels'):
            os.makedirs(os.path.join(out, kind, example.split), exist_ok=True)
        path = os.path.join(out, 'labels', os.path.splitext(name)[0] + '.png')
        if os.path.exists(path):
            raise UserError('%s: another image has this name; rename one of them' % example.image)
        label = Image.fromarray(draw_label(example, ids, left_out))
        label.putpalette(palette)
        label.save(path)
        shutil.copyfile(example.image, os.path.join(out, 'images', name))
    named = {i: name.strip() for name, i in ids.items() if 0 < i < data.IGNORE}
    rows = [('background', 0)] + [(name, i) for i, name in named.items()]
    rows += [('void', data.IGNORE)] * (data.IGNORE in ids.values())
    with open(os.path.join(out, 'classes.csv'), 'w', encoding='utf-8', newline='') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(['name', 'id', 'color'])
        table.writerows((name, i, '%d %d %d' % files.voc_color(i)) for name, i in rows)


def convert(read, source: str, out: str):
    """Converts `source` into the folder `out`, new or empty; prints the number of annotations of each class.

    The numbers include the annotations left out, which are then printed by reason.

    Args:
      read: function (source, root, left_out) -> (class names, examples), as `annotations.read_coco`.
    Raises:
      UserError: a bad source, or a folder with files. After an error no file is left.
    """
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise UserError('%s: holds files already; name a new folder' % out)
    left_out = collections.Counter()
    root = image_folder(source)
    classes, examples = read(source, root, left_out)
    if not examples:
        raise UserError('%s: holds no annotated images of this format' % source)
    with naming(source):
        ids = class_ids(classes)
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix='.part', dir=out) as part:
        write(part, examples, ids, left_out)
        for name in os.listdir(part):
            os.replace(os.path.join(part, name), os.path.join(out, name))
    used = collections.Counter(shape.name for example in examples for shape in example.shapes)
    for name in ids:
        print('%3d %s: %d annotations' % (ids[name], name, used[name]))
    empty = sum(not example.shapes for example in examples)
    print('%d images, %d of them without an annotation' % (len(examples), empty))
    for kind, count in left_out.items():
        if count:
            print('left out: %s (%d)' % (kind, count))
    print('now check the labels: python -m datasets folder --data_dir %s' % out)


def main(argv=None):
    """Converts the annotations named on the command line; `argv` None: of this process."""
    parser = cli.Parser(prog='python -m datasets.convert',
                        description='Converts annotations into the layout of --dataset folder.')
    parser.add_argument('format', choices=['coco', 'labelme', 'yolo'], help='format of the annotations')
    parser.add_argument('source', metavar='SOURCE', help='folder of annotations and images, or one JSON file in it')
    parser.add_argument('out', metavar='OUT', help='new folder')
    parser.add_argument('--line_width', type=cli.positive_float, default=10, help="width of labelme's lines, in pixels")
    args = parser.parse_args(argv)
    readers = {'coco': annotations.read_coco, 'yolo': annotations.read_yolo,
               'labelme': functools.partial(annotations.read_labelme, line_width=args.line_width)}
    convert(readers[args.format], args.source, args.out)


if __name__ == '__main__':
    cli.main(main, 'the size of the images')
