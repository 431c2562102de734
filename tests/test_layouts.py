"""Tests `--dataset folder`: each layout gives the same six images and labels."""
import os
import re
import shutil

import numpy as np
import pytest
from conftest import assert_contract, assert_refused, open_and_load, put, put_example, put_text, save_palette
from PIL import Image

import data
import datasets
from data import IGNORE
from datasets import files, rle, splits
from system import files as system_files

COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 7]], np.uint8)
PALETTE = [tuple(color) for color in COLORS.tolist()] + [(0, 0, 0)] * 253


def scene(i):
    """Returns an image uint8 [h, w, 3] and a label uint8 [h, w] with the ids 0, 1, 2 and IGNORE.

    Each scene has a different size.
    """
    rng = np.random.RandomState(i)
    label = np.repeat(rng.randint(0, 3, (9 + 2 * i, 1 + i)), 5, axis=1).astype(np.uint8)
    label[i] = IGNORE
    label[-3:, -1] = 0, 1, 2
    return rng.randint(0, 255, label.shape + (3,)).astype(np.uint8), label


def colored(label):
    return np.where((label == IGNORE)[:, :, None], np.uint8(0), COLORS[np.minimum(label, 2)])


def write_scenes(folder, image, label, make=lambda label: label, splits=('',) * 6):
    """Writes six scenes; `make` changes a label.

    The paths `image` and `label` contain the placeholders {i}, for the number of a scene, and {split}.
    """
    for i, split in enumerate(splits):
        put(folder, image.format(i=i, split=split), scene(i)[0])
        put(folder, label.format(i=i, split=split), make(scene(i)[1]))


def write_own(folder, image='images/im {i}.png', label='labels/im {i}.png', make=lambda label: label,
              classes='a,0,\nb,1,\nc,2,\nVoid,255,\n'):
    write_scenes(folder, image, label, make)
    put_text(folder, 'classes.csv', 'name,id,color\n' + classes)


def write_splits(folder):
    splits = ['train'] * 4 + ['valid'] * 2
    write_scenes(folder, 'images/{split}/im {i}.png', 'labels/{split}/im {i}.png', splits=splits)
    put_text(folder, 'classes.csv', '\ufeffname,id\r\na,0\r\nb,1\r\nc,2\r\nvoid,255\r\n')


def write_lists(folder):
    """Writes lists as Notepad and Excel do: UTF-16, a byte order mark, backslashes."""
    write_own(folder)
    put_text(folder, 'train.txt', 'im 0.png\r\nim 1\r\nimages\\im 2.PNG\r\n', 'utf-16')
    put_text(folder, 'val.txt', './images/im 3.png\nim 4\n', 'utf-8-sig')
    put_text(folder, 'test.txt', 'im 5')


def write_palettes(folder, path, palette=PALETTE, make=lambda label: label):
    """Writes the labels of six scenes as palette images. In `path`, {i} stands for the number of a scene."""
    for i in range(6):
        save_palette(os.path.join(folder, path.format(i=i)), make(scene(i)[1]), palette)


def write_palette(folder):
    write_own(folder, classes='a,0,1 2 3\nb,1,4 5 6\nc,2,7 8 9\nvoid,255,\n')
    write_palettes(folder, 'labels/im {i}.png')


def write_renumbered(folder, extension, colors, classes):
    """Writes labels with a reordered palette, because image optimizers and GIF encoders reorder palettes."""
    write_own(folder, classes=classes)
    places = np.array([2, 3, 0], np.uint8)
    palette = [colors[2], colors[3], colors[0], colors[1]] + [(0, 0, 0)] * 252
    for name in os.listdir(os.path.join(folder, 'labels')):
        os.remove(os.path.join(folder, 'labels', name))
    write_palettes(folder, 'labels/im {i}.' + extension, palette, lambda label: np.where(
        label == IGNORE, 1, places[label % 3]).astype(np.uint8))


def write_custom_voc(folder):
    """Writes a data set in the layout of PASCAL VOC, with its own classes and an empty test.txt.

    SegmentationObject/ must not be read.
    """
    root = os.path.join(folder, 'VOCdevkit', 'VOC2007')
    write_own(root, 'JPEGImages/im {i}.png', 'SegmentationClass/im {i}.png')
    put(root, 'SegmentationObject/im 0.png', scene(1)[1])
    for name, text in (('train', 'im 0\nim 1\nim 2\nim 3\n'), ('val', 'im 4\nim 5\n'), ('test', '')):
        put_text(root, 'ImageSets/Segmentation/%s.txt' % name, text)


def write_img_and_gt(folder):
    """Writes images whose names end in _img and labels whose names end in _gt. The lists omit these suffixes."""
    write_own(folder, 'imgs/im {i}_img.png', 'gts/im {i}_gt.png')
    put_text(folder, 'splits/train.txt', 'im 3\nim 1\nim 0\nim 5\n')
    put_text(folder, 'splits/val.txt', 'im 2\nim 4\n')


