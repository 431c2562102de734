"""Reads tables of run-length encoded masks, in Kaggle's columns, and tables of classes."""
import collections
import os
import re
import unicodedata

import numpy as np

import data
from data import MAX_PIXELS
from datasets import files
from system.files import UserError, note, read_csv, read_text

MAX_NAME = 100  # characters of a class name, which is printed in figures
VOC_VOID = (224, 224, 192)  # the colour of void in PASCAL VOC's labels

Class = collections.namedtuple('Class', 'name ids color')
Class.__doc__ = """A class, or void: name, ids in label files, colour (red, green, blue) or None."""


# ---------------------------------------------------------------- masks

def rle_order(path: str):
    """Detects the order of the pixels in the runs of a table -> 'rows', 'columns' or 'relative'.

    `data.rle_decode` defines the orders. Without a column EncodedPixels: 'rows'. With it (Kaggle): 'relative' if at
    least one list of runs has starts that do not increase, and no list of three or more runs has increasing starts;
    else 'columns'.
    """
    if 'EncodedPixels' not in read_text(path).partition('\n')[0]:
        return 'rows'
    relative = increasing = False
    for _, row in read_csv(path, ('EncodedPixels',)):
        rle = row['EncodedPixels'].strip()
        if rle != '-1':
            is_increasing = _is_rle(rle, 'columns')
            increasing |= is_increasing and rle.count(' ') > 4
            relative |= not is_increasing and _is_rle(rle, 'relative')
    return 'relative' if relative and not increasing else 'columns'


def _is_rle(rle, order):
    """Tells whether a text is a valid run-length encoding in this order, for an image of any size."""
    try:
        return data.rle_numbers(rle, order) is not None
    except UserError:
        return False


def is_background(entry):
    """Tells whether a `Class` is named background, in upper or lower case, with or without outer underscores."""
    return entry.name.strip('_').lower() == 'background'


def background(path: str, classes: list):
    """Returns the index of the class named background in a list of `Class`.

    Raises UserError, which names the table `path`, if no class has this name.
    """
    found = [i for i, entry in enumerate(classes) if is_background(entry)]
    if not found:
        raise UserError('%s: which class are pixels outside all masks? name this class background' % path)
    return found[0]


def read_cells(path: str, indices: dict, images=None):
    """Reads Kaggle's table of masks -> {image id: (height, width, [(row number, class index, RLE), ...])}.

    Columns are id,annotation,width,height,cell_type. With `images` they may be ImageId,EncodedPixels, and optionally
    ClassId,Width,Height. An empty annotation means an image without an object, as does -1 in EncodedPixels. If a table
    with EncodedPixels has no such row, images without a row have no object, and a note is printed.
    Height and width are None without their columns. The RLE is text that `cell_masks` decodes and checks. The row
    number is the line in the file.

    Args:
      indices: {text of the class: index}; '' is the class of a table without a column of classes.
      images: names of the images; None accepts each id that is safe as a file name.
    Raises:
      UserError: a malformed row, an id without an image, or an image without a row (except as above).
    """
    kaggle = images is not None and 'EncodedPixels' in read_text(path).partition('\n')[0]
    columns = ('ImageId', 'EncodedPixels') if kaggle else ('id', 'annotation', 'width', 'height', 'cell_type')
    cells = {}
    for number, row in read_csv(path, columns):
        where = '%s row %d: ' % (path, number)
        name = unicodedata.normalize('NFC', row[columns[0]])
        rle = row[columns[1]]
        stem, extension = os.path.splitext(name)
        name = stem if extension.lower() in data.IMAGE_FILES and name not in (images or ()) else name
        if images is None and not re.match(r'\A[A-Za-z0-9_-]{1,100}\Z', name):
            raise UserError(where + 'id %r; letters, digits, _ and - only, it becomes a file name' % name[:60])
        size = _size(row, where)
        height, width, masks = cells.setdefault(name, size + ([],))
        if (height, width) != size:
            raise UserError(where + 'size %sx%s; an earlier row of the image says %sx%s' % (size + (height, width)))
        if not rle.strip() or kaggle and rle.strip() == '-1':
            continue
        kind = (row.get('cell_type') or row.get('ClassId') or '').strip()
        kind = re.sub(r'\A([0-9]+)\.0+\Z', r'\1', kind)  # pandas may have written 3 as 3.0
        if kind not in indices:
            raise UserError(where + '%s %r; expected one of %s' % ('ClassId' if kaggle else 'cell_type', kind[:60],
                                                                  ', '.join(text for text in indices if text)))
        masks.append((number, indices[kind], rle))
    if not cells:
        raise UserError('%s: holds no rows' % path)
    if images is not None:
        ids = [name for name in cells if name not in images]
        if ids:
            raise UserError('%s: %d ids without an image: %s; the images are %s, ...'
                            % (path, len(ids), ', '.join(ids[:5]), ', '.join(list(images)[:3])))
        missing = [name for name in images if name not in cells]
        if missing and not (kaggle and all(masks for _, _, masks in cells.values())):
            raise UserError('%s: %d images without a row: %s; an image without an object has an empty annotation'
                            % (path, len(missing), ', '.join(missing[:5])))
        if missing:
            note('%s: %d of %d images have no row and are read as images without an object, as %s'
                 % (path, len(missing), len(images), missing[0]))
        cells.update((name, (None, None, [])) for name in missing)
    return cells


