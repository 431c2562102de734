"""Helpers for all tests: small data sets in the layouts of the published data sets, fixtures, assertions."""
import contextlib
import io
import os
import resource
import struct
import sys
import zlib
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from system import quiet  # noqa: E402, F401

import cv2  # noqa: E402
import h5py  # noqa: E402
import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import scipy.io  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from PIL import Image  # noqa: E402

import data  # noqa: E402
import datasets  # noqa: E402
from datasets import files  # noqa: E402
from runs import plots  # noqa: E402
from system import files as system_files  # noqa: E402
from system.files import UserError  # noqa: E402

hypothesis.settings.register_profile(  # `make fuzz` sets FUZZ to the number of examples for each test
    'all', max_examples=int(os.environ.get('FUZZ', 100)), deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile('all')

SHARED = os.path.join(os.path.dirname(ROOT), 'shared', 'data')
needs_real_data = pytest.mark.skipif(not os.path.isdir(SHARED), reason='the real data sets are not on this machine')


def put(folder, path, array):
    """Writes an image or a label to the file `path` below `folder`. The extension determines the format."""
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if path.endswith('.npy'):
        np.save(path, array)
    else:
        cv2.imwrite(path, array if array.ndim == 2 else array[:, :, ::-1])


def put_example(folder, name, image, label):
    """Writes an image and a label to images/ and labels/ below `folder`, both as `name`.png."""
    put(folder, 'images/%s.png' % name, image)
    put(folder, 'labels/%s.png' % name, label)


def put_text(folder, path, text, encoding='utf-8'):
    """Writes `text` to the file `path` below `folder`."""
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding=encoding, newline='') as f:
        f.write(text)


def noise_video(path, frames):
    """Writes an AVI video of random colours, 48x64 pixels at 5 frames per second; returns `path`."""
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for i in range(frames):
        writer.write(np.random.RandomState(i).randint(0, 256, (48, 64, 3)).astype(np.uint8))
    writer.release()
    return path


def png_bytes(height, width, bits, rows, color_type=0):
    """Returns the bytes of a PNG; `rows` is the pixel data before compression.

    The colour type 0 is grey, 2 is RGB. `bits` is the number of bits per channel.
    """
    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

    header = struct.pack('>IIBBBBB', width, height, bits, color_type, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows, 1)) + chunk(b'IEND', b'')


def random_image(height, width, seed=1):
    """Returns a random image uint8 [height, width, 3]: 5x7 colours, enlarged by bilinear interpolation."""
    return cv2.resize(np.random.RandomState(seed).randint(0, 256, (5, 7, 3)).astype(np.uint8), (width, height))


def encoded(image, kind, **settings):
    """Returns the bytes of a Pillow image in the file format `kind`."""
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return content.getvalue()


def write_camvid(folder, sizes):
    """Writes a small data set in the layout of CamVid, with 45x61 images; returns the folder.

    `sizes` is {split: number of images}. The first two rows of each label are void. The lists contain absolute paths
    from another machine, like the published lists.
    """
    rng = np.random.RandomState(3)
    for split, size in sizes.items():
        names = ['%s_%02d.png' % (split, i) for i in range(size)]
        for name in names:
            label = cv2.resize(rng.randint(0, 11, (3, 4)).astype(np.uint8), (61, 45), interpolation=cv2.INTER_NEAREST)
            wide = label.astype(int)
            image = np.stack([wide * 70 % 256, 255 - wide * 20, wide * 20], 2) + rng.randint(0, 20, (45, 61, 3))
            label[:2] = 11
            put(folder, os.path.join(split, name), np.clip(image, 0, 255).astype(np.uint8))
            put(folder, os.path.join(split + 'annot', name), label)
        put_text(folder, split + '.txt', ''.join(
            '/SegNet/CamVid/%s/%s /SegNet/CamVid/%sannot/%s\n' % (split, name, split, name) for name in names))
    return folder


def write_voc(folder):
    """Writes a small data set in the layout of PASCAL VOC 2012; returns the folder.

    The images have three sizes. Each label shows one object. The pixels just above the object are void.
    """
    root = os.path.join(folder, 'VOCdevkit', 'VOC2012')
    os.makedirs(os.path.join(root, 'SegmentationClass'))
    palette = [files.voc_color(i) for i in range(256)]
    for split, year, size in (('train', 2007, 3), ('val', 2008, 2)):
        names = ['%d_%06d' % (year, i) for i in range(size)]
        put_text(root, 'ImageSets/Segmentation/%s.txt' % split, '\n'.join(names) + '\n')
        for i, name in enumerate(names):
            label = np.zeros(((20, 31), (25, 18), (20, 30))[i], np.uint8)
            label[5:12, 4:9] = 15 + i
            label[4, 4:9] = 255
            put(root, 'JPEGImages/%s.jpg' % name, label)
            save_palette(os.path.join(root, 'SegmentationClass', name + '.png'), label, palette)
    return folder


