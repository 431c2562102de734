"""RLE, files, readers, class weights: by hand, by brute force, and on files that the tests make."""
import os
import shutil

import cv2
import hypothesis
import numpy as np
import pytest
import scipy.io
from conftest import (SHARED, needs_real_data, write_camvid, write_folder, write_palette_png, write_sartorius,
                      write_sunrgbd_mat, write_sunrgbd_png, write_voc)
from hypothesis import strategies

import data
import datasets
import datasets.__main__
from data import IGNORE, UserError
from datasets import files, tables


def test_rle_by_hand():
    mask = data.rle_decode('2 3 8 1', 2, 5)  # pixels 2, 3, 4 of row 1; pixel 8 is row 2, column 3
    assert mask.astype(int).tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert data.rle_encode(mask) == '2 3 8 1'


def test_rle_runs_cross_rows():
    assert data.rle_decode('4 3', 2, 5).astype(int).tolist() == [[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]


def test_rle_empty_and_full():
    assert not data.rle_decode('', 3, 4).any()
    assert data.rle_encode(np.zeros((3, 4), bool)) == ''
    assert data.rle_encode(np.ones((3, 4), bool)) == '1 12'


def brute_force_decode(rle, height, width):
    flat = [False] * (height * width)
    numbers = [int(x) for x in rle.split()]
    for start, length in zip(numbers[::2], numbers[1::2]):
        for i in range(length):
            flat[start - 1 + i] = True
    return np.array(flat, bool).reshape(height, width)


@hypothesis.given(strategies.integers(1, 9), strategies.integers(1, 13), strategies.randoms())
@hypothesis.settings(deadline=None)
def test_rle_inverse(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    rle = data.rle_encode(mask)
    np.testing.assert_array_equal(data.rle_decode(rle, height, width), mask)
    np.testing.assert_array_equal(brute_force_decode(rle, height, width), mask)


@pytest.mark.parametrize('rle', [
    '1', '1 2 3', 'a b', '1 x', '1 2,3 4', '0 2', '1 0', '-1 2', '1 -2', '1.5 2', '3 2 1 1', '1 3 2 2', '1 3 3 1',
    '21 1', '20 2', '1 21', '1\t2', '1 2\n', '\u0663 1', '1 99999999999999999999', 'nan 1', '1e2 1', '+1 2', '0x1 1'])
def test_rle_malformed(rle):
    with pytest.raises(UserError):
        data.rle_decode(rle, 4, 5)


@hypothesis.given(strategies.text(alphabet='0123456789 -.,a', max_size=20))
@hypothesis.settings(deadline=None)
def test_rle_any_text(text):
    try:
        mask = data.rle_decode(text, 4, 5)
    except UserError:
        return
    np.testing.assert_array_equal(mask, brute_force_decode(text, 4, 5))


@needs_real_data
def test_rle_real_rows():
    path = os.path.join(SHARED, 'sartorius', 'train.csv')
    cells = tables.read_cells(path, tables.class_places(datasets.sartorius.CELLS))
    assert sum(len(rows) for _, _, rows in cells.values()) == 13243
    height, width, rows = next(iter(cells.values()))
    for _, _, rle in rows:
        assert data.rle_encode(data.rle_decode(rle, height, width)) == rle


# ---------------------------------------------------------------- files

def test_read_image_is_rgb(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))  # OpenCV writes BGR
    assert data.read_image(path).tolist() == [[[3, 2, 1], [6, 5, 4]]]


@pytest.mark.parametrize('pixels', [np.full((4, 5), 9, np.uint8), np.full((4, 5, 4), 9, np.uint8),
                                    np.full((4, 5), 9 * 257, np.uint16)])
def test_read_image_of_other_kinds(tmp_path, pixels):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, pixels)
    np.testing.assert_array_equal(data.read_image(path), np.full((4, 5, 3), 9, np.uint8))


