"""Our own layout of `--dataset folder`: classes, labels, masks in run lengths, lists."""
import os
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from conftest import write_folder, write_png

import datasets
from data import IGNORE, UserError


def own_label(tmp_path, classes, pixels, name='a.png', palette=None):
    """Label read from `pixels`, ids or RGB colours, with the table `classes` and a black image."""
    folder = str(tmp_path)
    os.makedirs(os.path.join(folder, 'images'), exist_ok=True)
    os.makedirs(os.path.join(folder, 'labels'), exist_ok=True)
    for stem in 'ab':
        cv2.imwrite(os.path.join(folder, 'images', stem + '.png'), np.zeros(pixels.shape[:2] + (3,), np.uint8))
    if palette:
        write_png(os.path.join(folder, 'labels', name), pixels, palette)
    else:
        cv2.imwrite(os.path.join(folder, 'labels', name), pixels[:, :, [2, 1, 0, 3][:pixels.shape[2]]]
                    if pixels.ndim == 3 else pixels)
    pathlib.Path(os.path.join(folder, 'classes.csv')).write_text('name,id,color\n' + '\n'.join(classes) + '\n')
    with open(os.path.join(folder, 'train.txt'), 'w') as f, open(os.path.join(folder, 'val.txt'), 'w') as g:
        f.write('a.png\n'), g.write('b\n')
    return datasets.folder.read(folder).load('train', 0)[1].tolist()


IDS = np.array([[0, 255, 7], [7, 0, 9]], np.uint8)


def test_folder_ids(tmp_path):
    """Ids 0, 7 and 255 with void 9: classes are numbered in the order of the table."""
    classes = ['cell,255,', 'void,9,', 'ground,0,', 'rim,7,']
    assert own_label(tmp_path, classes, IDS) == [[1, 0, 2], [2, 1, IGNORE]]
    dataset = datasets.folder.read(str(tmp_path))
    assert dataset.class_names == ['cell', 'ground', 'rim'] and dataset.size == (2, 3)
    assert dataset.examples == {'train': ['a'], 'val': ['b']}


def test_folder_colors(tmp_path):
    colors = np.array([[[1, 2, 3], [200, 0, 0]], [[200, 0, 0], [0, 0, 0]]], np.uint8)
    classes = ['x,0,200 0 0', 'y,1,1 2 3', 'void,2,0 0 0']
    assert own_label(tmp_path, classes, colors) == [[1, 0], [0, IGNORE]]
    opaque = np.dstack([colors, np.full((2, 2), 255, np.uint8)])
    assert own_label(tmp_path, classes, opaque) == [[1, 0], [0, IGNORE]]
    opaque[1, 1, 3] = 254
    with pytest.raises(UserError, match='a.png: has transparent pixels'):
        own_label(tmp_path, classes, opaque)
    smoothed = colors.copy()
    smoothed[0, 1] = 199, 0, 0
    with pytest.raises(UserError, match=r'a.png: colour \(199, 0, 0\) at row 0, column 1'):
        own_label(tmp_path, classes, smoothed)
    with pytest.raises(UserError, match='class y no color'):
        own_label(tmp_path, ['x,0,200 0 0', 'y,1,'], colors)


def test_folder_split_is_fixed(tmp_path):
    dataset = datasets.folder.read(write_folder(str(tmp_path)))
    assert dataset.examples == datasets.folder.read(str(tmp_path)).examples
    assert [len(dataset.examples[split]) for split in ('train', 'val')] == [8, 2]
    assert sorted(dataset.examples['train'] + dataset.examples['val']) == ['im%d' % i for i in range(10)]


def write_masks(folder, rows, header='id,annotation,width,height,cell_type'):
    """labels.csv instead of labels/ in the folder of `write_folder`."""
    if os.path.isdir(os.path.join(folder, 'labels')):
        shutil.rmtree(os.path.join(folder, 'labels'))
    pathlib.Path(os.path.join(folder, 'labels.csv')).write_text('\n'.join([header] + rows) + '\n')
    return folder


def label_of(dataset, name):
    """Label of the example `name` of any split."""
    split = next(split for split in dataset.examples if name in dataset.examples[split])
    return dataset.load(split, dataset.examples[split].index(name))[1]


def test_folder_rle(tmp_path):
    """Runs along rows; later masks cover earlier ones; 16.0 of pandas is 16; an empty annotation is background."""
    rows = ['im0,2 2,16,12,cat', 'im0,3 1 20 2,16.0,12.0,dog'] + ['im%d,,16,%d,' % (i, 12 + i) for i in range(1, 10)]
    folder = write_masks(write_folder(str(tmp_path)), rows)
    dataset = datasets.folder.read(folder)
    label = label_of(dataset, 'im0')
    assert label.ravel()[:22].tolist() == [0, 1, 2] + [0] * 16 + [2, 2, 0]
    assert label.shape == (12, 16) and label.sum() == 7
    assert label_of(dataset, 'im4').shape == (16, 16) and not label_of(dataset, 'im4').any()
    label = label_of(datasets.folder.read(folder, rle_order='columns'), 'im0')
    assert [label[:3, 0].tolist(), label[6:9, 1].tolist()] == [[0, 1, 2], [0, 2, 2]] and label.sum() == 7


