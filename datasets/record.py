"""Records splits and checksums of a run's examples, compares such records, and restores splits.

A record is {split: ['NAME IMAGE LABEL', ...]}, in the order of the examples. NAME is the path of the example below
--data_dir. IMAGE and LABEL are the CRC-32 of the decoded image and of the label. A record holds no dates, so a copy of
the files has an equal record.
"""
import numpy as np

from datasets import files
from system.files import UserError, note


def names_of(dataset, split: str, data_dir: str) -> list:
    """Returns the names of the examples of a split as paths below the folder `data_dir`: list of str.

    If `data_dir` is None, the names are returned unchanged.
    """
    names = [str(name).replace('\\', '/') for name in dataset.examples[split]]
    folder = (data_dir or '').replace('\\', '/').rstrip('/') + '/'
    return [name[len(folder):] if data_dir and name.startswith(folder) else name for name in names]


def make(dataset, facts: dict, data_dir: str) -> dict:
    """Makes the record {split: ['NAME IMAGE LABEL', ...]} of the splits in `facts`.

    NAME is the name of an example. IMAGE and LABEL are the CRC-32 of the image and of the label.

    Args:
      facts: {split: datasets.Facts}, the second result of `datasets.preload`.
    """
    return {split: ['%s %s' % pair for pair in zip(names_of(dataset, split, data_dir), facts[split].digests)]
            for split in facts}


def some(names) -> str:
    """Formats the first three names as text: 'a, b, c, ...'."""
    names = list(names)
    return ', '.join(names[:3]) + (', ...' if names[3:] else '')


def changes(before: dict, now: dict) -> str:
    """Describes the differences of two records, for example 'val: 2 of 9 labels changed (a, b)'.

    The result is '' if the records are equal.
    """
    found = []
    for split in sorted(set(before) | set(now)):
        was, has = ({line.rsplit(' ', 2)[0]: line.rsplit(' ', 2)[1:] for line in record.get(split, [])}
                    for record in (before, now))
        missing = [name for name in was if name not in has]
        new = [name for name in has if name not in was]
        images, labels = ([name for name in was if name in has and was[name][i] != has[name][i]] for i in (0, 1))
        moved = [] if missing or new else [name for name, other in zip(was, has) if name != other]
        kinds = {'%d images are missing': missing, '%d images are new': new,
                 '%%d of %d images changed' % len(was): images, '%%d of %d labels changed' % len(was): labels,
                 '%d images are in another order': moved}
        found += ['%s: %s (%s)' % (split, text % len(names), some(names)) for text, names in kinds.items() if names]
    return '; '.join(found)


# ---------------------------------------------------------------- splits

def with_splits(dataset, examples: dict):
    """Replaces splits of a data set by `examples`, {split: list of names} -> `Dataset`.

    The names must be names of examples in `dataset`. An example that moves to another split keeps its name. A split
    that is not in `examples` stays unchanged.
    """
    places = {name: (split, i) for split, names in dataset.examples.items() for i, name in enumerate(names)}
    examples = dict(dataset.examples, **examples)
    return dataset._replace(examples=examples, load=lambda split, i: dataset.load(*places[examples[split][i]]))


def take_fold(dataset, fold: str):
    """Divides the images into N parts; part K becomes val, and the other parts become train -> `Dataset`.

    `fold` is the string 'K/N'. For example, with '2/5' the second of five parts is val. Raises UserError if the data
    set has a val split of its own, or if `fold` is malformed.
    """
    if not isinstance(dataset.examples.get('val'), files.HeldOut):
        raise UserError('--fold %s: data set %s has a split val already; leave out --fold' % (fold, dataset.name))
    return with_splits(dataset, files.hold_out(dataset.examples['val'].pool, fold))


def restore(dataset, config: dict, data_dir: str):
    """Returns the `Dataset` with the splits train and val of a run.

    A data set with a val split of its own is returned unchanged. A data set without any image of the run is returned
    unchanged too, and a note is printed. Images that were added since the run began are left out, and a note is
    printed. If an older revision wrote config.json, the images of the run are not recorded; then val is chosen by the
    rule of the older revision.

    Args:
      config: content of the run's config.json; the entry `examples` is the record of the run.
    Raises:
      UserError: images of the run are missing, or the run was made by an older revision and had a different number of
        images.
    """
    if not isinstance(dataset.examples.get('val'), files.HeldOut):
        return dataset
    pool = dataset.examples['val'].pool
    if not config.get('examples'):
        if 'fold' in config['flags']:
            return take_fold(dataset, config['flags']['fold'] or files.FOLD)
        sizes = config.get('sizes', {})
        val = max(1, len(pool) // 5)
        if (sizes.get('train'), sizes.get('val')) != (len(pool) - val, val):
            raise UserError('%s: the run of an older revision had %s examples, now there are %d images; restore the '
                            'images of the run, or write train.txt and val.txt' % (data_dir, sizes, len(pool)))
        shuffled = [pool[i] for i in np.random.RandomState(0).permutation(len(pool))]
        return with_splits(dataset, {'train': sorted(shuffled[val:]), 'val': sorted(shuffled[:val])})
    examples = {split: [line.rsplit(' ', 2)[0] for line in config['examples'][split]] for split in ('train', 'val')}
    known = set(examples['train'] + examples['val'])
    missing = sorted(known.difference(pool))
    if len(missing) == len(known):
        note('%s: holds no image of the run, so it is taken for another data set, with its own split' % data_dir)
        return dataset
    if missing:
        raise UserError('%s: %d of %d images of the run are missing: %s; restore them, or write train.txt and val.txt'
                        % (data_dir, len(missing), len(known), some(missing)))
    new = sorted(set(pool) - known)
    if new:
        note('%s: %d images are new since the run began, and are not used: %s' % (data_dir, len(new), some(new)))
    return with_splits(dataset, examples)
