"""The readers of published data sets and the checker, on files that the tests make."""
import os
import pathlib

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import (SHARED, assert_contract, needs_real_data, put, put_text, write_camvid, write_folder,
                      write_sartorius, write_sunrgbd_mat, write_sunrgbd_png, write_voc)

import data
import datasets
import datasets.__main__
from data import IGNORE, UserError
from datasets import files


# ---------------------------------------------------------------- readers

COLORS = [('Truck_Bus', (192, 128, 192)), ('Sky', (128, 128, 128)), ('Void', (0, 0, 0)), ('Wall', (64, 192, 0)),
          ('Archway', (192, 0, 128)), ('Bicyclist', (0, 128, 192))]
COLUMN = np.array([color for _, color in COLORS], np.uint8)[:, None].repeat(7, 1)  # one row a colour
IDS = [8, 0, IGNORE, 1, IGNORE, 10]


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


LAYOUTS = {  # test_layouts.py has the layouts of `folder`
    'sample': lambda folder: None, 'sartorius': write_sartorius, 'voc2012': write_voc, 'folder': write_folder,
    'camvid': lambda folder: write_camvid(folder, {'train': 3, 'val': 2}), 'camvid frames': write_frames,
    'camvid kaggle': write_kaggle, 'sunrgbd': write_sunrgbd_png, 'sunrgbd mat': write_sunrgbd_mat}


def test_each_data_set_has_a_layout():
    assert {layout.split()[0] for layout in LAYOUTS} == set(datasets.names())


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_contract(tmp_path, layout):
    name = layout.split()[0]
    dataset = datasets.open(name, LAYOUTS[layout](str(tmp_path)))
    assert dataset.name == name
    assert_contract(dataset)