@pytest.mark.parametrize('extension', ['png', 'jpg'])
def test_truncated_image(tmp_path, extension):
    path = str(tmp_path / ('a.' + extension))
    cv2.imwrite(path, np.random.RandomState(1).randint(0, 255, (99, 99, 3)).astype(np.uint8))
    content = open(path, 'rb').read()
    for part in (content[:len(content) // 2], content[:-13] if extension == 'png' else content[:-2], b''):
        with open(path, 'wb') as f:
            f.write(part)
        with pytest.raises(UserError, match='a.' + extension):
            data.read_image(path)


def test_damaged_png(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.random.RandomState(1).randint(0, 255, (99, 99, 3)).astype(np.uint8))
    content = bytearray(open(path, 'rb').read())
    content[5000] ^= 255
    with open(path, 'wb') as f:
        f.write(content)
    with pytest.raises(UserError, match='damaged'):
        data.read_image(path)


def test_not_an_image(tmp_path):
    path = str(tmp_path / 'a.png')
    with open(path, 'w') as f:
        f.write('hello')
    with pytest.raises(UserError, match='a.png'):
        data.read_image(path)
    with pytest.raises(UserError, match='b.png'):
        data.read_image(str(tmp_path / 'b.png'))


def test_label_of_16_bits_or_colours(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.full((4, 5), 256, np.uint16))
    with pytest.raises(UserError, match='id 256 at row 0, column 0'):
        data.read_label(path)
    cv2.imwrite(path, np.dstack([np.ones((4, 5), np.uint8)] * 2 + [np.zeros((4, 5), np.uint8)]))
    with pytest.raises(UserError, match='ids'):
        data.read_label(path)


# ---------------------------------------------------------------- readers

def all_datasets(tmp_path):
    """Every data set, on the files that the tests make."""
    return {'sample': datasets.sample.read(),
            'sartorius': datasets.sartorius.read(write_sartorius(str(tmp_path / 's'))),
            'camvid': datasets.camvid.read(write_camvid(str(tmp_path / 'c'), {'train': 3, 'val': 2})),
            'voc2012': datasets.voc2012.read(write_voc(str(tmp_path / 'v'))),
            'sunrgbd': datasets.sunrgbd.read(write_sunrgbd_png(str(tmp_path / 'n'))),
            'folder': datasets.folder.read(write_folder(str(tmp_path / 'f')))}


def test_contract(tmp_path):
    made = all_datasets(tmp_path)
    assert set(made) == set(datasets.names())
    for name, dataset in made.items():
        assert dataset.name == name
        num_classes = len(dataset.class_names)
        assert len(dataset.colors) == num_classes == len(set(dataset.colors))
        assert dataset.examples['train'] and dataset.examples['val']
        assert not set(dataset.examples['train']) & set(dataset.examples['val'])
        seen = set()
        for split, names in dataset.examples.items():
            for i in range(min(4, len(names))):
                image, label = dataset.load(split, i)
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
                assert label.dtype == np.uint8 and label.shape == image.shape[:2]
                assert ((label < num_classes) | (label == IGNORE)).all()
                seen |= set(np.unique(label))
        assert len(seen) > 1


def test_voc_palette(tmp_path):
    """Ids as stored, though OpenCV gives colours; VOC's own first colours; 255 is void."""
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
        assert (dataset.class_names[0], dataset.class_names[36], len(dataset.class_names)) == ('wall', 'bag', 37)


def test_sunrgbd_faults_are_named(tmp_path):
    folder = write_sunrgbd_png(str(tmp_path / 'png'))
    os.remove(os.path.join(folder, 'label37', 'test', 'img37labels-000002.png'))
    with pytest.raises(UserError, match='number 2 has only one'):
        datasets.sunrgbd.read(folder)
    with pytest.raises(UserError, match='label37'):
        datasets.sunrgbd.read(str(tmp_path))
    folder = write_sunrgbd_mat(str(tmp_path / 'mat'))
    for name in ('Metadata/SUNRGBDMeta.mat', 'Metadata/SUNRGBD2Dseg.mat', 'traintestSUNRGBD/allsplit.mat'):
        path = os.path.join(folder, 'SUNRGBDtoolbox', *name.split('/'))
        content = open(path, 'rb').read()
        with open(path, 'wb') as f:
            f.write(b'hello')
        with pytest.raises(UserError, match=os.path.basename(name)):
            datasets.sunrgbd.read(folder)
        os.remove(path)
        with pytest.raises(UserError, match='unpack SUNRGBDtoolbox.zip'):
            datasets.sunrgbd.read(folder)
        with open(path, 'wb') as f:
            f.write(content)
    for field, said in (('rgbpath', 'leads out of the folder'), ('depthpath', 'entry 0 of SUNRGBDMeta has no rgbpath')):
        meta = np.array([('/n/fs/sun3d/data/SUNRGBD/a/../../../etc/x.png',)] * 5, [(field, object)])
        scipy.io.savemat(os.path.join(folder, 'SUNRGBDtoolbox', 'Metadata', 'SUNRGBDMeta.mat'), {'SUNRGBDMeta': meta})
        with pytest.raises(UserError, match=said):
            datasets.sunrgbd.read(folder)


# ---------------------------------------------------------------- one's own data

def own_label(tmp_path, classes, pixels, name='a.png', palette=None):
    """The label that comes of `pixels` (RGB where they are colours) under `classes`, beside a black image."""
    folder = str(tmp_path)
    os.makedirs(os.path.join(folder, 'images'), exist_ok=True)
    os.makedirs(os.path.join(folder, 'labels'), exist_ok=True)
    for stem in 'ab':
        cv2.imwrite(os.path.join(folder, 'images', stem + '.png'), np.zeros(pixels.shape[:2] + (3,), np.uint8))
    if palette:
        write_palette_png(os.path.join(folder, 'labels', name), pixels, palette)
    else:
        cv2.imwrite(os.path.join(folder, 'labels', name), pixels[:, :, [2, 1, 0, 3][:pixels.shape[2]]]
                    if pixels.ndim == 3 else pixels)
    with open(os.path.join(folder, 'classes.csv'), 'w') as f:
        f.write('name,id,color\n' + '\n'.join(classes) + '\n')
    with open(os.path.join(folder, 'train.txt'), 'w') as f, open(os.path.join(folder, 'val.txt'), 'w') as g:
        f.write('a.png\n'), g.write('b\n')
    return datasets.folder.read(folder).load('train', 0)[1].tolist()


IDS = np.array([[0, 255, 7], [7, 0, 9]], np.uint8)


def test_folder_ids(tmp_path):
    """Ids as they are, here 0, 7 and 255 with a void of 9; classes count in the order of the table."""
    classes = ['cell,255,', 'void,9,', 'ground,0,', 'rim,7,']
    assert own_label(tmp_path, classes, IDS) == [[1, 0, 2], [2, 1, IGNORE]]
    dataset = datasets.folder.read(str(tmp_path))
    assert dataset.class_names == ['cell', 'ground', 'rim'] and dataset.size == (2, 3)
    assert dataset.examples == {'train': ['a'], 'val': ['b']}


def test_folder_palette(tmp_path):
    palette = [(i, 255 - i, 7) for i in range(256)]
    assert own_label(tmp_path, ['x,0,', 'y,7,', 'z,9,', 'void,255,'], IDS, palette=palette) == [[0, IGNORE, 1],
                                                                                                  [1, 0, 2]]


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


def test_folder_single_foreground_class(tmp_path):
    assert own_label(tmp_path, ['background,0,', 'cell,255,'], np.array([[0, 255]], np.uint8)) == [[0, 1]]


def test_folder_split_is_fixed(tmp_path):
    dataset = datasets.folder.read(write_folder(str(tmp_path)))
    assert dataset.examples == datasets.folder.read(str(tmp_path)).examples
    assert [len(dataset.examples[split]) for split in ('train', 'val')] == [8, 2]
    assert sorted(dataset.examples['train'] + dataset.examples['val']) == ['im%d' % i for i in range(10)]


def write_masks(folder, rows, header='id,annotation,width,height,cell_type'):
    """labels.csv instead of labels/ in the folder of `write_folder`."""
    if os.path.isdir(os.path.join(folder, 'labels')):
        shutil.rmtree(os.path.join(folder, 'labels'))
    with open(os.path.join(folder, 'labels.csv'), 'w') as f:
        f.write('\n'.join([header] + rows) + '\n')
    return folder


def label_of(dataset, name):
    """The label of the example `name`, in whatever split it is."""
    split = next(split for split in dataset.examples if name in dataset.examples[split])
    return dataset.load(split, dataset.examples[split].index(name))[1]


def test_folder_rle(tmp_path):
    """Runs along rows; a later row lies on top; 16.0 of pandas is 16; an empty annotation is an image of background."""
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
    with open(os.path.join(folder, 'classes.csv'), 'w') as f:
        f.write('name,id\nground,0\ncat,1\n')
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
    (['x,0,'], 'has 1 classes'), (['x,0,', 'void,1,'], 'has 1 classes'), (['x,0,', 'y,0,'], 'row 3: id 0 stands'),
    (['x,0,', 'x,1,'], 'row 3: name x stands'), (['x,0,', 'y,256,'], "row 3: id '256'"),
    (['x,0,', 'y,-1,'], "row 3: id '-1'"), (['x,0,1 2', 'y,1,'], "row 2: color '1 2'"),
    (['x,0,1 2 3', 'y,1,1 2 3'], r'row 3: color \(1, 2, 3\) stands'),
    (['x,0,', ',1,'], 'row 3: a class has a name of 1 to 100'), (['x,0,', 'y' * 101 + ',1,'], 'row 3: a class has'),
    (['x%d,%d,' % (i, i) for i in range(255)], 'has 255 classes; 254 are the most'),
    (['x,0,', 'y,1,'], 'id 255 at row 0, column 1 is not in the table')])
