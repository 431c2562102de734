"""Annotations of other tools: six small images with polygons in each format, against labels drawn by brute force."""
import base64
import io
import itertools
import json
import os
import re

import numpy as np
import pytest
from conftest import assert_refused, put, put_text
from PIL import Image

import datasets
from datasets import convert, shapes

SIZES = {'a': (45, 61), 'b': (31, 40), 'c': (44, 29), 'd': (17, 53), 'e': (20, 20), 'f': (33, 35)}
CLASSES = {7: 'zebra', 3: 'ant', 9: 'Background', 1: '__ignore__'}  # the order of the file, not of the ids
IDS = {7: 1, 3: 2, 9: 0, 1: 255}
POLYGONS = {  # {image: [(class, [x, y, x, y, ...])]}; later ones lie on top
    'a': [(3, [3, 2, 30, 2, 30, 40, 3, 40]),                       # whole numbers
          (7, [10.5, 5.5, 50.5, 9.5, 44.5, 39.5, 8.5, 30.5]),      # vertices on pixel centres
          (9, [20.2, 12.1, 26.7, 14.9, 22.3, 23.8]),               # a hole
          (1, [0, 41, 61, 43, 61, 45, 0, 45])],
    'b': [(7, [5, 5, 35, 25, 5, 25, 35, 5]),                       # crosses itself: even-odd
          (3, [-4, 20.3, 12.25, 20.3, 12.25, 40, -4, 40])],        # leaves the image
    'c': [(1, [2.5, 2.5, 9.5, 2.5, 9.5, 9.5, 2.5, 9.5]), (3, [9.5, 2.5, 16.5, 2.5, 16.5, 9.5, 9.5, 9.5]),
          (7, [14.2, 15.1, 21.9, 30.3, 14.8, 41.7, 3.3, 28.6])],
    'd': [], 'f': [(3, [1.1, 1.2, 33.3, 2.2, 17.7, 31.9, 16.6, 8.4])],
    'e': [(7, [0, 0, 20, 0, 20, 20, 0, 20]), (3, [4.75, 4.25, 15.25, 4.25, 15.25, 15.75, 4.75, 15.75])],
}


def inside(polygon, height, width):
    """Mask by a ray to the left from each pixel centre: an edge on the centre counts, not its lower end."""
    mask = np.zeros((height, width), bool)
    points = list(zip(polygon[0::2], polygon[1::2]))
    for i, j in itertools.product(range(height), range(width)):
        x, y = j + 0.5, i + 0.5
        crossings = sum(min(y0, y1) <= y < max(y0, y1) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
                        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]) if y0 != y1)
        mask[i, j] = crossings % 2
    return mask


@pytest.fixture(scope='module')
def masks():
    """{image: [(class, mask)]} of all polygons."""
    return {name: [(key, inside(polygon, *SIZES[name])) for key, polygon in polygons]
            for name, polygons in POLYGONS.items()}


@pytest.fixture(scope='module')
def expected(masks):
    """{image: label}."""
    labels = {name: np.zeros(size, np.uint8) for name, size in SIZES.items()}
    for name, drawn in masks.items():
        for key, mask in drawn:
            labels[name][mask] = IDS[key]
    return labels


def write_image(path, size, seed=0):
    put('', path, np.random.RandomState(seed).randint(0, 256, size + (3,)).astype(np.uint8))


def write_images(folder, suffix='.png'):
    for i, (name, size) in enumerate(SIZES.items()):
        write_image(str(folder / (name + suffix)), size, i)


def coco(folder, segmentation, change=lambda content: None):
    """COCO as CVAT exports it.

    segmentation: function (image, number of the polygon) -> value of the annotation; change: function of the JSON.
    """
    write_images(folder / 'images')
    numbers = {name: 10 * (i + 3) for i, name in enumerate(SIZES)}
    content = {
        'images': [{'id': numbers[name], 'file_name': name + '.png', 'height': height, 'width': width}
                   for name, (height, width) in SIZES.items()],
        'categories': [{'id': key, 'name': name, 'supercategory': ''} for key, name in CLASSES.items()],
        'annotations': [{'id': 1, 'image_id': numbers[name], 'category_id': key, 'iscrowd': 0,
                         'segmentation': segmentation(name, i)}
                        for name, polygons in POLYGONS.items() for i, (key, _) in enumerate(polygons)]}
    change(content)
    put_text(str(folder), 'annotations/instances_default.json', json.dumps(content))


