"""Reads tables of classes and of class weights."""
import collections
import re

import numpy as np

from datasets import files
from system.files import UserError, read_csv

MAX_NAME = 100  # largest number of characters in a class name; figures show the names
VOC_VOID = (224, 224, 192)  # the colour of void in PASCAL VOC's labels

Class = collections.namedtuple('Class', 'name ids color')
Class.__doc__ = """A class, or void: name, ids in label files, colour (red, green, blue) or None."""


def is_background(entry):
    """Tells whether a `Class` is named background, in upper or lower case, with or without outer underscores."""
    return entry.name.strip('_').lower() == 'background'


def read_classes(path: str, columns: tuple = ('name', 'id')):
    """Reads a table of classes -> list of `Class`, void last.

    A class may have several ids, such as 7 8 11. A column `color` with red, green and blue is optional; columns r, g
    and b may replace it. With r, g and b the column of ids may be missing: then labels hold colours, and a class has no
    ids. Raises UserError for a malformed row, a repeated name, id or colour, and fewer than two classes.

    Args:
      columns: headers of the two columns that hold names and ids: name and id in classes.csv, Class and Pixel Value in
        Roboflow's table.
    """
    rgb = ('r', 'g', 'b')
    header = files.csv_header(path)
    if columns[1] not in header and set(rgb) <= set(header):
        columns = columns[:1] + rgb
    rows = []
    for number, row in read_csv(path, columns):
        name = row[columns[0]].strip()
        ids = () if columns[1:] == rgb else files.small_numbers(row[columns[1]].split())
        texts = [row[band].strip() for band in rgb] if set(rgb) <= set(row) else (row.get('color') or '').split()
        color = files.small_numbers(texts)
        if not ids and columns[1:] != rgb:
            raise UserError('%s row %d: %s %.22r; ids are numbers from 0 to 255'
                            % (path, number, columns[1], row[columns[1]].strip()))
        if color is None or len(color) not in (0, 3):
            raise UserError('%s row %d: color %.40r; must be three numbers from 0 to 255'
                            % (path, number, ' '.join(texts)))
        rows.append((number, Class(name, list(ids), color or None)))
    return _checked(path, rows)


def read_class_names(path: str):
    """Reads class_names.txt of labelme's labelme2voc.py -> list of `Class`.

    The file has one name per line; the ids of the names are 0, 1, 2, ... A class void with id 255 is added. Raises
    UserError for a repeated or unprintable name, for fewer than two classes, and if the first name is not background.
    """
    rows = [(i + 1, Class(name, [i], None)) for i, name in enumerate(files.read_names(path))]
    if not is_background(rows[0][1]):
        raise UserError('%s row 1: %s; labelme has _background_ in row 1; for other ids write classes.csv (name,id)'
                        % (path, rows[0][1].name[:60]))
    return _checked(path, rows + [(0, Class('void', [255], None))])


def read_labelmap(path: str):
    """Reads labelmap.txt of CVAT's VOC export -> list of `Class`, void last.

    A line is name:red,green,blue:parts:actions. The id of a class is the number of its line, counted from 0 without
    blank lines and comments.
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


def read_label_colors(path: str):
    """Reads label_colors.txt of CamVid and of CVAT's CamVid export -> list of `Class` without ids, void last.

    A line is red, green, blue and a name, separated by blanks. Blank lines and comments are skipped. Raises UserError
    for a malformed line, a repeated name or colour, and fewer than two classes.
    """
    rows = []
    for number, line in files.numbered_lines(path):
        if not line.startswith('#'):
            *values, name = line.split(None, 3)
            color = files.small_numbers(values)
            if not color or len(color) != 3:
                raise UserError('%s line %d: %.60s; expected red, green, blue and a name' % (path, number, line))
            rows.append((number, Class(name.strip(), [], color)))
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
                        'and at most one row for void, with all ids of void' % (path, len(named), len(voids)))
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
            weights[row['name']] = np.nan
        if not 0 <= weights[row['name']] < np.inf:
            raise UserError('%s row %d: weight %r must be a number of 0 or more' % (path, number, row['weight']))
    if set(weights) != set(class_names):
        raise UserError('%s: must have one row for each of the classes: %s' % (path, ', '.join(class_names)))
    return np.array([weights[name] for name in class_names])
