"""Converts label files to class indices. Label files hold ids, colours, palette indices or binary masks."""
import functools

import numpy as np

import data
from data import IGNORE, Dataset
from datasets import files, tables
from system.files import UserError, note

GREY = '%s: %s; save the label as a grey image of ids'
# The two palettes in which a colour stands for an id: greys, and PASCAL VOC's colours. {(red, green, blue): id}
NUMBERED = {(i, i, i): i for i in range(256)}, {files.voc_color(i): i for i in range(256)}


def read_class_label(path: str, classes: list, table: str = None):
    """Reads a label file of ids or colours -> class indices, uint8 [h, w], IGNORE for void.

    A class index is a position in the list `classes`. If `classes` has two classes besides void, a label may be a black
    and white mask: black is the class with id 0 or colour 0 0 0, and white is the other class. Raises UserError for an
    unreadable file, for an id or a colour that is not in `classes`, and for a label in colours if a class other than
    void has no colour. Also raises UserError if it is unclear whether the values of the label are ids or colours.

    `table`: path of the table of classes, for messages; None for a published data set, which has no such table.
    """
    source, other = (table, '') if table else ('the data set', '; for other labels give --dataset folder')
    indices = [IGNORE if tables.is_void(entry) else i for i, entry in enumerate(classes)]
    by_id = {i: index for entry, index in zip(classes, indices) for i in entry.ids}
    by_color = {entry.color: index for entry, index in zip(classes, indices) if entry.color}
    black = by_id.get(0, by_color.get((0, 0, 0)))
    two = sum(index != IGNORE for index in indices) == 2 and black in (0, 1) and 255 not in by_id
    label, palette = data.read_ids_or_colors(path, binary=two)
    if label.ndim == 3:
        if (label != label[:, :, :1]).any():
            uncolored = [entry.name for entry in classes if not entry.color and not tables.is_void(entry)]
            if uncolored:
                raise UserError('%s: has colours, but %s gives class %s no color%s'
                                % (path, source, uncolored[0], other))
            packed = label.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
            ids = color_table(tuple(by_color.items()))[packed]
            data.refuse_pixels(label, ids < 0, path, 'colour', 'no class has this colour; save without smoothing')
            return ids.astype(np.uint8)
        label = label[:, :, 0]  # the three equal channels hold ids or grey colours
    used = np.flatnonzero(np.bincount(label.ravel(), minlength=256)).tolist()
    if two:
        by_id.update({0: black, 255: 1 - black})
    if palette is not None and used[-1] < len(palette):
        meant = _by_palette(path, used, list(map(tuple, palette.tolist())), by_id, by_color)
    else:
        meant = _by_value(path, used, by_id, by_color)
    if two and not set(used) <= set(meant):
        label = data.black_and_white(label, path)
        meant = by_id
    index_of_value = np.full(256, -1, np.int16)
    index_of_value[list(meant)] = list(meant.values())
    mapped = index_of_value[label]
    known = ' '.join(map(str, by_id)) or 'colours only'
    fix = '%s has %.60s%s' % (source, known, other or '; add the id to a class or to void')
    data.refuse_pixels(label, mapped < 0, path, 'id', fix)
    return mapped.astype(np.uint8)


def _by_value(path, used, by_id, by_color):
    """Decides which class each value of a grey label means -> {value: class index}.

    If each value v occurs in the table of classes as the colour (v, v, v), the values are read as colours, else as ids.
    Raises UserError if both readings are possible and give different classes.

    Args:
      used: list of the values that occur in the label.
      by_id: {id: class index}.
      by_color: {(red, green, blue): class index}.
    """
    greys = {color[0]: index for color, index in by_color.items() if color == color[:1] * 3}
    if not set(used) <= set(greys):
        return by_id
    for value in used:
        if by_id.get(value, greys[value]) != greys[value] and set(used) <= set(by_id):
            raise UserError('%s: %d is the id of one class and the grey of another; remove the column id or color from '
                            'the table of classes' % (path, value))
    return greys


