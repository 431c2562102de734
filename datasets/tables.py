"""Reads tables of classes and of class weights."""
import collections
import re

import numpy as np

from datasets import files
from system.files import UserError, read_csv

MAX_NAME = 100  # largest number of characters in a class name, because figures show the names
VOC_VOID = (224, 224, 192)  # the colour of void in PASCAL VOC's labels

# A class, or void. name: str. ids: tuple of int, the ids in label files. color: (red, green, blue) or None.
Class = collections.namedtuple('Class', 'name ids color')


def is_background(entry):
    """Tells whether a `Class` is named background, in upper or lower case; ignores underscores at both ends."""
    return entry.name.strip('_').lower() == 'background'


def read_classes(path: str, name: str = 'name', number: str = 'id'):
    """Reads a table of classes -> list of `Class`, void last.

    A class may have several ids, such as 7 8 11. The optional column `color` holds red, green and blue; the columns r,
    g and b may replace `color`. With columns r, g and b, the column of ids may be missing; then labels hold colours,
    and classes have no ids. Raises UserError for a malformed row, a repeated name, id or colour, and fewer than two
    classes.

    Args:
      name, number: headers of the columns of names and of ids.
    """
    header = files.csv_header(path)
    rgb = ['r', 'g', 'b'] if {'r', 'g', 'b'} <= set(header) else []
    numbered = number in header or not rgb
    rows = []
    for line, row in read_csv(path, [name] + [number] * numbered + rgb):
        color = [row[band].strip() for band in rgb] or (row.get('color') or '').split()
        rows.append((line, row[name].strip(), (row[number].split() or ['']) if numbered else [], color))
    return _classes(path, rows)


def read_class_names(path: str):
    """Reads class_names.txt, which labelme's labelme2voc.py writes -> list of `Class`.

    The file has one name per line; the ids of the names are 0, 1, 2, ... A class void with id 255 is added. Raises
    UserError for a repeated or unprintable name, for fewer than two classes, and if the first name is not background.
    """
    rows = [(i + 1, name, [str(i)], []) for i, name in enumerate(files.read_names(path))]
    classes = _classes(path, rows + [(0, 'void', ['255'], [])])
    if not is_background(classes[0]):
        raise UserError('%s row 1: %s; must be _background_, or write classes.csv' % (path, classes[0].name))
    return classes


def read_labelmap(path: str):
    """Reads labelmap.txt, which CVAT writes in an export as Pascal VOC -> list of `Class`, void last.

    Each line is name:red,green,blue:parts:actions. The ids are line numbers, counted from 0 without blank lines and
    comments. If no line is named void or has VOC's colour of void, a class void with id 255 is added. Raises UserError
    for a malformed line, a repeated name or colour, and fewer than two classes.
    """
    rows = []
    for number, line in _uncommented(path):
        match = re.match(r'(.*?):([\d,]+)(:|\Z)', line.strip())
        name, color = match.group(1, 2) if match else (line, line)
        rows.append((number, name, [str(len(rows))], color.split(',')))
    classes = _classes(path, rows)
    if is_void(classes[-1]) or any(entry.color == VOC_VOID for entry in classes):
        return classes
    return classes + [Class('void', (255,), VOC_VOID)]


def read_label_colors(path: str):
    """Reads label_colors.txt from CamVid or CVAT's CamVid export -> list of `Class` without ids, void last.

    Each line holds red, green, blue and a name, separated by whitespace. Blank lines and comments are skipped. Raises
    UserError for a malformed line, a repeated name or colour, and fewer than two classes.
    """
    rows = []
    for number, line in _uncommented(path):
        *color, name = line.split(None, 3)
        rows.append((number, name.strip(), [], color or ['']))
    return _classes(path, rows)


def _uncommented(path):
    """Reads the lines of a text file that are neither blank nor comments -> list of (line number, text)."""
    return [(number, line) for number, line in files.numbered_lines(path) if not line.startswith('#')]


def is_void(entry):
    """Tells whether a `Class` marks ignored pixels: the name is void, in upper or lower case."""
    return entry.name.lower() == 'void'


def _classes(path, rows):
    """Parses the rows of a table of classes -> list of `Class`, void last.

    Raises UserError for a malformed or repeated id or colour, an unprintable or repeated name, more than one row for
    void, and too few or too many classes.

    Args:
      rows: list of (row number, name, ids, color). `ids` is a list of str. `color` is the list of str [red, green,
        blue], or an empty list for a class without a colour.
    """
    seen = set()
    classes = []
    for number, name, ids, color in rows:
        where = '%s row %d: ' % (path, number)
        entry = Class(name, files.small_numbers(ids), files.small_numbers(color) or None)
        if entry.ids is None:
            raise UserError(where + 'id %.22r; ids are numbers from 0 to 255' % ' '.join(ids))
        if color and len(entry.color or ()) != 3:
            raise UserError(where + 'color %.40r; expected three numbers from 0 to 255' % ' '.join(color))
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise UserError(where + 'a class has a name of 1 to %d printable characters' % MAX_NAME)
        for fact in [('name', name)] + [('id', i) for i in entry.ids] + [('color', entry.color)]:
            if fact in seen and fact != ('color', None):
                raise UserError(where + '%s %s is in the table already' % fact)
            seen.add(fact)
        classes.append(entry)
    classes.sort(key=is_void)
    num_voids = sum(map(is_void, classes))
    if not 2 <= len(classes) - num_voids <= 254 or num_voids > 1:
        raise UserError('%s: has %d classes and %d rows for void; expected 2 to 254 classes, one of them background, '
                        'and at most one row for void' % (path, len(classes) - num_voids, num_voids))
    return classes


def read_class_weights(path: str, class_names: list):
    """Reads a CSV file with columns name,weight -> float64 [num_classes] in the order of `class_names`.

    Raises UserError for a class that is missing, repeated or unknown, and for a weight below 0.
    """
    names = []
    weights = []
    for number, row in read_csv(path, ('name', 'weight')):
        names.append(row['name'])
        try:
            weights.append(float(row['weight']))
        except ValueError:
            weights.append(np.nan)
        if not 0 <= weights[-1] < np.inf:
            raise UserError('%s row %d: weight %r must be a number of 0 or more' % (path, number, row['weight']))
    if sorted(names) != sorted(class_names):
        raise UserError('%s: has rows for %.200s; expected one row for each class: %s'
                        % (path, ', '.join(names), ', '.join(class_names)))
    return np.array(weights)[[names.index(name) for name in class_names]]