def test_folder_bad_classes(tmp_path, classes, said):
    with pytest.raises(UserError, match=said):
        own_label(tmp_path, classes, IDS)


def test_folder_names_may_hold_spaces_and_test_txt_is_no_training_data(tmp_path):
    folder = write_folder(str(tmp_path))
    for place in ('images', 'labels'):
        os.rename(os.path.join(folder, place, 'im0.png'), os.path.join(folder, place, 'im 0.png'))
    with open(os.path.join(folder, 'test.txt'), 'w') as f:
        f.write('im1\n')
    with pytest.raises(UserError, match='train.txt: cannot be read'):
        datasets.folder.read(folder)
    for name, content in (('train', 'im 0\nim2\n'), ('val', 'im3\n')):
        with open(os.path.join(folder, name + '.txt'), 'w') as f:
            f.write(content)
    assert datasets.folder.read(folder).examples == {'train': ['im 0', 'im2'], 'val': ['im3'], 'test': ['im1']}
    with open(os.path.join(folder, 'test.txt'), 'a') as f:
        f.write('im2\n')
    with pytest.raises(UserError, match='test.txt: names im2'):
        datasets.folder.read(folder)


def test_folder_bad_files(tmp_path):
    folder = write_folder(str(tmp_path / 'd'))
    for path, content, said in (('train.txt', 'im0\nimX\n', 'imX is no image'), ('train.txt', 'im0\nim0\n', 'twice'),
                                ('train.txt', 'im0\nim1\n', 'im1, which'), ('train.txt', '../im0\n', 'leads out')):
        with open(os.path.join(folder, 'val.txt'), 'w') as f:
            f.write('im1\n')
        with open(os.path.join(folder, path), 'w') as f:
            f.write(content)
        with pytest.raises(UserError, match=said):
            datasets.folder.read(folder)
    os.remove(os.path.join(folder, 'train.txt'))
    with pytest.raises(UserError, match='train.txt: cannot be read'):
        datasets.folder.read(folder)
    os.remove(os.path.join(folder, 'val.txt'))
    os.remove(os.path.join(folder, 'labels', 'im3.png'))
    with pytest.raises(UserError, match='no label for image im3; expected im3.png'):
        datasets.preload(datasets.folder.read(folder), ('train', 'val'))
    cv2.imwrite(os.path.join(folder, 'images', 'im3.jpg'), np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match='have one name'):
        datasets.folder.read(folder)