def write_split_folders(folder, image, label):
    """Writes labels in the colours of class_dict.csv. The image of the test split has no label."""
    write_scenes(folder, image, label, colored, ['train'] * 4 + ['val'] * 2)
    put(folder, image.format(i=6, split='test'), scene(0)[0])
    put_text(folder, 'class_dict.csv', 'name,r,g,b\na, 10, 20, 30\nVoid,0,0,0\nb,200,0,0\nc,0,200,7\n')


def write_runs(folder, kaggle=False, order='rows'):
    """Writes run lengths in one of the pixel orders that `data.rle_decode` accepts.

    The mask of class b also covers class c. Where the masks overlap, the label must be c, the class of the later mask.
    """
    rows = ['ImageId,ClassId,EncodedPixels' if kaggle else 'id,annotation,width,height,cell_type']
    for i in range(6):
        image, label = scene(i)
        put(folder, 'images/im %d.png' % i, image)
        for place, name, mask in ((0, '', label < 0), (1, 'b', (label == 1) | (label == 2)), (2, 'c', label == 2),
                                  (IGNORE, 'void', label == IGNORE)):
            text = data.rle_encode(mask, order)
            text = '-1' if order == 'relative' and not text else text
            rows.append('im %d.jpg,%s,%s' % (i, name if i % 2 else '%d.0' % place, text) if kaggle else
                        'im %d,%s,%d.0,%d,%s' % (i, text, mask.shape[1], mask.shape[0], name))
    put_text(folder, 'labels.csv', '\n'.join(rows) + '\n')
    put_text(folder, 'classes.csv', 'name,id\nbackground,0\nb,1\nc,2\nvoid,255\n')


def write_cvat(folder, palette=False):
    label = 'SegmentationClass/cam/im {i}.png'
    write_scenes(folder, 'JPEGImages/cam/im {i}.png', label, lambda label: np.where(
        label[:, :, None] == IGNORE, np.array([224, 224, 192], np.uint8), colored(label)))
    if palette:
        write_palettes(folder, label)
    put(folder, 'JPEGImages/cam/not yet.png', scene(1)[0])
    put_text(folder, 'ImageSets/Segmentation/default.txt', ''.join('cam/im %d\n' % i for i in range(6)))
    put_text(folder, 'labelmap.txt', '# label:color_rgb:parts:actions\na:10,20,30::\nb:200,0,0::\nc:0,200,7::\n')


def write_roboflow(folder):
    splits = ['train'] * 3 + ['valid'] * 2 + ['test']
    write_scenes(folder, '{split}/im {i}_jpg.rf.0af.png', '{split}/im {i}_jpg.rf.0af_mask.png', splits=splits)
    for split in splits:
        put_text(folder, split + '/_classes.csv', 'Pixel Value, Class\n0, a\n1, b\n2, c\n255, void\n')


def write_cvat_camvid(folder, first='default', second='default'):
    """Writes CVAT's CamVid export. The subset `first` has four images, the subset `second` two."""
    subsets = [first] * 4 + [second] * 2
    write_scenes(folder, '{split}/im {i}.png', '{split}annot/im {i}.png', colored, subsets)
    for i, subset in enumerate(subsets):
        with open(os.path.join(folder, subset + '.txt'), 'a') as file:
            file.write('/%s/im %d.png %sannot/im %d.png\n' % (subset, i, subset, i))
    put_text(folder, 'label_colors.txt', '# color name\n0 0 0 Void\n10 20 30 a\n200 0 0 b\n0 200 7\tc\n')


