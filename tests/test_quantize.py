"""Tests of quantized exports, with 8-bit integers or 16-bit floats."""
import importlib.util

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import assert_refused, write_camvid
from test_export import FORMATS as ALL_FORMATS
from test_export import IMAGES, PUBLISHED, blocks, expected_ids, published, run_exported, run_onnx, spec_of
from test_utils import pool_reference, unpool_reference

import networks
import predict
import segnet
from inference import export, quantize
from runs import weights
from runs.folder import read_config

FORMATS = ALL_FORMATS[1:]  # TFLite and ONNX


@pytest.mark.parametrize('kind, size, least', [('int8', 0.3, 0.9), ('float16', 0.6, 0.99)])
@pytest.mark.parametrize('name', FORMATS)
def test_quantized_file_is_small_and_agrees(tmp_path, name, kind, size, least):
    config, loaded = published()
    quantization = quantize.Quantization(kind, IMAGES[:2] if kind == 'int8' else [])
    text = export.export(str(tmp_path / name), spec_of(config), config, loaded, None, quantization)
    export.export(str(tmp_path / ('float-' + name)), spec_of(config), config, loaded)
    assert (tmp_path / name).stat().st_size < size * (tmp_path / ('float-' + name)).stat().st_size
    expected = expected_ids(config, loaded, IMAGES)
    for (ids, probabilities), right in zip(run_exported(str(tmp_path / name), IMAGES), expected):
        assert ids.dtype == np.uint8 and probabilities.dtype == np.float32 and probabilities.shape == (45, 61, 11)
        assert (ids == right).mean() > least and np.abs(probabilities.sum(-1) - 1).max() < 1e-4
    if kind == 'int8':
        same = [ids == right for (ids, _), right in zip(run_exported(str(tmp_path / name), IMAGES[:2]), expected)]
        assert '%.1f%%' % (100 * np.mean(same)) in text


@pytest.mark.parametrize('name', FORMATS)
def test_unpooling_is_exact(tmp_path, monkeypatch, name):
    """The logits equal the pixel values at the positions of the pooling maxima, and are 0 elsewhere.

    The network is a SegNet of one level with identity kernels.
    """
    monkeypatch.setattr(segnet, 'ENCODER', [(3, 1)])
    image = (8 * np.random.RandomState(3).permutation(9 * 7 * 3).reshape(9, 7, 3) % 256).astype(np.uint8)
    expected = unpool_reference(*pool_reference(image[None, :, :, ::-1].astype(float)))[0]  # classes: blue, green, red
    kernel, one, zero = np.zeros((3, 3, 3, 3), np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)
    kernel[1, 1] = np.eye(3)
    values = dict.fromkeys(('conv1_1/biases', 'conv1_1_bn/beta', 'conv1_1_bn/moving_mean', 'conv1_1_D/biases'), zero)
    values.update({'conv1_1/weights': kernel, 'conv1_1_D/weights': kernel})
    values.update({'conv1_1_bn/gamma': one, 'conv1_1_bn/moving_variance': one})
    config = dict(read_config(PUBLISHED), class_ids=[0, 1, 2])
    config['flags'].update(model='segnet', input='raw', height=9, width=7)
    spec = networks.spec_of(config['flags'], 3)
    export.export(str(tmp_path / name), spec, config, weights.Weights(values, None, 'identity'), None,
                  quantize.Quantization('int8', [image]))
    (ids, probabilities), = run_exported(str(tmp_path / name), [image])
    np.testing.assert_array_equal(ids, expected.argmax(-1))
    logits = np.log(np.maximum(probabilities, 1e-30))
    logits -= logits.max(-1, keepdims=True)
    expected -= expected.max(-1, keepdims=True)
    # A quantization step of the logits is about 1. The probabilities of logits below -40 are rounded to 0.
    assert np.abs(logits - expected)[expected > -40].max() < 3


@pytest.mark.parametrize('flags, size', [({'model': 'bayesian-segnet-basic', 'dropout': 0.5}, None),
                                         ({'fit': 'crop'}, 'free'), ({}, 'free'), ({}, (90, 121))])
@pytest.mark.parametrize('name', FORMATS)
def test_runs_and_sizes(tmp_path, name, flags, size):
    """With --export_size free, quantized networks accept images of other sizes than the calibration images."""
    config, loaded = published(**flags)
    images = [blocks(90, 121, 3), blocks(90, 121, 5)] if size == (90, 121) else IMAGES[:2]
    export.export(str(tmp_path / name), spec_of(config), config, loaded, size, quantize.Quantization('int8', images))
    images = images + [blocks(*sides, seed=4) for sides in ((31, 23), (3, 300), (300, 3), (1, 1))] * (size == 'free')
    for image, right in zip(images, expected_ids(config, loaded, images)):
        (ids, _), = run_exported(str(tmp_path / name), [image])
        assert ids.shape == right.shape and (ids == right).mean() > 0.85
    if name == 'a.onnx' and size == 'free':
        batch = run_onnx(str(tmp_path / name), np.stack(IMAGES))[0]
        for ids, (alone, _) in zip(batch, run_exported(str(tmp_path / name), IMAGES)):
            assert (ids == alone).mean() > 0.99


def test_calibration_images(tmp_path):
    """Calibration takes twelve evenly spaced training images.

    For a run with --fit crop, each image is center-cropped.
    """
    config, _ = published(data_dir=write_camvid(str(tmp_path), {'train': 25, 'val': 1}))
    spec = spec_of(config)
    images = quantize.calibration_images([], config, spec, None)
    names = ['train_%02d.png' % i for i in (0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 24)]
    paths = [str(tmp_path / 'train' / name) for name in names]
    np.testing.assert_array_equal(images, quantize.calibration_images(paths, config, spec, 'free'))
    cut = quantize.calibration_images(paths[:1], config, spec._replace(fit='crop'), (21, 31))
    np.testing.assert_array_equal(cut, [images[0][12:33, 15:46]])
    assert quantize.calibration_images(paths[:1], config, spec, (21, 31))[0].shape == (21, 31, 3)
    config['flags']['data_dir'] = None
    assert_refused('give --calibrate IMAGES', quantize.calibration_images, [], config, spec, None)


def test_refused_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: True)
    monkeypatch.setattr(tf, '__version__', '2.21.0')
    path = str(tmp_path / 'a.onnx')
    for flags in (['image.png', '--quantize', 'int8'], ['--export', str(tmp_path / 'new'), '--quantize', 'float16']):
        assert_refused('--quantize .*: needs --export', predict.parse_args, [PUBLISHED] + flags)
    for flags in ([], ['--quantize', 'float16']):
        assert_refused('--calibrate: needs --quantize int8', predict.parse_args,
                       [PUBLISHED, '--export', path, '--calibrate', 'a.png'] + flags)
    args = predict.parse_args([PUBLISHED, '--export', path, '--quantize', 'int8', '--calibrate', 'a.png', 'b.png'])
    assert args.calibrate == ['a.png', 'b.png'] and args.inputs == []
