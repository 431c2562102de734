"""Reads tables of run-length encoded masks, with the columns that Kaggle uses."""
import os
import re
import unicodedata

import numpy as np

import data
from data import IGNORE, MAX_PIXELS
from datasets import files, record, splits, tables
from system.files import UserError, note, read_csv


def read_runs(data_dir, table, classes, rle_order):
    """Reads the run-length encoded masks in labels.csv; finds the images and the splits.

    Prints the pixel order that the run-length encoding uses, unless `rle_order` gives the order. Raises UserError for a
    malformed file, for a folder labels/ beside labels.csv, and if no class is named background.

    Args:
      table: path of the table of classes, for messages.
      classes: list of `tables.Class`.
    Returns:
      images: {image name: image path}.
      label: function (image name, image) -> label, uint8 [h, w]. The function draws the masks of the image.
      examples: {split: list of image names}.
      rle: format of labels.csv, the field `rle` of the `Dataset`.
    """
    path = os.path.join(data_dir, 'labels.csv')
    if os.path.isdir(os.path.join(data_dir, 'labels')):
        raise UserError('%s: holds both labels.csv and labels/; remove one of them' % data_dir)
    outside = next((i for i, entry in enumerate(classes) if tables.is_background(entry)), None)
    if outside is None:
        raise UserError('%s: which class are pixels outside all masks? give this class the name background' % table)
    images = files.image_files(os.path.join(data_dir, 'images'))
    indices = {}
    for i, entry in enumerate(classes):
        index = IGNORE if tables.is_void(entry) else i
        for text in [entry.name] + [str(number) for number in entry.ids]:
            if indices.setdefault(text, index) != index:
                raise UserError('%s: %s names one class and is the id of another; rename the class' % (table, text))
    objects = set(indices.values()) - {outside, IGNORE}
    if len(objects) == 1:
        indices[''] = objects.pop()  # the class given to each mask if the table has no class column
    cells = read_cells(path, indices, images)
    header = files.csv_header(path)
    order = rle_order
    if not order:
        texts = [rle.strip() for _, _, masks in cells.values() for _, _, rle in masks]
        order = detect_order(texts) if 'EncodedPixels' in header else 'rows'
        note('%s: run lengths are read in the order %s; --rle_order gives another order' % (path, order))
    columns = tuple(text for text in header if text in ('ImageId', 'ClassId', 'EncodedPixels')) or ('id', 'predicted')
    extension = splits.EXTENSION.search(next(read_csv(path, ()))[1].get('ImageId') or '')
    return (images, lambda name, image: cells_label(path, cells[name], image.shape[:2], order, outside),
            splits.find(data_dir, images), (columns, order, extension.group() if extension else ''))


def detect_order(texts: list):
    """Detects the pixel order of Kaggle's run-length encoded masks -> 'columns' or 'relative'.

    In the order 'columns', starts of runs are positions, counted down the columns of the image. In the order
    'relative', each start is the distance from the end of the run before. The result is 'relative' if at least one mask
    is valid only as 'relative', and no mask with three or more runs is valid as 'columns'. `texts`: the encoded masks.
    """
    others = [text for text in texts if not _is_rle(text, 'columns')]
    if not any(_is_rle(text, 'relative') for text in others):
        return 'columns'
    increasing = set(texts) - set(others)
    return 'columns' if any(len(text.split()) > 4 for text in increasing) else 'relative'


def _is_rle(rle, order):
    """Tells whether the string `rle` is a valid run-length encoding in the order `order`, for any image size."""
    try:
        return data.rle_numbers(rle, order) is not None
    except UserError:
        return False


