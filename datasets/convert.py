"""Converts the annotations of other tools into the `folder` layout: images/, labels/ and classes.csv.

    python -m datasets.convert SOURCE OUT           recognizes the format in SOURCE
    python -m datasets.convert coco SOURCE OUT      COCO JSON: polygons and run-length encoded masks
    python -m datasets.convert labelme SOURCE OUT   JSON files of labelme, AnyLabeling and X-AnyLabeling
    python -m datasets.convert isat SOURCE OUT      JSON files of ISAT
    python -m datasets.convert via SOURCE OUT       JSON of VGG Image Annotator
    python -m datasets.convert yolo SOURCE OUT      polygons in text files (Ultralytics)

Later annotations cover earlier annotations. `datasets/shapes.py` defines which pixels belong to an annotation.
docs/data.md shows how to convert the export of each tool.
"""
import base64
import collections
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import unicodedata

if not __package__:  # true if started from another folder, as `python PROJECT/datasets/convert.py`
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import tqdm
from PIL import Image

import data
import datasets
from datasets import annotations, coco, files, labelme, via, yolo
from runs import pictures
from system import cli
from system.files import UserError, read_text, write_bytes, write_csv

KINDS = ('coco', 'labelme', 'isat', 'via', 'yolo')


def write(out: str, examples: list, ids: dict, tally: annotations.Tally, small_on_top: bool):
    """Writes images/, labels/ (palette PNGs with ids as indices) and classes.csv into the folder `out`.

    Each split has a sub-folder in images/ and in labels/. Raises UserError if the names of two images in a folder
    differ only in the extension, if an annotation is malformed, and if the size of an image differs from the size in
    the image's annotations.
    """
    palette = [channel for i in range(256) for channel in files.voc_color(i)]
    for example, name in zip(tqdm.tqdm(examples, unit='image', disable=None), annotations.out_names(examples)):
        stem = os.path.splitext(name)[0].replace(os.sep, '/')
        path, image = os.path.join(out, 'labels', stem + '.png'), os.path.join(out, 'images', name)
        if os.path.exists(path):
            raise UserError('%s: another image has this name; rename one of the images' % example.image)
        for file in (path, image):
            os.makedirs(os.path.dirname(file), exist_ok=True)
        where = '%s: imageData' % example.embedded if example.embedded else example.image
        if example.embedded:
            with annotations.error_context(where):
                code = json.loads(read_text(example.embedded))['imageData']
                write_bytes(image, base64.b64decode(code.split(',')[-1]))
        else:
            shutil.copyfile(example.image, image)
        try:
            size = data.read_image(image).shape[:2]
        except UserError as error:  # the message must name the source image, not the copy in OUT
            raise UserError(str(error).replace(image, where))
        label = annotations.draw_label(example, size, ids, tally, small_on_top)
        tally.pixels[unicodedata.normalize('NFC', stem)] = np.bincount(label.ravel(), minlength=256)
        picture = Image.fromarray(label)
        picture.putpalette(palette)
        picture.save(path)
    fixed = {0: 'background', data.IGNORE: 'void'}
    names = {i: fixed.get(i, name.strip()) for name, i in [('background', 0), *ids.items()]}
    rows = [(names[i], i, '%d %d %d' % files.voc_color(i)) for i in sorted(names)]
    write_csv(os.path.join(out, 'classes.csv'), [('name', 'id', 'color')] + rows)


def recognize(source: str, kind: str = None):
    """Recognizes the format of the annotations in `source` -> (kind, {kind: list of (path, content)}).

    Prints the kind. The value for the kind 'yolo' is `source`, not a list. If `kind` is given, raises UserError unless
    `source` holds annotations of this kind. If `kind` is None, raises UserError unless `source` holds annotations of
    exactly one kind. If no annotations are found, the error message lists the types of the files in `source`.
    """
    documents = {} if kind == 'yolo' else annotations.read_documents(source)
    if kind == 'yolo' or not kind and yolo.fits(source):
        documents['yolo'] = source
    fits = [name for name in ([kind] if kind else KINDS) if name in documents]
    if len(fits) > 1:
        raise UserError('%s: holds annotations of %s; name the kind to convert' % (source, ' and '.join(fits)))
    if not fits:
        found = ['JSON of %s (%d, as %s)' % (name, len(found), found[0][0]) for name, found in documents.items()]
        endings = collections.Counter(os.path.splitext(name)[1].lower() or 'no extension'
                                      for _, _, names in os.walk(source) for name in names)
        found += ['%s (%d)' % (ending, count) for ending, count in endings.most_common(5) if ending != '.json']
        known = kind or 'a known kind (%s with data.yaml or classes.txt)' % ', '.join(KINDS)
        raise UserError('%s: holds no annotations of %s; found: %s; most tools export COCO, and --dataset folder reads '
                        'label images' % (source, known, ', '.join(found) or 'nothing'))
    kind = fits[0]
    print('%s: read as %s%s' % (source, kind, '' if kind == 'yolo' else ', JSON files: %d' % len(documents[kind])))
    return kind, documents