LAYOUTS = {
    'ids': write_own,
    'suffix': lambda folder: write_own(folder, 'images/im {i}.tif', 'labels/im {i}_mask-gt.PNG'),
    'numbers': lambda folder: write_own(folder, label='labels/im {i}.npy'),
    'colors': lambda folder: write_own(folder, 'images/im {i}.bmp', make=colored, classes='a,0,10 20 30\nb,1,200 0 0\n'
                                       'c,2,0 200 7\nvoid,255,0 0 0\n'),
    'channels': lambda folder: write_own(folder, make=lambda label: np.dstack([label] * 3)),
    'greys': lambda folder: write_own(folder, make=lambda label: np.dstack([label + 9] * 3),
                                      classes='a,0,9 9 9\nb,1,10 10 10\nc,2,11 11 11\nvoid,255,8 8 8\n'),
    'several ids': lambda folder: write_own(
        folder, classes='VOID,30 31,\na,255,\nb,8 50,\nc,9 4 5,\n', make=lambda label: np.where(
            label == IGNORE, np.arange(label.shape[1]) % 2 + 30, np.array([255, 8, 9])[label % 3]).astype(np.uint8)),
    'splits': write_splits, 'lists': write_lists, 'palette': write_palette,
    'runs': write_runs, 'kaggle': lambda folder: write_runs(folder, kaggle=True, order='columns'),
    'runs down': lambda folder: write_runs(folder, order='columns'),
    'relative': lambda folder: write_runs(folder, kaggle=True, order='relative'),
    'masks folder': lambda folder: write_own(folder, label='masks/im {i}.png'),
    'img and gt': write_img_and_gt,
    'together': lambda folder: write_own(folder, 'im {i}_sat.png', 'im {i}_mask.png'),
    'voc': write_custom_voc,
    'inner folders': lambda folder: write_split_folders(
        folder, '{split}/images/im {i}.png', '{split}/masks/im {i}.png'),
    'train and train_labels': lambda folder: write_split_folders(
        folder, '{split}/im {i}.png', '{split}_labels/im {i}_L.png'),
    'table in another order': lambda folder: write_renumbered(
        folder, 'png', COLORS.tolist() + [(0, 0, 0)], 'a,0,10 20 30\nb,1,200 0 0\nc,2,0 200 7\nvoid,255,0 0 0\n'),
    'greys in another order': lambda folder: write_renumbered(
        folder, 'gif', [(i, i, i) for i in (0, 1, 2, 255)], 'a,0,\nb,1,\nc,2,\nvoid,255,\n'),
    'voc colors in another order': lambda folder: write_renumbered(
        folder, 'png', [files.voc_color(i) for i in (0, 11, 12, 255)], 'a,0,\nb,11,\nc,12,\nvoid,255,\n'),
    'cvat camvid': write_cvat_camvid,
    'cvat camvid subsets': lambda folder: write_cvat_camvid(folder, 'Train', 'Validation'),
    'cvat': write_cvat, 'cvat palette': lambda folder: write_cvat(folder, palette=True), 'roboflow': write_roboflow}


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_layouts(tmp_path, layout):
    """Each layout gives the same six images and labels, and fulfils the contract of `Dataset`."""
    LAYOUTS[layout](str(tmp_path))
    order = 'columns' if layout == 'runs down' else None
    dataset = datasets.open('folder', str(tmp_path), rle_order=order)
    assert dataset.examples == datasets.open('folder', str(tmp_path)).examples
    assert_contract(dataset)
    runs = layout in ('kaggle', 'runs', 'runs down', 'relative')
    assert dataset.class_names == ['background' if runs else 'a', 'b', 'c']
    assert dataset.depth is None
    assert dataset.class_ids == {'several ids': [255, 8, 9], 'voc colors in another order': [0, 11, 12]}.get(
        layout, [0, 1, 2])
    found = {}
    for split, names in dataset.examples.items():
        for i, name in enumerate(names):
            found[int(re.search('im ([0-9])', name).group(1))] = dataset.load(split, i)
    assert sorted(found) == list(range(6))
    for i, (image, label) in found.items():
        np.testing.assert_array_equal(label, scene(i)[1])
        np.testing.assert_array_equal(image, scene(i)[0])
    sizes = [len(names) for names in dataset.examples.values()]
    counts = {'lists': [3, 2, 1], 'roboflow': [3, 2, 1]}
    counts.update(dict.fromkeys(('splits', 'voc', 'inner folders', 'img and gt', 'train and train_labels',
                          'cvat camvid subsets'), [4, 2]))
    assert sizes == counts.get(layout, [5, 1])


def test_images_of_12_bits(tmp_path, capsys):
    """The number of bits in use is measured on the training split, or given by --depth.

    The config.json of a run records the number of bits.
    """
    for i, top in enumerate((900, 4095, 17, 60000)):
        put_example(str(tmp_path), 'im%d' % i, np.full((3, 5), top, np.uint16), np.full((3, 5), i % 2, np.uint8))
    put_text(str(tmp_path), 'classes.csv', 'name,id\na,0\nb,1\n')
    put_text(str(tmp_path), 'train.txt', 'im0\nim1\nim2\n')
    put_text(str(tmp_path), 'val.txt', 'im3\n')
    dataset = datasets.open('folder', str(tmp_path))
    assert dataset.depth == 12 and [dataset.load('train', i)[0][2, 4, 1] for i in range(3)] == [56, 255, 1]
    assert dataset.load('val', 0)[0].min() == 255 and 'im3.png: has values up to 60000' in capsys.readouterr().err
    config = {'flags': {}, 'class_names': ['a', 'b'], 'depth': 14}
    assert datasets.open('folder', str(tmp_path), config).load('train', 1)[0][0, 0, 0] == 63
    # Older revisions wrote no key `depth` to config.json, and kept the upper 8 of 16 bits.
    older = {'flags': {}, 'class_names': ['a', 'b']}
    assert datasets.open('folder', str(tmp_path), older).load('train', 1)[0][0, 0, 0] == 15
    assert datasets.open('folder', str(tmp_path), depth=16).load('train', 1)[0][0, 0, 0] == 15
    assert_refused(r"trained on classes \[\], the data has \['a', 'b'\]", datasets.open, 'folder', str(tmp_path),
                   dict(config, class_names=[]))
    assert_refused('--rle_order and --depth: only for', datasets.open, 'sample', depth=12)
    # The new training image im4 has 8 bits, the new validation image im1 has 12 bits.
    put_text(str(tmp_path), 'train.txt', 'im4\n')
    put_example(str(tmp_path), 'im4', np.full((3, 5), 200, np.uint8), np.zeros((3, 5), np.uint8))
    put_text(str(tmp_path), 'val.txt', 'im1\n')
    for of_a_run in (None, dict(config, depth=None)):
        assert datasets.open('folder', str(tmp_path), of_a_run).load('val', 0)[0][0, 0, 0] == 255


