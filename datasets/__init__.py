"""Opens, checks and loads data sets.

The value of `--dataset` is the name of a module in this folder. The function `read(data_dir)` of the module returns a
`data.Dataset`. The command `python -m datasets NAME --data_dir DIR` checks a data set.
"""
import collections
import os
import zlib

import numpy as np

import data
from datasets import ade20k, camvid, cityscapes, folder, record, sample, sartorius, sunrgbd, tables, voc2012
from system.cli import MAX_SIDE
from system.files import UserError, note
from system.machine import NUM_CORES, free_memory, read_ahead

# {value of --dataset: module}
MODULES = {'ade20k': ade20k, 'camvid': camvid, 'cityscapes': cityscapes, 'folder': folder, 'sample': sample,
           'sartorius': sartorius, 'sunrgbd': sunrgbd, 'voc2012': voc2012}
SMALL = 1 << 14  # number of pixels; smaller images load faster without threads (45x61: 0.9 ms; two threads: 1.8 ms)
ABSENT = 'classes without a training pixel: %s; the network cannot learn them'

# Result of `preload` for a split. counts: int64 [images, num_classes + 1], number of pixels of each class in each
# label, void last. digests: list of str, one per example: CRC-32 of the image, a space, CRC-32 of the label, in hex.
Facts = collections.namedtuple('Facts', 'counts digests')


def open(name: str, data_dir: str = None, config: dict = None, rle_order: str = None, depth: int = None,
         fold: str = None):
    """Opens the data set `name` in the folder `data_dir` -> `data.Dataset`.

    Images and labels are checked later, by `preload`.

    Args:
      config: content of config.json if a run exists already, else None. The data set must have the class names of the
        run. `depth` and `rle_order` are taken from the run. If the data set has no val split, the images are split into
        train and val as in the run.
      rle_order: pixel order of the run-length encoding in labels.csv, one of data.RLE_ORDERS. If None, the order is
        detected from the masks.
      depth: number of bits that pixel values use in images of 16 bits per channel. If None, the number of bits is
        measured from the training images.
      fold: 'K/N' divides the images into N parts and makes part K the val split. `fold` is ignored if `config` is
        given.
    Raises:
      UserError: an unknown name; a missing or malformed list of images or table of classes; class names that differ
        from the class names of the run; missing images of the run; `rle_order` or `depth` for a data set other than
        'folder'; `fold` for a data set that has a val split.
    """
    if name not in MODULES:
        raise UserError('--dataset %s: unknown; choose one of %s' % (name, ', '.join(MODULES)))
    if config:
        rle_order = config['flags'].get('rle_order')
        depth = config.get('depth', 16)  # older revisions stored no depth and used 16 bits per channel
    if name == 'folder':
        dataset = folder.read(data_dir, rle_order, depth)
    elif not config and (rle_order or depth):
        raise UserError('--rle_order and --depth: only for use with --dataset folder')
    else:
        dataset = MODULES[name].read(data_dir)
    if not config:
        return record.take_fold(dataset, fold) if fold else dataset
    if config.get('class_names') != dataset.class_names:
        raise UserError('%s: the run was trained on classes %s, the data has %s'
                        % (data_dir or name, config.get('class_names'), dataset.class_names))
    return record.restore(dataset, config, data_dir)


def load_checked(dataset, split: str, i: int):
    """Loads and checks example `i` of a split -> (image uint8 [h, w, 3], label uint8 [h, w]).

    Raises UserError for an unreadable image or label, for an unknown id, and if image and label differ in size.
    """
    name = dataset.examples[split][i]
    image, label = dataset.load(split, i)
    if image.shape[:2] != label.shape:
        raise UserError('%s: the label is %dx%d, its image %dx%d' % ((name,) + label.shape + image.shape[:2]))
    bad = (label >= len(dataset.class_names)) & (label != data.IGNORE)
    data.refuse_pixels(label, bad, name, 'class id', 'the data set has %d classes' % len(dataset.class_names))
    return image, label


def ahead(dataset) -> int:
    """Returns the number of examples that threads load in advance; 0 if images have fewer than SMALL pixels."""
    return 2 * NUM_CORES - 1 if dataset.size[0] * dataset.size[1] >= SMALL else 0


