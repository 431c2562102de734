"""Tables that the readers of data sets share: run-length encoded masks in Kaggle's columns, and tables of classes."""
import collections
import os
import re

import numpy as np

import data
from data import IGNORE, MAX_PIXELS, UserError
from datasets import files

MAX_NAME = 100  # characters of a class name, which stands in figures
VOC_VOID = (224, 224, 192)  # the colour of void in PASCAL VOC's labels

Class = collections.namedtuple('Class', 'name ids color')
Class.__doc__ = """A class, or void: its name, the ids in label files that mean it, (red, green, blue) or None."""


# ---------------------------------------------------------------- masks

def rle_order(path):
    """'columns' for a table with Kaggle's column EncodedPixels, whose runs go down the columns; 'rows' for others."""
    header = data.read_bytes(path)[:1000].split(b'\n')[0].replace(b'\0', b'')  # of UTF-8 or UTF-16
    return 'columns' if b'EncodedPixels' in header else 'rows'


def class_places(class_names):
    """[background, class, ...] -> {text in a table: place of the class}."""
    return {name: i for i, name in enumerate(class_names) if i}


def read_cells(path, places, images=None):
    """Kaggle's table of masks -> {image id: (height, width, [(row number, class, RLE), ...])}, in the file's order.

    Columns are id,annotation,width,height,cell_type, or ImageId,EncodedPixels (ClassId,Width,Height). A row without an
    annotation says that the image holds no object. Without columns of size, height and width are None.

    Args:
      places: {text of the class: its place}; '' is the class of a table without a column of classes.
      images: names of the images, of which each needs a row; None for any that can be file names.
    """
    kaggle = rle_order(path) == 'columns'
    columns = ('ImageId', 'EncodedPixels') if kaggle else ('id', 'annotation', 'width', 'height', 'cell_type')
    cells = collections.OrderedDict()
    for number, row in data.read_csv(path, columns):
        where = '%s row %d: ' % (path, number)
        name = row[columns[0]]
        rle = row[columns[1]]
        stem, extension = os.path.splitext(name)
        name = stem if extension.lower() in data.IMAGE_FILES and name not in (images or ()) else name
        if images is None and not re.match(r'\A[A-Za-z0-9_-]{1,100}\Z', name):
            raise UserError(where + 'id %r; letters, digits, _ and - only, it becomes a file name' % name[:60])
        size = _size(row, where)
        height, width, masks = cells.setdefault(name, size + ([],))
        if (height, width) != size:
            raise UserError(where + 'size %sx%s, an earlier row of image %s has %sx%s'
                            % (size + (name, height, width)))
        if not rle.strip():
            continue
        kind = re.sub(r'\.0+\Z', '', (row.get('cell_type') or row.get('ClassId') or '').strip())
        if kind not in places:
            raise UserError(where + '%s %r; expected one of %s' % ('ClassId' if kaggle else 'cell_type', kind[:60],
                                                                  ', '.join(text for text in places if text)))
        masks.append((number, places[kind], rle))
    if not cells:
        raise UserError('%s: holds no rows' % path)
    _check_images(path, cells, images)
    return cells


def _size(row, where):
    """(height, width) of a row, whole numbers that pandas may have given a .0; (None, None) without such columns."""
    sides = [row.get(side) or row.get(side.capitalize()) or '' for side in ('height', 'width')]
    if sides == ['', ''] and 'EncodedPixels' in row:
        return None, None
    if not all(re.match(r'\A[1-9][0-9]{0,4}(\.0+)?\Z', side) for side in sides):
        raise UserError(where + 'height %r and width %r must be whole numbers of pixels, up to 99999'
                        % (sides[0][:20], sides[1][:20]))
    height, width = (int(float(side)) for side in sides)
    if height * width > MAX_PIXELS:
        raise UserError(where + 'an image of %dx%d; %d pixels are the most' % (height, width, MAX_PIXELS))
    return height, width