def convert(kind: str, readers: dict, source: str, out: str, small_on_top: bool):
    """Converts `source` into the new or empty folder `out`; prints the numbers of annotations.

    Args:
      kind: a key of `readers`, or None to recognize the kind.
      readers: {kind: function (documents, root, images) -> (class names, list of `Example`)}. The class names get the
        first ids. Classes of annotations that are not in the class names get the next ids, in order of first
        occurrence.
      small_on_top: draws small annotations over large annotations.
    Raises:
      UserError: a malformed source, a source without an annotation to draw, or an `out` that holds files. After an
        error no file is left in `out`.
    """
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise UserError('%s: holds files already; name a new folder' % out)
    source = os.path.normpath(source)
    tally = annotations.Tally(*(collections.Counter() for _ in annotations.Tally._fields))
    root, images = annotations.find_images(source)
    kind, documents = recognize(source, kind)
    tally.left_out.update({'JSON files of %s, as %s' % (other, found[0][0]): len(found)
                           for other, found in documents.items() if other != kind})
    classes, examples = readers[kind](documents[kind], root, images)
    with annotations.error_context(source):
        ids = annotations.class_ids(classes + [shape.name for example in examples for shape in example.shapes])
    named = collections.Counter(os.path.abspath(example.image) for example in examples)
    twice = [path for path, count in named.items() if count > 1]
    if twice:
        raise UserError('%s: is listed twice; remove an entry, or name one JSON file as SOURCE' % twice[0])
    loose = [example.image for example in examples if not example.split]
    if loose and 'train' in [example.split for example in examples]:
        raise UserError('%s: outside the folders of the splits; move the image into train/, val/ or test/' % loose[0])
    unnamed = {os.path.abspath(path) for paths in images.values() for path in paths} - set(named)
    tally.left_out['images that the annotations do not name'] = len(unnamed)
    os.makedirs(out, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(suffix='.part', dir=out) as part:
            write(part, examples, ids, tally, small_on_top)
            if not tally.read:
                reasons = ''.join('; left out: %s (%d)' % reason for reason in (+tally.left_out).items())
                raise UserError('%s: of %d images no annotation can be drawn; export polygons or masks from the tool%s'
                                % (source, len(examples), reasons))
            # classes.csv is moved last, because OUT is a data set once classes.csv exists.
            for name in ('images', 'labels', 'classes.csv'):
                os.replace(os.path.join(part, name), os.path.join(out, name))
    finally:
        if not os.listdir(out):
            os.rmdir(out)
    report(examples, ids, tally)
    if len(examples) > 1:
        draw_examples(out, tally)
    print('now check the labels: python -m datasets folder --data_dir %s' % out)


def draw_examples(out: str, tally: annotations.Tally):
    """Draws images of the converted folder with their labels into OUT/examples.png."""
    dataset = datasets.open('folder', out)
    ids = list(range(len(dataset.class_names))) + [data.IGNORE]
    counts = np.array([tally.pixels[name][ids] for name in dataset.examples['train']])
    path = os.path.join(out, 'examples.png')
    pictures.draw_examples(dataset, 'train', counts, path)
    print('%s shows the labels' % path)


def report(examples: list, ids: dict, tally: annotations.Tally):
    """Prints numbers of annotations per class and per shape, reasons for omissions, and hidden classes.

    A class is hidden if annotations of other classes cover most pixels of the annotations of the class.
    """
    used = collections.Counter(shape.name for example in examples for shape in example.shapes)
    for name in ids:
        print('%3d %s: %d annotations%s' % (
            ids[name], name, used[name], '' if used[name] else '; if this is no class, delete its row in classes.csv'))
    print('%d images, %d of them without an annotation'
          % (len(examples), sum(not example.shapes for example in examples)))
    print('read: ' + ', '.join('%s (%d)' % kind for kind in tally.read.most_common()))
    for reason in (+tally.left_out).items():
        print('left out: %s (%d)' % reason)
    for name in ids:
        if tally.lost[name] > tally.drawn[name] / 2:
            print('%s: %d of its %d pixels lie under other classes; --small_on_top draws small annotations over large'
                  % (name, tally.lost[name], tally.drawn[name]))


def main(argv=None):
    """Converts the annotations named on the command line.

    `argv`: list of str; if None, the arguments of this process are used.
    """
    parser = cli.Parser(prog='python -m datasets.convert',
                        description='Converts annotations into the layout of --dataset folder.')
    parser.add_argument('kind', nargs='?', choices=KINDS, help='format of the annotations (default: detected)')
    parser.add_argument('source', metavar='SOURCE', help='folder or JSON file to read')
    parser.add_argument('out', metavar='OUT', help='new folder')
    parser.add_argument('--line_width', type=cli.positive_float, default=10,
                        help='width in pixels at which lines of labelme and VIA are drawn')
    parser.add_argument('--attribute', help="name of the attribute of VIA's regions that gives the class")
    parser.add_argument('--small_on_top', action='store_true',
                        help='draw small annotations over large annotations, regardless of the order')
    args = parser.parse_intermixed_args(argv)
    readers = {'coco': coco.read_coco, 'yolo': yolo.read_yolo,
               'labelme': functools.partial(labelme.read_labelme, line_width=args.line_width),
               'isat': functools.partial(labelme.read_labelme, line_width=0, keys=labelme.ISAT),
               'via': functools.partial(via.read_via, line_width=args.line_width, attribute=args.attribute)}
    convert(args.kind, readers, args.source, args.out, args.small_on_top)


if __name__ == '__main__':
    # SIGTERM raises SystemExit, so that `convert` removes unfinished files before the process ends.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    cli.main(main, 'the size of the images')