def test_exif_rotation_is_applied(tmp_path):
    """A JPEG that says it lies on its side (orientation 6) is read upright: 4x2 becomes 2x4."""
    path = str(tmp_path / 'a.jpg')
    cv2.imwrite(path, np.full((4, 2, 3), 90, np.uint8))
    content = open(path, 'rb').read()
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    with open(path, 'wb') as f:
        f.write(content[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + content[2:])
    assert data.read_image(path).shape == (2, 4, 3)


def write_frames(folder, colors):
    """Frames and colour-coded labels, one row a colour of label_colors.txt; returns the folder."""
    os.makedirs(folder)
    with open(os.path.join(folder, 'label_colors.txt'), 'w') as f:
        f.write('\n'.join('%d %d %d\t%s' % (color + (name,)) for name, color in colors))
    label = np.repeat(np.array([color for _, color in colors], np.uint8)[:, None], 6, 1)
    for i in range(5):
        cv2.imwrite(os.path.join(folder, 'f%d.png' % i), label)
        cv2.imwrite(os.path.join(folder, 'f%d_L.png' % i), label[:, :, ::-1])
    return folder


def test_camvid_frames(tmp_path):
    colors = [('Truck_Bus', (192, 128, 192)), ('Sky', (128, 128, 128)), ('Void', (0, 0, 0)), ('Wall', (64, 192, 0)),
              ('Archway', (192, 0, 128)), ('Bicyclist', (0, 128, 192))]
    folder = write_frames(str(tmp_path / 'frames'), colors)
    dataset = datasets.camvid.read(folder)
    assert dataset.examples == {'train': ['f0', 'f1', 'f2', 'f3'], 'val': ['f4']}
    assert dataset.load('val', 0)[1][:, 2].tolist() == [8, 0, IGNORE, 1, IGNORE, 10]
    with open(os.path.join(folder, 'val.txt'), 'w') as f, open(os.path.join(folder, 'train.txt'), 'w') as g:
        f.write('f1.png\n'), g.write('f3.png\n')
    assert datasets.camvid.read(folder).examples == {'train': ['f3'], 'val': ['f1']}
    label = cv2.imread(os.path.join(folder, 'f1_L.png'))
    label[3, 4] += 1  # as anti-aliasing does
    cv2.imwrite(os.path.join(folder, 'f1_L.png'), label)
    with pytest.raises(UserError, match=r'f1_L.png: colour \(65, 193, 1\) at row 3, column 4'):
        datasets.camvid.read(folder).load('val', 0)


@needs_real_data
def test_real_camvid_frames_agree_with_the_released_labels():
    """Subsampled twofold, at least 0.97 of the labelled pixels."""
    frames = datasets.camvid.read(os.path.join(SHARED, 'camvid_color'))
    agree = total = 0
    for split, names in frames.examples.items():
        for i, name in enumerate(names):
            label = frames.load(split, i)[1][::2, ::2]
            released = data.read_label(os.path.join(SHARED, 'camvid', 'valannot', name + '.png'))
            both = (label != IGNORE) & (released < 11)
            agree, total = agree + (label == released)[both].sum(), total + both.sum()
    assert total > 500000 and agree / total >= 0.97


def test_check_names_every_fault(camvid_folder, capsys):
    """`python -m datasets`: counts and weights of what is whole, and each faulty file, not the first only."""
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
    """Absent and rare classes, labels of one id, unequal sizes; main.py's own line comes from preload."""
    folder = write_folder(str(tmp_path))  # cat in five images, dog in five
    cv2.imwrite(os.path.join(folder, 'images', 'im5.png'), np.zeros((30, 60, 3), np.uint8))
    cv2.imwrite(os.path.join(folder, 'labels', 'im5.png'), np.zeros((30, 60), np.uint8))
    for name, numbers in (('train', (0, 2, 4, 6, 8, 5)), ('val', (1, 3))):
        with open(os.path.join(folder, name + '.txt'), 'w') as f:
            f.write('\n'.join('im%d' % i for i in numbers))
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


@needs_real_data
def test_real_camvid_counts():
    """Pixel counts of reference/original.md, to the pixel, and the weights printed there."""
    dataset = datasets.camvid.read(os.path.join(SHARED, 'camvid'))
    assert {split: len(names) for split, names in dataset.examples.items()} == {'train': 367, 'val': 101}
    pixels, present = data.class_counts(dataset, 'train')
    assert pixels.tolist() == TRAIN_PIXELS
    assert (present // 172800).tolist() == TRAIN_IMAGES


# original.md, section 1: pixels and images of each class in CamVid's training split, void last.
TRAIN_PIXELS = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967,
                2503995]
TRAIN_IMAGES = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367]