def preload(dataset, splits, cache: float = None, processes: int = 1):
    """Loads and checks each example of `splits` -> (`Dataset` with the examples in memory, {split: Facts}).

    Examples that do not fit into `cache` are loaded again at each access. If `splits` includes train, prints the
    classes without a training pixel. Raises UserError for an unreadable image or label, for an unknown
    id, and if image and label differ in size.

    Args:
      cache: gigabytes of memory for decoded examples. If None, the cache is half of the free memory divided by
        `processes`, at most data.CACHE_BYTES.
      processes: number of processes on this machine that load the data set at the same time.
    """
    def load(job):
        image, label = load_checked(dataset, *job)
        digests = tuple(zlib.crc32(np.ascontiguousarray(array), array.shape[0]) for array in (image, label))
        return image, label, data.label_counts(label, len(dataset.class_names)), '%08x %08x' % digests

    space = min(data.CACHE_BYTES, free_memory() // 2 // processes) if cache is None else 1e9 * cache
    cached = {}
    found = {split: Facts([], []) for split in splits}
    jobs = [(split, i) for split in splits for i in range(len(dataset.examples[split]))]
    for job, result in read_ahead(load, jobs, ahead(dataset)):
        image, label, counts, digest = result()
        space -= image.nbytes + label.nbytes
        if space >= 0:
            cached[job] = image, label
        found[job[0]].counts.append(counts)
        found[job[0]].digests.append(digest)
    found = {split: facts._replace(counts=np.array(facts.counts)) for split, facts in found.items()}
    if 'train' in splits:
        absent = np.flatnonzero(found['train'].counts[:, :-1].sum(0) == 0)
        if len(absent):
            note(ABSENT % ', '.join(dataset.class_names[i] for i in absent))
    return dataset._replace(load=lambda split, i: cached.get((split, i)) or dataset.load(split, i)), found


def check_split(dataset, split: str):
    """Raises UserError unless the data set has examples in `split`."""
    if not dataset.examples.get(split):
        others = ', '.join(name for name, found in dataset.examples.items() if found)
        raise UserError('data set %s: no images in split %s, only in %s' % (dataset.name, split, others))


def training_size(dataset, height: int = None, width: int = None) -> tuple:
    """Returns the training size (height, width) in pixels; the default is `dataset.size`.

    If `height` or `width` is missing, the missing side follows from the proportions of `dataset.size`. Raises UserError
    if a side is longer than MAX_SIDE pixels.
    """
    if not height and not width:
        return tuple(dataset.size)
    shape = dataset.size[0] / dataset.size[1]
    size = height or max(1, round(width * shape)), width or max(1, round(height / shape))
    if max(size) > MAX_SIDE:
        raise UserError('--height, --width: the size would be %dx%d; at most %d pixels per side' % (size + (MAX_SIDE,)))
    return size


def class_weights(choice: str, dataset, counts):
    """Returns the class weights of the loss for a value of `--class_weights` -> float64 [num_classes].

    Args:
      choice: 'none' (all 1), 'median' (median frequency balancing), 'median-sqrt' (square roots of the 'median'
        weights), 'median-void' (void counts as a class in the median), 'released' (published with the data set), or the
        path of a CSV file with columns name,weight.
      counts: int64 [images, num_classes + 1], number of pixels of each class in each training label, void last.
    Raises:
      UserError: an unknown choice, a missing or malformed file, a data set without released weights, or a training
        split without labelled pixels.
    """
    if choice == 'none':
        return np.ones(len(dataset.class_names))
    if choice in ('median', 'median-sqrt', 'median-void'):
        median = data.median_frequency_weights(*data.pixel_sums(counts), choice == 'median-void')
        return np.sqrt(median) if choice == 'median-sqrt' else median
    if choice == 'released':
        if dataset.released_weights is None:
            raise UserError('--class_weights released: %s has no such weights; use median' % dataset.name)
        return np.array(dataset.released_weights)
    if not os.path.exists(choice):
        raise UserError('--class_weights %s: neither a file nor a choice listed in --help' % choice)
    return tables.read_class_weights(choice, dataset.class_names)