def test_files_are_told_of(tmp_path, capsys):
    """Notes report files in unsupported image formats, labels without an image, and images that no list names."""
    folder = str(tmp_path)
    write_own(folder)
    for path in ('images/._im 0.png', 'images/.DS_Store', 'images/Thumbs.db', 'images/a.heic', 'images/notes.txt'):
        put_text(folder, path, 'x')
    put(folder, 'labels/im 0_L.png', scene(0)[1])
    put(folder, 'labels/other.png', scene(0)[1])
    put_text(folder, 'train.txt', 'im 0\nim 1\n')
    put_text(folder, 'val.txt', 'im 3\n')
    dataset = datasets.folder.read(folder)
    assert [dataset.load('train', 0)[1].tolist()] == [scene(0)[1].tolist()]
    error = capsys.readouterr().err
    assert 'images: 1 files are not read, as a.heic' in error and '3 of 6 images are in no list' in error
    assert 'labels: 2 labels belong to no image' in error and error.count('\n') == 3


@pytest.mark.parametrize('labels, said', [
    ([], '0 labels for image im 0'), (['im 1.png'], '0 labels for image im 0'), (['im 0.png', 'im 0.npy'], '2 labels'),
    (['im 0_L.png', 'im 0_mask.png'], '2 labels'), (['im 0_2.png'], 'the folder has im 0_2.png')])
def test_label_that_is_not_there_or_twice(tmp_path, labels, said):
    folder = str(tmp_path)
    write_own(folder)
    os.remove(os.path.join(folder, 'labels', 'im 0.png'))
    for name in labels:
        put(folder, 'labels/' + name, scene(0)[1])
    assert_refused(said, open_and_load, 'folder', folder)


@pytest.mark.parametrize('header, rows, said', [
    ('id,annotation,width,height,cell_type', ['im 0,1 2,5,9,b'], '5 images without a row: im 1'),
    ('ImageId,EncodedPixels', ['im %d,' % i for i in range(6)] + ['7,'], 'ids without image: 7'),
    ('ImageId,EncodedPixels', ['im 1,2 3'], "row 2: class ''; expected one of"),
    ('id,rle_mask', ['im 1,2 3'], 'rename the columns to ImageId,EncodedPixels if')])
def test_bad_tables_of_runs(tmp_path, header, rows, said):
    write_table(str(tmp_path), header, *rows, classes='name,id\nbackground,0\nb,1\nc,2\n')
    assert_refused('labels.csv.*' + said, datasets.folder.read, str(tmp_path))


@pytest.mark.parametrize('lists, said', [
    ({'test': 'im 1'}, 'test.txt: there is no train.txt'), ({'train': 'im 0\nX', 'val': 'im 1'}, 'train.txt: X is not'),
    ({'train': 'im 0\nim 0', 'val': 'im 1'}, 'train.txt: names im 0, which is in'),
    ({'train': '../im 0', 'val': 'im 1'}, 'leads out'),
    ({'train': 'im 0', 'val': 'im 1\nim 0'}, 'val.txt: names im 0, which is in .*train.txt already')])
def test_bad_lists(tmp_path, lists, said):
    write_own(str(tmp_path))
    for split, names in lists.items():
        put_text(str(tmp_path), split + '.txt', names)
    assert_refused(said, datasets.folder.read, str(tmp_path))


@pytest.mark.parametrize('classes, said', [
    ('x,0,\n', 'has 1 classes'), ('x,0,\nvoid,1,\n', 'has 1 classes'), ('x,0,\ny,0,\n', 'row 3: id 0 is in'),
    ('x,0,\nx,1,\n', 'row 3: name x is in'), ('x,0,\ny,256,\n', "row 3: id '256'"), ('x,\n', "row 2: id ''"),
    ('x,0,\ny,-1,\n', "row 3: id '-1'"), ('x,0,1 2\n', "row 2: color '1 2'"), ('x,0,1 2 256\n', 'row 2: color'),
    ('x,0,1 2 3\ny,1,1 2 3\n', 'row 3: color .1, 2, 3. is in'), ('x,0,\ny,1,\nVOID,2,\nvoid,3,\n', '2 rows for void'),
    ('x,0,\n,1,\n', 'row 3: a class has a name of 1 to 100'), ('y' * 101 + ',1,\n', 'row 2: a class has'),
    (''.join('x%d,%d,\n' % (i, i) for i in range(255)), 'has 255 classes'), ('x,7 7\n', 'row 2: id 7'),
    ('x,0,\ny,1,\nz,2,\n', 'im 0.png: id 255 at row 0, column 0; .*classes.csv has 0 1 2; add'),
    ('x,0,\nx 2,1,\nvoid,255,\n', 'im 0.png: id 2 at row')])