def test_class_weights_of_camvid():
    pixels, present = np.array(TRAIN_PIXELS), np.array(TRAIN_IMAGES) * 360 * 480
    np.testing.assert_allclose(
        data.median_frequency_weights(pixels, present),
        [.2793, .2017, 4.7865, .1490, 1.0, .4217, 3.8467, 1.9736, .7889, 6.3747, 8.8587], atol=5e-5)
    np.testing.assert_allclose(
        data.median_frequency_weights(pixels, present, void_in_median=True),
        [.2565, .1853, 4.3963, .1369, .9185, .3873, 3.5331, 1.8127, .7246, 5.8550, 8.1365], atol=5e-5)


def test_class_counts_by_hand():
    labels = [np.array([[0, 0, 1], [IGNORE, 0, 1]], np.uint8), np.array([[0, IGNORE]], np.uint8)]
    dataset = data.Dataset('made', ['a', 'b', 'c'], [], None, {'train': ['x', 'y']}, lambda s, i: (None, labels[i]), '')
    pixels, present = data.class_counts(dataset, 'train')
    assert pixels.tolist() == [4, 2, 0, 2]
    assert present.tolist() == [8, 6, 0, 8]
    # frequencies 4/8 and 2/6; their median 5/12; c is nowhere
    np.testing.assert_allclose(data.median_frequency_weights(pixels, present), [5 / 6, 5 / 4, 0])
    np.testing.assert_allclose(data.class_weights('median-sqrt', dataset), [(5 / 6) ** 0.5, (5 / 4) ** 0.5, 0])


