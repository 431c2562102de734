"""Tests that annotations of each tool are converted to the same labels as a brute-force rasterizer draws."""
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
from datasets import annotations, convert, shapes

SIZES = {'a': (45, 61), 'b': (31, 40), 'c': (44, 29), 'd': (17, 53), 'e': (20, 20), 'f': (33, 35)}
CLASSES = {7: 'zebra', 3: 'ant', 9: 'Background', 1: '__ignore__'}  # {class id: name}, not in the order of the ids
IDS = {7: 1, 3: 2, 9: 0, 1: 255}
POLYGONS = {  # {image: [(class id, [x, y, x, y, ...])]}; a later polygon lies on top of earlier polygons
    'a': [(3, [3, 2, 30, 2, 30, 40, 3, 40]),                       # vertices on pixel corners
          (7, [10.5, 5.5, 50.5, 9.5, 44.5, 39.5, 8.5, 30.5]),      # vertices on pixel centres
          (9, [20.2, 12.1, 26.7, 14.9, 22.3, 23.8]),               # a polygon of the background
          (1, [0, 41, 61, 43, 61, 45, 0, 45])],
    'b': [(7, [5, 5, 35, 25, 5, 25, 35, 5]),                       # crosses itself
          (3, [-4, 20.3, 12.25, 20.3, 12.25, 40, -4, 40])],        # reaches beyond the image
    'c': [(1, [2.5, 2.5, 9.5, 2.5, 9.5, 9.5, 2.5, 9.5]), (3, [9.5, 2.5, 16.5, 2.5, 16.5, 9.5, 9.5, 9.5]),
          (7, [14.2, 15.1, 21.9, 30.3, 14.8, 41.7, 3.3, 28.6])],
    'd': [], 'f': [(3, [1.1, 1.2, 33.3, 2.2, 17.7, 31.9, 16.6, 8.4])],
    'e': [(7, [0, 0, 20, 0, 20, 20, 0, 20]), (3, [4.75, 4.25, 15.25, 4.25, 15.25, 15.75, 4.75, 15.75])],
}


def inside(polygon, height, width):
    """Draws a polygon by brute force: a pixel is inside if a ray to the left crosses an odd number of edges.

    The ray starts at the pixel centre. An edge through the pixel centre is crossed. The lower end of an edge is not
    part of the edge.
    """
    mask, (y, x) = np.zeros((height, width), bool), np.indices((height, width)) + 0.5
    points = list(zip(polygon[0::2], polygon[1::2]))
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
        if y0 != y1:
            mask ^= (min(y0, y1) <= y) & (y < max(y0, y1)) & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x)
    return mask


@pytest.fixture(scope='module')
def masks():
    """Returns {image: [(class id, mask)]}, with masks drawn by brute force."""
    return {name: [(key, inside(polygon, *SIZES[name])) for key, polygon in polygons]
            for name, polygons in POLYGONS.items()}


@pytest.fixture(scope='module')
def expected(masks):
    """Returns {image: label}, with labels drawn by brute force."""
    labels = {name: np.zeros(size, np.uint8) for name, size in SIZES.items()}
    for name, drawn in masks.items():
        for key, mask in drawn:
            labels[name][mask] = IDS[key]
    return labels


def filled(shape, *parts, value=1):
    """Returns a uint8 array of shape `shape` that is `value` in the slices `parts` and 0 elsewhere."""
    array = np.zeros(shape, np.uint8)
    for part in parts:
        array[part] = value
    return array


def write_image(path, size, seed=0):
    put('', path, np.random.RandomState(seed).randint(0, 256, size + (3,)).astype(np.uint8))


def write_images(folder, suffix='.png'):
    for i, (name, size) in enumerate(SIZES.items()):
        write_image(str(folder / (name + suffix)), size, i)


