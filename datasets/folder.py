"""Anybody's own data: a folder of images, labels and a table of classes -> `Dataset`.

    images/NAME.png (or .jpg .jpeg .bmp .tif .tiff), of any sizes
    labels/NAME.png   class ids (a grey or palette PNG) or the colours of classes.csv
    labels.csv        or, instead of labels/, run-length encoded masks in Kaggle's columns id, annotation, width,
                      height, cell_type, where cell_type is a class; what no mask covers is the first class
    classes.csv       name,id,color: `color` is "red green blue", may be empty, and is needed for colour labels; a
                      class named void takes part in nothing
    train.txt val.txt (test.txt)    names, one a line; without them a fifth, drawn once and for all, validates
"""
import collections
import os
import re

import numpy as np

import data
from data import IGNORE, Dataset, UserError

MAX_NAME = 100  # characters of a class's name: it stands in pictures


def read_classes(path):
    """classes.csv -> names, ids as stored and colours, three lists, with void last where it is given."""
    names, ids, colors = [], [], []
    for number, row in data.read_csv(path, ('name', 'id')):
        where, color = '%s row %d: ' % (path, number), (row.get('color') or '').split()
        if not re.match(r'\A[0-9]{1,3}\Z', row['id']) or int(row['id']) > 255:
            raise UserError(where + 'id %r; ids are 0 to 255' % row['id'][:20])
        if color and not (len(color) == 3 and all(re.match(r'\A[0-9]{1,3}\Z', c) and int(c) < 256 for c in color)):
            raise UserError(where + 'color %r; expected "red green blue", 0 to 255 each' % row['color'][:40])
        names.append(row['name'].strip())
        ids.append(int(row['id']))
        colors.append(tuple(int(c) for c in color) or None)
        for kind, values in (('name', names), ('id', ids), ('color', [c for c in colors if c])):
            if color or kind != 'color':
                if values.count(values[-1]) > 1:
                    raise UserError(where + '%s %s stands in an earlier row too' % (kind, values[-1]))
        if not names[-1].isprintable() or not 0 < len(names[-1]) <= MAX_NAME:
            raise UserError(where + 'a class has a name of 1 to %d printable characters' % MAX_NAME)
    if len(names) - ('void' in names) > 254:
        raise UserError('%s: has %d classes; 254 are the most' % (path, len(names)))
    if 'void' in names:  # last
        i = names.index('void')
        for values in (names, ids, colors):
            values.append(values.pop(i))
    if len(names) - ('void' in names) < 2:
        raise UserError('%s: has %d classes; at least two are needed: give the background a row of its own, so that '
                        'there is something to tell a single class from' % (path, len(names) - ('void' in names)))
    return names, ids, colors


def splits(data_dir, names):
    """{split: names} by train.txt, val.txt and test.txt where they are, else a fifth of `names` validates."""
    lists = {split: os.path.join(data_dir, split + '.txt') for split in ('train', 'val', 'test')}
    if not any(os.path.exists(path) for path in lists.values()):
        if len(names) < 2:
            raise UserError('%s: has %d images; at least two are needed, one of them to validate'
                            % (os.path.join(data_dir, 'images'), len(names)))
        shuffled = [names[i] for i in np.random.RandomState(0).permutation(len(names))]
        held_out = max(1, len(names) // 5)
        return {'train': sorted(shuffled[held_out:]), 'val': sorted(shuffled[:held_out])}
    examples = {}
    for split, path in lists.items():
        if os.path.exists(path) or split != 'test':
            listed = [name[:-len(os.path.splitext(name)[1])] if name.lower().endswith(data.IMAGE_FILES) else name
                      for name in data.read_names(path)]
            examples[split] = listed
            unknown = sorted(set(listed) - set(names))
            if unknown:
                raise UserError('%s: %s is no image of %s'
                                % (path, unknown[0], os.path.join(data_dir, 'images')))
            twice = [name for name, count in collections.Counter(listed).items() if count > 1]
            if twice:
                raise UserError('%s: names %s twice' % (path, twice[0]))
    for one, other in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        both = set(examples[one]) & set(examples.get(other, []))
        if both:
            raise UserError('%s: names %s, which stands in %s too' % (lists[other], sorted(both)[0], lists[one]))
    return examples


def read_own_label(path, names, ids, colors):
    """Label file, of ids or colours -> uint8 [h, w]: each class by its place in classes.csv, IGNORE for void."""
    classes = [IGNORE if name == 'void' else i for i, name in enumerate(names)]
    label = data.read_ids_or_colors(path)
    if label.ndim == 3:
        if None in colors:
            raise UserError('%s: is a colour picture, but classes.csv gives class %s no color'
                            % (path, names[colors.index(None)]))
        return data.colors_to_ids(label, colors, classes, path)
    table = np.full(256, -1)
    table[ids] = classes
    mapped = table[label]
    if (mapped < 0).any():
        y, x = np.argwhere(mapped < 0)[0]
        raise UserError('%s: id %d at row %d, column %d is not in classes.csv; add a row for it (named void if it '
                        'is no class)' % (path, label[y, x], y, x))
    return mapped.astype(np.uint8)


def read(data_dir):
    """The data set in `data_dir`; its size is that of the first training image."""
    data.check_data_dir(data_dir, 'folder', 'images/, labels/ or labels.csv, and classes.csv')
    names, ids, colors = read_classes(os.path.join(data_dir, 'classes.csv'))
    class_names = [name for name in names if name != 'void']
    folder, table = os.path.join(data_dir, 'images'), os.path.join(data_dir, 'labels.csv')
    if not os.path.isdir(folder):
        raise UserError('%s: no such folder; data set folder has images/, labels/ or labels.csv, and classes.csv'
                        % folder)
    paths = collections.OrderedDict()
    data.check_names(os.listdir(folder), folder)
    for name in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() in data.IMAGE_FILES:
            if stem in paths:
                raise UserError('%s: %s and %s have one name' % (folder, os.path.basename(paths[stem]), name))
            paths[stem] = os.path.join(folder, name)
    cells = data.read_cells(table, class_names) if os.path.exists(table) else None
    examples = splits(data_dir, list(paths))

    def load(split, i):
        name = examples[split][i]
        image = data.read_image(paths[name])
        if cells is None:
            return image, read_own_label(os.path.join(data_dir, 'labels', name + '.png'), names, ids, colors)
        if name not in cells:
            return image, np.zeros(image.shape[:2], np.uint8)
        height, width, rows = cells[name]
        data.check_cells_size(table, name, image, height, width)
        return image, data.cells_label(data.cell_masks(table, height, width, rows), rows, height, width)

    shown = [color or data.voc_color(i) for i, color in enumerate(colors)][:len(class_names)]
    size = data.read_image(paths[examples['train'][0]]).shape[:2]
    return Dataset('folder', class_names, shown, size, examples, load, 'predictions.png')