def save_palette(path, ids, palette, **settings):
    """Writes `ids` uint8 [h, w] as a palette image. The extension of `path` determines the file format."""
    image = Image.fromarray(ids)
    image.putpalette([value for color in palette for value in color])
    image.save(path, **settings)


def write_sartorius(folder, rows=None):
    """Writes a small data set in the layout of Sartorius; returns the folder.

    The data set has ten 20x30 images with two cells each. If `rows` is given, train.csv contains `rows` instead of the
    rows of the cells.
    """
    lines = ['id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta']
    for i in range(10):
        put(folder, 'train/cell%d.png' % i, np.full((20, 30), 10 * i, np.uint8))
        for top in (2, 9):
            mask = np.zeros((20, 30), bool)
            mask[top:top + 8, 3 + i:9 + i] = True
            lines.append('cell%d,%s,30,20,%s,,,,' % (i, data.rle_encode(mask), ('shsy5y', 'astro', 'cort')[i % 3]))
    put_text(folder, 'train.csv', '\n'.join(lines if rows is None else lines[:1] + rows) + '\n')
    return folder


def sunrgbd_example(split, i):
    """Returns an image uint8 [20, 32, 3] and a label uint8 [20, 32] with SUN RGB-D's ids, where 0 is void."""
    image, label = np.zeros((20, 32, 3), np.uint8), np.zeros((20, 32), np.uint8)
    image[:, :, 0] = {'train': 100, 'test': 203}[split] + 3 * i
    label[3, 4:6] = 37, 1
    label[6, 7] = image[0, 0, 0] % 30
    return image, label


def write_sunrgbd_png(folder):
    """Writes a small SUN RGB-D with PNG labels: three training images and two test images; returns the folder."""
    for split, size in (('train', 3), ('test', 2)):
        for i in range(size):
            image, label = sunrgbd_example(split, i)
            put(folder, 'image/%s/img-%06d.png' % (split, i + 1), image)
            put(folder, 'label37/%s/img37labels-%06d.png' % (split, i + 1), label)
    return folder


def write_sunrgbd_mat(folder):
    """Writes a small SUN RGB-D in the authors' format; returns the folder.

    The labels are in a file of MATLAB 7.3 (HDF5). The paths are paths on the authors' machine.
    """
    toolbox, theirs = os.path.join(folder, 'SUNRGBDtoolbox'), '/n/fs/sun3d/data/SUNRGBD/'
    for name in ('Metadata', 'traintestSUNRGBD'):
        os.makedirs(os.path.join(toolbox, name))
    examples = [('test', 1), ('train', 0), ('train', 1), ('test', 0), ('train', 2)]
    meta, places = np.zeros(5, [('sequenceName', object), ('rgbpath', object)]), {'train': {}, 'test': {}}
    with h5py.File(os.path.join(toolbox, 'Metadata', 'SUNRGBD2Dseg.mat'), 'w') as file:
        references = file.create_dataset('SUNRGBD2Dseg/seglabel', (5, 1), dtype=h5py.special_dtype(ref=h5py.Reference))
        for number, (split, i) in enumerate(examples):
            image, label = sunrgbd_example(split, i)
            place = 'kv1/NYUdata/NYU%04d' % number
            put(folder, 'SUNRGBD/%s/image/x.png' % place, image)
            file['#refs#/%d' % number] = label.T
            references[number, 0] = file['#refs#/%d' % number].ref
            meta[number] = 'SUNRGBD/' + place, theirs + place + '/image/x.png'
            places[split][i] = theirs + place
    scipy.io.savemat(os.path.join(toolbox, 'Metadata', 'SUNRGBDMeta.mat'), {'SUNRGBDMeta': meta})
    scipy.io.savemat(os.path.join(toolbox, 'traintestSUNRGBD', 'allsplit.mat'), {
        'all' + split: np.array([places[split][i] for i in sorted(places[split])], object) for split in places})
    return folder