def coco(folder, segmentation, change=lambda content: None):
    """Writes a small data set in the layout of CVAT's COCO export.

    `segmentation` is a function (image name, number of the polygon) -> segmentation of the annotation. `change` edits
    the content of the JSON file.
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
    """Computes COCO's run lengths of a mask: the runs go down the columns, and the first run is a run of zeros."""
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
    """Returns the segmentation of a COCO annotation as polygons, run lengths or compressed run lengths."""
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
    """Each format is converted to palette PNGs.

    `--dataset folder` reads the PNGs. The labels are the same as labels drawn by brute force.
    """
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
    """Spaces around a class name are ignored. The background has the id 0, void has the id 255."""
    assert annotations.class_ids(['car', '_background_', 'car ', 'VOID', 'bus']) == {
        'car': 1, '_background_': 0, 'car ': 1, 'VOID': 255, 'bus': 2}


def test_many_polygons_and_run_lengths():
    """The masks of random polygons are the same as masks drawn by brute force.

    The compressed run lengths that pycocotools writes are decoded to the run lengths of the mask.
    """
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
    ('rectangle', [[9, 5], [3, 2]], [np.s_[2:5, 3:9]]), ('rectangle', [[9, 10], [3, 2]], [np.s_[2:11, 3:9]]),
    ('polygon', [[9, 2], [12, 2], [12, 10], [9, 10]], [np.s_[2:11, 9:13]]),
    ('line', [[3, 3.6], [9, 3.6]], [np.s_[2:6, 3:9]]),
    ('linestrip', [[2, 3], [8, 3], [8, 9]], [np.s_[1:5, 2:8], np.s_[3:9, 6:10], np.s_[2, 8:10], np.s_[1, 8]]),
    ('circle', [[5.5, 5.5], [7.5, 5.5]], [np.s_[3:8, 5], np.s_[5, 3:8], np.s_[4:7, 4:7]])])
def test_shapes(kind, points, parts):
    """The mask of a COCO annotation is the union of the polygons of the annotation.

    Line shapes of labelme are drawn 4 pixels wide and have round corners.
    """
    shape = {'shape_type': kind, 'points': points, 'segmentation': points}
    mask = shapes.coco_mask(points, 11, 13) if kind == 'coco' else shapes.labelme_mask(shape, 4, 11, 13)
    assert (mask == filled((11, 13), *parts)).all()


@pytest.mark.parametrize('points, target, part', [
    ([[2, 7], [4, 8]], np.s_[7:9, 2:5], np.s_[:, :]),
    ([[-1, 10], [1, 11]], np.s_[10:11, 0:2], np.s_[:1, 1:]),          # reaches beyond the left and lower borders
    ([[2.6, 6.7], [4.4, 8.1]], np.s_[7:9, 3:6], np.s_[:, :]),         # corner (2.6, 6.7) is rounded to (3, 7)
    ([[2, 7], [3, 7]], np.s_[7:8, 2:4], np.s_[:1, :2])])              # a box smaller than the mask crops the mask
def test_mask_of_labelme(points, target, part):
    """The expected masks follow the rule in labelme's function shapes_to_label."""
    mask = np.array([[True, False, True], [False, True, True]])
    png = io.BytesIO()
    Image.fromarray(mask).save(png, 'PNG')
    shape = {'shape_type': 'mask', 'points': points, 'mask': base64.b64encode(png.getvalue()).decode()}
    by_hand = np.zeros((11, 13), bool)
    by_hand[target] = mask[part]
    assert (shapes.labelme_mask(shape, 4, 11, 13) == by_hand).all()


def test_splits_and_equal_names(tmp_path):
    """Files in Roboflow's folders train, valid and test may have the same names. Each folder has a JSON file."""
    for i, split in enumerate(('train', 'valid', 'test')):
        write_coco(tmp_path / 'in' / split, ['1.png'], [{'segmentation': [[0, 0, 3, 0, 3, 2, 0, 2]]}], (9 + i, 7))
    convert.main(['coco', str(tmp_path / 'in'), str(tmp_path / 'out')])
    dataset = datasets.open('folder', str(tmp_path / 'out'))
    assert [len(dataset.examples[split]) for split in ('train', 'val', 'test')] == [1, 1, 1]
    assert dataset.load('val', 0)[1].shape == (10, 7) and dataset.load('test', 0)[1].sum() == 6