def test_bad_classes(tmp_path, classes, said):
    write_own(str(tmp_path), classes=classes)
    assert_refused(said, open_and_load, 'folder', str(tmp_path))


@pytest.mark.parametrize('path, content, said', [
    ('labelmap.txt', 'a:1,2\n', 'labelmap.txt row 1'), ('labelmap.txt', 'a:1,2,3::\na:1,2,4::\n', 'row 2: name a'),
    ('labelmap.txt', 'a:1,2,256::\n', 'labelmap.txt row 1'), ('labelmap.txt', 'a:1,2,3::\n', 'has 1 classes'),
    ('train/_classes.csv', 'Pixel Value,Class\nx,a\n', "row 2: id 'x'"),
    ('train/_classes.csv', 'id,Class\n0,a\n', "no column 'Pixel Value'"), ('notes.txt', '', 'has no table of classes'),
    ('images/im 3.jpg', '', 'im 3.jpg and .*im 3.png have one'), ('labels.csv', 'id', 'both labels.csv and labels/'),
    ('class_dict.csv', 'name,r,g,b', 'several tables of classes')])
def test_bad_tables_and_files(tmp_path, path, content, said):
    if path != 'notes.txt':
        write_own(str(tmp_path))
    if path in ('labelmap.txt', 'train/_classes.csv'):
        os.remove(str(tmp_path / 'classes.csv'))
    put_text(str(tmp_path), path, content)
    assert_refused(said, datasets.folder.read, str(tmp_path))


def test_colors_of_classes(tmp_path):
    """If labels hold colours, the class table must give a colour for each class.

    A label with a colour that belongs to no class is refused.
    """
    for classes, said in (('a,0,10 20 30\nb,1,\nc,2,\nvoid,255,\n', 'classes.csv gives class b no color$'),
                          ('a,0,10 20 30\nb,1,200 0 0\nvoid,255,0 0 0\n', r'colour \[0, 200, 7\] at row')):
        write_own(str(tmp_path), make=colored, classes=classes)
        assert_refused(said, open_and_load, 'folder', str(tmp_path))


# ---------------------------------------------------------------- splits and names

def write_plain(folder, names):
    """Writes 4x5 images and labels of two classes below images/ and labels/."""
    for name in names:
        put_example(str(folder), name, np.zeros((4, 5, 3), np.uint8), np.eye(4, 5, dtype=np.uint8))
    put_text(str(folder), 'classes.csv', 'name,id\na,0\nb,1\n')


def test_images_of_val_are_never_trained_on(tmp_path, capsys):
    write_plain(tmp_path, ['train/a', 'train/b', 'val/c', 'extra/d'])
    assert_refused('extra/d.png: outside the folders train/', datasets.open, 'folder', str(tmp_path))
    assert_refused('1 images to train and validate', splits.find, '.', dict.fromkeys(['train/a', 'test/b'], ''))
    system_files._noted.clear()
    assert set(splits.find('.', dict.fromkeys(['val/a', 'test/b', 'test/c'], ''))) == {'train', 'val'}
    assert 'no sub-folder counts' in capsys.readouterr().err


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / 'val').mkdir()
    scan = os.scandir
    monkeypatch.setattr(os, 'scandir', lambda path: scan(path + '/gone' if str(path).endswith('val') else path))
    assert_refused('cannot be read', files.files_below, str(tmp_path), ('.png',))


@pytest.mark.parametrize('image, label', [('e\u0301', '\xe9'), ('\xe9', 'e\u0301')])
def test_accents_match_in_any_normal_form(tmp_path, image, label):
    """A file name matches whether an accented letter is stored as one code point or as two code points.

    macOS stores an accented letter as two code points.
    """
    write_plain(tmp_path, [image, 'b'])
    os.rename(str(tmp_path / ('labels/%s.png' % image)), str(tmp_path / ('labels/%s.png' % label)))
    put_text(str(tmp_path), 'train.txt', label + '\n')
    put_text(str(tmp_path), 'val.txt', 'b\n')
    _, loaded = datasets.load_checked(datasets.open('folder', str(tmp_path)), 'train', 0)
    np.testing.assert_array_equal(loaded, np.eye(4, 5))
    shutil.rmtree(str(tmp_path / 'labels'))
    put_text(str(tmp_path), 'classes.csv', 'name,id\nbackground,0\nb,1\n')
    put_text(str(tmp_path), 'labels.csv', 'ImageId,EncodedPixels,ClassId\n%s,2 1,b\nb,,\n' % label)
    assert datasets.open('folder', str(tmp_path)).load('train', 0)[1].tolist()[1] == [1, 0, 0, 0, 0]


