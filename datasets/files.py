"""Finds images, labels and lists of names in folders, maps label colours."""
import collections
import functools
import os
import re
import unicodedata

import numpy as np

import data
from system.files import UserError, check_names, note, read_text

SPLITS = ('train', 'val', 'test')
FOLDERS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
           'testing': 'test'}  # images/FOLDER/ -> split
NO_IMAGES = ('.txt', '.csv', '.json', '.xml', '.md', '.yaml', '.yml', '.db', '.ini')  # skipped without a note
SUFFIX = re.compile(r'[-_. ][A-Za-z]+\Z')  # of labels: _mask, _L, -gt
IMAGE_SUFFIX = re.compile(r'[-_. ](img|image|sat|rgb|leftImg8bit)\Z', re.IGNORECASE)
MASK_WORDS = set('l gt gtfine mask masks label labels labelids labeltrainids seg segmentation annotation'.split())


def check_data_dir(data_dir: str, name: str, layout: str):
    """Raises UserError if `data_dir` is None, missing or empty; the message shows the expected `layout`."""
    if not data_dir:
        raise UserError('--data_dir: data set %s needs it; the folder that holds %s' % (name, layout))
    fault = 'no such folder' if not os.path.isdir(data_dir) else '' if os.listdir(data_dir) else 'is empty'
    if fault:
        raise UserError('--data_dir %s: %s; data set %s expects %s there' % (data_dir, fault, name, layout))