@pytest.mark.parametrize('image, text', [('images/train/1.png', 'labels/train/1.txt'), ('1.png', '1.txt'),
                                         ('train/images/1.png', 'train/labels/1.txt')])
def test_layouts_of_yolo(tmp_path, image, text):
    """The converter reads the layouts of Ultralytics and Roboflow, and text files that lie beside the images."""
    write_image(str(tmp_path / 'in' / image), (10, 20))
    put_text(str(tmp_path / 'in'), text, '1 0.25 0.2 0.5 0.2 0.5 0.7 0.25 0.7\n')
    (tmp_path / 'in' / 'data.yaml').write_text('names: [a, no]  # YAML 1.1 takes a bare no for false\n')
    (name, label), = converted(tmp_path, 'yolo').items()
    assert name == os.path.join('train' if 'train' in image else '', '1')
    assert (label == filled((10, 20), np.s_[2:7, 5:10], value=2)).all()
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
                 'JSON files of another form, as', 'images that the annotations do not name (1)',
                 '1 images, 0 of them without', 'read: rectangle (1)'):
        assert line in out, out


@pytest.mark.parametrize('kind, i, entry, said', [
    ('annotations', 1, {'image_id': 999}, 'annotation 2: image_id 999 is unknown'),
    ('annotations', 1, {'category_id': 999}, 'category_id 999'),
    ('annotations', 1, {'segmentation': [['x', 1, 2, 3, 4, 5]]}, 'annotation 2: malformed'),
    ('annotations', 1, {'segmentation': [[1, 1, 2, 2, 3, 3, 4]]}, 'annotation 2: a polygon has 7 coordinates'),
    ('annotations', 1, {'segmentation': [[1, 1, 2, float('nan'), 3, 3]]}, 'annotation 2: coordinates'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': [3, 4]}}, 'cover 7 pixels, the image has 2745'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': [2746, -1]}}, 'annotation 2: the run lengths'),
    ('annotations', 1, {'segmentation': {'size': [61, 45], 'counts': 'o2'}}, 'the mask has size [61, 45]'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': ''}}, 'cover 0 pixels'),
    ('annotations', 1, {'segmentation': {'size': [45, 61], 'counts': '~~~'}}, 'annotation 2: the run lengths'),
    ('annotations', 1, {'segmentation': 5}, 'annotation 2: malformed'),
    ('images', 0, {'file_name': 'z.png'}, 'image 1: image z.png: no such file in SOURCE; put'),
    ('images', 0, {'file_name': ''}, 'image 1: the name of the image is empty'),
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
    ('labels/z.txt', '', 'z.txt: no image'), ('data.yaml', 'names: [', 'data.yaml: malformed'),
    ('data.yaml', 'nc: 3', 'data.yaml: malformed')])
def test_wrong_yolo(tmp_path, file, content, said):
    yolo(tmp_path / 'in')
    (tmp_path / 'in' / file).write_text(content)
    assert_refused(re.escape(said), convert.main, ['yolo', str(tmp_path / 'in'), str(tmp_path / 'out')])
    assert not os.path.exists(str(tmp_path / 'out')) or not os.listdir(str(tmp_path / 'out'))


@pytest.mark.parametrize('source, out, said', [
    ('in', 'in', 'in: holds files already'), ('none', 'out', 'none: cannot be read'),
    ('in/a.json', 'out', 'a.json: not JSON .* name one JSON file'),
    ('in/c.json', 'out', 'c.json: is a pointer of Git LFS, .* git lfs pull'),
    ('in/b.json', 'out', 'holds no annotations of labelme; found: JSON of another form')])
