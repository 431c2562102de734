"""Splits images into train, val and test: by lists, by folders, or by a hash of each name."""
import hashlib
import os
import re
import unicodedata

import data
from datasets import files
from system.files import UserError, note, read_text

VERSION = re.compile(r'\.rf\.[0-9A-Za-z]{20,}')  # of an image, added to its name by Roboflow: p1_png.rf.0c9f...
GOLDEN = 2654435769  # 2^32 divided by the golden ratio, whose multiples are spread evenly over the circle
FOLD = '1/5'  # part of the images that is val in a data set without its own val


def picture(name: str) -> str:
    """Removes Roboflow's code of a version from an image name: all versions of a picture give one name."""
    return VERSION.sub('', name)


def place(name: str) -> int:
    """Hashes the name of a picture to a number from 0 to 2^32 - 1, by which `hold_out` selects val.

    The number is a SHA-256 of the name without its last number, plus a multiple of that number, modulo 2^32. The hashes
    of consecutively numbered names are spread evenly.
    """
    text, number, rest = re.match(r'(.*?)([0-9]*)([^0-9]*)\Z', name, re.DOTALL).groups()
    start = int(hashlib.sha256((text + '#' + rest).encode('utf-8')).hexdigest()[:8], 16)
    return (start + int(number or 0) * GOLDEN) % (1 << 32)


class HeldOut(list):
    """List of the names that `hold_out` chose for val.

    pool: list of all names, train and val, in the given order.
    """


def hold_out(names: list, fold: str = FOLD):
    """Splits names -> {'train': sorted names, 'val': sorted names as `HeldOut`}.

    The split of an image depends on its name only, so images added later do not move others. Versions of one picture
    stay together. If all pictures would be in one split, the picture nearest to the other split is moved there.

    Args:
      fold: 'K/N': val is the K-th of N parts, which are of about the same size.
    Raises:
      UserError: a malformed `fold`, or fewer than two pictures.
    """
    numbers = files.small_numbers(fold.split('/')) or ()
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] or numbers[1] < 2:
        raise UserError('--fold %s: expected K/N, part K of N, as 2/5' % fold[:20])
    start, end = ((numbers[0] - i) * (1 << 32) // numbers[1] for i in (1, 0))
    places = {name: (place(name) - start) % (1 << 32) for name in {picture(name) for name in names}}
    if len(places) < 2:
        raise UserError('%d images to train and validate with (versions of one picture count once); at least two are '
                        'needed, or a split val' % len(places))
    count = min(max(1, sum(value < end - start for value in places.values())), len(places) - 1)
    held_out = set(sorted(places, key=lambda name: (places[name], name))[:count])
    val = HeldOut(sorted(name for name in names if picture(name) in held_out))
    val.pool = list(names)
    return {'train': sorted(name for name in names if picture(name) not in held_out), 'val': val}


def find(folder: str, images: dict):
    """Splits the images -> {split: list of names}.

    Uses the lists train.txt, val.txt and test.txt in `folder` if one of them exists, else the sub-folders of the
    images, else `hold_out`. Sub-folders count if one of them is train. Without val, `hold_out` splits train.

    Args:
      images: {name: path}.
    Raises:
      UserError: a list with unknown or repeated names, a missing list of train, fewer than two pictures to split, or an
        image outside the sub-folders if one of them is train.
    """
    lists = split_lists(folder)
    if any(os.path.exists(path) for path in lists.values()):
        return listed_splits(lists, images)
    by_folder = {}
    for name in images:
        by_folder.setdefault(files.FOLDERS.get(name.split('/')[0].lower()), []).append(name)
    if 'train' in by_folder and None in by_folder:
        raise UserError('%s: outside the sub-folders train/, val/ and test/, which are splits; move it, or name the '
                        'images of each split in train.txt and val.txt' % images[by_folder[None][0]])
    if 'train' not in by_folder:
        if set(by_folder) - {None}:
            note('without a sub-folder train/ no sub-folder counts as a split; a fifth of all images is val')
        return hold_out(list(images))
    if 'val' not in by_folder:
        by_folder.update(hold_out(by_folder['train']))
    return {split: by_folder[split] for split in files.SPLITS if split in by_folder}


def split_lists(folder: str):
    """Finds the lists of the splits in `folder` -> {split: path}, with an entry for each of files.SPLITS.

    A list has one of the names files.FOLDERS, in upper or lower case, such as CVAT's Validation.txt. If a
    split has no list, the path is SPLIT.txt in `folder`, which does not exist.
    """
    names = sorted(os.listdir(folder), key=lambda name: name[:-4] in files.SPLITS) if os.path.isdir(folder) else []
    found = {files.FOLDERS.get(name[:-4].lower()): name for name in names if name.lower().endswith('.txt')}
    return {split: os.path.join(folder, found.get(split, split + '.txt')) for split in files.SPLITS}


def listed_splits(lists: dict, images: dict):
    """Reads the lists {split: path} -> {split: list of image names}; an empty or missing test list is skipped.

    Without a list of val, `hold_out` splits train. Without a list of train, the other lists must name all images.
    Prints the number of images in no list. Raises UserError for an unknown or repeated name and for a missing list of
    train.
    """
    there = {split: path for split, path in lists.items() if os.path.exists(path)}
    if 'test' in there and not read_text(there['test']).strip():
        del there['test']
    split_of = {}
    keys = {files.IMAGE_SUFFIX.sub('', name): name for name in images}
    for split, path in there.items():
        for name in files.read_names(path):
            name = unicodedata.normalize('NFC', name)
            name = re.sub(r'\A(\./)?(images/)?', '', name.replace('\\', '/')) if name not in images else name
            stem, extension = os.path.splitext(name)
            name = stem if extension.lower() in data.IMAGE_FILES and name not in images else name
            name = keys.get(name, name) if name not in images else name
            if name not in images:
                raise UserError('%s: %s is not an image of the data set; the images are %s, ...'
                                % (path, name, ', '.join(list(images)[:3])))
            if name in split_of:
                raise UserError('%s: names %s, which is in %s already' % (path, name, lists[split_of[name]]))
            split_of[name] = split
    if 'train' not in there and len(split_of) < len(images):
        files.read_names(lists['train'])
    if len(split_of) < len(images):
        note('%d of %d images are in no list and are not used' % (len(images) - len(split_of), len(images)))
    found = {split: [name for name in split_of if split_of[name] == split] for split in there}
    if 'train' in found and 'val' not in found:
        note('%s: there is no list for val; a fifth of train is val' % lists['train'])
        found = dict(hold_out(found['train']), **{'test': found['test']} if 'test' in found else {})
    return found