def test_voc_palette(tmp_path):
    """Ids are read as stored, although OpenCV returns colours; the first colours are VOC's; 255 is void."""
    assert [files.voc_color(i) for i in (0, 1, 2, 3, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]
    label = datasets.voc2012.read(write_voc(str(tmp_path))).load('train', 1)[1]
    assert label.shape == (25, 18) and set(np.unique(label)) == {0, 16, 255}
    assert (label[5:12, 4:9] == 16).all() and (label[4, 4:9] == IGNORE).all()


# ---------------------------------------------------------------- SUN RGB-D

def test_sunrgbd_both_layouts_are_one_data_set(tmp_path):
    made = [datasets.sunrgbd.read(write(str(tmp_path / write.__name__)))
            for write in (write_sunrgbd_png, write_sunrgbd_mat)]
    for dataset in made:
        assert {split: len(names) for split, names in dataset.examples.items()} == {'train': 3, 'test': 2, 'val': 1}
        image, label = dataset.load('train', 1)
        assert image.shape == (20, 32, 3) and image[0, 0].tolist() == [101, 0, 0]
        assert label[3, 4:7].tolist() == [36, 0, IGNORE]  # stored as 37, 1 and 0
        assert dataset.load('test', 0)[0][0, 0, 0] == 200 == dataset.load('val', 0)[0][0, 0, 0]
        assert dataset.class_ids == list(range(1, 38))
        assert (dataset.class_names[0], dataset.class_names[36], len(dataset.class_names)) == ('wall', 'bag', 37)


def test_sunrgbd_faults_are_named(tmp_path):
    folder = write_sunrgbd_png(str(tmp_path / 'png'))
    os.remove(os.path.join(folder, 'label37', 'test', 'img37labels-000002.png'))
    with pytest.raises(UserError, match=r'holds 2 images, label37 1 labels; .*: \[2\]'):
        datasets.sunrgbd.read(folder)
    with pytest.raises(UserError, match='label37'):
        datasets.sunrgbd.read(str(tmp_path))
    folder = write_sunrgbd_mat(str(tmp_path / 'mat'))
    for name in ('Metadata/SUNRGBDMeta.mat', 'Metadata/SUNRGBD2Dseg.mat', 'traintestSUNRGBD/allsplit.mat'):
        path = os.path.join(folder, 'SUNRGBDtoolbox', *name.split('/'))
        content = open(path, 'rb').read()
        pathlib.Path(path).write_bytes(b'hello')
        with pytest.raises(UserError, match=os.path.basename(name)):
            datasets.sunrgbd.read(folder)
        os.remove(path)
        with pytest.raises(UserError, match='unpack SUNRGBDtoolbox.zip'):
            datasets.sunrgbd.read(folder)
        pathlib.Path(path).write_bytes(content)
    for field, said in (('rgbpath', 'leads out of the folder'), ('depthpath', 'entry 0 of SUNRGBDMeta has no rgbpath')):
        meta = np.array([('/n/fs/sun3d/data/SUNRGBD/a/../../../etc/x.png',)] * 5, [(field, object)])
        scipy.io.savemat(os.path.join(folder, 'SUNRGBDtoolbox', 'Metadata', 'SUNRGBDMeta.mat'), {'SUNRGBDMeta': meta})
        with pytest.raises(UserError, match=said):
            datasets.sunrgbd.read(folder)


@pytest.mark.parametrize('write', [write_frames, write_kaggle])
def test_camvid_in_colors(tmp_path, write):
    folder = write(str(tmp_path))
    dataset = datasets.camvid.read(folder)
    assert dataset.load('val', 0)[1].tolist() == [[i] * 7 for i in IDS]
    path = dataset.examples['train'][0].replace('train', 'train_labels').replace('.png', '_L.png')
    label = COLUMN.copy()
    label[3, 4] += 1  # as anti-aliasing does
    put('', path, label)
    with pytest.raises(UserError, match=r'_L.png: colour \[65, 193, 1\] at row 3, column 4'):
        dataset.load('train', 0)


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
    cv2.imwrite(os.path.join(camvid_folder, 'trainannot', 'train_03.png'), np.full((45, 61), 77, np.uint8))
    os.truncate(os.path.join(camvid_folder, 'val', 'val_01.png'), 99)
    assert datasets.__main__.main(['camvid', '--data_dir', camvid_folder]) == 2
    error = capsys.readouterr().err
    assert 'train_03.png: class id 77' in error and 'val_01.png: the PNG is truncated' in error
    assert len(error.strip().splitlines()) == 2


def test_check_tells_before_training(tmp_path, capsys):
    """Notes on absent and rare classes, labels of one id and unequal sizes; main.py prints the first by `preload`."""
    folder = write_folder(str(tmp_path))  # cat in five images, dog in five
    cv2.imwrite(os.path.join(folder, 'images', 'im5.png'), np.zeros((30, 60, 3), np.uint8))
    cv2.imwrite(os.path.join(folder, 'labels', 'im5.png'), np.zeros((30, 60), np.uint8))
    for name, numbers in (('train', (0, 2, 4, 6, 8, 5)), ('val', (1, 3))):
        pathlib.Path(os.path.join(folder, name + '.txt')).write_text('\n'.join('im%d' % i for i in numbers))
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


def test_camvid_void_and_order(tmp_path):
    folder = write_camvid(str(tmp_path), {'train': 2, 'val': 1})
    image, label = datasets.camvid.read(folder).load('train', 1)
    stored = cv2.imread(os.path.join(folder, 'trainannot', 'train_01.png'), cv2.IMREAD_UNCHANGED)
    assert (stored[:2] == 11).all() and (label[:2] == IGNORE).all()
    np.testing.assert_array_equal(label[2:], stored[2:])
    assert len(datasets.camvid.read(folder).class_names) == 11


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

@pytest.mark.parametrize('row, said', [
    ('cell0,1 5 3 2,30,20,astro,,,,', 'row 2: RLE runs overlap'),
    ('cell0,1 2,30,20,neuron,,,,', "row 2: cell_type 'neuron'"),
    ('cell0,1 2,31,20,astro,,,,', 'its rows say 20x31'),
    ('cell0,1 2,30,-20,astro,,,,', "row 2: height '-20'"),
    ('cell0,1 2,99999,99999,astro,,,,', 'row 2: an image of 99999x99999'),
    ('../../etc/passwd,1 2,30,20,astro,,,,', 'row 2: id'),
    ('gone,1 2,30,20,astro,,,,', 'gone.png'),
    ('cell0,1 2', 'row 2: cut short'),
])
def test_bad_cell_rows(tmp_path, row, said):
    with pytest.raises(UserError) as error:
        datasets.preload(datasets.sartorius.read(write_sartorius(str(tmp_path), [row])), ('train', 'val'))
    assert 'train.csv' in str(error.value) or 'gone.png' in str(error.value)
    assert said in str(error.value)


def test_bad_cell_files(tmp_path):
    for folder, said in (('/no/such', 'no such folder'), (str(tmp_path), 'is empty'), (None, '--data_dir')):
        with pytest.raises(UserError, match=said):
            datasets.sartorius.read(folder)
    folder = str(tmp_path)
    os.makedirs(os.path.join(folder, 'train'))
    with pytest.raises(UserError, match='train.csv'):
        datasets.sartorius.read(folder)
    for content, said in ((b'id,width\n', "column 'annotation'"), (b'', 'column'), (b'\xff\xfe\x00', 'train.csv'),
                          (b'id,annotation,width,height,cell_type\n', 'no rows'),
                          (b'id,annotation,width,height,cell_type\na,1 \x002,3,4,cort\n', 'NUL')):
        pathlib.Path(os.path.join(folder, 'train.csv')).write_bytes(content)
        with pytest.raises(UserError, match=said):
            datasets.sartorius.read(folder)


@pytest.mark.parametrize('line, said', [('train/train_00.png\n', 'expected an image and its annotation'),
                                        ('a/train/no.png a/trainannot/no.png\n', 'no.png is not there'),
                                        ('x/../y.png x/../y.png', 'leads out'), ('\n', 'lists no images')])
def test_bad_camvid_lists(camvid_folder, line, said):
    pathlib.Path(os.path.join(camvid_folder, 'train.txt')).write_text(line)
    with pytest.raises(UserError, match=said) as error:
        datasets.camvid.read(camvid_folder)
    assert 'train.txt' in str(error.value)


@pytest.mark.parametrize('label, said', [(np.full((45, 61), 12, np.uint8), 'class id 12 at row 0, column 0'),
                                         (np.zeros((45, 60), np.uint8), 'the label is 45x60, its image 45x61')])
def test_bad_camvid_labels(camvid_folder, label, said):
    cv2.imwrite(os.path.join(camvid_folder, 'trainannot', 'train_03.png'), label)
    with pytest.raises(UserError, match=said) as error:
        datasets.preload(datasets.camvid.read(camvid_folder), ('train',))
    assert 'train_03.png' in str(error.value)