def test_wrong_source(tmp_path, source, out, said):
    put_text(str(tmp_path), 'in/a.json', '{')
    put_text(str(tmp_path), 'in/b.json', '{"shapes": 5}')
    if source == 'in/c.json':
        put_text(str(tmp_path), source, 'version https://git-lfs.github.com/spec/v1\nsize 3\n')
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


SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]  # the polygon covers rows 1 to 3 and columns 2 to 4


def write_coco(folder, names=('a.png',), annotations=(), size=(9, 13), **more):
    """Writes images and a COCO file with the categories 7 (cup) and 8 (table).

    `more` overrides top-level entries of the JSON file.
    """
    for i, name in enumerate(names):
        write_image(str(folder / name), size, i)
    content = {'images': [{'id': i, 'file_name': name, 'height': size[0], 'width': size[1]}
                          for i, name in enumerate(names)],
               'categories': [{'id': 7, 'name': 'cup'}, {'id': 8, 'name': 'table'}],
               'annotations': [dict({'image_id': 0, 'category_id': 7, 'segmentation': [SQUARE]}, **annotation)
                               for annotation in annotations]}
    (folder / 'a.json').write_text(json.dumps(dict(content, **more)))


def converted(tmp_path, *flags):
    """Converts the folder `in`; returns {name of the label file without extension: label}."""
    convert.main([*flags, str(tmp_path / 'in'), str(tmp_path / 'out')])
    root = str(tmp_path / 'out' / 'labels')
    return {os.path.relpath(os.path.join(folder, name), root)[:-4]: np.array(Image.open(os.path.join(folder, name)))
            for folder, _, names in os.walk(root) for name in names}


def test_dialects_of_coco(tmp_path):
    """Ids may be strings, polygons may be flat lists or lists of points, and categories may be listed twice.

    Images in different folders may have the same name.
    """
    write_coco(tmp_path / 'in', ('x/a.png', 'y/a.png'), [
        {'image_id': '0', 'category_id': '7', 'segmentation': SQUARE},
        {'image_id': '1', 'segmentation': np.reshape(SQUARE, (-1, 2)).tolist()}],
        categories=[{'id': 7, 'name': 'cup'}, {'id': 8, 'name': 'root'}, {'id': 7, 'name': 'cup'}])
    labels = converted(tmp_path)
    by_hand = filled((9, 13), np.s_[1:4, 2:5])
    assert sorted(labels) == [os.path.join('x', 'a'), os.path.join('y', 'a')]
    assert all((label == by_hand).all() for label in labels.values())
    # makesense.ai exports "category_id": null for annotations without a class.
    write_coco(tmp_path / 'b/in', annotations=[{'category_id': None}], categories=[])
    assert (converted(tmp_path / 'b')['a'] == by_hand).all()


def test_crowds_and_hidden_annotations(tmp_path, capsys):
    """A crowd is drawn below all other annotations. A note counts hidden annotations.

    --small_on_top draws small annotations last.
    """
    table = [[0, 0, 13, 0, 13, 9, 0, 9]]
    write_coco(tmp_path / 'in', annotations=[{}, {'category_id': 8, 'segmentation': table, 'iscrowd': 1}])
    label = converted(tmp_path)['a']
    assert (label[1:4, 2:5] == 1).all() and (label == 2).sum() == 9 * 13 - 9
    write_coco(tmp_path / 'b' / 'in', annotations=[{}, {'category_id': 8, 'segmentation': table}])
    capsys.readouterr()
    assert (converted(tmp_path / 'b')['a'] == 2).all()
    out = capsys.readouterr().out
    assert 'lie wholly under others; --small_on_top draws the small ones over (1)' in out
    assert 'cup: 9 of its 9 pixels lie under other classes' in out
    write_coco(tmp_path / 'c' / 'in', annotations=[{}, {'category_id': 8, 'segmentation': table}])
    assert (converted(tmp_path / 'c', '--small_on_top')['a'] == label).all()