def read_cells(path: str, indices: dict, images=None):
    """Reads Kaggle's table of masks -> {image id: (height, width, [(row number, class index, RLE), ...])}.

    The columns are id,annotation,width,height,cell_type. If `images` is given, the columns may also be
    ImageId,EncodedPixels and optionally ClassId,Width,Height. Height and width are None if the table has no columns for
    height and width. RLE is the run-length encoded mask as a string, which `cell_masks` checks later. The row number is
    the line number in the file.

    An empty annotation, or -1 in EncodedPixels, marks an image without an object. If a table with EncodedPixels marks
    no image as empty, each image without a row counts as empty, and a note is printed.

    Args:
      indices: {name or id of a class, as str: class index}. The key '' gives the class of all masks if the table has no
        class column.
      images: names of the images. If None, every id of letters, digits, _ and - is accepted.
    Raises:
      UserError: a malformed row; an id without an image; an image without a row, if the table has the column
        `annotation` or marks a different image as empty.
    """
    header = [] if images is None else files.csv_header(path)
    kaggle = 'EncodedPixels' in header
    columns = ('ImageId', 'EncodedPixels') if kaggle else ('id', 'annotation', 'width', 'height', 'cell_type')
    if images is not None and not kaggle and 'annotation' not in header:
        raise UserError('%s: names no column EncodedPixels or annotation; rename the columns to '
                        'ImageId,EncodedPixels if pixels are counted down the columns, as in most competitions of '
                        'Kaggle; if along the rows, to %s'
                        % (path, ','.join(columns)))
    cells = {}
    for number, row in read_csv(path, columns):
        where = '%s row %d: ' % (path, number)
        name = unicodedata.normalize('NFC', row[columns[0]])
        name = name if name in (images or ()) else splits.EXTENSION.sub('', name)
        if images is None and not re.match(r'\A[A-Za-z0-9_-]{1,100}\Z', name):
            raise UserError(where + 'id %r must hold only letters, digits, _ and -: it names a file' % name[:60])
        size = _size(row, where)
        height, width, masks = cells.setdefault(name, size + ([],))
        if (height, width) != size:
            raise UserError(where + 'size %sx%s; an earlier row of the image says %sx%s' % (size + (height, width)))
        rle = row[columns[1]]
        if not rle.strip() or kaggle and rle.strip() == '-1':
            continue
        kind = (row.get('cell_type') or row.get('ClassId') or '').strip()
        kind = re.sub(r'\A([0-9]+)\.0+\Z', r'\1', kind)  # pandas may have written 3 as 3.0
        if kind not in indices:
            raise UserError(where + 'class %.60r; expected one of %s' % (kind, ', '.join(filter(None, indices))))
        masks.append((number, indices[kind], rle))
    if not cells:
        raise UserError('%s: holds no rows' % path)
    if images is None:
        return cells
    ids = [name for name in cells if name not in images]
    if ids:
        raise UserError('%s: ids without image: %s; the images are %s' % (path, record.some(ids), record.some(images)))
    missing = [name for name in images if name not in cells]
    if missing and not (kaggle and all(masks for _, _, masks in cells.values())):
        raise UserError('%s: %d images without a row: %s; an image without an object needs an empty annotation'
                        % (path, len(missing), record.some(missing)))
    if missing:
        note('%s: %d of %d images have no row, so no object, as %s' % (path, len(missing), len(images), missing[0]))
    return dict(cells, **{name: (None, None, []) for name in missing})


def _size(row, where):
    """Parses the height and width in a row of a table -> (int, int), or (None, None).

    Returns (None, None) for a row that has EncodedPixels but neither height nor width. The value 520.0 is valid,
    because pandas may write 520 as 520.0. Raises UserError if a side is not a positive integer, or if the image has
    more than MAX_PIXELS pixels.

    Args:
      where: file name and row number, for the error message.
    """
    sides = tuple(row.get(side) or row.get(side.capitalize()) or '' for side in ('height', 'width'))
    if sides == ('', '') and 'EncodedPixels' in row:
        return None, None
    height, width = (int(float(side)) if re.match(r'\A[0-9]{1,9}(\.0+)?\Z', side) else 0 for side in sides)
    if not 0 < height * width <= MAX_PIXELS:
        raise UserError(where + 'height %.20r, width %.20r; an image has 1 to %d pixels' % (sides + (MAX_PIXELS,)))
    return height, width


def cells_label(path: str, entry: tuple, shape: tuple = None, order: str = 'rows', outside: int = 0):
    """Draws the masks of an image -> label uint8 [h, w] of class indices; later masks cover earlier masks.

    Raises UserError, which names the row, for a malformed mask.

    Args:
      path: path of the table, for error messages.
      entry: (height, width, [(row number, class index, RLE), ...]), a value of the dict that `read_cells` returns.
      shape: (height, width) of the image, used if height and width in `entry` are None.
      order: pixel order of the run-length encoding, one of data.RLE_ORDERS.
      outside: index of the class of the pixels outside all masks.
    """
    height, width, masks = entry
    label = np.full((height, width) if height else shape, outside, np.uint8)
    for mask, (_, class_id, _) in zip(cell_masks(path, label.shape, masks, order), masks):
        label[mask] = class_id
    return label


def cell_masks(path: str, shape: tuple, masks: list, order: str = 'rows'):
    """Yields the decoded masks of an image, each bool [height, width].

    Raises UserError, which names the table `path` and the row, for a malformed mask.

    Args:
      shape: (height, width).
      masks: list of (row number, class index, RLE); the RLE is the string 'start length start length ...'.
      order: pixel order of the run-length encoding, one of data.RLE_ORDERS, which `data.rle_decode` defines.
    """
    for number, _, rle in masks:
        try:
            yield data.rle_decode(rle, shape[0], shape[1], order)
        except UserError as error:
            raise UserError('%s row %d: %s' % (path, number, error))