def _size(row, where):
    """Parses the height and width in a row of a table -> (int, int), or (None, None).

    (None, None) stands for a row with EncodedPixels and without sizes. 520.0, as pandas may have written 520, is valid.
    Raises UserError for other texts and for more than MAX_PIXELS pixels.

    Args:
      where: file and row, for the message.
    """
    sides = [row.get(side) or row.get(side.capitalize()) or '' for side in ('height', 'width')]
    if sides == ['', ''] and 'EncodedPixels' in row:
        return None, None
    if not all(re.match(r'\A[1-9][0-9]{0,4}(\.0+)?\Z', side) for side in sides):
        raise UserError(where + 'height %.20r and width %.20r must be whole numbers up to 99999' % tuple(sides))
    height, width = (int(float(side)) for side in sides)
    if height * width > MAX_PIXELS:
        raise UserError(where + 'an image of %dx%d; at most %d pixels' % (height, width, MAX_PIXELS))
    return height, width


def cells_label(path: str, name: str, image, entry: tuple, order: str = 'rows', outside: int = 0):
    """Draws the label of an image from masks, later over earlier: uint8 [h, w] of class indices.

    Args:
      path, name: table and image, for messages.
      image: array [h, w, ...], of which only the size is used.
      entry: (height, width, [(row number, class index, RLE), ...]), a value of the dict that `read_cells` returns.
      order: order of the pixels in the runs: 'rows', 'columns' or 'relative'.
      outside: index of the class of the pixels outside all masks.
    Raises:
      UserError: the size of the image differs from the size in the table, or a mask is malformed. The message names the
        image or the row.
    """
    height, width, masks = entry
    if height is not None and image.shape[:2] != (height, width):
        raise UserError('%s: image %s has %dx%d, its rows say %dx%d' % ((path, name) + image.shape[:2] + entry[:2]))
    label = np.full(image.shape[:2], outside, np.uint8)
    for mask, (_, class_id, _) in zip(cell_masks(path, label.shape, masks, order), masks):
        label[mask] = class_id
    return label


def cell_masks(path: str, shape: tuple, masks: list, order: str = 'rows'):
    """Decodes and yields the masks of one image, bool [height, width] each.

    Raises UserError, which names the table `path` and the row, for a malformed mask.

    Args:
      shape: (height, width).
      masks: list of (row number, class index, RLE); the RLE is the text 'start length start length ...'.
      order: what the starts count: 'rows' or 'columns', pixels along the rows or columns from 1; 'relative', pixels
        along the columns from the end of the run before.
    """
    for number, _, rle in masks:
        try:
            yield data.rle_decode(rle, shape[0], shape[1], order)
        except UserError as error:
            raise UserError('%s row %d: %s' % (path, number, error))


# ---------------------------------------------------------------- classes

def read_classes(path: str, columns: tuple = ('name', 'id')):
    """Reads a table of classes -> list of `Class`, void last.

    A class may have several ids, such as 7 8 11. A column `color` with red, green and blue is optional; columns r, g
    and b may replace it. With r, g and b the column of ids may be missing: then labels hold colours, and a class has no
    ids. Raises UserError for a malformed row, a repeated name, id or colour, and fewer than two classes.

    Args:
      columns: headers of the columns of names and ids: name and id in classes.csv, Class and Pixel Value in Roboflow's
        table.
    """
    rgb = ('r', 'g', 'b')
    header = [text.strip(' "\r') for text in read_text(path).partition('\n')[0].split(',')]
    if columns[1] not in header and set(rgb) <= set(header):
        columns = columns[:1] + rgb
    rows = []
    for number, row in read_csv(path, columns):
        name = row[columns[0]].strip()
        ids = () if columns[1:] == rgb else files.small_numbers(row[columns[1]].split())
        texts = [row[band].strip() for band in rgb] if set(rgb) <= set(row) else (row.get('color') or '').split()
        color = files.small_numbers(texts)
        if not ids and columns[1:] != rgb:
            raise UserError('%s row %d: %s %.22r; ids are 0 to 255'
                            % (path, number, columns[1], row[columns[1]].strip()))
        if color is None or len(color) not in (0, 3):
            raise UserError('%s row %d: color %.40r; must be three of 0 to 255' % (path, number, ' '.join(texts)))
        rows.append((number, Class(name, list(ids), color or None)))
    return _checked(path, rows)