@pytest.mark.parametrize('more, said', [
    ({'annotations': [{'category_id': None}]}, 'annotation 1: has no category_id'),
    ({'annotations': [{'image_id': None}]}, 'annotation 1: has no image_id'),
    ({'categories': [{'id': 7, 'name': 'cup'}, {'id': 7, 'name': 'can'}]}, "category 2: id 7 is 'cup' already"),
    ({'images': [{'id': 3, 'file_name': 'a.png'}, {'id': '3', 'file_name': 'b.png'}]}, 'image 2: id 3 is')])
def test_ambiguous_coco(tmp_path, more, said):
    write_coco(tmp_path / 'in', ('a.png', 'b.png'), **more)
    assert_refused(re.escape(said), converted, tmp_path)
    assert not (tmp_path / 'out').exists()


def test_image_outside_the_folders_of_the_splits(tmp_path):
    write_coco(tmp_path / 'in', ('train/a.png', 'b.png'), [{}])
    assert_refused('b.png: outside the folders of the splits', converted, tmp_path)
    assert not (tmp_path / 'out').exists()


def test_images_in_labelme_and_outside_the_folder(tmp_path):
    """If an image file is missing or has a wrong size, the image is read from the JSON field imageData.

    The JSON field imagePath may point outside the folder.
    """
    png = io.BytesIO()
    Image.fromarray(np.full((9, 13, 3), 77, np.uint8)).save(png, 'PNG')
    write_image(str(tmp_path / 'pictures' / 'b.png'), (9, 13))
    write_image(str(tmp_path / 'in' / 'c.png'), (8, 8))
    write_image(str(tmp_path / 'in' / 'preview.png'), (8, 8))
    shape = {'label': 'cup', 'points': [[2, 1], [5, 1], [5, 4], [2, 4]], 'shape_type': 'rotation', 'direction': 0}
    for name, path, code in (('a', 'a.json', png), ('b', '..\\pictures\\b.png', None), ('c', 'c.png', png)):
        content = {'imagePath': path, 'imageHeight': 9, 'imageWidth': 13, 'shapes': [shape],
                   'imageData': code and base64.b64encode(code.getvalue()).decode()}
        (tmp_path / 'in' / (name + '.json')).write_text(json.dumps(content))
    labels = converted(tmp_path)
    assert sorted(labels) == ['a', 'b', 'c'] and all((label[1:4, 2:5] == 1).all() for label in labels.values())
    for name in 'ac':
        assert (np.array(Image.open(str(tmp_path / 'out' / 'images' / (name + '.png')))) == 77).all()
    (tmp_path / 'in' / 'c.json').write_text(json.dumps(dict(content, imageData='bm8gaW1hZ2U=')))
    assert_refused(r'\A\S*in\Wc.json: imageData: not an image', convert.main,
                   [str(tmp_path / 'in'), str(tmp_path / 'd')])


def test_isat(tmp_path):
    """The object with the higher layer number is drawn on top.

    A vertex in the last row or column is moved to the image border.
    """
    write_image(str(tmp_path / 'in' / 'a.png'), (9, 13))
    entries = [{'category': name, 'layer': layer, 'segmentation': np.reshape(points, (-1, 2)).tolist()}
               for name, layer, points in (('cup', 2.0, SQUARE), ('table', 1.0, [0, 0, 12, 0, 12, 8, 0, 8]))]
    (tmp_path / 'in' / 'a.json').write_text(json.dumps(
        {'info': {'description': 'ISAT', 'name': 'a.png', 'height': 9, 'width': 13}, 'objects': entries}))
    label = converted(tmp_path)['a']
    assert (label[1:4, 2:5] == 1).all() and (label == 2).sum() == 9 * 13 - 9