def test_class_weights_of_void_only():
    with pytest.raises(UserError, match='no labelled pixel'):
        data.median_frequency_weights(np.array([0, 0, 9]), np.array([0, 0, 9]))


# ---------------------------------------------------------------- bad input: each names the file or row

@pytest.mark.parametrize('row, said', [
    ('cell0,1 2 3,30,20,astro,,,,', 'row 2: RLE has 3'),
    ('cell0,1 x,30,20,astro,,,,', "row 2: RLE token 'x'"),
    ('cell0,1 5 3 2,30,20,astro,,,,', 'row 2: RLE runs overlap'),
    ('cell0,600 2,30,20,astro,,,,', 'row 2: RLE run ends at pixel 601'),
    ('cell0,1 2,30,20,neuron,,,,', "row 2: cell_type 'neuron'"),
    ('cell0,1 2,31,20,astro,,,,', 'its rows say 20x31'),
    ('cell0,1 2,30,-20,astro,,,,', "row 2: height '-20'"),
    ('cell0,1 2,99999,99999,astro,,,,', 'row 2: an image of 99999x99999'),
    ('../../etc/passwd,1 2,30,20,astro,,,,', 'row 2: id'),
    ('/etc/passwd,1 2,30,20,astro,,,,', 'row 2: id'),
    ('gone,1 2,30,20,astro,,,,', 'gone.png'),
    ('cell0,1 2', 'row 2: cut short'),
])
def test_bad_cell_rows(tmp_path, row, said):
    with pytest.raises(UserError) as error:
        datasets.preload(datasets.sartorius.read(write_sartorius(str(tmp_path), [row])), ('train', 'val'))
    assert 'train.csv' in str(error.value) or 'gone.png' in str(error.value)
    assert said in str(error.value)


def test_bad_cell_files(tmp_path):
    folder = str(tmp_path / 'x')
    with pytest.raises(UserError, match='no such folder'):
        datasets.sartorius.read(folder)
    os.makedirs(folder)
    with pytest.raises(UserError, match='is empty'):
        datasets.sartorius.read(folder)
    os.makedirs(os.path.join(folder, 'train'))
    with pytest.raises(UserError, match='train.csv'):
        datasets.sartorius.read(folder)
    for content, said in ((b'id,width\n', "column 'annotation'"), (b'', 'column'), (b'\xff\xfe\x00', 'train.csv'),
                          (b'id,annotation,width,height,cell_type\n', 'no rows'),
                          (b'id,annotation,width,height,cell_type\na,1 \x002,3,4,cort\n', 'NUL')):
        with open(os.path.join(folder, 'train.csv'), 'wb') as f:
            f.write(content)
        with pytest.raises(UserError, match=said):
            datasets.sartorius.read(folder)
    with pytest.raises(UserError, match='--data_dir'):
        datasets.sartorius.read(None)


@pytest.mark.parametrize('line, said', [('train/train_00.png\n', 'expected an image and its annotation'),
                                        ('a/train/no.png a/trainannot/no.png\n', 'no.png is not there'),
                                        ('x/../y.png x/../y.png', 'leads out'), ('\n', 'lists no images')])
def test_bad_camvid_lists(camvid_folder, line, said):
    with open(os.path.join(camvid_folder, 'train.txt'), 'w') as f:
        f.write(line)
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
