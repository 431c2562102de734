"""Finds images, labels and lists of names in folders; chooses val by image name."""
import collections
import hashlib
import os
import re
import unicodedata

import data
from system.files import UserError, check_names, note, read_text

VERSION = re.compile(r'\.rf\.[0-9A-Za-z]{20,}')  # code that Roboflow adds to image names: p1_png.rf.0c9f...
GOLDEN = 2654435769  # 2^32 divided by the golden ratio; its multiples modulo 2^32 are evenly spread
FOLD = '1/5'  # default of --fold: the first of five parts becomes val, in a data set without val
SPLITS = ('train', 'val', 'test')
FOLDERS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
           'testing': 'test'}  # {name of a folder or of a list of images: split}
# Extensions of files that are skipped without a note.
NO_IMAGES = ('.txt', '.csv', '.json', '.xml', '.md', '.yaml', '.yml', '.db', '.ini')
SUFFIX = re.compile(r'[-_. ][A-Za-z]+\Z')  # last word of a label's name: _mask, _L, -gt
IMAGE_SUFFIX = re.compile(r'[-_. ](img|image|sat|rgb|leftImg8bit)\Z', re.IGNORECASE)
# A line of CamVid's and PaddleSeg's lists: two paths separated by whitespace, commas or semicolons. A path may itself
# contain spaces.
PAIR = re.compile(r'\A/?(.+?\.(?:png|jpg|jpeg|bmp|tif|tiff))[\s,;]+(.+\.\w+)\Z', re.IGNORECASE)
MASK_WORDS = set('l gt gtfine mask masks label labels labelids labeltrainids seg segmentation annotation'.split())


def check_data_dir(data_dir: str, name: str, layout: str):
    """Raises UserError if `data_dir` is None, missing or empty; the message shows the expected `layout`."""
    if not data_dir:
        raise UserError('--data_dir: data set %s needs the folder that holds %s' % (name, layout))
    fault = 'no such folder' if not os.path.isdir(data_dir) else '' if os.listdir(data_dir) else 'is empty'
    if fault:
        raise UserError('--data_dir %s: %s; data set %s expects %s there' % (data_dir, fault, name, layout))