def via(folder, regions, **more):
    """Writes a VIA project with one image; `regions` is [(attributes, shape)].

    `more` overrides top-level entries of the JSON file.
    """
    write_image(str(folder / 'in' / 'a.png'), (11, 13))
    entry = {'filename': 'a.png', 'size': 1, 'file_attributes': {}, 'regions': [
        {'shape_attributes': shape, 'region_attributes': attributes} for attributes, shape in regions]}
    (folder / 'in' / 'v.json').write_text(json.dumps(dict({'_via_img_metadata': {'a.png1': entry}}, **more)))


@pytest.mark.parametrize('shape, part', [
    ({'name': 'rect', 'x': 2, 'y': 1, 'width': 3, 'height': 4}, [np.s_[1:5, 2:5]]),
    ({'name': 'polygon', 'all_points_x': [2, 5, 5, 2], 'all_points_y': [1, 1, 4, 4]}, [np.s_[1:4, 2:5]]),
    ({'name': 'polyline', 'all_points_x': [3, 9], 'all_points_y': [3.6, 3.6]}, [np.s_[2:6, 3:9]]),
    ({'name': 'circle', 'cx': 5.5, 'cy': 5.5, 'r': 2}, [np.s_[3:8, 5], np.s_[5, 3:8], np.s_[4:7, 4:7]]),
    ({'name': 'ellipse', 'cx': 6.5, 'cy': 5.5, 'rx': 3, 'ry': 0.5, 'theta': np.pi / 4},
     [(np.arange(3, 8), np.arange(4, 9))])])
def test_shapes_of_via(tmp_path, shape, part):
    """In VIA, an attribute of a region holds the key of an option. The text of the option is the class name."""
    via(tmp_path, [({'kind': '2'}, shape), ({'kind': '1'}, {'name': 'point', 'cx': 1, 'cy': 1})],
        _via_attributes={'region': {'kind': {'options': {'1': 'can', '2': 'cup'}}}})
    assert (converted(tmp_path, '--line_width', '4')['a'] == filled((11, 13), *part)).all()
    assert 'cup,1,' in (tmp_path / 'out' / 'classes.csv').read_text()


@pytest.mark.parametrize('attributes, flags, said', [
    ([{'name': 'cup', 'view': 'top'}], [], 'which attribute is the class? --attribute takes one of: name (cup); view'),
    ([{'name': 'cup'}, {}], [], 'region 2: attribute name is empty'),
    ([{'name': {'cup': True, 'can': True}}], [], 'region 1: attribute name has 2 ticked boxes'),
    ([{'name': 'cup', 'view': 'top'}, {'name': 'can'}], ['--attribute', 'view'], 'region 2: attribute view is empty')])
def test_classes_of_via(tmp_path, attributes, flags, said):
    via(tmp_path, [(entry, {'name': 'rect', 'x': 2, 'y': 1, 'width': 3, 'height': 4}) for entry in attributes])
    assert_refused(re.escape(said), converted, tmp_path, *flags)


def test_malformed_regions_of_via(tmp_path):
    via(tmp_path, [], _via_img_metadata={'a.png1': {'filename': 'a.png', 'regions': 5}})
    assert_refused('v.json: a.png: malformed', converted, tmp_path, '--attribute', 'name')


def test_coco_without_segmentation(tmp_path, capsys):
    write_coco(tmp_path / 'in', annotations=[{}, {'segmentation': {}}, {'segmentation': []}, {'segmentation': None}])
    converted(tmp_path)
    out = capsys.readouterr().out
    assert 'read: polygon (1)' in out
    assert 'left out: annotations without a segmentation (boxes or key points) (3)' in out


