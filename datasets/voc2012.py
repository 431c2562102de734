"""Reads PASCAL VOC 2012 segmentation -> `Dataset`."""
import os
import re

import data
from data import Dataset
from datasets import files, folder, labels, tables
from system.files import UserError

CLASSES = ('background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person '
       'pottedplant sheep sofa train tvmonitor').split()


def read(data_dir: str):
    """Reads PASCAL VOC 2012 segmentation -> `Dataset`: 21 classes; labels are palette PNG, 255 is void.

    If ImageSets/Segmentation/trainaug.txt exists, this list is train, with the labels of SegmentationClassAug/
    (Hariharan et al. 2011). The training size is 224x224, as in the authors' segnet_pascal.prototxt. Raises UserError
    for a missing list, for a folder with a table of classes, and for image names that VOC 2012 does not have.
    Images and labels are opened later, by `load` of the returned `Dataset`.
    """
    files.check_data_dir(data_dir, 'voc2012', 'VOCdevkit/VOC2012')
    root = next((path for path in (os.path.join(data_dir, 'VOCdevkit', 'VOC2012'), os.path.join(data_dir, 'VOC2012'),
                                   data_dir) if os.path.isdir(os.path.join(path, 'ImageSets'))), None)
    if root is None:
        raise UserError('--data_dir %s: no VOCdevkit/VOC2012/ImageSets; unpack VOCtrainval_11-May-2012.tar' % data_dir)
    table = next((name for name in folder.TABLES if os.path.exists(os.path.join(root, name))), None)
    lists = os.path.join(root, 'ImageSets', 'Segmentation')
    augmented = os.path.exists(os.path.join(lists, 'trainaug.txt'))
    sources = {'train': ('trainaug', 'SegmentationClassAug') if augmented else ('train', 'SegmentationClass'),
               'val': ('val', 'SegmentationClass')}
    examples = {split: files.read_names(os.path.join(lists, name + '.txt')) for split, (name, _) in sources.items()}
    strange = [name for names in examples.values() for name in names if not re.match(r'20\d\d_\d{6}\Z', name)]
    if table or strange:
        raise UserError('%s: has %s, which PASCAL VOC 2012 has not; for own classes give --dataset folder, and a table '
                        'of classes in this folder' % (root, table or 'an image ' + strange[0]))
    classes = ([tables.Class(name, [i], files.voc_color(i)) for i, name in enumerate(CLASSES)]
               + [tables.Class('void', [255], tables.VOC_VOID)])

    def load(split, i):
        name = examples[split][i]
        image = data.read_image(os.path.join(root, 'JPEGImages', name + '.jpg'))
        return image, labels.read_class_label(os.path.join(root, sources[split][1], name + '.png'), classes)

    colors = [files.voc_color(i) for i in range(len(CLASSES))]
    return Dataset('voc2012', CLASSES, colors, (224, 224), examples, load, 'predictions.png')
