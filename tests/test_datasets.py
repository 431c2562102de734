"""Tests the readers of published data sets, and the checker `python -m datasets`, on small files."""
import json
import os
import pathlib
import subprocess
import sys
import re

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import (ROOT, SHARED, assert_contract, assert_refused, needs_real_data, open_and_load, put, put_example,
                      put_text, write_camvid, write_folder, write_sartorius, write_sunrgbd_mat, write_sunrgbd_png,
                      write_voc)

import data
import datasets
import datasets.__main__
from data import IGNORE
from datasets import files
from system import machine

# ---------------------------------------------------------------- readers

COLORS = [('Truck_Bus', (192, 128, 192)), ('Sky', (128, 128, 128)), ('Void', (0, 0, 0)), ('Wall', (64, 192, 0)),
          ('Archway', (192, 0, 128)), ('Bicyclist', (0, 128, 192))]
COLUMN = np.array([color for _, color in COLORS], np.uint8)[:, None].repeat(7, 1)  # each row has one colour
IDS = [8, 0, IGNORE, 1, IGNORE, 10]
# The expected class indices for the labelIds [[0, 7, 8, 26, 33, 4], [23, 30, 7, 7, 31, 1]].
CITY = [[IGNORE, 0, 1, 13, 18, IGNORE], [10, IGNORE, 0, 0, 16, IGNORE]]


def write_frames(folder):
    """Writes five frames and their labels in the layout of the download from CamVid's home page."""
    put_text(folder, 'label_colors.txt', '\n'.join('%d %d %d\t%s' % (color + (name,)) for name, color in COLORS))
    for i in range(5):
        put(folder, 'f%d.png' % i, COLUMN)
        put(folder, 'f%d_L.png' % i, COLUMN)
    return folder


def write_kaggle(folder):
    """Writes a small CamVid in Kaggle's layout, which has class_dict.csv instead of label_colors.txt."""
    put_text(folder, 'class_dict.csv', 'name,r,g,b\n' + ''.join('%s,%d,%d,%d\n' % ((name,) + color)
                                                                for name, color in COLORS))
    for name in ('train/f0', 'train/f1', 'val/f2', 'test/f3'):
        put(folder, name + '.png', COLUMN)
        put(folder, name.replace('/', '_labels/') + '_L.png', COLUMN)
    return folder


def write_cityscapes(folder, kind='labelIds'):
    """Writes a small Cityscapes with three training images, two validation images and one test image.

    The label of the test image is all void. With kind='labelTrainIds', no files *_labelIds.png are written.
    """
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