def numbered_lines(path: str):
    """Reads the lines of a text file that are not blank -> list of (line number from 1, text)."""
    return [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def read_names(path: str):
    """Reads a text file with one name per line -> list of str, without blank lines.

    Raises UserError for an empty list or a name that leads out of the folder.
    """
    names = [line.strip() for _, line in numbered_lines(path)]
    if not names:
        raise UserError('%s: lists no images' % path)
    for name in names:
        if '..' in re.split(r'[/\\]', name) or name.startswith('/') or '\0' in name:
            raise UserError('%s: %r leads out of the folder' % (path, name[:80]))
    return names


def files_below(folder: str, extensions: tuple):
    """Finds the files below `folder` with one of the extensions -> list of (name, path).

    A name is the path below `folder` without the extension. The files of a folder come before the files of its
    sub-folders, each sorted. Hidden files and folders, such as macOS's ._NAME, are skipped, as are links to a folder
    that contains the link, with a note. Prints the number of other files that may be images. Raises UserError if a
    folder is missing or unreadable, or a file name is not UTF-8.
    """
    if not os.path.isdir(folder):
        raise UserError('%s: no such folder' % folder)
    found = []
    others = []
    real_parents = {folder: [os.path.realpath(folder)]}  # of each folder on the way, itself included

    def refuse(error):
        raise UserError('%s: cannot be read (%s)' % (error.filename, error.strerror))

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        for name in list(folders):
            path = os.path.join(parent, name)
            real = os.path.realpath(path)
            if any((above + os.sep).startswith(real.rstrip(os.sep) + os.sep) for above in real_parents[parent]):
                folders.remove(name)
                note('%s: links to a folder that holds the link, so it is not read again' % path)
            real_parents[path] = real_parents[parent] + [real]
        check_names(files, parent)
        below = os.path.relpath(os.path.join(parent, '_'), folder).replace(os.sep, '/')[:-1]
        for file in sorted(name for name in files if not name.startswith('.')):
            name, extension = os.path.splitext(file)
            if extension.lower() in extensions:
                found.append((below + name, os.path.join(parent, file)))
            elif extension.lower() not in NO_IMAGES:
                others.append(file)
    if others:
        note('%s: %d files are not read (%s%s); convert images to PNG, JPEG or TIFF'
                  % (folder, len(others), ', '.join(others[:3]), ', ...' if others[3:] else ''))
    return found


def image_files(folder: str):
    """Finds the images below a folder -> {name: path}, first the files of a folder, then its sub-folders.

    A name is the path below `folder` without the extension. Raises UserError for a missing or unreadable folder, for
    two images with the same name, and for images in a folder that is linked twice.
    """
    paths = {}
    parents = {}  # {real path: path}
    for name, path in files_below(folder, data.IMAGE_FILES):
        name = unicodedata.normalize('NFC', name)  # macOS may write an accent as a letter of its own
        if name in paths:
            raise UserError('%s and %s have one name; rename or remove one of them' % (paths[name], path))
        paths[name] = path
    for parent in {os.path.dirname(path): None for path in paths.values()}:
        first = parents.setdefault(os.path.realpath(parent), parent)
        if first != parent:
            raise UserError('%s and %s are one folder, which a link names twice; remove the link' % (first, parent))
    return paths


def label_files(folder: str, images: dict, class_names=()):
    """Finds the labels below a folder -> {image name: list of the paths of candidate labels}.

    A label has the name of the image. If no label has, an ending may follow the name: NAME_mask.png, NAME_L.png. The
    name of the label may lack an ending of the image's name that IMAGE_SUFFIX matches. An image without a label has no
    entry. Prints the number of labels without an image. Raises UserError for labels with different endings, and for an
    ending that names a class: such masks show one class each.

    Args:
      images: {name: path}.
      class_names: names of the classes in the form of `words`: lower case, joined by _.
    """
    named = collections.defaultdict(list)
    suffixed = collections.defaultdict(list)
    keys = dict({IMAGE_SUFFIX.sub('', name): name for name in images}, **{name: name for name in images})
    labels = [(unicodedata.normalize('NFC', name), path) for name, path
              in files_below(folder, data.LABEL_FILES + data.IMAGE_FILES)]
    labels = [(name, path) for name, path in labels if images.get(name) != path]
    for name, path in labels:
        stem = name
        while stem not in keys and SUFFIX.search(stem):
            stem = SUFFIX.sub('', stem)
        if stem in keys:
            ending = words(name[len(stem):], MASK_WORDS)
            (named if stem == name else suffixed)[keys[stem]].append((ending, path))
    found = dict(suffixed, **named)
    endings = {ending for candidates in found.values() for ending, _ in candidates}
    if len(endings) > 1 or endings & set(class_names):
        raise UserError('%s: labels end in %s; expected one label per image, with the ids of all classes: merge masks '
                        'of single classes' % (folder, ', '.join('_' + text if text else 'no word'
                                                                 for text in sorted(endings))))
    used = {path for candidates in found.values() for _, path in candidates}
    unused = [path for _, path in labels if path not in used]
    if unused:
        note('%s: %d labels belong to no image, as %s' % (folder, len(unused), os.path.basename(unused[0])))
    return {name: [path for _, path in candidates] for name, candidates in found.items()}


def is_label(name: str):
    """Tells whether a file name, without extension, ends in one of MASK_WORDS."""
    name = os.path.basename(name)
    return any(words(name[match.start():]) in MASK_WORDS for match in re.finditer('[-_. ]', name))


def words(text: str, without=()):
    """Joins the words of a name in lower case by _, without the words `without`: Optic-Disc becomes optic_disc."""
    return '_'.join(word for word in re.split('[-_. ]+', text.lower()) if word and word not in without)


def label_path(folder: str, found: dict, name: str, expected: str = '%s.png, or one file %s_SUFFIX.png'):
    """Returns the path of the label of image `name`; raises UserError unless the image has exactly one label.

    Args:
      folder: folder of the labels, for the message.
      found: {image name: list of paths}, the result of `label_files`.
      expected: file names that fit, for the message, with %s for `name`.
    """
    paths = found.get(name, [])
    if len(paths) != 1:
        there = sorted(os.listdir(folder))
        raise UserError('%s: %s for image %s; expected %s; the folder has %s%s'
                        % (folder, '%d labels' % len(paths) if paths else 'no label', name,
                           expected.replace('%s', name), ', '.join(there[:4]) or 'no files',
                           ' and %d more' % len(there[4:]) if there[4:] else ''))
    return paths[0]


def small_numbers(texts: list):
    """Parses texts of whole numbers from 0 to 255 -> tuple of int, or None if a text is anything else."""
    good = all(re.match(r'\A[0-9]{1,3}\Z', text) and int(text) < 256 for text in texts)
    return tuple(map(int, texts)) if good else None


def colors_to_ids(rgb, ids: dict, path: str):
    """Maps the colours of a label, uint8 RGB [h, w, 3], to ids, uint8 [h, w].

    Args:
      ids: {(red, green, blue): id}.
      path: name of the label, for the message.
    Raises:
      UserError: a colour that is not in `ids`.
    """
    packed = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    label = color_table(tuple(ids.items()))[packed]
    data.refuse_pixels(rgb, label < 0, path, 'colour', 'it belongs to no class; save labels without smoothing')
    return label.astype(np.uint8)


@functools.lru_cache(maxsize=4)
def color_table(ids: tuple):
    """Returns the ids of all colours: int16 [2^24], indexed by 65536 red + 256 green + blue; -1 for no id.

    `ids`: tuple of ((red, green, blue), id). Cached, because filling 32 MB takes longer than reading a small label.
    """
    table = np.full(1 << 24, -1, np.int16)
    table[[red << 16 | green << 8 | blue for (red, green, blue), _ in ids]] = [i for _, i in ids]
    return table


def voc_color(i: int):
    """Returns the colour of id `i` in PASCAL VOC's palette: (red, green, blue), 0 to 255 each.

    Each group of three bits of `i` sets one bit of red, green and blue, from the highest bit down.
    """
    return tuple(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))


def distinct_colors(colors: list):
    """Replaces each None in a list of colours by the next unused colour of PASCAL VOC's palette -> list."""
    new = (color for color in map(voc_color, range(256)) if color not in colors)
    return [color or next(new) for color in colors]
