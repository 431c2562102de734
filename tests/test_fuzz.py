"""Random input is read or refused with a UserError. `make fuzz` tries many more examples."""
import contextlib
import os
import pathlib
import tempfile

import hypothesis
import numpy as np
import tensorflow.compat.v1 as tf
from conftest import encoded, put, put_text
from hypothesis import strategies as st
from PIL import Image
from test_images import LABEL_WRITERS

import batches
import data
import datasets
import main
import networks
from data import IGNORE
from datasets import files, rle, tables
from system import devices, distribute
from system.files import UserError

# Building graphs is slow, so the number of examples is divided by 300.
builds = hypothesis.settings(max_examples=max(2, hypothesis.settings.default.max_examples // 300))
TEXT = st.text(alphabet=st.characters(blacklist_categories=['Cs']), max_size=60)
CELL = st.one_of(TEXT, st.sampled_from(['a', '', '1 2', '3 1 9 4', '4', '5', 'cort', 'astro', '-1', '../a', '"',
                                        '9' * 30]))


def written(content, read, *args):
    """Writes `content` to a file; returns `read(file, *args)`, or None if `read` raises a UserError."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'file.csv')
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            return read(str(path), *args)
        except UserError as error:
            assert 'file.csv' in str(error)
            return None


@hypothesis.given(st.lists(st.lists(CELL, min_size=1, max_size=6), max_size=4))
def test_cell_tables(rows):
    lines = ['id,annotation,width,height,cell_type'] + [','.join(row) for row in rows]
    images = written('\n'.join(lines), rle.read_cells, {'shsy5y': 1, 'astro': 2, 'cort': 3})
    for entry in (images or {}).values():
        if entry[0] * entry[1] < 1 << 20:
            with contextlib.suppress(UserError):
                assert rle.cells_label('file.csv', entry).max() <= 3


@hypothesis.given(st.lists(st.tuples(TEXT, st.one_of(TEXT, st.integers(-9, 300).map(str)), TEXT), max_size=5))
def test_class_tables(rows):
    read = written('\n'.join(['name,id,color'] + [','.join(row) for row in rows]), tables.read_classes)
    if read:
        ids = [i for one in read for i in one.ids]
        assert len({one.name for one in read}) == len(read) and sorted(set(ids)) == sorted(ids)
        assert all(0 <= i <= 255 for i in ids)


@hypothesis.given(st.binary(max_size=60), st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16', 'latin-1']), TEXT,
                  st.sampled_from([files.read_names, tables.read_labelmap, tables.read_classes]))
def test_texts_of_any_encoding(junk, encoding, text, read):
    written(text.encode(encoding, 'replace') + junk, read)


# ---------------------------------------------------------------- images and labels

@hypothesis.given(st.integers(1, 9), st.integers(1, 11), st.integers(0, 1 << 30),
                  st.sampled_from(sorted(set(LABEL_WRITERS) - {'palette.gif'})),  # Pillow renumbers the ids of a GIF
                  st.sampled_from(['', '_mask', '_L', '-gt', '.label']),
                  st.sampled_from([str.lower, str.upper]), st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_labels(height, width, seed, kind, suffix, case, encoding):
    """Labels keep the ids that were written, for all palettes, bit depths, file suffixes and text encodings."""
    rng = np.random.RandomState(seed)
    bits = next((int(letter) for letter in kind if letter.isdigit()), 8)
    ids = rng.randint(0, 1 << bits, (height, width)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, 'labels'))
        for name in ('a', 'a b'):
            put(folder, 'images/%s.png' % name, np.zeros((height, width, 3), np.uint8))
            path = os.path.join(folder, 'labels', name + suffix)
            extension = os.path.splitext(kind)[1]
            LABEL_WRITERS[kind](path + extension, ids)
            os.rename(path + extension, path + case(extension))
        rows = ['name,id'] + ['%d,%d' % (i, i) for i in range(250)] + ['void,250 251 252 253 254 255\n']
        put_text(folder, 'classes.csv', '\n'.join(rows), encoding)
        dataset = datasets.folder.read(folder)
        expected = np.where(ids < 250, ids, IGNORE)
        for split in ('train', 'val'):
            np.testing.assert_array_equal(dataset.load(split, 0)[1], expected)


IMAGE = Image.fromarray(np.random.RandomState(1).randint(0, 255, (9, 13, 3)).astype(np.uint8))
WHOLE_FILES = [encoded(IMAGE, kind) for kind in ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'JPEG2000')]
WHOLE_FILES.append(encoded(IMAGE, 'TIFF', compression='tiff_lzw'))


@hypothesis.given(st.integers(0, 7), st.integers(0, 1 << 30), st.integers(0, 5), st.booleans())
def test_damaged_images(kind, seed, changes, cut):
    """A damaged or truncated file is read as an image, or is refused with a UserError that names the file."""
    rng = np.random.RandomState(seed)
    content = bytearray(WHOLE_FILES[kind])
    for _ in range(changes):
        content[int(len(content) * rng.rand() ** 3)] = rng.randint(256)  # most changes are in the header
    content = content[:rng.randint(len(content))] if cut else content
    for read in (data.read_image, data.read_label):
        array = written(bytes(content), read)
        assert array is None or array.dtype == np.uint8


# ---------------------------------------------------------------- weights and flags

@hypothesis.given(st.lists(st.tuples(TEXT, st.one_of(TEXT, st.floats().map(str))), max_size=4))
def test_weight_tables(rows):
    text = '\n'.join(['name,weight'] + [','.join(row) for row in rows])
    weights = written(text, tables.read_class_weights, ['a', 'b'])
    assert weights is None or (np.isfinite(weights).all() and (weights >= 0).all())


# Each flag value is valid without the other flags. A combination of values may be refused.
FITTING = {
    '--model': ['segnet-basic', 'bayesian-segnet-basic', 'fcn-basic', 'bilinear-interpolation'], '--rotate': ['90'],
    '--input': sorted(networks.INPUTS), '--fit': ['resize', 'crop'], '--scale': ['1', '1.5', '10'], '--gamma': '12',
    '--loss': ['ce', 'ce-dice'], '--jitter': ['0', '0.3', '1'], '--dropout': ['0', '0.5', '0.99'],
    '--schedule': ['constant', 'poly'], '--optimizer': ['sgd', 'adam'], '--precision': devices.PRECISIONS,
    '--learning_rate': ['1e-9', '0.1', '1e9'], '--momentum': ['0', '1'], '--gpus': '123', '--weight_decay': '01'}
SIZES = st.integers(1, 70).map(str)


@hypothesis.given(st.fixed_dictionaries({'--height': SIZES, '--width': SIZES, '--batch_size': st.sampled_from('1234')}),
                  st.lists(st.sampled_from(sorted(FITTING)), max_size=6, unique=True),
                  st.one_of(st.none(), st.tuples(SIZES, SIZES)), st.booleans(), st.data())
@builds
def test_training_graphs(sizes, names, crop, flip, draw):
    """Any combination of main.py's flags gives a training graph with a float32 loss, or a UserError."""
    given = dict(sizes, **{name: draw.draw(st.sampled_from(list(FITTING[name]))) for name in names})
    flags = [part for pair in given.items() for part in pair] + ['--flip'] * flip
    flags += ['--crop'] + list(crop) if crop else []
    dataset = datasets.sample.read()
    with contextlib.suppress(UserError), tf.Graph().as_default():
        args = main.parse_args(flags)
        batch, spec = batches.training_batches(dataset, vars(args))[1:], networks.spec_of(vars(args), 4)
        loss = main.training_graph(args, spec, np.ones(4), batch, 10, distribute.Group())['loss']
        assert loss.dtype == tf.float32 and loss.shape.as_list() == []