LAYOUTS = {  # {layout: function that writes the layout}; test_layouts.py tests more layouts of `folder`
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
    """Class ids are the ids in the label files.

    Cityscapes has label files with labelIds or with labelTrainIds. The ids of ADE20K begin at 1.
    """
    city = datasets.open('cityscapes', write_cityscapes(str(tmp_path / 'a')))
    assert city.class_ids[:3] == [7, 8, 11] and city.class_ids[18] == 33 and city.colors[13] == (0, 0, 142)
    assert city.examples['val'] == ['lav/ulm_000000_000019_leftImg8bit', 'lav/ulm_000001_000019_leftImg8bit']
    assert 'test' not in city.examples and 'fine labels: test\n' in capsys.readouterr().err
    city = datasets.open('cityscapes', write_cityscapes(str(tmp_path / 'b'), 'labelTrainIds'))
    assert city.class_ids == list(range(19)) and 'gtFine_labelTrainIds.png' in capsys.readouterr().err
    ade = datasets.open('ade20k', write_ade20k(str(tmp_path / 'c')))
    assert ade.class_ids == list(range(1, 151)) and len(ade.class_names) == 150 == len(set(ade.class_names))
    assert [ade.class_names[i] for i in (0, 12, 74, 149)] == ['wall', 'person', 'computer', 'flag']


def test_voc_palette():
    assert [files.voc_color(i) for i in (0, 1, 2, 3, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]


@pytest.mark.parametrize('layout, place, ids', [
    ('voc2012', np.s_[3:6, 4], [0, IGNORE, 16]), ('camvid frames', np.s_[:, 2], IDS),
    ('camvid kaggle', np.s_[:, 6], IDS), ('camvid', np.s_[1:3, 60], [IGNORE, 8]),
    ('ade20k', np.s_[:2, :3], [[IGNORE, 0, 149], [12, 0, 1]]), ('cityscapes', np.s_[:, ::4], CITY),
    ('cityscapes train ids', np.s_[:, ::4], CITY)])
def test_ids(tmp_path, layout, place, ids):
    """Compares label pixels of the second training image with class indices determined by hand."""
    dataset = datasets.open(layout.split()[0], LAYOUTS[layout](str(tmp_path)))
    assert dataset.load('train', 1)[1][place].tolist() == ids


@pytest.mark.parametrize('write', [write_sunrgbd_png, write_sunrgbd_mat])
def test_sunrgbd(tmp_path, write):
    """The layout with PNG files and the layout with MATLAB files give the same data set.

    The labels of the images differ, so the test would notice swapped labels.
    """
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
    assert_refused('number 000001 occurs twice', datasets.sunrgbd.read, folder)


def test_camvid_lists_of_frames(tmp_path):
    """Without lists, the last fifth of the frames is the split val, because neighbouring frames look alike."""
    folder = write_frames(str(tmp_path))
    for lists, expected in (({}, [['f0', 'f1', 'f2', 'f3'], ['f4']]),
                            ({'train': 'f3.png\n', 'val': 'f1\n'}, [['f3'], ['f1']])):
        for split, names in lists.items():
            put_text(folder, split + '.txt', names)
        examples = datasets.camvid.read(folder).examples
        assert [[os.path.basename(path)[:-4] for path in examples[split]] for split in ('train', 'val')] == expected


@needs_real_data
def test_real_camvid_frames_agree_with_the_released_labels():
    """Our labels are reduced to half size and compared with the released labels.

    Of the pixels that have a class in both labels, at least 97% have the same class.
    """
    frames = datasets.camvid.read(os.path.join(SHARED, 'camvid_color'))
    agree = total = 0
    for split, names in frames.examples.items():
        for i, name in enumerate(names):
            label = frames.load(split, i)[1][::2, ::2]
            released = data.read_label(os.path.join(SHARED, 'camvid', 'valannot', os.path.basename(name)))
            both = (label != IGNORE) & (released < 11)
            agree, total = agree + (label == released)[both].sum(), total + both.sum()
    assert total > 500000 and agree / total >= 0.97


def test_check_names_every_fault(camvid_folder, tmp_path, capsys):
    """`python -m datasets` prints statistics of a data set and one error for each faulty file."""
    drawn = str(tmp_path / 'pictures')
    assert datasets.__main__.main(['camvid', '--data_dir', camvid_folder, '--pictures', drawn]) == 0
    out = capsys.readouterr().out
    assert 'camvid train: 7 examples; sizes 45x61 (7)' in out
    assert '7 of 7 images of train are resized to 360x480' in out and 'heights by 8.00 to 8.00, widths by 7.87' in out
    put(camvid_folder, 'trainannot/train_03.png', np.full((45, 61), 77, np.uint8))
    os.truncate(os.path.join(camvid_folder, 'val', 'val_01.png'), 99)
    assert datasets.__main__.main(['camvid', '--data_dir', camvid_folder, '--pictures', drawn]) == 2
    error = capsys.readouterr().err
    assert 'train_03.png: id 77' in error and 'val_01.png: the PNG is truncated' in error
    assert len(error.strip().splitlines()) == 2


def test_check_tells_what_train_and_val_share(tmp_path, capsys):
    """The checker reports images of val that are too similar to an image of train.

    Two such images have the same pixels, are versions of the same picture, or are neighbouring frames.
    """
    rng = np.random.RandomState(1)
    pictures = rng.randint(0, 256, (40, 9, 13, 3)).astype(np.uint8)
    moving = np.cumsum(rng.randint(0, 3, (40, 9, 13, 3)), 0).astype(np.uint8) + pictures[0] // 2
    names = ['odd', 'p.rf.' + 'a' * 32, 'x7'] + ['f%03d' % (30 * i) for i in range(20)]
    for sharing, images in ((True, moving), (False, pictures)):
        folder = str(tmp_path / str(sharing))
        version = 'p.rf.' + ('b' if sharing else 'A9') * 32
        shown = dict(zip(names, images), copy=images[0 if sharing else 30], **{version: images[31]})
        for name, image in shown.items():
            put_example(folder, name, image, np.eye(9, 13, dtype=np.uint8))
        val = ['copy', version if sharing else 'x7'] + names[7::5]
        put_text(folder, 'train.txt', '\n'.join(name for name in names if name not in val))
        put_text(folder, 'val.txt', '\n'.join(val))
        put_text(folder, 'classes.csv', 'name,id\na,0\nb,1\n')
        drawn = str(tmp_path / 'pictures')
        assert datasets.__main__.main(['folder', '--data_dir', folder, '--pictures', drawn]) == 0
        said = capsys.readouterr().out
        assert sorted(os.listdir(drawn)) == ['folder-train.png', 'folder-val.png']
        expected = ['1 of 6 images of val have the same pixels as an image of train: copy, in train odd',
                    '1 of 6 images of val have another version of a picture of train: p.rf.bbb',
                    '4 of 6 images of val are like their neighbours by number in train: f120, f270, f420, ...']
        assert [line in said for line in expected] == [sharing] * 3, said
    assert_refused('--pictures .*/x: lies in the data set', datasets.__main__.main,
                   ['folder', '--data_dir', folder, '--pictures', os.path.join(folder, 'x')])


def test_check_tells_before_training(tmp_path, capsys):
    """The checker prints notes on absent classes, on labels with a single id and on images of different sizes.

    Loading the data for training also prints the note on absent classes.
    """
    folder = write_folder(str(tmp_path))  # five images show a cat, and five images show a dog
    put_example(folder, 'im5', np.zeros((30, 60), np.uint8), np.zeros((30, 60), np.uint8))
    put_text(folder, 'train.txt', 'im0\nim2\nim4\nim6\nim8\nim5\n')
    put_text(folder, 'val.txt', 'im1\nim3\n')
    dataset = datasets.folder.read(folder)
    datasets.preload(dataset, ('train', 'val'))
    assert 'note: classes without a training pixel: dog;' in capsys.readouterr().err
    assert datasets.__main__.main(['folder', '--data_dir', folder, '--pictures', str(tmp_path.parent / 'out')]) == 0
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
    assert kinds == [0, 1, 2]  # val has one image of each cell type: a fifth of 4, 3 and 3 images, rounded up
    assert len(dataset.examples['train']) == 7


# ---------------------------------------------------------------- bad input: the error names the file or row

CELLS = 'id,annotation,width,height,cell_type\n'
TOOLBOX = 'SUNRGBDtoolbox/Metadata/'
META = np.array([('/n/fs/sun3d/data/SUNRGBD/a/../../../etc/x.png',)] * 5, [('rgbpath', object)])


@pytest.mark.parametrize('layout, path, content, said', [
    ('sartorius', 'train.csv', CELLS + 'cell0,1 5 3 2,30,20,astro', 'train.csv row 2: RLE runs overlap'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,30,20,neuron', "train.csv row 2: class 'neuron'"),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,31,20,astro', 'cell0: the label is 20x31, its image 20x30'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,30,-20,astro', "train.csv row 2: height '-20'"),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2,99999,99999,astro', "row 2: height '99999', width '99999'; an image"),
    ('sartorius', 'train.csv', CELLS + '../../etc/passwd,1 2,30,20,astro', 'train.csv row 2: id'),
    ('sartorius', 'train.csv', CELLS + 'cell0,1 2', 'train.csv row 2: cut short'),
    ('sartorius', 'train.csv', CELLS + 'a,1 \0002,3,4,cort', 'train.csv.*NUL'),
    ('sartorius', 'train.csv', CELLS, 'train.csv: holds no rows'),
    ('sartorius', 'train.csv', 'id,width\n', "train.csv: has no column 'annotation'"),
    ('sartorius', 'train.csv', '', 'train.csv: has no column'), ('sartorius', 'train.csv', None, 'train.csv: cannot'),
    ('sartorius', 'train.csv', b'\xff\xfe\x00', 'train.csv: not text'),
    ('camvid', 'train.txt', 'train/train_00.png\n', 'train.txt line 1: .* expected an image and its annotation'),
    ('camvid', 'train.txt', 'a/train/no.png a/trainannot/no.png\n', 'train/no.png: cannot be read'),
    ('camvid', 'train.txt', 'x/../y.png x/../y.png', 'train.txt line 1: .* two paths without ..'),
    ('camvid', 'train.txt', '\n', 'no images in train.txt'),
    ('camvid', 'trainannot/train_02.png', np.full((45, 61), 12, np.uint8), '_02.png: id 12 at row 0, column 0'),
    ('camvid', 'trainannot/train_02.png', np.arange(45 * 61 * 3, dtype=np.uint8).reshape(45, 61, 3),
     'the data set gives class Sky no color; .* --dataset folder'),
    ('camvid', 'trainannot/train_02.png', np.zeros((45, 60), np.uint8), '_02.png: the label is 45x60, its image 45x61'),
    # At the blurred edges of a resized label, colours belong to no class.
    ('camvid frames', 'f1_L.png', COLUMN + np.eye(6, 7, dtype=np.uint8)[:, :, None],
     r'f1_L.png: colour \[193, 129, 193\] at row 0, column 0'),
    ('camvid frames', 'label_colors.txt', '1 2 256 Sky', 'label_colors.txt row 1'),
    ('camvid frames', 'label_colors.txt', '1 2 3 Sky\n4 5 6 Lane', 'Lane is no class of CamVid; .* --dataset folder'),
    ('camvid kaggle', 'class_dict.csv', 'name,r,g,b\nSky,1,2,x\n', 'class_dict.csv row 2'),
    ('camvid kaggle', 'train_labels/f0_L.png', None, 'train_labels: 1 images have no label'),
    ('voc2012', 'VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt', '../x', "train.txt: '../x' leads out"),
    ('cityscapes', 'gtFine/train/niart/ulm_000001_000019_gtFine_labelIds.png', None, '1 images have no label'),
    # A file with labelTrainIds that is named labelIds.
    ('cityscapes', 'gtFine/train/niart/ulm_000001_000019_gtFine_labelIds.png', np.full((2, 24), 255, np.uint8),
     'labelIds.png: id 255 at row 0, .* the data set has 7 8 .*; for other labels give --dataset'),
    ('ade20k', 'ADEChallengeData2016/annotations/training/ADE_00000001.png', np.full((3, 6), 151, np.uint8),
     'ADE_00000001.png: id 151 at row 0'),
    ('ade20k', 'ADEChallengeData2016/annotations/validation/ADE_00000004.png', None, '1 images have no label'),
    ('sunrgbd', 'label37/test/img37labels-000002.png', np.full((2, 3), 40, np.uint8),
     'label of .*: id 40 at row 0, column 0; SUN RGB-D has ids 0 to 37'),
    ('sunrgbd', 'label37/test/img37labels-000002.png', None, r'test has 2 images, label37/test 1 labels; .*: \[2\]'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', b'hello', 'SUNRGBDMeta.mat: cannot read'),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', META, "rgbpath 'a/../.*; expected a path without"),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBDMeta.mat', META.astype([('x', object)]), "SUNRGBDMeta has rgbpath ''"),
    ('sunrgbd mat', TOOLBOX + 'SUNRGBD2Dseg.mat', None, 'SUNRGBD2Dseg.mat: .*No such file.* unpack SUNRGBDtoolbox')])
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


def test_foreign_classes_are_reported_before_missing_labels(tmp_path):
    folder = LAYOUTS['camvid kaggle'](str(tmp_path))
    put_text(folder, 'class_dict.csv', 'name,r,g,b\nSky,1,2,3\nBus,4,5,6\n')
    os.rename(folder + '/train_labels/f0_L.png', folder + '/train_labels/f0.png')
    assert_refused('class_dict.csv: Bus is no class of CamVid; .* --dataset folder', open_and_load, 'camvid', folder)


@pytest.mark.parametrize('folder, said', [('/no/such', 'no such folder'), ('.', 'is empty'), (None, '--data_dir')])
def test_bad_data_dir(tmp_path, folder, said):
    assert_refused(said, datasets.open, 'sartorius', folder and str(tmp_path / folder))


def test_preload_does_not_load_all_examples_ahead(monkeypatch):
    """The cache holds four examples. Threads read examples in order, at most five examples in advance."""
    loaded = []
    example = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
    monkeypatch.setattr(datasets, 'load_checked', lambda dataset, split, i: example)
    for count, (i, result) in enumerate(machine.read_ahead(lambda i: loaded.append(i) or i, range(99), 5)):
        assert count == i == result() and len(loaded) <= count + 6
    assert [(i, result()) for i, result in machine.read_ahead(abs, [-3, 2], 0)] == [(-3, 3), (2, 2)]
    dataset = data.Dataset('x', ['a'], [], (3, 4), {'train': range(99)}, lambda split, i: 'read', '')
    dataset = datasets.preload(dataset, ['train'], cache=(4 * 48 + 47) / 1e9)[0]
    assert [dataset.load('train', i) == 'read' for i in (0, 3, 4, 98)] == [False, False, True, True]
    assert_refused('data set x: no images in split val, only in train', datasets.check_split, dataset, 'val')


def test_label_of_a_reader_with_an_unknown_class():
    dataset = data.Dataset('x', ['a', 'b'], [], (3, 4), {'val': ['n']}, lambda split, i: (
        np.zeros((3, 4, 3), np.uint8), np.diag([0, 2, 255]).astype(np.uint8)[:, [0, 0, 1, 2]]), '')
    assert_refused('n: class id 2 at row 1, column 2; the data', datasets.load_checked, dataset, 'val', 0)


@pytest.mark.parametrize('script, flags, said', [
    ('datasets', ['sample'], 'sample train:'), ('datasets/__main__.py', ['--help'], 'usage: python -m datasets'),
    ('datasets/convert.py', ['--help'], 'usage: python -m datasets.convert')])
def test_started_by_its_path_from_another_folder(tmp_path, script, flags, said):
    """Each script can be run by its path from any folder."""
    command = [sys.executable, os.path.join(ROOT, script)] + flags
    assert said in subprocess.check_output(command, cwd=str(tmp_path), universal_newlines=True, timeout=120)


# ---------------------------------------------------------------- splits, and their record in a run

def test_held_out_part_depends_on_the_name_alone():
    """Whether a name is in train or in val does not depend on the other names in the data set.

    The N folds are disjoint and cover all names.
    """
    names = ['p%d' % i for i in range(400)]
    val = set(files.hold_out(names)['val'])
    assert 50 < len(val) < 110
    for subset in (names[::7], names[3:90], names[::-1]):
        split = files.hold_out(subset)
        assert split == {'train': sorted(set(subset) - val), 'val': sorted(set(subset) & val)}
    parts = [files.hold_out(names, '%d/7' % (k + 1))['val'] for k in range(7)]
    assert sorted(sum(parts, [])) == sorted(names) and min(map(len, parts)) > 30
    for count in (5, 10, 20, 50):
        for first in (0, 7, 960):
            numbered = ['s%03d' % i for i in range(first, first + count)]
            assert abs(len(files.hold_out(numbered)['val']) - count / 5) <= 2
    for i in range(50):
        for fold in ('1/2', '2/5', '5/5'):
            split = files.hold_out(['a%d' % i, 'b%d' % i], fold)
            assert len(split['train']) == len(split['val']) == 1
    for fold in ('0/5', '6/5', '1/1', '2', 'a/b', '1/5/1', '-1/5', ''):
        assert_refused('--fold .*expected K/N', files.hold_out, names, fold)


def test_versions_of_a_picture_stay_together():
    names = ['train/p%02d_png.rf.%032x' % (i % 30, i) for i in range(90)]
    split = files.hold_out(names)
    assert not {name[:9] for name in split['train']} & {name[:9] for name in split['val']}
    assert len(split['val']) % 3 == 0 and sorted(split['train'] + split['val']) == sorted(names)
    assert_refused('1 images to train .*versions of one picture count once', files.hold_out, names[::30])


def test_links_are_followed_once(tmp_path, capsys):
    """A link to a folder that contains the link is not followed. Two links to the same folder are refused."""
    folder = write_folder(str(tmp_path / 'data'))
    for name, target in (('images/self', 'images'), ('images/up', '.'), ('labels/self', 'labels')):
        os.symlink(os.path.join(folder, target), os.path.join(folder, name))
    os.mkdir(str(tmp_path / 'other'))
    os.symlink(str(tmp_path / 'other'), os.path.join(folder, 'images', 'other'))
    os.symlink(os.path.join(folder, 'images'), str(tmp_path / 'other' / 'back'))
    assert len(files.image_files(os.path.join(folder, 'images'))) == 10
    assert capsys.readouterr().err.count('links to a folder that holds the link') == 3
    put(str(tmp_path), 'other/a.png', np.zeros((4, 5), np.uint8))
    os.symlink(str(tmp_path / 'other'), os.path.join(folder, 'images', 'second'))
    assert_refused('images/other and .*images/second are one folder', files.image_files, folder + '/images')


def run_of(folder, **flags):
    """Opens the data set in `folder`; returns the data set and the config of a run on this data set."""
    dataset = datasets.open('folder', folder, fold=flags.get('fold'))
    dataset, facts = datasets.preload(dataset, ('train', 'val'))
    return dataset, {'flags': flags, 'class_names': dataset.class_names, 'depth': dataset.depth,
                     'sizes': {split: len(names) for split, names in dataset.examples.items()},
                     'examples': json.loads(json.dumps(datasets.record.make(dataset, facts, folder)))}


@pytest.mark.parametrize('fold', [None, '2/3'])
def test_run_keeps_its_split(tmp_path, capsys, fold):
    """Images that are added to the data set after the start of a run are ignored.

    If the folder has none of the images of the run, the folder counts as another data set, which gets a new
    split.
    """
    folder = write_folder(str(tmp_path / 'data'))
    before, config = run_of(folder, fold=fold)
    for i in range(20):
        put_example(folder, 'more%d' % i, np.zeros((3, 4), np.uint8), np.eye(3, 4, dtype=np.uint8))
    after = datasets.open('folder', folder, config)
    assert after.examples == before.examples and 'note: %s: 20 images are new' % folder in capsys.readouterr().err
    for split, names in before.examples.items():
        for i in range(len(names)):
            np.testing.assert_array_equal(after.load(split, i)[1], before.load(split, i)[1])
    del config['examples']  # configs of the published runs do not list examples
    published = datasets.open('folder', folder, config).examples
    assert set(published['val']) > set(before.examples['val']) and len(published['train'] + published['val']) == 30
    config = run_of(write_folder(str(tmp_path / 'other')), fold=fold)[1]
    os.remove(os.path.join(folder, 'images', 'im3.png'))
    assert_refused('data: 1 of 10 images of the run are missing: im3; restore', datasets.open, 'folder', folder, config)
    for path in pathlib.Path(folder, 'images').glob('im*.png'):
        path.unlink()
    assert len(datasets.open('folder', folder, config).examples['val']) > 0
    assert 'holds no image of the run, so it is taken for another data set' in capsys.readouterr().err


def test_run_of_an_older_revision_keeps_its_split(tmp_path):
    """The split val is the same as in revision e4c2371, which had the images im4 and im9 in val."""
    folder = write_folder(str(tmp_path))
    os.makedirs(os.path.join(folder, 'images', 'a'))
    for kind in ('images', 'labels'):
        os.rename(os.path.join(folder, kind, 'im3.png'), os.path.join(folder, kind, 'im0-3.png'))
        put(folder, kind + '/a/x.png', np.zeros((3, 4), np.uint8))
    config = dict(run_of(folder)[1], examples=None, sizes={'train': 9, 'val': 2})
    assert datasets.open('folder', folder, config).examples['val'] == ['im4', 'im9']
    config['sizes'] = {'train': 8, 'val': 2}
    assert_refused('older revision had .* now there are 11 images', datasets.open, 'folder', folder, config)
    put_text(folder, 'train.txt', 'im1\nim4\n')  # the error message proposes this fix
    put_text(folder, 'val.txt', 'im2\n')
    assert datasets.open('folder', folder, config).examples['val'] == ['im2']


def test_fold_needs_a_data_set_without_val(tmp_path):
    folder = write_camvid(str(tmp_path), {'train': 7, 'val': 2})
    assert_refused('--fold 2/5: data set camvid has a split val', datasets.open, 'camvid', folder, fold='2/5')


@pytest.mark.parametrize('change, said', [
    ('', ''), ('touch', ''), ('image', r'val: 1 of \d images changed \(im[0-9]\)'),
    ('label', r'val: 1 of \d labels changed \(im[0-9]\)'),
    ('lists', r'train: 1 images are missing \(im[0-9]\); val: 1 images are new \(im[0-9]\)'),
    ('order', r'train: 2 images are in another order \(im[0-9], im[0-9]\)')])
def test_changes_are_named(tmp_path, change, said):
    folder = write_folder(str(tmp_path))
    dataset, config = run_of(folder)
    examples = dataset.examples
    path = os.path.join(folder, 'labels' if change == 'label' else 'images', examples['val'][0] + '.png')
    lists = {split: list(names) for split, names in examples.items()}
    if change == 'touch':
        os.utime(path, (1, 1))
    elif change in ('image', 'label'):
        array = cv2.imread(path)
        array[5, 4] = 1 + (array[5, 4] == 1)
        cv2.imwrite(path, array)
    elif change == 'lists':
        lists['val'].append(lists['train'].pop())
    elif change == 'order':
        lists['train'][1:3] = lists['train'][2:0:-1]
    for split in lists if change in ('lists', 'order') else ():
        put_text(folder, split + '.txt', '\n'.join(lists[split]))
    assert re.match(r'\A%s\Z' % said, datasets.record.changes(config['examples'], run_of(folder)[1]['examples']))


def test_names_in_a_record_leave_the_folder_out(camvid_folder):
    for folder in (camvid_folder, camvid_folder + '/', os.path.relpath(camvid_folder)):
        assert datasets.record.names_of(datasets.open('camvid', folder), 'val', folder)[1] == 'val/val_01.png'


def test_one_side_keeps_the_proportion():
    dataset = data.Dataset('x', ['a'], [], (128, 177), {}, None, '')
    for given, size in (((64, None), (64, 88)), ((None, 59), (43, 59)), ((None, None), (128, 177)), ((5, 7), (5, 7))):
        assert datasets.training_size(dataset, *given) == size
    assert_refused('would be 11585x16020; at most', datasets.training_size, dataset, 11585)
