"""Opens data sets: the file named as the `--dataset` value has `read(data_dir)` -> `data.Dataset`.

`python -m datasets NAME --data_dir DIR` checks a data set. Readers share `data.py`, `files.py` and `tables.py`.
"""
import collections
import concurrent.futures
import os
import warnings
import zlib

import numpy as np

import data
from datasets import ade20k, camvid, cityscapes, folder, record, sample, sartorius, sunrgbd, tables, voc2012
from system.cli import MAX_SIDE
from system.files import UserError, note
from system.machine import NUM_CORES, free_memory

# Value of --dataset -> module; each has read(data_dir) and, except folder, CLASSES.
MODULES = {'ade20k': ade20k, 'camvid': camvid, 'cityscapes': cityscapes, 'folder': folder, 'sample': sample,
           'sartorius': sartorius, 'sunrgbd': sunrgbd, 'voc2012': voc2012}
warnings.filterwarnings('ignore', module='runpy')  # on `python -m datasets.sample`, which is imported here too
AHEAD = 2 * NUM_CORES  # examples that `preload` holds in memory beside the cache
ABSENT = 'classes without a training pixel: %s; the network cannot learn them'

# What `preload` finds in a split. counts: int64 [images, num_classes + 1], the pixels of each class, void last.
# digests: list of str, CRC-32 of image and label.
Facts = collections.namedtuple('Facts', 'counts digests')


def open(name: str, data_dir: str = None, config: dict = None, rle_order: str = None, depth: int = None,
         fold: str = None):
    """Opens the data set `name` in the folder `data_dir` -> `data.Dataset`.

    Args:
      config: config.json of a run, or None. The class names must be equal; `depth` and `rle_order` of the config
        replace the arguments, and the split is the run's, as `record.restore` says.
      rle_order, depth: as in `folder.read`. Without a config, UserError for another data set than 'folder'.
      fold: 'K/N', as for `files.hold_out`, for a data set without its own val. Ignored with a config.
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
    if config:
        return record.restore(dataset, config, data_dir)
    return record.take_fold(dataset, fold) if fold else dataset


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


def in_order(function, jobs: list):
    """Yields (job, function(job)) in the order of the jobs, which threads run; at most AHEAD results wait."""
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(NUM_CORES) as pool:  # Pillow decodes outside Python's lock
        for job in jobs:
            waiting.append((job, pool.submit(function, job)))
            if len(waiting) == AHEAD:
                job, future = waiting.popleft()
                yield job, future.result()
        for job, future in waiting:
            yield job, future.result()


def preload(dataset, splits, cache: int = None, facts: dict = None, processes: int = 1):
    """Loads and checks each example of `splits`; returns the `Dataset` with the examples cached in memory.

    Examples beyond `cache` bytes are loaded again when needed. With train in `splits`, prints the classes without a
    training pixel. UserError for an example that cannot be read, and as `load_checked`.

    Args:
      cache: None for half of the free memory, divided by `processes`, but at most data.CACHE_BYTES.
      facts: optional dict, which is filled with {split: Facts}.
      processes: number of processes on this machine that load the data set at the same time.
    """
    def load(job):
        image, label = load_checked(dataset, *job)
        digests = [zlib.crc32(np.ascontiguousarray(array), array.shape[0]) for array in (image, label)]
        return image, label, data.label_counts(label, len(dataset.class_names)), '%08x %08x' % tuple(digests)

    cache = min(data.CACHE_BYTES, free_memory() // 2 // processes) if cache is None else cache
    cached = {}
    found = {split: Facts([], []) for split in splits}
    for job, (image, label, counts, digest) in in_order(load, [
            (split, i) for split in splits for i in range(len(dataset.examples[split]))]):
        cache -= image.nbytes + label.nbytes
        if cache >= 0:
            cached[job] = image, label
        found[job[0]].counts.append(counts)
        found[job[0]].digests.append(digest)
    for split in found:
        found[split] = found[split]._replace(counts=np.array(found[split].counts))
    if 'train' in splits:
        absent = np.flatnonzero(found['train'].counts[:, :-1].sum(0) == 0)
        if len(absent):
            note(ABSENT % ', '.join(dataset.class_names[i] for i in absent))
    if facts is not None:
        facts.update(found)
    return dataset._replace(load=lambda split, i: cached.get((split, i)) or dataset.load(split, i))


def check_split(dataset, split: str):
    """Raises UserError unless the data set has examples in `split`."""
    if not dataset.examples.get(split):
        raise UserError('data set %s: no images in split %s, only in %s'
                        % (dataset.name, split, ', '.join(name for name, found in dataset.examples.items() if found)))


def pixel_sums(counts):
    """Sums counts int64 [images, num_classes + 1] -> (pixels, present) of each class, as `data.class_counts`."""
    return counts.sum(0), ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)


def training_size(dataset, height: int = None, width: int = None) -> tuple:
    """Training size (height, width) in pixels: the size of the data set for None, None.

    If one side is given, the other keeps the proportion of the data set's size. UserError if it becomes too large.
    """
    if not height and not width:
        return tuple(dataset.size)
    shape = dataset.size[0] / dataset.size[1]
    size = height or max(1, round(width * shape)), width or max(1, round(height / shape))
    if max(size) > MAX_SIDE:
        raise UserError('--height, --width: the size in proportion to %dx%d would be %dx%d; at most %d pixels a side'
                        % (tuple(dataset.size) + size + (MAX_SIDE,)))
    return size


def class_weights(choice: str, dataset, counts=None):
    """Class weights of the loss for a value of `--class_weights`: float64 [num_classes].

    Args:
      choice: 'none' (all 1), 'median' (median frequency balancing), 'median-sqrt' (square roots of these),
        'median-void' (the median includes void), 'released', or the path of a CSV file with columns name,weight.
      counts: `Facts.counts` of train; None loads all labels.
    Raises:
      UserError: an unknown choice, a missing or malformed file, a data set without released weights, or a training
        split without labelled pixels.
    """
    if choice == 'none':
        return np.ones(len(dataset.class_names))
    if choice in ('median', 'median-sqrt', 'median-void'):
        pixels, present = data.class_counts(dataset, 'train') if counts is None else pixel_sums(counts)
        median = data.median_frequency_weights(pixels, present, choice == 'median-void')
        return np.sqrt(median) if choice == 'median-sqrt' else median
    if choice == 'released':
        if dataset.released_weights is None:
            raise UserError('--class_weights released: %s has none, only camvid has; use median' % dataset.name)
        return np.array(dataset.released_weights)
    if not os.path.exists(choice):
        raise UserError('--class_weights %s: neither a file nor a choice listed in --help' % choice)
    return tables.read_class_weights(choice, dataset.class_names)