def read_class_names(path: str):
    """Reads class_names.txt of labelme's labelme2voc.py -> list of `Class`.

    The file has one name per line; ids count from 0. A class void with id 255 is added. Raises UserError for a repeated
    or unprintable name, for fewer than two classes, and if the first name is not background.
    """
    rows = [(i + 1, Class(name, [i], None)) for i, name in enumerate(files.read_names(path))]
    if not is_background(rows[0][1]):
        raise UserError('%s row 1: %s; labelme has _background_ there; write classes.csv (name,id) for other ids'
                        % (path, rows[0][1].name[:60]))
    return _checked(path, rows + [(0, Class('void', [255], None))])


def read_labelmap(path: str):
    """Reads labelmap.txt of CVAT's VOC export -> list of `Class`, void last.

    A line is name:red,green,blue:parts:actions. The ids count these lines from 0, without blank lines and comments.
    If no line is named void or has VOC's colour of void, a class void with id 255 is added. Raises UserError for a
    malformed line, a repeated name or colour, and fewer than two classes.
    """
    rows = []
    for number, line in files.numbered_lines(path):
        if not line.startswith('#'):
            match = re.match(r'(.*?):([\d,]+)(:|\Z)', line.strip())
            color = match and files.small_numbers(match.group(2).split(','))
            if not color or len(color) != 3:
                raise UserError('%s row %d: %r; expected name:red,green,blue::' % (path, number, line[:60]))
            rows.append((number, Class(match.group(1), [len(rows)], color)))
    if not any(entry.color == VOC_VOID or is_void(entry) for _, entry in rows):
        rows.append((0, Class('void', [255], VOC_VOID)))
    return _checked(path, rows)


def is_void(entry):
    """Tells whether a `Class` marks ignored pixels: its name is void, in upper or lower case."""
    return entry.name.lower() == 'void'


def _checked(path, rows):
    """Checks the rows of a table of classes, [(row number, `Class`), ...] -> list of `Class`, void last.

    Raises UserError for a repeated name, id or colour, an unprintable name, several rows of void, and too few or too
    many classes.
    """
    seen = set()
    for number, entry in rows:
        for fact in [('name', entry.name)] + [('id', i) for i in entry.ids] + [('color', entry.color)]:
            if fact in seen and fact != ('color', None):
                raise UserError('%s row %d: %s %s is in the table already' % ((path, number) + fact))
            seen.add(fact)
        if not entry.name.isprintable() or not 0 < len(entry.name) <= MAX_NAME:
            raise UserError('%s row %d: a class has a name of 1 to %d printable characters' % (path, number, MAX_NAME))
    named = [entry for _, entry in rows if not is_void(entry)]
    voids = [entry for _, entry in rows if is_void(entry)]
    if not 2 <= len(named) <= 254 or len(voids) > 1:
        raise UserError('%s: has %d classes and %d rows for void; expected 2 to 254 classes, one of them background, '
                        'and at most one row for void, with all ids' % (path, len(named), len(voids)))
    return named + voids


def read_class_weights(path: str, class_names: list):
    """Reads a CSV with columns name,weight -> float64 [num_classes] in the order of `class_names`.

    Raises UserError for a class that is missing, repeated or unknown, and for a weight below 0.
    """
    weights = {}
    for number, row in read_csv(path, ('name', 'weight')):
        if row['name'] in weights:
            raise UserError('%s row %d: class %s is in an earlier row too' % (path, number, row['name'][:60]))
        try:
            weights[row['name']] = float(row['weight'])
        except ValueError:
            raise UserError('%s row %d: weight %r is not a number' % (path, number, row['weight']))
        if not 0 <= weights[row['name']] < np.inf:
            raise UserError('%s row %d: weight %r must be 0 or more' % (path, number, row['weight']))
    if set(weights) != set(class_names):
        raise UserError('%s: must name each class once: %s' % (path, ', '.join(class_names)))
    return np.array([weights[name] for name in class_names])