def test_folder_kaggle_columns(tmp_path):
    """ImageId with a suffix, EncodedPixels down the columns, no sizes; ClassId is a class or its id."""
    rows = ['im%d.jpg,%s,%s' % (i, '2 3' if i == 2 else '', '2' if i == 2 else '') for i in range(10)]
    folder = write_masks(write_folder(str(tmp_path)), rows + ['im2.jpg,30 1,cat'], 'ImageId,EncodedPixels,ClassId')
    label = label_of(datasets.folder.read(folder), 'im2')
    assert label.shape == (14, 16) and label[1:4, 0].tolist() == [2, 2, 2]
    assert label[1, 2] == 1 and label.sum() == 7  # pixel 30 of columns of 14
    write_masks(folder, [row.rsplit(',', 1)[0] for row in rows], 'ImageId,EncodedPixels')
    with pytest.raises(UserError, match="row 4: ClassId ''; expected one of"):
        datasets.folder.read(folder)
    pathlib.Path(os.path.join(folder, 'classes.csv')).write_text('name,id\nground,0\ncat,1\nvoid,255\n')
    assert label_of(datasets.folder.read(folder), 'im2').sum() == 3


@pytest.mark.parametrize('ids, said', [
    (['im%d' % i for i in range(9)], '1 images without a row: im9'),
    (['im%d' % i for i in range(10)] + ['7'], '1 ids without an image: 7'),
    (['%d' % i for i in range(10)], '10 ids without an image: 0, 1')])
def test_folder_rle_needs_a_row_for_each_image(tmp_path, ids, said):
    folder = write_masks(write_folder(str(tmp_path)), [name + ',' for name in ids], 'ImageId,EncodedPixels')
    with pytest.raises(UserError, match='labels.csv: ' + said):
        datasets.folder.read(folder)
    os.makedirs(os.path.join(folder, 'labels'))
    with pytest.raises(UserError, match='both labels.csv and labels/'):
        datasets.folder.read(folder)


@pytest.mark.parametrize('classes, said', [
    (['x,0,'], 'has 1 classes'), (['x,0,', 'void,1,'], 'has 1 classes'), (['x,0,', 'y,0,'], 'row 3: id 0 is in'),
    (['x,0,', 'x,1,'], 'row 3: name x is in'), (['x,0,', 'y,256,'], "row 3: id '256'"),
    (['x,0,', 'y,-1,'], "row 3: id '-1'"), (['x,0,1 2', 'y,1,'], "row 2: color '1 2'"),
    (['x,0,1 2 3', 'y,1,1 2 3'], r'row 3: color \(1, 2, 3\) is in'),
    (['x,0,', ',1,'], 'row 3: a class has a name of 1 to 100'), (['x,0,', 'y' * 101 + ',1,'], 'row 3: a class has'),
    (['x%d,%d,' % (i, i) for i in range(255)], 'has 255 classes'),
    (['x,0,', 'y,1,'], 'id 255 at row 0, column 1 is not in the table')])
def test_folder_bad_classes(tmp_path, classes, said):
    with pytest.raises(UserError, match=said):
        own_label(tmp_path, classes, IDS)


def test_folder_test_txt_is_no_training_data(tmp_path):
    folder = write_folder(str(tmp_path))
    pathlib.Path(os.path.join(folder, 'test.txt')).write_text('im1\n')
    with pytest.raises(UserError, match='train.txt: cannot be read'):
        datasets.folder.read(folder)
    for name, content in (('train', 'im0\nim2\n'), ('val', 'im3\n')):
        pathlib.Path(os.path.join(folder, name + '.txt')).write_text(content)
    assert datasets.folder.read(folder).examples == {'train': ['im0', 'im2'], 'val': ['im3'], 'test': ['im1']}
    with open(os.path.join(folder, 'test.txt'), 'a') as f:
        f.write('im2\n')
    with pytest.raises(UserError, match='test.txt: names im2'):
        datasets.folder.read(folder)


def test_folder_bad_files(tmp_path):
    folder = write_folder(str(tmp_path / 'd'))
    (tmp_path / 'd' / 'val.txt').write_text('im1\n')
    for content, said in (('im0\nimX\n', 'imX is not'), ('im0\nim0\n', 'twice'), ('im0\nim1\n', 'im1, which'),
                          ('../im0\n', 'leads out')):
        (tmp_path / 'd' / 'train.txt').write_text(content)
        with pytest.raises(UserError, match=said):
            datasets.folder.read(folder)
    cv2.imwrite(os.path.join(folder, 'images', 'im3.jpg'), np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match='have one name'):
        datasets.folder.read(folder)