def test_name_that_is_the_id_of_another_class(tmp_path):
    write_table(str(tmp_path), 'ImageId,EncodedPixels,ClassId', 'im 0,1 2,1', classes='name,id\nbackground,1\n1,0\n')
    assert_refused('1 names one class and is the id of another', datasets.open, 'folder', str(tmp_path))


def test_roboflow_without_a_mask_and_with_other_classes(tmp_path):
    for name in ('train/a.jpg', 'train/b.jpg', 'train/b_mask.png'):
        put(str(tmp_path), name, np.zeros((4, 5, 3), np.uint8))
    put_text(str(tmp_path), 'train/_classes.csv', 'Pixel Value,Class\n0,a\n1,b\n')
    dataset = datasets.open('folder', str(tmp_path))
    split = 'train' if 'train/a' in dataset.examples['train'] else 'val'
    assert_refused('0 labels for image train/a;', dataset.load, split, dataset.examples[split].index('train/a'))
    put(str(tmp_path), 'new.jpg', np.zeros((4, 5), np.uint8))
    assert_refused('images beside the folders of the splits, as new.jpg', datasets.open, 'folder', str(tmp_path))
    put_text(str(tmp_path), 'val/_classes.csv', 'Pixel Value,Class\n0,a\n1,c\n')
    assert_refused('tables _classes.csv of the splits differ', datasets.open, 'folder', str(tmp_path))


# ---------------------------------------------------------------- ambiguous labels and folders

def write_labels(folder, classes, *labels):
    """Writes 4x5 images named 0, 1, ...; a label is an array or a function that writes a file."""
    for i, label in enumerate(labels):
        put(folder, 'images/%d.png' % i, np.zeros((4, 5, 3), np.uint8))
        if callable(label):
            os.makedirs(os.path.join(folder, 'labels'), exist_ok=True)
            label(os.path.join(folder, 'labels', '%d.png' % i))
        else:
            put(folder, 'labels/%d.png' % i, label)
    put_text(folder, 'classes.csv', classes)


def load_all(folder):
    dataset = open_and_load('folder', folder)
    return {name: dataset.load(split, i)[1] for split in dataset.examples
            for i, name in enumerate(dataset.examples[split])}


PLAIN = 'name,id,color\na,0,\nb,1,\nc,2,\nvoid,255,\n'
COLORED = 'name,id,color\na,0,128 64 128\nb,1,0 0 0\nc,2,9 9 9\nvoid,255,\n'
ROW = np.array([[0, 1, 1, 0, 1]] * 4, np.uint8)


def with_palette(*colors):
    return lambda path: save_palette(path, ROW, list(colors) + [(0, 0, 0)] * (256 - len(colors)))


@pytest.mark.parametrize('classes, label, said', [
    (PLAIN, with_palette((0, 0, 0), (255, 255, 255)), 'index 1, or id 255, as its palette says'),
    (PLAIN, with_palette((0, 128, 0), (128, 0, 0)), 'index ., or id ., as its palette says'),
    (COLORED, with_palette((128, 64, 128), (9, 9, 9)), None), (COLORED, with_palette((1, 2, 3), (9, 9, 9)),
                                                               'index 1 has the colour of another class'),
    (COLORED, ROW * 0, '0 is the id of one class and the grey of another'), (COLORED, ROW * 2, None),
    ('name,r,g,b\na,0,0,0\nb,1,2,3\nc,3,2,1\n', ROW, 'id 0 at row 0, column 0; .* has colours only; add'),
    ('name,id\na,0\nb,1\n', ROW * 128, 'value 128 at row 0'), ('name,id\na,0\nb,1\n', ROW * 2, 'value 2 at row 0'),
    ('name,id\na,0\nb,1\n', with_palette((255, 255, 255), (0, 0, 0)), 'as its palette says')])
def test_labels_with_two_readings(tmp_path, classes, label, said):
    """A label is refused if its ids, colours and palette disagree.

    If `said` is None, the label is read without an error.
    """
    write_labels(str(tmp_path), classes, label, label)
    if said:
        assert_refused(said, load_all, str(tmp_path))
    else:
        np.testing.assert_array_equal(load_all(str(tmp_path))['0'], ROW * 2)


def test_palette_without_colors_holds_ids(tmp_path):
    for classes in (PLAIN, PLAIN.replace('a,0,', 'a,0,0 0 0')):
        write_labels(str(tmp_path), classes, with_palette(), with_palette((9, 9, 9), (200, 0, 0)),
                     lambda path: save_palette(path, ROW * 0, [(1, 1, 1), (200, 0, 0)] + [(0, 0, 0)] * 254))
        found = load_all(str(tmp_path))
        assert [found[name].tolist() for name in '012'] == [ROW.tolist(), ROW.tolist(), (ROW * 0).tolist()]
    write_labels(str(tmp_path), PLAIN.replace('a,0,', 'a,0,0 0 0'), lambda path: save_palette(
        path, ROW * 0 + 1, [(0, 0, 0)] * 256))
    assert_refused('index 1 has the colour of another class', load_all, str(tmp_path))


