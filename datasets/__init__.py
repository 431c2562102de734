"""The data sets: one file a data set, named as its `--dataset` value, whose `read(data_dir)` returns a `data.Dataset`.

`python -m datasets NAME --data_dir DIR` checks a data set. Code that two readers share is in `data.py`.
"""
from data import UserError
from datasets import camvid, folder, sample, sartorius, sunrgbd, voc2012

READERS = {'camvid': camvid.read, 'folder': folder.read, 'sample': sample.read, 'sartorius': sartorius.read,
           'sunrgbd': sunrgbd.read, 'voc2012': voc2012.read}
CLASS_NAMES = {'sample': sartorius.CELLS, 'sartorius': sartorius.CELLS, 'camvid': list(camvid.CLASSES),
               'voc2012': voc2012.CLASSES, 'sunrgbd': sunrgbd.CLASSES}  # classes.csv names those of `folder`


def names():
    """Values of `--dataset`, sorted."""
    return sorted(READERS)


def open(name, data_dir=None, config=None):
    """Opens the data set `name` in the folder `data_dir` -> `data.Dataset`.

    Args:
      config: config.json of a run, whose class names must be those of the data set; None checks nothing.
    Raises:
      UserError: unknown name, a fault of the data, or other classes than the run's.
    """
    if name not in READERS:
        raise UserError('--dataset %s: unknown; one of %s' % (name, ', '.join(names())))
    dataset = READERS[name](data_dir)
    if config and config.get('class_names') != dataset.class_names:
        raise UserError('%s: the run was trained on classes %s, the data has %s'
                        % (data_dir or name, config.get('class_names'), dataset.class_names))
    return dataset


def check_split(dataset, split):
    """Raises UserError unless the data set has examples in `split`."""
    if not dataset.examples.get(split):
        raise UserError('--split %s: data set %s has %s'
                        % (split, dataset.name, ', '.join(s for s in dataset.examples if dataset.examples[s])))