def _check_images(path, cells, images):
    """Raises UserError for ids without an image and images without a row."""
    if images is None:
        return
    ids = [name for name in cells if name not in images]
    if ids:
        raise UserError('%s: %d ids without an image: %s; the images are %s, ...'
                        % (path, len(ids), ', '.join(ids[:5]), ', '.join(list(images)[:3])))
    missing = [name for name in images if name not in cells]
    if missing:
        raise UserError('%s: %d images without a row: %s; an image without an object has a row with an empty annotation'
                        % (path, len(missing), ', '.join(missing[:5])))


def cells_label(path, name, image, entry, order='rows'):
    """The label uint8 [h, w] of one image from its `entry` of `read_cells`: 0 is background, a later row lies on top.

    Raises UserError, which names the row, for a mask that does not fit the image.
    """
    height, width, masks = entry
    if height is not None and image.shape[:2] != (height, width):
        raise UserError('%s: image %s has %dx%d, its rows say %dx%d'
                        % ((path, name) + image.shape[:2] + (height, width)))
    label = np.zeros(image.shape[:2], np.uint8)
    for mask, (_, class_id, _) in zip(cell_masks(path, label.shape, masks, order), masks):
        label[mask] = class_id
    return label


def cell_masks(path, shape, masks, order='rows'):
    """Yields the masks of one image, one at a time in memory: bool [height, width]; errors name the row."""
    for number, _, rle in masks:
        try:
            yield data.rle_decode(rle, shape[0], shape[1], order)
        except UserError as error:
            raise UserError('%s row %d: %s' % (path, number, error))


# ---------------------------------------------------------------- classes

def read_classes(path):
    """classes.csv with columns name,id,color -> [Class, ...], void last; `id` may hold several: 7 8 11."""
    classes = []
    for number, row in data.read_csv(path, ('name', 'id')):
        where = '%s row %d: ' % (path, number)
        color = (row.get('color') or '').split()
        ids = row['id'].split()
        if not ids or not all(re.match(r'\A[0-9]{1,3}\Z', i) and int(i) < 256 for i in ids):
            raise UserError(where + 'id %r; ids are 0 to 255' % row['id'][:20])
        if color and not (len(color) == 3 and all(re.match(r'\A[0-9]{1,3}\Z', c) and int(c) < 256 for c in color)):
            raise UserError(where + 'color %r; expected "red green blue", 0 to 255 each' % row['color'][:40])
        classes.append(Class(row['name'].strip(), [int(i) for i in ids], tuple(map(int, color)) or None))
        _check_class(classes, where)
    return _void_last(classes, path)