def run_lengths(mask):
    """COCO's run lengths by hand: along the columns, starting with a run of zeros."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(mask.T.ravel().tolist())]
    return [0] * runs[0][0] + [length for _, length in runs]


def labelme(folder):
    write_images(folder, '.jpg')
    for name in SIZES:
        shapes = [{'label': CLASSES[key], 'shape_type': 'polygon', 'group_id': None,
                   'points': np.reshape(polygon, (-1, 2)).tolist()} for key, polygon in POLYGONS[name]]
        content = {'version': '5.5.0', 'imagePath': 'C:\\work\\' + name + '.jpg', 'imageData': None,
                   'shapes': shapes, 'imageHeight': SIZES[name][0], 'imageWidth': SIZES[name][1]}
        (folder / (name + '.json')).write_text(json.dumps(content))
    (folder / 'labels.txt').write_text('\n'.join(CLASSES.values()))


def yolo(folder, names='data.yaml'):
    write_images(folder / 'images')
    for name, (height, width) in SIZES.items():
        lines = ['%d %s\n' % (list(CLASSES).index(key), ' '.join(
            repr(number / (height if i % 2 else width)) for i, number in enumerate(polygon)))
            for key, polygon in POLYGONS[name]]
        if lines:
            put_text(str(folder), 'labels/%s.txt' % name, ''.join(lines) + '\n')
    table = ''.join('  %d: "%s"\n' % pair for pair in enumerate(CLASSES.values()))
    put_text(str(folder), names, {'classes.txt': '\n'.join(CLASSES.values()),
                                  'data.yaml': 'nc: 4  # four\nnames:\n' + table}[names])


def segmentation(form, polygon, mask):
    """Value of a COCO annotation in each of the three forms."""
    if form == 'polygons':
        return [polygon]
    if form == 'RLE':
        return {'size': list(mask.shape), 'counts': run_lengths(mask)}
    reference = pytest.importorskip('pycocotools.mask', reason='pycocotools is the reference')
    encoded = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode()}


@pytest.mark.parametrize('tool, form', [('coco', 'polygons'), ('coco', 'RLE'), ('coco', 'compressed RLE'),
                                        ('labelme', ''), ('yolo', 'data.yaml'), ('yolo', 'classes.txt')])
def test_tools(tmp_path, masks, expected, tool, form, capsys):
    """Each format gives the labels drawn by hand, as palette PNGs that the reader of folders reads."""
    write = {'coco': lambda folder: coco(folder, lambda name, i: segmentation(
        form, POLYGONS[name][i][1], masks[name][i][1])), 'labelme': labelme, 'yolo': lambda folder: yolo(folder, form)}
    write[tool](tmp_path / 'in')
    convert.main([tool, str(tmp_path / 'in'), str(tmp_path / 'out')])
    out = capsys.readouterr().out
    assert '6 images, 1 of them without' in out and 'left out' not in out
    assert (tmp_path / 'out' / 'classes.csv').read_text().splitlines() == [
        'name,id,color', 'background,0,0 0 0', 'zebra,1,128 0 0', 'ant,2,0 128 0', 'void,255,224 224 192']
    dataset = datasets.open('folder', str(tmp_path / 'out'))
    assert dataset.class_names == ['background', 'zebra', 'ant']
    assert sorted(sum(dataset.examples.values(), [])) == sorted(expected)
    for split, names in dataset.examples.items():
        for i, name in enumerate(names):
            image, label = dataset.load(split, i)
            assert image.shape == SIZES[name] + (3,) and (label == expected[name]).all(), name
            assert Image.open(str(tmp_path / 'out' / 'labels' / (name + '.png'))).mode == 'P'


def test_ids_of_class_names():
    """Names that differ in spaces around them are one class; background and void keep their ids."""
    assert convert.class_ids(['car', '_background_', 'car ', 'VOID', 'bus']) == {
        'car': 1, '_background_': 0, 'car ': 1, 'VOID': 255, 'bus': 2}


def test_many_polygons_and_run_lengths():
    """Random polygons at odd sizes against brute force; compressed run lengths against pycocotools."""
    reference = pytest.importorskip('pycocotools.mask', reason='pycocotools is the reference')
    rng = np.random.RandomState(0)
    for i in range(30):
        height, width, points = rng.randint(5, 25), rng.randint(5, 25), rng.randint(3, 8)
        polygon = rng.uniform(-5, 30, 2 * points)
        polygon = np.floor(polygon * 2) / 2 if i % 2 else polygon
        mask = inside(polygon.tolist(), height, width)
        assert (shapes.polygon_mask(polygon, height, width) == mask).all()
        encoded = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert shapes.coco_counts(encoded['counts'].decode()) == run_lengths(mask)


@pytest.mark.parametrize('kind, points, parts', [
    ('coco', [[1, 1, 6, 1, 6, 6, 1, 6], [4, 4, 9, 4, 9, 8, 4, 8]], [np.s_[1:6, 1:6], np.s_[4:8, 4:9]]),
    ('rectangle', [[9, 5], [3, 2]], [np.s_[2:5, 3:9]]), ('line', [[3, 3.6], [9, 3.6]], [np.s_[2:6, 3:9]]),
    ('linestrip', [[2, 3], [8, 3], [8, 9]], [np.s_[1:5, 2:8], np.s_[3:9, 6:10], np.s_[2, 8:10], np.s_[1, 8]]),
    ('circle', [[5.5, 5.5], [7.5, 5.5]], [np.s_[3:8, 5], np.s_[5, 3:8], np.s_[4:7, 4:7]])])
def test_shapes(kind, points, parts):
    """Polygons of a COCO annotation are united; labelme's lines are 4 pixels wide, with a round corner."""
    by_hand = np.zeros((11, 13), bool)
    for part in parts:
        by_hand[part] = True
    shape = {'shape_type': kind, 'points': points, 'segmentation': points}
    mask = shapes.coco_mask(points, 11, 13) if kind == 'coco' else shapes.labelme_mask(shape, 4, 11, 13)
    assert (mask == by_hand).all()


