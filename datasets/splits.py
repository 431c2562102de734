"""Splits images into train, val and test by lists, by folders or by `files.hold_out`."""
import glob
import os
import re
import unicodedata

import data
from datasets import files, record
from system.files import UserError, note, read_text

PLACES = ('', 'ImageSets/Segmentation', 'ImageSets', 'splits')  # folders that may hold the lists of the splits
# File extension of an image.
EXTENSION = re.compile('(%s)\\Z' % '|'.join(map(re.escape, data.IMAGE_FILES)), re.IGNORECASE)


def find(folder: str, images: dict):
    """Splits the images -> {split: list of names}.

    The lists that `find_lists` finds define the splits. Without lists, sub-folders of the images define the splits, if
    one sub-folder is train. Otherwise `files.hold_out` splits all images. If the lists or sub-folders define no val,
    `files.hold_out` divides train into train and val.

    Args:
      images: {name: path}.
    Raises:
      UserError: a list with unknown or repeated names; no list for train although the other lists do not name all
        images; fewer than two images to split; an image outside the sub-folders of the splits.
    """
    lists = find_lists(folder)
    found = listed_splits(lists, images) if lists else {}
    if not lists:
        for name in images:
            found.setdefault(files.FOLDERS.get(name.split('/')[0].lower()), []).append(name)
        if 'train' not in found:
            if set(found) - {None}:
                note('without a sub-folder train/ no sub-folder counts as a split; a fifth of all images is val')
            return files.hold_out(list(images))
        if None in found:
            raise UserError('%s: outside the folders train/, val/ and test/; move the image' % images[found[None][0]])
    if 'train' in found and 'val' not in found:
        note('no list or sub-folder names a split val; a fifth of train is val')
        found.update(files.hold_out(found['train']))
    return {split: found[split] for split in files.SPLITS if split in found}


def find_lists(folder: str):
    """Finds the lists of the splits -> {split: path}.

    Searches the folders of PLACES below `folder`, in the order of PLACES, and stops at the first folder with a list.
    The file name of a list, without .txt and in lower case, is a key of files.FOLDERS. For example, CVAT writes
    Validation.txt. An empty list for the test split is ignored.
    """
    for place in PLACES:
        found = {}
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), place, '*.[Tt][Xx][Tt]'))):
            name = os.path.basename(path)[:-4]
            split = files.FOLDERS.get(name.lower())
            if split and (split not in found or name == split) and (split != 'test' or read_text(path).strip()):
                found[split] = path
        if found:
            return {split: found[split] for split in files.SPLITS if split in found}
    return {}


def listed_splits(lists: dict, images: dict):
    """Reads the lists {split: path} -> {split: list of image names}.

    Prints how many images are in no list. Raises UserError for an unknown or repeated name. Also raises UserError if an
    image is in no list and there is no list for train.
    """
    split_of = {}
    keys = {files.IMAGE_SUFFIX.sub('', name): name for name in images}
    for split, path in lists.items():
        for listed in files.read_names(path):
            listed = unicodedata.normalize('NFC', listed)
            below = re.sub(r'\A(\./)?(images/)?', '', listed.replace('\\', '/'))
            stem = EXTENSION.sub('', below)
            name = next((name for name in (listed, below, stem, keys.get(stem)) if name in images), None)
            if not name:
                raise UserError('%s: %s is not an image; the images are %s' % (path, listed, record.some(images)))
            if name in split_of:
                raise UserError('%s: names %s, which is in %s already' % (path, name, lists[split_of[name]]))
            split_of[name] = split
    unused = len(images) - len(split_of)
    if unused and 'train' not in lists:
        raise UserError('%s: there is no train.txt beside this list; write train.txt' % list(lists.values())[0])
    if unused:
        note('%d of %d images are in no list and are not used' % (unused, len(images)))
    return {split: [name for name in split_of if split_of[name] == split] for split in lists}