def read_labelmap(path):
    """labelmap.txt of CVAT's VOC export, lines of name:red,green,blue:parts:actions -> [Class, ...]; 255 is void."""
    classes = []
    for number, line in enumerate(data.read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith('#'):
            match = re.match(r'(.*?):(\d{1,3}),(\d{1,3}),(\d{1,3})(:|\Z)', line.strip())
            if not match or any(int(value) > 255 for value in match.group(2, 3, 4)):
                raise UserError('%s row %d: %r; expected name:red,green,blue::' % (path, number, line[:60]))
            classes.append(Class(match.group(1), [len(classes)], tuple(map(int, match.group(2, 3, 4)))))
            _check_class(classes, '%s row %d: ' % (path, number))
    if not any(entry.color == VOC_VOID or is_void(entry) for entry in classes):
        classes.append(Class('void', [255], VOC_VOID))
    return _void_last(classes, path)


def read_pixel_values(path):
    """_classes.csv of Roboflow's masks, columns Pixel Value,Class -> [Class, ...], void last."""
    classes = []
    for number, row in data.read_csv(path, ('Pixel Value', 'Class')):
        if not re.match(r'\A[0-9]{1,3}\Z', row['Pixel Value']) or int(row['Pixel Value']) > 255:
            raise UserError('%s row %d: Pixel Value %r; ids are 0 to 255' % (path, number, row['Pixel Value'][:20]))
        classes.append(Class(row['Class'].strip(), [int(row['Pixel Value'])], None))
        _check_class(classes, '%s row %d: ' % (path, number))
    return _void_last(classes, path)


def is_void(entry):
    """True for the class that marks ignored pixels: void, in any case of letters."""
    return entry.name.lower() == 'void'


def _check_class(classes, where):
    """Raises UserError if the last class repeats a name, an id or a colour, or its name cannot be shown."""
    last = classes[-1]
    for other in classes[:-1]:
        for kind, twice in (('name', last.name if last.name == other.name else None),
                            ('id', next((i for i in last.ids if i in other.ids), None)),
                            ('color', last.color if last.color == other.color else None)):
            if twice is not None:
                raise UserError(where + '%s %s stands in an earlier row too' % (kind, twice))
    if not last.name.isprintable() or not 0 < len(last.name) <= MAX_NAME:
        raise UserError(where + 'a class has a name of 1 to %d printable characters' % MAX_NAME)


def _void_last(classes, path):
    """The classes, void last; UserError for fewer than two beside void, or more than 254."""
    voids = [entry for entry in classes if is_void(entry)]
    named = [entry for entry in classes if not is_void(entry)]
    if len(named) > 254:
        raise UserError('%s: has %d classes; 254 are the most' % (path, len(named)))
    if len(voids) > 1:
        raise UserError('%s: has two rows for void; give one row all ids' % path)
    if len(named) < 2:
        raise UserError('%s: has %d classes; at least two are needed: give the background a row of its own'
                        % (path, len(named)))
    return named + voids


def read_class_label(path, classes):
    """Label file of ids or colours -> uint8 [h, w]: the place of each class in `classes`, IGNORE for void."""
    places = [IGNORE if is_void(entry) else i for i, entry in enumerate(classes)]
    label = data.read_ids_or_colors(path)
    if label.ndim == 3:
        colored = [(entry.color, place) for entry, place in zip(classes, places) if entry.color]
        repeated = (label == label[:, :, :1]).all()  # ids in three equal channels, or shades of grey as colours
        if not repeated or {(grey,) * 3 for grey in np.unique(label)} <= {color for color, _ in colored}:
            return _from_colors(path, label, classes, colored)
        label = label[:, :, 0]
    table = np.full(256, -1)
    for entry, place in zip(classes, places):
        table[entry.ids] = place
    mapped = table[label]
    if (mapped < 0).any():
        y, x = np.argwhere(mapped < 0)[0]
        raise UserError('%s: id %d at row %d, column %d is not in the table of classes, which has %s; add the id to '
                        'the class that it stands for, or to void if it is to be ignored'
                        % (path, label[y, x], y, x, ' '.join(str(i) for entry in classes for i in entry.ids)[:60]))
    return mapped.astype(np.uint8)


def _from_colors(path, label, classes, colored):
    """Colour-coded label -> uint8 [h, w]; UserError if a class other than void has no colour."""
    missing = [entry.name for entry in classes if not entry.color and not is_void(entry)]
    if missing:
        raise UserError('%s: is a colour image, but the table of classes gives class %s no color' % (path, missing[0]))
    return files.colors_to_ids(label, *zip(*colored), path)


def read_class_weights(path: str, class_names):
    """CSV with columns name,weight -> float64 [num_classes] in the order of `class_names`."""
    weights = {}
    for number, row in data.read_csv(path, ('name', 'weight')):
        if row['name'] in weights:
            raise UserError('%s row %d: class %s stands in an earlier row too' % (path, number, row['name'][:60]))
        try:
            weights[row['name']] = float(row['weight'])
        except ValueError:
            raise UserError('%s row %d: weight %r is no number' % (path, number, row['weight']))
        if not (0 <= weights[row['name']] < np.inf):
            raise UserError('%s row %d: weight %r must be 0 or more' % (path, number, row['weight']))
    if set(weights) != set(class_names):
        raise UserError('%s: must name each class once: %s' % (path, ', '.join(class_names)))
    return np.array([weights[name] for name in class_names])