def write_folder(folder):
    """Writes a data set for `--dataset folder`: ten images of different sizes, three classes."""
    for i in range(10):
        label = np.zeros((12 + i, 16), np.uint8)
        label[i:i + 4, 3:9] = 1 + i % 2
        put_example(folder, 'im%d' % i, label * 90, label)
    put_text(folder, 'classes.csv', 'name,id,color\nground,0,0 0 0\ncat,1,200 0 0\ndog,2,\nvoid,255,\n')
    return folder


def open_and_load(name, folder):
    """Opens a data set and loads all examples of all splits."""
    dataset = datasets.open(name, folder)
    return datasets.preload(dataset, dataset.examples)[0]


def assert_contract(dataset):
    """Checks the classes of a data set, and types, shapes and ids of the first examples of each split."""
    num_classes = len(dataset.class_names)
    assert len(dataset.colors) == num_classes == len(set(dataset.colors))
    assert dataset.class_ids is None or len(set(dataset.class_ids)) == num_classes
    assert dataset.examples['train'] and dataset.examples['val']
    assert not set(dataset.examples['train']) & set(dataset.examples['val'])
    seen = set()
    for split, names in dataset.examples.items():
        for i in range(min(4, len(names))):
            image, label = dataset.load(split, i)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert label.dtype == np.uint8 and label.shape == image.shape[:2]
            assert ((label < num_classes) | (label == data.IGNORE)).all()
            seen |= set(np.unique(label))
    assert len(seen) > 1


@pytest.fixture
def camvid_folder(tmp_path):
    """Writes a CamVid folder of 7 training, 5 validation and 3 test images, each 45x61."""
    return write_camvid(str(tmp_path / 'camvid'), {'train': 7, 'val': 5, 'test': 3})


@pytest.fixture
def output(tmp_path):
    """Returns the path of a run folder that does not exist yet."""
    return str(tmp_path / 'run')


@pytest.fixture(autouse=True)
def no_notes_yet():
    """Clears the list of printed notes before each test, because a process prints each note only once."""
    system_files._noted.clear()


def undrawn():
    """Context manager that replaces each figure with an image of 2x3 pixels, because drawing is slow."""
    def writes(position):
        return lambda *values, **_: cv2.imwrite(values[position], np.zeros((2, 3), np.uint8))

    return mock.patch.multiple(plots, loss_curves=writes(1), confusion=writes(2), panel=writes(3))


@pytest.fixture
def figures():
    """Lets a test draw figures with Matplotlib. In tests without this fixture, tiny images replace the figures."""


@pytest.fixture(autouse=True)
def no_figures(request):
    """Replaces figures with tiny images, except in tests that request the fixture `figures`."""
    with contextlib.nullcontext() if 'figures' in request.fixturenames else undrawn():
        yield


@pytest.fixture
def graph():
    """Opens a new default graph with the random seed 1."""
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(1)
        yield graph


@pytest.fixture
def sess(graph):
    """Opens a session of a new default graph."""
    with tf.Session() as sess:
        yield sess


def assert_same_weights(expected, got):
    """Checks that two results of `weights_of` are equal bit for bit."""
    assert 'global_step' in got
    np.testing.assert_equal(got, expected)


def weights_of(folder, place='checkpoints'):
    """Returns {variable: value} of the newest checkpoint in the subfolder `place` of a run."""
    reader = tf.train.NewCheckpointReader(tf.train.latest_checkpoint(os.path.join(folder, place)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_refused(said, function, *args, **settings):
    """Checks that a function raises UserError with a message that the regular expression `said` matches."""
    with pytest.raises(UserError, match=said):
        function(*args, **settings)


def value_of(tensors, feed=None):
    """Initializes all variables of the default graph in a new session; returns the values of `tensors`."""
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        return sess.run(tensors, feed)


def random_weights(sess, rng):
    """Sets the model's variables to random values; returns {name without the model's scope: float64 array}.

    The standard deviation of the weights keeps the feature maps from becoming all 0.
    """
    values = {}
    for variable in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES):
        kind, shape = variable.op.name.split('/')[-1], variable.shape.as_list()
        scale = np.sqrt(2.0 / np.prod(shape[:-1])) if kind == 'weights' else 0.3
        value = rng.normal(size=shape) * scale + {'gamma': 1.0}.get(kind, 0.0)
        value = np.abs(value) + 0.5 if kind == 'moving_variance' else value
        variable.load(value.astype(np.float32), sess)
        values[variable.op.name.split('/', 1)[1]] = value.astype(np.float32).astype(float)
    return values


@contextlib.contextmanager
def file_size_limit(size):
    """Context manager that simulates a full disk: no file can grow beyond `size` bytes.

    A write beyond the limit raises OSError, because Python ignores the signal SIGXFSZ.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