def test_mask_of_labelme():
    mask = np.array([[True, False, True], [False, True, True]])
    png = io.BytesIO()
    Image.fromarray(mask).save(png, 'PNG')
    shape = {'shape_type': 'mask', 'points': [[2, 7], [4, 8]], 'mask': base64.b64encode(png.getvalue()).decode()}
    by_hand = np.zeros((11, 13), bool)
    by_hand[7:9, 2:5] = mask
    assert (shapes.labelme_mask(shape, 4, 11, 13) == by_hand).all()


def test_splits_and_equal_names(tmp_path):
    """Roboflow's folders train, valid and test with equal file names, and one JSON file each."""
    content = {'categories': [{'id': 0, 'name': 'x'}], 'annotations': [
        {'image_id': 5, 'category_id': 0, 'segmentation': [[0, 0, 3, 0, 3, 2, 0, 2]]}]}
    for i, split in enumerate(('train', 'valid', 'test')):
        write_image(str(tmp_path / 'in' / split / '1.png'), (9 + i, 7))
        content['images'] = [{'id': 5, 'file_name': '1.png', 'height': 9 + i, 'width': 7}]
        (tmp_path / 'in' / split / '_annotations.coco.json').write_text(json.dumps(content))
    convert.main(['coco', str(tmp_path / 'in'), str(tmp_path / 'out')])
    dataset = datasets.open('folder', str(tmp_path / 'out'))
    assert [len(dataset.examples[split]) for split in ('train', 'val', 'test')] == [1, 1, 1]
    assert dataset.load('val', 0)[1].shape == (10, 7) and dataset.load('test', 0)[1].sum() == 6


@pytest.mark.parametrize('image, text', [('images/train/1.png', 'labels/train/1.txt'), ('1.png', '1.txt'),
                                         ('train/images/1.png', 'train/labels/1.txt')])
def test_layouts_of_yolo(tmp_path, image, text):
    """Ultralytics' folders, Roboflow's folders, and text files beside the images; x comes before y."""
    write_image(str(tmp_path / 'in' / image), (10, 20))
    put_text(str(tmp_path / 'in'), text, '1 0.25 0.2 0.5 0.2 0.5 0.7 0.25 0.7\n')
    (tmp_path / 'in' / 'data.yaml').write_text('names: [a, no]  # YAML 1.1 takes a bare no for false\n')
    convert.main(['yolo', str(tmp_path / 'in'), str(tmp_path / 'out')])
    by_hand = np.zeros((10, 20), np.uint8)
    by_hand[2:7, 5:10] = 2
    folder = tmp_path / 'out' / 'labels' / ('train' if 'train' in image else '')
    assert (np.array(Image.open(str(folder / '1.png'))) == by_hand).all()
    assert 'no,2,' in (tmp_path / 'out' / 'classes.csv').read_text()


def test_what_has_no_area_is_counted(tmp_path, capsys):
    write_image(str(tmp_path / 'in' / 'p.png'), (9, 7))
    write_image(str(tmp_path / 'in' / 'q.png'), (9, 7))
    entries = [{'label': 'x', 'shape_type': 'point', 'points': [[1, 1]]},
               {'label': 'x', 'shape_type': 'polygon', 'points': [[1, 1], [5, 1]]},
               {'label': 'x', 'shape_type': 'polygon', 'points': [[1, 1], [1.2, 1], [1.2, 1.3]]},
               {'label': 'y', 'shape_type': 'rectangle', 'points': [[1, 1], [3, 3]]}]
    (tmp_path / 'in' / 'p.json').write_text(json.dumps({'imagePath': 'p.png', 'shapes': entries}))
    (tmp_path / 'in' / 'other.json').write_text('{}')
    convert.main(['labelme', str(tmp_path / 'in'), str(tmp_path / 'out')])
    out = capsys.readouterr().out
    for line in ('left out: points (1)', 'no pixel centre (2)',
                 'JSON files of another form, as', 'images without a JSON file (1)',
                 '1 images, 0 of them without', 'read: rectangle (1)'):
        assert line in out, out


