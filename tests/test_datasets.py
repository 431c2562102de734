"""The readers of published data sets and the checker, on files that the tests make."""
import os
import pathlib

import numpy as np
import pytest
import scipy.io
from conftest import (
    SHARED,
    assert_contract,
    assert_refused,
    needs_real_data,
    open_and_load,
    put,
    put_text,
    write_camvid,
    write_folder,
    write_sartorius,
    write_sunrgbd_mat,
    write_sunrgbd_png,
    write_voc,
)

import data
import datasets
import datasets.__main__
from data import IGNORE
from datasets import files

# ---------------------------------------------------------------- readers

COLORS = [('Truck_Bus', (192, 128, 192)), ('Sky', (128, 128, 128)), ('Void', (0, 0, 0)), ('Wall', (64, 192, 0)),
          ('Archway', (192, 0, 128)), ('Bicyclist', (0, 128, 192))]
COLUMN = np.array([color for _, color in COLORS], np.uint8)[:, None].repeat(7, 1)  # one row a colour
IDS = [8, 0, IGNORE, 1, IGNORE, 10]
CITY = [[IGNORE, 0, 1, 13, 18, IGNORE], [10, IGNORE, 0, 0, 16, IGNORE]]  # of ids 0 7 8 26 33 4, 23 30 7 7 31 1


def write_frames(folder):
    """Five frames and labels of CamVid's home page."""
    put_text(folder, 'label_colors.txt', '\n'.join('%d %d %d\t%s' % (color + (name,)) for name, color in COLORS))
    for i in range(5):
        put(folder, 'f%d.png' % i, COLUMN)
        put(folder, 'f%d_L.png' % i, COLUMN)
    return folder


def write_kaggle(folder):
    """Kaggle's CamVid: class_dict.csv, without label_colors.txt."""
    put_text(folder, 'class_dict.csv', 'name,r,g,b\n' + ''.join('%s,%d,%d,%d\n' % ((name,) + color)
                                                                for name, color in COLORS))
    for name in ('train/f0', 'train/f1', 'val/f2', 'test/f3'):
        put(folder, name + '.png', COLUMN)
        put(folder, name.replace('/', '_labels/') + '_L.png', COLUMN)
    return folder


def write_cityscapes(folder, kind='labelIds'):
    """Three training images, two of val and one of test, whose label is void; the other files of the download too."""
    for split, size in (('train', 3), ('val', 2), ('test', 1)):
        for i in range(size):
            name = '%s/%s/ulm_%06d_000019_' % (split, split[::-1], i)
            ids = np.array([[0, 7, 8, 26, 33, 4], [23, 30, 7, 7, 31, i]], np.uint8).repeat(4, 1)
            train_ids = np.array([[255, 0, 1, 13, 18, 255], [10, 255, 0, 0, 16, 255]], np.uint8).repeat(4, 1)
            put(folder, 'leftImg8bit/%sleftImg8bit.png' % name, np.full((2, 24, 3), 9 * i, np.uint8))
            for other, label in (('labelIds', ids), ('labelTrainIds', train_ids), ('color', np.dstack([ids] * 3)),
                                 ('instanceIds', ids * np.uint16(1000))):
                if kind == 'labelIds' or other != 'labelIds':
                    put(folder, 'gtFine/%sgtFine_%s.png' % (name, other), label if split != 'test' else label * 0)
    return folder


def write_ade20k(folder):
    for split, numbers in (('training', range(3)), ('validation', (3, 4))):
        for i in numbers:
            name = 'ADEChallengeData2016/%%s/%s/ADE_%08d.%%s' % (split, i)
            put(folder, name % ('images', 'jpg'), np.full((3, 5 + i, 3), 9 * i, np.uint8))
            put(folder, name % ('annotations', 'png'), np.array([[0, 1, 150], [13, i, 2], [0, 0, 7]], np.uint8)[
                :, [0, 1, 2, 2] + [2] * (i + 1)])
    return folder