def test_folders_of_yolo(tmp_path, capsys):
    """Folders that data.yaml does not name are ignored. The path in data.yaml is a path on another machine.

    Each line of a label file ends with a confidence, which is ignored.
    """
    for name in ('one/images/a', 'two/images/b', 'runs/train/images/plot', 'preview'):
        write_image(str(tmp_path / 'in' / (name + '.png')), (10, 20))
    for name in ('one/labels/a', 'two/labels/b', 'runs/train/labels/plot'):
        put_text(str(tmp_path / 'in'), name + '.txt', '1 0.25 0.2 0.5 0.2 0.5 0.7 0.25 0.7 0.9\n')
    put_text(str(tmp_path / 'in'), 'one/labels/classes.txt', 'x\n')
    put_text(str(tmp_path / 'in'), 'args.yaml', 'task: segment\n')
    put_text(str(tmp_path / 'in'), 'data.yaml',
             'path: C:\\work\\set\ntrain: ../one/images\nval: [two/images]\ntest: three\nnames: [a, b]\n')
    labels = converted(tmp_path)
    assert sorted(labels) == [os.path.join('train', 'a'), os.path.join('val', 'b')]
    assert all((label == filled((10, 20), np.s_[2:7, 5:10], value=2)).all() for label in labels.values())
    out, error = capsys.readouterr()
    assert 'test: three: no such folder' in error and 'images that the annotations do not name (2)' in out


@pytest.mark.parametrize('row, yaml, said', [
    ('0 0.5 0.5 0.4 0.4 0.3 0.3 2 0.6 0.3 0 0.6 0.6 1', 'names: [x]', 'line 1: looks like a box and key points'),
    ('0 0.5 0.5 0.4 0.4 0.3 0.3 0.6 0.3', 'names: [x]\nkpt_shape: [2, 2]', 'left out: boxes with key points (1)'),
    ('0 0.1 0.1 0.2 0.1 0.2 0.2', 'names: [x]\nkpt_shape: [2, 2]', '6 numbers behind the class; kpt_shape says 8'),
    ('0 0.5 0.5 0.4 0.4 0.9', 'names: [x]', 'left out: boxes (1)'),
    ('', 'names: [x]\ntrain: images', 'of 1 images no annotation can be drawn; export polygons'),
    (None, 'names: [x]\ntrain: images', 'images: no image has its text file, as'),
    ('0 0 0 1 0 1 1', 'names: [x]\ntrain: none/pictures', 'train: none/pictures: no such folder'),
    ('0 0 0 1 0 1 1', 'names: [x]\ntrain: images\nval: other/images', 'val: other/images: leads to')])
def test_what_is_no_polygon_in_yolo(tmp_path, row, yaml, said):
    write_image(str(tmp_path / 'in/images/a.png'), (10, 20))
    put_text(str(tmp_path / 'in'), 'data.yaml', yaml + '\n')
    if row is not None:
        put_text(str(tmp_path / 'in'), 'labels/a.txt', row + '\n')
    assert_refused(re.escape(said), converted, tmp_path, 'yolo')
    assert not (tmp_path / 'out').exists()


def test_recognition(tmp_path):
    """A folder with annotations of two tools is refused unless the command names the tool.

    The error for a folder without annotations lists the files in the folder.
    """
    write_coco(tmp_path / 'in', annotations=[{}])
    (tmp_path / 'in' / 'b.json').write_text(json.dumps({'imagePath': 'a.png', 'shapes': []}))
    assert_refused('holds annotations of coco and labelme; name the kind', converted, tmp_path)
    assert_refused('holds no annotations of isat; found: JSON of coco', converted, tmp_path, 'isat')
    assert converted(tmp_path, 'coco')['a'].any()
    write_image(str(tmp_path / 'b/in/a.png'), (9, 13))
    (tmp_path / 'b/in/a.xml').write_text('<annotation/>')
    assert_refused(re.escape('found: .png (1), .xml (1); most tools export COCO'), converted, tmp_path / 'b')
    assert_refused('b/in: has neither data.yaml nor classes.txt; write classes.txt', converted, tmp_path / 'b', 'yolo')
    write_coco(tmp_path / 'c/in', annotations=[{}])
    captions = {'images': [], 'categories': [], 'annotations': [{'image_id': 0, 'caption': 'a cup'}]}
    (tmp_path / 'c/in/captions.json').write_text(json.dumps(captions))
    assert converted(tmp_path / 'c')['a'].any()
