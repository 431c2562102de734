"""Reads PASCAL VOC 2012 segmentation -> `Dataset`."""
import os
import re

from datasets import files, labels, tables
from datasets.folder import TABLES, voc_root
from system.files import UserError

CLASSES = ('background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person '
       'pottedplant sheep sofa train tvmonitor').split()


def read(data_dir: str):
    """Reads PASCAL VOC 2012 segmentation -> `Dataset`: 21 classes; labels are palette PNGs, id 255 is void.

    If ImageSets/Segmentation/trainaug.txt exists, this list is the train split, with labels in SegmentationClassAug/
    (Hariharan et al. 2011). The training size is 224x224, as in the authors' segnet_pascal.prototxt. Images and labels
    are opened later, by `load` of the returned `Dataset`. Raises UserError for a missing list, for a folder with a
    table of classes, and for image names that VOC 2012 does not have.
    """
    files.check_data_dir(data_dir, 'voc2012', 'VOCdevkit/VOC2012')
    root = voc_root(data_dir, 'VOC2012')
    if root is None:
        raise UserError('--data_dir %s: no VOCdevkit/VOC2012/JPEGImages; unpack VOCtrainval_11-May-2012.tar' % data_dir)
    table = next((name for name in TABLES if os.path.exists(os.path.join(root, name))), None)
    lists = os.path.join(root, 'ImageSets', 'Segmentation')
    sources = {'train': ('train', 'SegmentationClass'), 'val': ('val', 'SegmentationClass')}
    if os.path.exists(os.path.join(lists, 'trainaug.txt')):
        sources['train'] = 'trainaug', 'SegmentationClassAug'
    pairs = {}
    for split, (name, folder) in sources.items():
        names = files.read_names(os.path.join(lists, name + '.txt'))
        strange = table or next(('an image ' + name for name in names if not re.match(r'20\d\d_\d{6}\Z', name)), None)
        if strange:
            raise UserError('%s: has %s, unlike PASCAL VOC 2012; for own data give --dataset folder' % (root, strange))
        pairs[split] = [(name, os.path.join(root, 'JPEGImages', name + '.jpg'),
                         os.path.join(root, folder, name + '.png')) for name in names]
    ids = list(range(len(CLASSES)))
    colors = list(map(files.voc_color, ids))
    classes = [tables.Class(name, (i,), color) for name, i, color in zip(CLASSES, ids, colors)]
    classes.append(tables.Class('void', (255,), tables.VOC_VOID))
    return labels.dataset_of_pairs('voc2012', CLASSES, colors, (224, 224), pairs,
                                   lambda path: labels.read_class_label(path, classes), class_ids=ids)