def numbered_lines(path: str):
    """Reads the non-blank lines of a text file -> list of (line number, text). Line numbers start at 1."""
    return [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def csv_header(path: str) -> list:
    """Returns the column names of a CSV file, without spaces and quotes at both ends of a name."""
    return [text.strip(' "\r') for text in read_text(path).partition('\n')[0].split(',')]


def read_names(path: str):
    """Reads a text file with one name per line -> list of str, without blank lines.

    If a line holds the paths of an image and its label, as in CamVid, the name is the path of the image.

    Raises UserError for an empty list, and for a name such as ../a that leads out of the folder of the data set.
    """
    names = [PAIR.sub(r'\1', line.strip()) for _, line in numbered_lines(path)]
    if not names:
        raise UserError('%s: lists no images' % path)
    for name in names:
        if '..' in re.split(r'[/\\]', name) or name.startswith('/') or '\0' in name:
            raise UserError('%s: %r leads out of the folder' % (path, name[:80]))
    return names


def files_below(folder: str, extensions: tuple):
    """Finds the files below `folder` with one of the extensions -> list of (name, path).

    A name is the path of the file relative to `folder`, without the extension. The files of a folder, sorted, come
    before the files of the sub-folders. Hidden files and folders, such as macOS's ._NAME, are skipped. A link to a
    folder that contains the link is skipped with a note. Another note gives the number of files of other types that may
    be images. Raises UserError if a folder is missing or unreadable, or a file name is not UTF-8.
    """
    found, others = [], []
    real_parents = {folder: [os.path.realpath(folder)]}  # {folder: real paths of the folder and its parents}

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
        note('%s: %d files are not read, as %s; convert images to PNG, JPEG or TIFF' % (folder, len(others), others[0]))
    return found


def image_files(folder: str):
    """Finds the images below a folder -> {name: path}, in the order of `files_below`.

    A name is the path of the image relative to `folder`, without the extension. Raises UserError for a missing or
    unreadable folder, for two images with the same name, and for a folder of images that is reached by two paths.
    """
    paths = {}
    parents = {}  # {real path of a folder: path by which the folder was reached}
    for name, path in files_below(folder, data.IMAGE_FILES):
        name = unicodedata.normalize('NFC', name)  # macOS may store an accent as a separate character
        if name in paths:
            raise UserError('%s and %s have one and the same name; rename or remove one of them' % (paths[name], path))
        paths[name] = path
    for parent in {os.path.dirname(path): None for path in paths.values()}:
        first = parents.setdefault(os.path.realpath(parent), parent)
        if first != parent:
            raise UserError('%s and %s are one folder, which a link names twice; remove the link' % (first, parent))
    return paths


def label_files(folder: str, images: dict, class_names=()):
    """Finds the labels below a folder -> {image name: list of the paths of candidate labels}.

    The file of a label has the name of the image. If there is no such file, the label may have a suffix after the
    image's name, as in NAME_mask.png or NAME_L.png. If the image's name ends in a word of IMAGE_SUFFIX, such as _img,
    the label's name may lack this word. An image without a label has no entry. A note gives the number of labels
    without an image. Suffixes may differ only in words of MASK_WORDS; otherwise UserError is raised. Also raises
    UserError if a suffix is the name of a class, because such a label shows only one class.

    Args:
      images: {name: path}.
      class_names: names of the classes in the form that `words` returns: lower case, words joined by _.
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
    """Lowercases the words of a name and joins the words with _, for example Optic-Disc -> optic_disc.

    Words in `without` are dropped.
    """
    return '_'.join(word for word in re.split('[-_. ]+', text.lower()) if word and word not in without)


def label_path(folder: str, found: dict, name: str):
    """Returns the path of the label of image `name`; raises UserError unless the image has exactly one label.

    Args:
      folder: folder of the labels, for the error message.
      found: {image name: list of label paths}, the result of `label_files`.
    """
    paths = found.get(name, [])
    if len(paths) != 1:
        raise UserError('%s: %d labels for image %s; expected one file IMAGE.png or IMAGE_SUFFIX.png; the folder has %s'
                        % (folder, len(paths), name, ', '.join(sorted(os.listdir(folder))[:4]) or 'no files'))
    return paths[0]


def small_numbers(texts: list):
    """Parses whole numbers from 0 to 255 -> tuple of int, or None if a string is not such a number."""
    good = all(re.match(r'\A[0-9]{1,3}\Z', text) and int(text) < 256 for text in texts)
    return tuple(map(int, texts)) if good else None


def voc_color(i: int):
    """Returns the colour of id `i` in PASCAL VOC's palette: (red, green, blue), 0 to 255 each.

    Bits 0, 1 and 2 of `i` are the highest bits of red, green and blue; bits 3, 4 and 5 are the next lower bits; and so
    on. Bit 0 is the lowest bit of `i`.
    """
    return tuple(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))


def distinct_colors(colors: list):
    """Replaces each None in a list of colours by the next unused colour of PASCAL VOC's palette -> list."""
    new = (color for color in map(voc_color, range(256)) if color not in colors)
    return [color or next(new) for color in colors]


def picture(name: str) -> str:
    """Removes Roboflow's version code from an image name: augmented versions of a picture then share a name."""
    return VERSION.sub('', name)


def place(name: str) -> int:
    """Hashes the name of a picture to a number from 0 to 2^32 - 1; `hold_out` selects val by this number.

    A name is split into the last number in the name and the remaining text. The hash is the first 32 bits of the
    SHA-256 of the text, plus GOLDEN times the number, modulo 2^32. GOLDEN spreads the hashes of
    consecutively numbered names evenly.
    """
    text, number, rest = re.match(r'(.*?)([0-9]*)([^0-9]*)\Z', name, re.DOTALL).groups()
    start = int(hashlib.sha256((text + '#' + rest).encode('utf-8')).hexdigest()[:8], 16)
    return (start + int(number or 0) * GOLDEN) % (1 << 32)


class HeldOut(list):
    """List of the names that `hold_out` chose for val.

    pool: list of all names, train and val, in the given order.
    """


def hold_out(names: list, fold: str = FOLD):
    """Splits image names into train and val -> {'train': sorted list, 'val': sorted list}.

    The val list is a `HeldOut`, a list that also stores all names. The split of an image depends only on the image's
    name, so adding images does not change the split of other images. Augmented versions of one picture, for which
    `picture` returns equal names, are in the same split. Each split gets at least one picture.

    Args:
      fold: 'K/N': the images are divided into N parts of about the same size, and val is the K-th part.
    Raises:
      UserError: a malformed `fold`, or fewer than two pictures.
    """
    numbers = small_numbers(fold.split('/')) or ()
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] or numbers[1] < 2:
        raise UserError('--fold %s: expected K/N, for part K of N parts, such as 2/5' % fold[:20])
    start, end = ((numbers[0] - i) * (1 << 32) // numbers[1] for i in (1, 0))
    places = {name: (place(name) - start) % (1 << 32) for name in {picture(name) for name in names}}
    if len(places) < 2:
        raise UserError('%d images to train and validate (versions of one picture count once); need two' % len(places))
    count = min(max(1, sum(value < end - start for value in places.values())), len(places) - 1)
    held_out = set(sorted(places, key=lambda name: (places[name], name))[:count])
    val = HeldOut(sorted(name for name in names if picture(name) in held_out))
    val.pool = list(names)
    return {'train': sorted(name for name in names if picture(name) not in held_out), 'val': val}
