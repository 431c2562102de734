"""Splits images into train, val and test: by lists or by folders, else by `files.hold_out`."""
import os
import re
import unicodedata

import data
from datasets import files
from system.files import UserError, note, read_text


def find(folder: str, images: dict):
    """Splits the images -> {split: list of names}.

    Uses the lists train.txt, val.txt and test.txt in `folder` if one of them exists, else the sub-folders of the
    images, else `hold_out`. Sub-folders are used only if one of them is train. If there is no val, `hold_out` divides
    train into train and val.

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
        raise UserError('%s: outside the sub-folders train/, val/ and test/ of the splits; move the image, or list the '
                        'images of each split in train.txt and val.txt' % images[by_folder[None][0]])
    if 'train' not in by_folder:
        if set(by_folder) - {None}:
            note('without a sub-folder train/ no sub-folder counts as a split; a fifth of all images is val')
        return files.hold_out(list(images))
    if 'val' not in by_folder:
        by_folder.update(files.hold_out(by_folder['train']))
    return {split: by_folder[split] for split in files.SPLITS if split in by_folder}


def split_lists(folder: str):
    """Finds the lists of the splits in `folder` -> {split: path}, with an entry for each of files.SPLITS.

    The name of a list is a key of files.FOLDERS, in upper or lower case, such as CVAT's Validation.txt. A split without
    a list gets the path SPLIT.txt in `folder`, where no file exists.
    """
    names = sorted(os.listdir(folder), key=lambda name: name[:-4] in files.SPLITS) if os.path.isdir(folder) else []
    found = {files.FOLDERS.get(name[:-4].lower()): name for name in names if name.lower().endswith('.txt')}
    return {split: os.path.join(folder, found.get(split, split + '.txt')) for split in files.SPLITS}


def listed_splits(lists: dict, images: dict):
    """Reads the lists {split: path} -> {split: list of image names}; an empty or missing test list is skipped.

    Without a list of val, `hold_out` divides the images of train into train and val. Without a list of train, the other
    lists must name all images.
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
        found = dict(files.hold_out(found['train']), **{'test': found['test']} if 'test' in found else {})
    return found
