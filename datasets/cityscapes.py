"""Reads Cityscapes with fine annotations -> `Dataset`."""
import os

from datasets import files, labels, tables
from system.files import note

CLASSES = {  # {name: (id in labelIds.png, colour)} of the benchmark's 19 classes, in the order of training ids
    'road': (7, (128, 64, 128)), 'sidewalk': (8, (244, 35, 232)), 'building': (11, (70, 70, 70)),
    'wall': (12, (102, 102, 156)), 'fence': (13, (190, 153, 153)), 'pole': (17, (153, 153, 153)),
    'traffic light': (19, (250, 170, 30)), 'traffic sign': (20, (220, 220, 0)), 'vegetation': (21, (107, 142, 35)),
    'terrain': (22, (152, 251, 152)), 'sky': (23, (70, 130, 180)), 'person': (24, (220, 20, 60)),
    'rider': (25, (255, 0, 0)), 'car': (26, (0, 0, 142)), 'truck': (27, (0, 0, 70)), 'bus': (28, (0, 60, 100)),
    'train': (31, (0, 80, 100)), 'motorcycle': (32, (0, 0, 230)), 'bicycle': (33, (119, 11, 32))}


def read(data_dir: str):
    """Reads Cityscapes -> `Dataset`: 19 classes, the other classes are void; the training size is 256x512.

    Labels are NAME_gtFine_labelIds.png, or NAME_gtFine_labelTrainIds.png if there are no labelIds. The field
    `class_ids` holds the ids of the label files. Prints the folders of images that are left out, such as test, whose
    labels are not public, and train_extra, whose labels are coarse. Raises UserError for a missing folder, for an image
    without a label, and for an image whose name does not end in _leftImg8bit.
    """
    files.check_data_dir(data_dir, 'cityscapes', 'leftImg8bit/train/, gtFine/train/ (and val alike)')
    roots = [next((path for path in (os.path.join(data_dir, name), os.path.join(data_dir, name + '_trainvaltest', name))
                   if os.path.isdir(path)), os.path.join(data_dir, name)) for name in ('leftImg8bit', 'gtFine')]
    train_labels = files.files_below(os.path.join(roots[1], 'train'), ('.png',))
    kind = 'labelIds' if any(name.endswith('_labelIds') for name, _ in train_labels) else 'labelTrainIds'
    pairs = {split: labels.pairs_of_files(os.path.join(roots[0], split), os.path.join(roots[1], split),
                                          lambda name: name.replace('_leftImg8bit', '_gtFine_' + kind))
             for split in ('train', 'val')}
    others = [name for name in sorted(os.listdir(roots[0])) if name not in pairs]
    note('%s: read as Cityscapes with labels *_gtFine_%s.png%s' % (
        data_dir, kind, '; left out, as only train and val have fine labels: ' * bool(others) + ', '.join(others)))
    ids = [place if kind == 'labelTrainIds' else CLASSES[name][0] for place, name in enumerate(CLASSES)]
    void = (255,) if kind == 'labelTrainIds' else set(range(34)).difference(ids)
    classes = [tables.Class(name, (i,), None) for name, i in zip(CLASSES, ids)] + [tables.Class('void', void, None)]
    return labels.dataset_of_pairs('cityscapes', CLASSES, [color for _, color in CLASSES.values()], (256, 512), pairs,
                                   lambda path: labels.read_class_label(path, classes), class_ids=ids)
