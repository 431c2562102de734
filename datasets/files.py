"""Files that the readers of data sets share: lists of names, folders of images and labels, splits, label colours."""
import collections
import os
import re

import numpy as np

import data
from data import UserError

SPLITS = ('train', 'val', 'test')
FOLDERS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
           'testing': 'test'}  # images/FOLDER/ -> split
NO_IMAGES = ('.txt', '.csv', '.json', '.xml', '.md', '.yaml', '.yml', '.db', '.ini')  # no note about these
SUFFIX = re.compile(r'[-_. ][A-Za-z]+\Z')  # of labels: _mask, _L, -gt


def check_data_dir(data_dir, name, layout):
    """Raises UserError unless the folder `data_dir` exists and holds something."""
    if not data_dir:
        raise UserError('--data_dir: data set %s needs it; the folder that holds %s' % (name, layout))
    if not os.path.isdir(data_dir):
        raise UserError('--data_dir %s: no such folder; data set %s expects %s there' % (data_dir, name, layout))
    if not os.listdir(data_dir):
        raise UserError('--data_dir %s: is empty; data set %s expects %s there' % (data_dir, name, layout))


def read_names(path):
    """List file, a name a line -> names; UserError for an empty list or a name that leads out of the folder."""
    names = [line.strip() for line in data.read_text(path).splitlines() if line.strip()]
    if not names:
        raise UserError('%s: lists no images' % path)
    for name in names:
        if '..' in re.split(r'[/\\]', name) or name.startswith('/') or '\0' in name:
            raise UserError('%s: %r leads out of the folder' % (path, name[:80]))
    return names


def files_below(folder, extensions):
    """Files below `folder` that have one of the extensions -> sorted [(name, path)].

    A name is the path below `folder` without the extension. Hidden files, as macOS's ._NAME, are left out; the number
    of other files that may be images is printed.
    """
    if not os.path.isdir(folder):
        raise UserError('%s: no such folder' % folder)
    found = []
    others = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        data.check_names(files, parent)
        for file in sorted(files):
            path = os.path.join(parent, file)
            name, extension = os.path.splitext(os.path.relpath(path, folder).replace(os.sep, '/'))
            if file.startswith('.'):
                continue
            if extension.lower() in extensions:
                found.append((name, path))
            elif extension.lower() not in NO_IMAGES:
                others.append(file)
    if others:
        data.note('%s: %d files are not read (%s%s); convert images to PNG, JPEG or TIFF'
                  % (folder, len(others), ', '.join(others[:3]), ', ...' if others[3:] else ''))
    return found


def image_files(folder):
    """Images below a folder -> {name: path}, sorted; UserError for two of one name."""
    paths = collections.OrderedDict()
    for name, path in files_below(folder, data.IMAGE_FILES):
        if name in paths:
            raise UserError('%s: %s and %s have one name; rename or remove one of them'
                            % (folder, os.path.basename(paths[name]), os.path.basename(path)))
        paths[name] = path
    return paths


def label_files(folder, images):
    """Labels below a folder -> {image name: [paths of the labels that may belong to it]}.

    A label has the image's own name, or where no label has, that name and a suffix: NAME_mask.png, NAME_L.png.
    """
    named = collections.defaultdict(list)
    suffixed = collections.defaultdict(list)
    for name, path in files_below(folder, data.LABEL_FILES + data.IMAGE_FILES):
        stem = name
        while stem not in images and SUFFIX.search(stem):
            stem = SUFFIX.sub('', stem)
        (named if stem == name else suffixed)[stem].append(path)
    found = dict(suffixed, **named)
    unused = [path for name in found if name not in images for path in found[name]]
    unused += [path for name in named if name in images for path in suffixed.get(name, [])]
    if unused:
        data.note('%s: %d labels belong to no image, as %s' % (folder, len(unused), os.path.basename(unused[0])))
    return found


def label_path(folder, found, name):
    """The label of image `name` in the result of `label_files`; UserError unless exactly one fits."""
    paths = found.get(name, [])
    if len(paths) != 1:
        there = sorted(os.listdir(folder))
        raise UserError('%s: %s for image %s; expected %s.png, or one file %s_SUFFIX.png; the folder has %s%s'
                        % (folder, '%d labels' % len(paths) if paths else 'no label', name, name, name,
                           ', '.join(there[:4]) or 'no files', ' and %d more' % len(there[4:]) if there[4:] else ''))
    return paths[0]


def hold_out(names):
    """Splits names -> {'train', 'val'}: a fifth validates, drawn with a fixed seed, the same in each run."""
    if len(names) < 2:
        raise UserError('%d images in the data set; at least two are needed, one of them to validate' % len(names))
    shuffled = [names[i] for i in np.random.RandomState(0).permutation(len(names))]
    held_out = max(1, len(names) // 5)
    return {'train': sorted(shuffled[held_out:]), 'val': sorted(shuffled[:held_out])}


def splits(folder, images):
    """{split: names} by lists train.txt, val.txt, test.txt in `folder`, by sub-folders of images, or by `hold_out`."""
    lists = {split: os.path.join(folder, split + '.txt') for split in SPLITS}
    if any(os.path.exists(path) for path in lists.values()):
        return listed_splits(lists, images)
    by_folder = collections.OrderedDict()
    for name in images:
        by_folder.setdefault(FOLDERS.get(name.split('/')[0].lower()), []).append(name)
    if 'train' not in by_folder or None in by_folder:
        return hold_out(list(images))
    if 'val' not in by_folder:
        by_folder.update(hold_out(by_folder['train']))
    return {split: by_folder[split] for split in SPLITS if split in by_folder}


def listed_splits(lists, images):
    """{split: path of its list} -> {split: names}; UserError for a name without an image or in two places."""
    examples = {}
    where = {}
    for split, path in lists.items():
        if not os.path.exists(path) and split == 'test':
            continue
        examples[split] = []
        for name in read_names(path):
            name = re.sub(r'\A(\./)?(images/)?', '', name.replace('\\', '/')) if name not in images else name
            stem, extension = os.path.splitext(name)
            name = stem if extension.lower() in data.IMAGE_FILES and name not in images else name
            if name not in images:
                raise UserError('%s: %s is no image of the data set; its images are %s, ...'
                                % (path, name, ', '.join(list(images)[:3])))
            if name in where:
                raise UserError('%s: names %s%s' % (path, name, ' twice' if where[name] == path else
                                                    ', which stands in %s too' % where[name]))
            where[name] = path
            examples[split].append(name)
    if len(where) < len(images):
        data.note('%d of %d images stand in no list and are not used' % (len(images) - len(where), len(images)))
    return examples


def colors_to_ids(rgb, colors, ids, path):
    """Colour-coded label uint8 [h, w, 3] -> uint8 [h, w]: the id beside each colour; UserError for other colours."""
    table = np.full(1 << 24, -1, np.int16)
    shifts = np.array([1 << 16, 1 << 8, 1])
    table[np.asarray(colors, int) @ shifts] = ids
    label = table[rgb.astype(np.int32) @ shifts.astype(np.int32)]
    if (label < 0).any():
        y, x = np.argwhere(label < 0)[0]
        raise UserError('%s: colour %s at row %d, column %d is no class (%d such pixels); labels must be saved '
                        'without smoothing' % (path, tuple(rgb[y, x].tolist()), y, x, (label < 0).sum()))
    return label.astype(np.uint8)


def voc_color(i):
    """Colour of id `i` in PASCAL VOC's palette: its bits, three at a time, from each channel's highest bit down."""
    return tuple(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))