LAYOUTS = {  # test_layouts.py has the layouts of `folder`
    'sample': lambda folder: None, 'sartorius': write_sartorius, 'voc2012': write_voc, 'folder': write_folder,
    'camvid': lambda folder: write_camvid(folder, {'train': 3, 'val': 2}), 'camvid frames': write_frames,
    'camvid kaggle': write_kaggle, 'sunrgbd': write_sunrgbd_png, 'sunrgbd mat': write_sunrgbd_mat,
    'cityscapes': write_cityscapes, 'cityscapes train ids': lambda folder: write_cityscapes(folder, 'labelTrainIds'),
    'ade20k': write_ade20k}


def test_each_data_set_has_a_layout():
    assert {layout.split()[0] for layout in LAYOUTS} == set(datasets.MODULES)


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_contract(tmp_path, layout):
    name = layout.split()[0]
    dataset = datasets.open(name, LAYOUTS[layout](str(tmp_path)))
    assert dataset.name == name
    assert_contract(dataset)


def test_ids_that_come_out_are_those_that_went_in(tmp_path, capsys):
    """Cityscapes' labelIds or labelTrainIds, and ADE20K's ids from 1; names and splits by hand."""
    city = datasets.open('cityscapes', write_cityscapes(str(tmp_path / 'a')))
    assert city.class_ids[:3] == [7, 8, 11] and city.class_ids[18] == 33 and city.colors[13] == (0, 0, 142)
    assert city.examples['val'] == ['lav/ulm_000000_000019_leftImg8bit', 'lav/ulm_000001_000019_leftImg8bit']
    assert 'test' not in city.examples and 'test is left out' in capsys.readouterr().err
    city = datasets.open('cityscapes', write_cityscapes(str(tmp_path / 'b'), 'labelTrainIds'))
    assert city.class_ids == list(range(19)) and 'gtFine_labelTrainIds.png' in capsys.readouterr().err
    ade = datasets.open('ade20k', write_ade20k(str(tmp_path / 'c')))
    assert ade.class_ids == list(range(1, 151)) and len(ade.class_names) == 150 == len(set(ade.class_names))
    assert [ade.class_names[i] for i in (0, 12, 74, 149)] == ['wall', 'person', 'computer', 'flag']