@pytest.mark.parametrize('kind, i, entry, said', [
    ('annotations', 1, {'image_id': 999}, 'annotation 2: image_id 999 is unknown'),
    ('annotations', 1, {'category_id': 999}, 'category_id 999'),
    ('annotations', 1, {'segmentation': [['x', 1, 2, 3, 4, 5]]}, 'annotation 2: malformed'),
    ('annotations', 1, {'segmentation': [[1, 1, 2, 2, 3, 3, 4]]}, 'annotation 2: malformed'),
    ('annotations', 1, {'segmentation': [[1, 1, 2, float('nan'), 3, 3]]}, 'annotation 2: coordinates'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': [3, 4]}}, 'cover 7 pixels, the image has 2745'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': [2746, -1]}}, 'annotation 2: the run lengths'),
    ('annotations', 1, {'segmentation': {'size': [61, 45], 'counts': 'o2'}}, 'the mask has size [61, 45]'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': ''}}, 'cover 0 pixels'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': '~~~'}}, 'annotation 2: the run lengths'),
    ('annotations', 1, {'segmentation': 5}, 'annotation 2: malformed'),
    ('images', 0, {'file_name': 'z.png'}, 'image 1: image z.png: no such file'),
    ('images', 0, {'height': 44}, 'a.png: the image has 45x61, its annotations say 44x61'),
    ('images', 1, {'file_name': 'a.png'}, 'is listed twice'),
    ('categories', 3, {'id': [3]}, 'category 4: malformed'),
    ('categories', 0, {'name': 'x\ny'}, "in: class 'x\\ny': a name has 1 to 100 printable")])
def test_wrong_coco(tmp_path, kind, i, entry, said):
    coco(tmp_path / 'in', lambda name, i: [POLYGONS[name][i][1]], lambda content: content[kind][i].update(entry))
    where = 'instances_default.json.*' if kind == 'annotations' else ''
    assert_refused(where + re.escape(said), convert.main, ['coco', str(tmp_path / 'in'), str(tmp_path / 'out')])
    assert not os.path.exists(str(tmp_path / 'out')) or not os.listdir(str(tmp_path / 'out'))


@pytest.mark.parametrize('file, content, said', [
    ('labels/a.txt', '0 0.1 0.1 0.5 0.1 0.5 0.9\n8 0 0 1 1 0 1', 'a.txt line 2: class 8.0 is unknown'),
    ('labels/a.txt', '0 1 1 50 1 50 9', 'a.txt line 1: coordinates must be shares'),
    ('labels/a.txt', '0 0.1 0.1 0.5 0.1 0.5', 'line 1: malformed'), ('labels/a.txt', 'zebra 0 0', 'line 1: malformed'),
    ('labels/z.txt', '', 'z.txt: no image'), ('data.yaml', 'names: [', 'data.yaml: not YAML'),
    ('data.yaml', 'nc: 3', 'data.yaml: malformed')])
def test_wrong_yolo(tmp_path, file, content, said):
    yolo(tmp_path / 'in')
    (tmp_path / 'in' / file).write_text(content)
    assert_refused(re.escape(said), convert.main, ['yolo', str(tmp_path / 'in'), str(tmp_path / 'out')])
    assert not os.path.exists(str(tmp_path / 'out')) or not os.listdir(str(tmp_path / 'out'))


@pytest.mark.parametrize('source, out, said', [
    ('in', 'in', 'in: holds files already'), ('none', 'out', 'none: cannot be read'),
    ('in/a.json', 'out', 'a.json: not JSON'),
    ('in/b.json', 'out', 'holds no annotations of labelme; found: JSON of another form')])
def test_wrong_source(tmp_path, source, out, said):
    put_text(str(tmp_path), 'in/a.json', '{')
    put_text(str(tmp_path), 'in/b.json', '{"shapes": 5}')
    assert_refused(said, convert.main, ['labelme', str(tmp_path / source), str(tmp_path / out)])
    assert not os.path.exists(str(tmp_path / 'out')) or not os.listdir(str(tmp_path / 'out'))


def test_splits_in_capitals_and_slashes_behind_the_source(tmp_path):
    """CVAT names its subsets Train, Validation and Test."""
    for name in ('Train/a', 'Validation/a'):
        put(str(tmp_path), 'in/images/%s.png' % name, np.zeros((4, 5, 3), np.uint8))
        put_text(str(tmp_path), 'in/labels/%s.txt' % name, '0 0 0 1 0 1 1\n')
    put_text(str(tmp_path), 'in/data.yaml', 'names: [x]\n')
    convert.main(['yolo', str(tmp_path / 'in') + '//', str(tmp_path / 'out')])
    assert sorted(os.listdir(str(tmp_path / 'out/images'))) == ['train', 'val']