def _by_palette(path, used, palette, by_id, by_color):
    """Decides which class each index of a label image with a palette means -> {index: class index}.

    If every palette colour in use is the colour of a class, each index means the class of the index's colour. Otherwise
    the indices are ids. Then an index whose colour belongs to a class other than the class with this id is an error.
    Programs that write GIF files or optimize images may reorder a palette. So if all colours of the palette are greys,
    but not all black, or all are colours of PASCAL VOC's palette, the colour of an index gives the id: grey (v, v, v)
    means id v, and a colour of VOC's palette means the id that VOC gives this colour. Raises UserError if an index
    could mean two different classes.

    Args:
      used: list of the palette indices that occur in the label.
      palette: list of (red, green, blue), the colours of all indices.
      by_id: {id: class index}.
      by_color: {(red, green, blue): class index}.
    """
    shown = {i: palette[i] for i in used}
    blank = set(palette) == {(0, 0, 0)}  # all black: the program that wrote the file set no palette
    meant = {i: by_color[color] for i, color in shown.items() if color in by_color}
    differing = [i for i, index in meant.items() if by_id.get(i) != index]
    distinct = len(set(shown.values()))
    if blank and len(shown) > 1:
        return by_id
    if differing and (len(meant) < len(shown) or distinct < len(shown) or blank):
        raise UserError(GREY % (path, 'index %d has the colour of another class in the palette' % differing[0]))
    if differing:
        note('%s: the palette has the colours of the classes at other ids; the colours count' % path, 'palette')
    if len(meant) == len(shown):
        return meant
    for numbers in NUMBERED:
        ids = {i: numbers.get(color) for i, color in shown.items()}
        meant = {i: by_id.get(number) for i, number in ids.items()}
        fits = set(palette) <= set(numbers) and distinct == len(shown) and None not in meant.values()
        if fits and not blank and meant != {i: by_id.get(i) for i in shown}:
            dark = [color for color in shown.values() if 0 < max(color) < 32]  # too dark to see
            if set(shown) <= set(by_id) and not dark:
                pair = max(pair for pair in ids.items() if pair[0] != pair[1])
                raise UserError(GREY % (path, 'is the class index %d, or id %d, as its palette says?' % pair))
            return meant
    return by_id


@functools.lru_cache(maxsize=4)
def color_table(ids: tuple):
    """Returns the ids of all colours: int16 [2^24], indexed by 65536 red + 256 green + blue; -1 for no id.

    `ids`: tuple of ((red, green, blue), id). The result is cached, because filling 32 MB takes longer than reading a
    small label.
    """
    table = np.full(1 << 24, -1, np.int16)
    table[[red << 16 | green << 8 | blue for (red, green, blue), _ in ids]] = [i for _, i in ids]
    return table


# ---------------------------------------------------------------- published data sets

def pairs_of_files(image_folder: str, label_folder: str, label_name=lambda name: name):
    """Pairs the images below a folder with PNG labels -> list of (name, image path, label path).

    Raises UserError for a missing folder, and for an image without a label.

    Args:
      label_name: function (name of an image) -> name of the label, both without extension.
    """
    labels = dict(files.files_below(label_folder, ('.png',)))
    images = files.image_files(image_folder)
    missing = [label_name(name) for name in images if label_name(name) not in labels]
    if missing:
        raise UserError('%s: %d images have no label, as %s; unpack again' % (label_folder, len(missing), missing[0]))
    return [(name, path, labels[label_name(name)]) for name, path in images.items()]


def dataset_of_pairs(name: str, class_names: list, colors: list, size: tuple, pairs: dict, read_label,
                     panel: str = 'predictions.png', **fields):
    """Makes a `Dataset` from pairs of an image file and a label.

    Args:
      class_names, colors: names and (red, green, blue) of the classes, without void.
      size: default (height, width) of the training images, in pixels.
      pairs: {split: list of (name, image path, label) or of (image path, label)}. For a pair without a name, the image
        path is the name of the example.
      read_label: function (label of a pair) -> uint8 [h, w] of class indices, IGNORE for void.
      panel, fields: further fields of the `Dataset`.
    """
    def load(split, i):
        image, label = pairs[split][i][-2:]
        return data.read_image(image), read_label(label)

    examples = {split: [pair[0] for pair in pairs[split]] for split in pairs}
    return Dataset(name, list(class_names), list(colors), size, examples, load, panel, **fields)
