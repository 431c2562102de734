"""Opens data sets: the file named as the `--dataset` value has `read(data_dir)` -> `data.Dataset`.

`python -m datasets NAME --data_dir DIR` checks a data set. Readers share `data.py`, `files.py` and `tables.py`.
"""
import concurrent.futures
import os
import warnings

import numpy as np

import data
from datasets import ade20k, camvid, cityscapes, folder, sample, sartorius, sunrgbd, tables, voc2012
from system.files import UserError, note
from system.machine import NUM_CORES

# Value of --dataset -> module; each has read(data_dir) and, except folder, CLASSES.
MODULES = {'ade20k': ade20k, 'camvid': camvid, 'cityscapes': cityscapes, 'folder': folder, 'sample': sample,
           'sartorius': sartorius, 'sunrgbd': sunrgbd, 'voc2012': voc2012}
warnings.filterwarnings('ignore', module='runpy')  # on `python -m datasets.sample`, which is imported here too
AHEAD = 64  # examples that `preload` holds in memory beside the cache
ABSENT = 'classes without a training pixel: %s; the network cannot learn them'


def open(name: str, data_dir: str = None, config: dict = None, rle_order: str = None, depth: int = None):
    """Opens the data set `name` in the folder `data_dir` -> `data.Dataset`.

    Args:
      config: config.json of a run, or None. The class names must be equal; `depth` and `rle_order` of the config
        replace the arguments.
      rle_order, depth: as in `folder.read`. Without a config, UserError for another data set than 'folder'.
    Raises:
      UserError: unknown name, a missing or malformed list or table, or classes that differ from the run. Most images
        and labels are not opened here: `preload` checks them.
    """
    if name not in MODULES:
        raise UserError('--dataset %s: unknown; one of %s' % (name, ', '.join(MODULES)))
    if config:
        rle_order = config['flags'].get('rle_order')
        depth = config.get('depth', 16)  # 16: runs of older revisions
    if name == 'folder':
        dataset = folder.read(data_dir, rle_order, depth)
    elif not config and (rle_order or depth):
        raise UserError('--rle_order and --depth: only for --dataset folder')
    else:
        dataset = MODULES[name].read(data_dir)
    if config and config.get('class_names') != dataset.class_names:
        raise UserError('%s: the run was trained on classes %s, the data has %s'
                        % (data_dir or name, config.get('class_names'), dataset.class_names))
    return dataset


def load_checked(dataset, split: str, i: int):
    """Loads an example -> (image, label); UserError for unequal sizes, and for ids of no class but IGNORE."""
    name = dataset.examples[split][i]
    num_classes = len(dataset.class_names)
    image, label = dataset.load(split, i)
    if image.shape[:2] != label.shape:
        raise UserError('%s: the label is %dx%d, its image %dx%d' % ((name,) + label.shape + image.shape[:2]))
    bad = (label >= num_classes) & (label != data.IGNORE)
    data.refuse_pixels(label, bad, name, 'class id', 'the data set has ids 0 to %d' % (num_classes - 1))
    return image, label


def preload(dataset, splits):
    """Loads and checks each example of `splits`; returns the `Dataset` with the examples cached in memory.

    Examples beyond CACHE_BYTES are loaded again when needed. With train in `splits`, prints the classes without a
    training pixel. UserError for an example that cannot be read, and as `load_checked`.
    """
    jobs = [(split, i) for split in splits for i in range(len(dataset.examples[split]))]
    cache = {}
    pixels = np.zeros(256, np.int64)
    size = 0
    with concurrent.futures.ThreadPoolExecutor(NUM_CORES) as pool:  # Pillow decodes outside Python's lock
        for first in range(0, len(jobs), AHEAD):  # `map` loads all its jobs ahead
            part = jobs[first:first + AHEAD]
            for job, (image, label) in zip(part, pool.map(lambda job: load_checked(dataset, *job), part)):
                size += image.nbytes + label.nbytes
                pixels += np.bincount(label.ravel(), minlength=256) if job[0] == 'train' else 0
                if size <= data.CACHE_BYTES:
                    cache[job] = image, label
    absent = [name for name, count in zip(dataset.class_names, pixels) if not count]
    if absent and 'train' in splits:
        note(ABSENT % ', '.join(absent))
    return dataset._replace(load=lambda split, i: cache.get((split, i)) or dataset.load(split, i))


def check_split(dataset, split: str):
    """Raises UserError unless the data set has examples in `split`."""
    if not dataset.examples.get(split):
        raise UserError('data set %s: no images in split %s, only in %s'
                        % (dataset.name, split, ', '.join(name for name, found in dataset.examples.items() if found)))


def class_weights(choice: str, dataset):
    """Class weights of the loss for a value of `--class_weights`: float64 [num_classes].

    Args:
      choice: 'none' (all 1), 'median' (median frequency balancing), 'median-sqrt' (square roots of these),
        'median-void' (the median includes void), 'released', or the path of a CSV file with columns name,weight.
    Raises:
      UserError: an unknown choice, a missing or malformed file, a data set without released weights, or a training
        split without labelled pixels.
    """
    if choice == 'none':
        return np.ones(len(dataset.class_names))
    if choice in ('median', 'median-sqrt', 'median-void'):
        median = data.median_frequency_weights(*data.class_counts(dataset, 'train'), choice == 'median-void')
        return np.sqrt(median) if choice == 'median-sqrt' else median
    if choice == 'released':
        if dataset.released_weights is None:
            raise UserError('--class_weights released: %s has none, only camvid has; use median' % dataset.name)
        return np.array(dataset.released_weights)
    if not os.path.exists(choice):
        raise UserError('--class_weights %s: neither a file nor a choice listed in --help' % choice)
    return tables.read_class_weights(choice, dataset.class_names)