def test_masks_of_two_classes(tmp_path):
    """Masks may have the values 0 and 255, 0 and 65535, or 0 and 1. JPEG masks may have values near 0 and 255.

    Other JPEG files are refused: a mask with the values 0 and 1, a photo, and a mask in colours.
    """
    mask = np.zeros((40, 50), np.uint8)
    mask[9:30, 13:33] = 255
    noisy = np.abs(mask.astype(int) - np.arange(50) % 4).astype(np.uint8)
    makers = [mask, mask // 255, mask * np.uint16(257), noisy,
              lambda path: Image.fromarray(mask).save(path, 'JPEG', quality=60),
              lambda path: Image.fromarray(np.dstack([mask] * 3)).save(path, 'JPEG', quality=90),
              lambda path: save_palette(path, mask // 255, [(0, 0, 0), (255, 255, 255)])]
    write_labels(str(tmp_path), 'name,id\nroad,1\nground,0\n', *makers)
    for i in range(len(makers)):
        put(str(tmp_path), 'images/%d.png' % i, np.dstack([mask] * 3))
    for name, label in load_all(str(tmp_path)).items():
        np.testing.assert_array_equal(label, 1 - mask // 255, name)
    photo = np.arange(2000).reshape(40, 50) // 8
    for bad, said in ((mask // 255, 'value 1 at'), (photo, 'value'), (mask[:, :, None] // [1, 2, 9], 'colour')):
        Image.fromarray(bad.astype(np.uint8)).save(str(tmp_path / 'labels' / '0.png'), 'JPEG', quality=95)
        assert_refused('0.png: ' + said, load_all, str(tmp_path))
    put_text(str(tmp_path), 'classes.csv', PLAIN)
    assert_refused('lossy JPEG changes ids', load_all, str(tmp_path))


@pytest.mark.parametrize('labels, said', [
    (['im 0_b.png', 'im 0_Big-C.png'], 'labels end in _b, _big_c; expected one'),
    (['im 0_b.png'], 'labels end in _b; expected one'), (['im 0_b.png', 'im 1_cup.png'], 'labels end in _b, _cup'),
    (['im 0_L.png', 'im 1_cup.png'], 'labels end in no word, _cup'), (['b/im 0.png'], '0 labels for image im')])
def test_masks_of_single_classes(tmp_path, labels, said):
    write_own(str(tmp_path), classes='background,0,\nb,2,\nbig C,1,\n')
    shutil.rmtree(str(tmp_path / 'labels'))
    for name in labels:
        put(str(tmp_path), 'labels/' + name, scene(0)[1])
    assert_refused(said, open_and_load, 'folder', str(tmp_path))
    (tmp_path / 'labels').rename(tmp_path / 'masks_b')
    assert_refused('labels: no such folder; .*found: masks_b', datasets.open, 'folder', str(tmp_path))


def test_masks_of_the_only_other_class(tmp_path):
    """With two classes, the file name of a mask may end in the name of the foreground class."""
    write_own(str(tmp_path), label='masks/im {i}_b.png', make=lambda label: label % 2 * np.uint8(255),
              classes='background,0,\nb,1,\n')
    np.testing.assert_array_equal(load_all(str(tmp_path))['im 3'], scene(3)[1] % 2)


@pytest.mark.parametrize('folders, said', [
    (['masks', 'gt'], 'which of these has the data'), (['mask', '1st_manual'], 'which holds the labels')])
def test_folders_that_may_hold_the_labels(tmp_path, folders, said):
    """In the data set DRIVE, the folder mask/ holds the field of view, and 1st_manual/ holds the labels."""
    for folder in folders:
        write_own(str(tmp_path), label=folder + '/im {i}.png')
    assert_refused(said, datasets.open, 'folder', str(tmp_path))
    shutil.move(str(tmp_path / 'images'), str(tmp_path / 'training' / 'images'))
    for folder in folders:
        shutil.move(str(tmp_path / folder), str(tmp_path / 'training' / folder))
    assert_refused(said, datasets.open, 'folder', str(tmp_path))


def test_voc_folders_without_a_table_and_as_voc2012(tmp_path):
    write_custom_voc(str(tmp_path))
    root = tmp_path / 'VOCdevkit' / 'VOC2007'
    (root / 'classes.csv').rename(tmp_path / 'classes.csv')
    assert len(datasets.open('folder', str(tmp_path)).examples['val']) == 2
    (tmp_path / 'classes.csv').unlink()
    assert_refused('VOC2007.* has no table of classes', datasets.open, 'folder', str(tmp_path))
    assert_refused('has an image im 0, unlike PASCAL VOC 2012', datasets.open, 'voc2012', str(root))
    put_text(str(root), 'class_names.txt', '_background_\nb\nc\n')
    dataset = datasets.open('folder', str(tmp_path))
    assert dataset.class_names == ['_background_', 'b', 'c'] and (dataset.load('train', 1)[1] == scene(1)[1]).all()
    put_text(str(root), 'class_names.txt', 'a\nb\nc\n')
    assert_refused('class_names.txt row 1: a; must be _background_', datasets.open, 'folder', str(tmp_path))
    (root / 'class_names.txt').unlink()
    put_text(str(root), 'labelmap.txt', 'a:0,0,0::\n')
    assert_refused('has labelmap.txt, unlike PASCAL VOC 2012', datasets.open, 'voc2012', str(root))


def test_subsets_of_cvat(tmp_path, capsys):
    """If there is no Validation subset, a fifth of the Train subset becomes the split val.

    Labels may be greyscale images.
    """
    folder = str(tmp_path)
    for i in range(6):
        put(folder, 'JPEGImages/%d.png' % i, np.zeros((4, 5, 3), np.uint8))
        put(folder, 'SegmentationClass/%d.png' % i, np.dstack([ROW * 128] * 3) if i % 2 else ROW * 128)
    put_text(folder, 'labelmap.txt', 'background:0,0,0::\nwall:128,128,128::\n')
    put_text(folder, 'ImageSets/Segmentation/Train.txt', '0\n1\n2\n3\n4\n')
    put_text(folder, 'ImageSets/Segmentation/Test.txt', '5\n')
    dataset = datasets.open('folder', folder)
    assert {split: len(names) for split, names in dataset.examples.items()} == {'train': 4, 'val': 1, 'test': 1}
    assert 'no list or sub-folder names a split val' in capsys.readouterr().err
    for split in dataset.examples:
        np.testing.assert_array_equal(dataset.load(split, 0)[1], ROW)
    os.remove(os.path.join(folder, 'ImageSets/Segmentation/Train.txt'))
    assert_refused('Test.txt: there is no train.txt', datasets.open, 'folder', folder)
    put_text(folder, 'ImageSets/Segmentation/Test.txt', ''.join('%d\n' % i for i in range(6)))
    assert list(datasets.open('folder', folder).examples) == ['test']
    for name, text in (('Train', '2\n0\n'), ('Validation', '1\n'), ('Test', '5\n')):
        put_text(folder, 'ImageSets/Segmentation/%s.txt' % name, text)
    assert datasets.open('folder', folder).examples == {'train': ['2', '0'], 'val': ['1'], 'test': ['5']}


def test_new_colors_differ_from_all_others(tmp_path):
    write_own(str(tmp_path), classes='a,0,128 0 0\nb,1,\nc,2,\nvoid,255,\n')
    assert datasets.open('folder', str(tmp_path)).colors == [(128, 0, 0), (0, 0, 0), (0, 128, 0)]


# ---------------------------------------------------------------- Kaggle's tables

def write_table(folder, header, *rows, classes='name,id\nship,1\nbackground,0\n'):
    for i in range(6):
        put(folder, 'images/im %d.png' % i, np.zeros((4, 5, 3), np.uint8))
    put_text(folder, 'labels.csv', '\n'.join((header,) + rows))
    put_text(folder, 'classes.csv', classes)


def test_pixels_outside_the_masks_are_background_by_name(tmp_path, capsys):
    """The class named background is the background, even if another class comes first.

    If the table has no row with an empty mask, an image that is not in the table is an image without objects.
    """
    write_table(str(tmp_path), 'ImageId,EncodedPixels', 'im 0.jpg,2 3', 'im 1.jpg,1 20')
    dataset = datasets.open('folder', str(tmp_path))
    label = dataset.load(*next((split, i) for split, names in dataset.examples.items() for i, name in enumerate(names)
                               if name == 'im 0'))[1]
    assert label.T.ravel()[:6].tolist() == [1, 0, 0, 0, 1, 1]
    assert '4 of 6 images have no row' in capsys.readouterr().err
    assert dataset.rle == (('ImageId', 'EncodedPixels'), 'columns', '.jpg')
    for empty in ('', '-1'):
        write_table(str(tmp_path), 'ImageId,EncodedPixels', 'im 0.jpg,2 3', 'im 1.jpg,' + empty)
        assert_refused('4 images without a row', datasets.open, 'folder', str(tmp_path))
    put_text(str(tmp_path), 'classes.csv', 'name,id\nship,1\nground,0\n')
    assert_refused('classes.csv: which class are pixels outside', datasets.open, 'folder', str(tmp_path))


@pytest.mark.parametrize('lists, order', [
    (['3 2 5 2 9 1', ''], 'columns'), (['3 2 2 2 3 1', '', '1 1'], 'relative'), (['3 2 3 2', '1 2 8 1'], 'relative'),
    (['3 2 2 2', '1 2 8 1 12 2'], 'columns'), (['3 2 x', '1 2 8 1'], 'columns')])
def test_order_of_runs(lists, order):
    """The order of a table is `relative` if the starts of the runs do not increase in one of the masks.

    But if the starts increase in a mask of three or more runs, the order of the whole table is `columns`. The function
    `data.rle_decode` defines the orders.
    """
    assert rle.detect_order(lists) == order