def test_voc_palette():
    """The first colours and the last are VOC's."""
    assert [files.voc_color(i) for i in (0, 1, 2, 3, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]


@pytest.mark.parametrize('layout, place, ids', [
    ('voc2012', np.s_[3:6, 4], [0, IGNORE, 16]), ('camvid frames', np.s_[:, 2], IDS),
    ('camvid kaggle', np.s_[:, 6], IDS), ('camvid', np.s_[1:3, 60], [IGNORE, 8]),
    ('ade20k', np.s_[:2, :3], [[IGNORE, 0, 149], [12, 0, 1]]), ('cityscapes', np.s_[:, ::4], CITY),
    ('cityscapes train ids', np.s_[:, ::4], CITY)])
def test_ids(tmp_path, layout, place, ids):
    """Pixels of the second training image, known by hand: stored ids, colours or palette indices, and void."""
    dataset = datasets.open(layout.split()[0], LAYOUTS[layout](str(tmp_path)))
    assert dataset.load('train', 1)[1][place].tolist() == ids


@pytest.mark.parametrize('write', [write_sunrgbd_png, write_sunrgbd_mat])
def test_sunrgbd(tmp_path, write):
    """Both layouts are one data set: image and label belong together, whatever the order of the files."""
    dataset = datasets.sunrgbd.read(write(str(tmp_path)))
    assert {split: len(names) for split, names in dataset.examples.items()} == {'train': 3, 'test': 2, 'val': 1}
    for split, i, red in (('train', 0, 100), ('train', 1, 103), ('test', 1, 206), ('val', 0, 203)):
        image, label = dataset.load(split, i)
        assert image[0, 0].tolist() == [red, 0, 0] and label[6, 7] == red % 30 - 1
        assert label[3, 4:7].tolist() == [36, 0, IGNORE]
    assert dataset.class_ids == list(range(1, 38))
    assert (dataset.class_names[0], dataset.class_names[36], len(dataset.class_names)) == ('wall', 'bag', 37)


def test_sunrgbd_refuses_two_files_of_one_number(tmp_path):
    folder = write_sunrgbd_png(str(tmp_path))
    put(folder, 'label37/train/copy-1.png', np.zeros([7, 9], np.uint8))
    assert_refused('has the number of', datasets.sunrgbd.read, folder)


def test_camvid_lists_of_frames(tmp_path):
    """Without lists the last fifth of the names validates: neighbouring frames are much alike."""
    folder = write_frames(str(tmp_path))
    for lists, expected in (({}, [['f0', 'f1', 'f2', 'f3'], ['f4']]),
                            ({'train': 'f3.png\n', 'val': 'f1\n'}, [['f3'], ['f1']])):
        for split, names in lists.items():
            put_text(folder, split + '.txt', names)
        examples = datasets.camvid.read(folder).examples
        assert [[os.path.basename(path)[:-4] for path in examples[split]] for split in ('train', 'val')] == expected


@needs_real_data
def test_real_camvid_frames_agree_with_the_released_labels():
    """At least 0.97 of the labelled pixels agree after subsampling by two."""
    frames = datasets.camvid.read(os.path.join(SHARED, 'camvid_color'))
    agree = total = 0
    for split, names in frames.examples.items():
        for i, name in enumerate(names):
            label = frames.load(split, i)[1][::2, ::2]
            released = data.read_label(os.path.join(SHARED, 'camvid', 'valannot', os.path.basename(name)))
            both = (label != IGNORE) & (released < 11)
            agree, total = agree + (label == released)[both].sum(), total + both.sum()
    assert total > 500000 and agree / total >= 0.97


def test_check_names_every_fault(camvid_folder, capsys):
    """`python -m datasets` prints counts and weights of the intact files, and each faulty file."""
    assert datasets.__main__.main(['camvid', '--data_dir', camvid_folder]) == 0
    out = capsys.readouterr().out
    assert 'camvid train: 7 examples; sizes 45x61 (7)' in out
    assert '7 of 7 images of train are resized to 360x480' in out and 'heights by 8.00 to 8.00, widths by 7.87' in out
    put(camvid_folder, 'trainannot/train_03.png', np.full((45, 61), 77, np.uint8))
    os.truncate(os.path.join(camvid_folder, 'val', 'val_01.png'), 99)
    assert datasets.__main__.main(['camvid', '--data_dir', camvid_folder]) == 2
    error = capsys.readouterr().err
    assert 'train_03.png: class id 77' in error and 'val_01.png: the PNG is truncated' in error
    assert len(error.strip().splitlines()) == 2


def test_check_tells_before_training(tmp_path, capsys):
    """Notes on absent and rare classes, labels of one id and unequal sizes; main.py prints the first by `preload`."""
    folder = write_folder(str(tmp_path))  # cat in five images, dog in five
    for kind in ('images', 'labels'):
        put(folder, kind + '/im5.png', np.zeros((30, 60), np.uint8))
    put_text(folder, 'train.txt', 'im0\nim2\nim4\nim6\nim8\nim5\n')
    put_text(folder, 'val.txt', 'im1\nim3\n')
    dataset = datasets.folder.read(folder)
    datasets.preload(dataset, ('train', 'val'))
    assert 'note: classes without a training pixel: dog;' in capsys.readouterr().err
    assert datasets.__main__.main(['folder', '--data_dir', folder]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith('note: ')]
    assert len(notes) == 5 and 'classes without a training pixel: dog;' in notes[0]
    assert notes[1] == 'note: 1 of 6 labels of train hold a single id, as im5 (ground)'
    assert notes[2] == 'note: images of train differ in size, from 12x16 (im0) to 30x60 (im5)'
    assert '5 of 6 images of train are resized to 12x16' in notes[3] and 'heights by 0.40 to 1.00' in notes[3]
    assert '2 of 2 images of val are resized' in notes[4]


def test_sartorius_later_row_wins(tmp_path):
    rows = ['cell%d,1 4,30,20,%s,,,,' % (i, kind) for i, kind in enumerate(['astro'] * 5 + ['cort'] * 5)]
    rows.append('cell0,3 4,30,20,cort,,,,')
    dataset = datasets.sartorius.read(write_sartorius(str(tmp_path), rows))
    split = next(s for s in dataset.examples if 'cell0' in dataset.examples[s])
    label = dataset.load(split, dataset.examples[split].index('cell0'))[1]
    assert label[0, :8].tolist() == [2, 2, 3, 3, 3, 3, 0, 0]


def test_sartorius_split_is_stratified_and_fixed(tmp_path):
    folder = write_sartorius(str(tmp_path))
    dataset = datasets.sartorius.read(folder)
    assert dataset.examples == datasets.sartorius.read(folder).examples
    kinds = sorted(int(name[4:]) % 3 for name in dataset.examples['val'])
    assert kinds == [0, 1, 2]  # a fifth of 4, 3 and 3 images, rounded up
    assert len(dataset.examples['train']) == 7


# ---------------------------------------------------------------- bad input: each names the file or row

CELLS = 'id,annotation,width,height,cell_type\n'
TOOLBOX = 'SUNRGBDtoolbox/Metadata/'
META = np.array([('/n/fs/sun3d/data/SUNRGBD/a/../../../etc/x.png',)] * 5, [('rgbpath', object)])


@pytest.mark.parametrize('layout, path, content, said', [
    ('sartorius', 'train.csv', CELLS + 'cell0,1 5 3 2,30,20,astro', 'train.csv row 2: RLE runs overlap'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,30,20,neuron', "train.csv row 2: cell_type 'neuron'"),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,31,20,astro', 'train.csv: .* its rows say 20x31'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,30,-20,astro', "train.csv row 2: height '-20'"),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,99999,99999,astro', 'train.csv row 2: an image of 99999x99999'),
    ('sartorius', 'train.csv', CELLS + '../../etc/passwd,1 2,30,20,astro', 'train.csv row 2: id'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2', 'train.csv row 2: cut short'),
    ('sartorius', 'train.csv', CELLS + 'a,1 \0002,3,4,cort', 'train.csv.*NUL'),
    ('sartorius', 'train.csv', CELLS, 'train.csv: holds no rows'),
    ('sartorius', 'train.csv', 'id,width\n', "train.csv: has no column 'annotation'"),
    ('sartorius', 'train.csv', '', 'train.csv: has no column'), ('sartorius', 'train.csv', None, 'train.csv: cannot'),
    ('sartorius', 'train.csv', b'\xff\xfe\x00', 'train.csv: not text'),
    ('sartorius', 'train/cell3.png', None, 'cell3.png: cannot be read'),
    ('camvid', 'train.txt', 'train/train_00.png\n', 'train.txt line 1: .* expected an image and its annotation'),
    ('camvid', 'train.txt', 'a/train/no.png a/trainannot/no.png\n', 'annot/no.png: cannot be read'),
    ('camvid', 'train.txt', 'x/../y.png x/../y.png', 'train.txt line 1: .* leads out'),
    ('camvid', 'train.txt', '\n', 'no images in train.txt'),
    ('camvid', 'trainannot/train_02.png', np.full((45, 61), 12, np.uint8), '_02.png: class id 12 at row 0, column 0'),
    ('camvid', 'trainannot/train_02.png', np.zeros((45, 60), np.uint8), '_02.png: the label is 45x60, its image 45x61'),
    ('camvid frames', 'f1_L.png', COLUMN + np.eye(6, 7, dtype=np.uint8)[:, :, None],  # as anti-aliasing does
     r'f1_L.png: colour \[193, 129, 193\] at row 0, column 0'),
    ('camvid frames', 'label_colors.txt', '1 2 256 Sky', 'label_colors.txt line 1'),
    ('camvid kaggle', 'class_dict.csv', 'name,r,g,b\nSky,1,2,x\n', 'class_dict.csv line 2'),
    ('camvid kaggle', 'train_labels/f0_L.png', None, 'train_labels: no label for image f0'),
    ('voc2012', 'VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt', '../x', "train.txt: '../x' leads out"),
    ('cityscapes', 'gtFine/train/niart/ulm_000001_000019_gtFine_labelIds.png', None, '1 images have no label'),
    ('cityscapes', 'gtFine/train/niart/ulm_000001_000019_gtFine_labelIds.png', np.full((2, 24), 255, np.uint8),
     'labelIds.png: id 255 at row 0'),  # training ids under the name of the other ids
    ('ade20k', 'ADEChallengeData2016/annotations/training/ADE_00000001.png', np.full((3, 6), 151, np.uint8),
     'ADE_00000001.png: id 151 at row 0'),
    ('ade20k', 'ADEChallengeData2016/annotations/validation/ADE_00000004.png', None, 'no label for 1 images'),
    ('sunrgbd', 'label37/test/img37labels-000002.png', np.full((2, 3), 40, np.uint8),
     'label of .*: id 40 at row 0, column 0; SUN RGB-D has ids 0 to 37'),
    ('sunrgbd', 'label37/test/img37labels-000002.png', None, r'holds 2 images, label37 1 labels; .*: \[2\]'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', b'hello', 'SUNRGBDMeta.mat: has no'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', META, 'SUNRGBDMeta.mat: .*leads out of the folder'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', META.astype([('x', object)]), 'entry 0 of SUNRGBDMeta has no rgbpath'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBD2Dseg.mat', b'hello', 'SUNRGBD2Dseg.mat: has no'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBD2Dseg.mat', None, 'SUNRGBD2Dseg.mat: .*No such file.* unpack SUNRGBDtoolbox.zip'),
    ('sunrgbd mat', 'SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat', b'hello', 'allsplit.mat: has no')])
def test_bad_files(tmp_path, layout, path, content, said):
    folder = LAYOUTS[layout](str(tmp_path))
    os.remove(os.path.join(folder, path))
    if path.endswith('.mat') and isinstance(content, np.ndarray):
        scipy.io.savemat(os.path.join(folder, path), {'SUNRGBDMeta': content})
    elif isinstance(content, np.ndarray):
        put(folder, path, content)
    elif content is not None:
        pathlib.Path(folder, path).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(said, open_and_load, layout.split()[0], folder)


@pytest.mark.parametrize('folder, said', [('/no/such', 'no such folder'), ('.', 'is empty'), (None, '--data_dir')])
def test_bad_data_dir(tmp_path, folder, said):
    assert_refused(said, datasets.open, 'sartorius', folder and str(tmp_path / folder))


def test_preload_does_not_load_all_examples_ahead(monkeypatch):
    loaded = []
    ahead = []
    example = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
    monkeypatch.setattr(datasets, 'load_checked', lambda dataset, split, i: loaded.append(i) or example)
    monkeypatch.setattr(np, 'bincount', lambda *_, **__: ahead.append(len(loaded) - len(ahead)) or np.ones(256, int))
    dataset = data.Dataset('x', ['a'], [], (3, 4), {'train': range(999)}, None, '')
    datasets.preload(dataset, ['train'])
    assert len(ahead) == 999 and max(ahead) <= 64
    assert_refused('data set x: no images in split val, only in train', datasets.check_split, dataset, 'val')
