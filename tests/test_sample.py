"""The bundled cells are reproducible, well-formed, and not solvable by local brightness and contrast."""
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.optimize
from conftest import ROOT

import data
import datasets
import main
import metrics
from datasets import cells, tables

CSV = os.path.join(ROOT, 'train.csv')


def examples(split):
    dataset = datasets.sample.read()
    return [dataset.load(split, i) for i in range(len(dataset.examples[split]))]


def test_csv_is_what_the_seed_gives(tmp_path):
    path = str(tmp_path / 'train.csv')
    cells.write_csv(path)
    assert open(path, 'rb').read() == open(CSV, 'rb').read()
    cells.write_csv(path, seed=cells.SEED + 1)
    assert open(path, 'rb').read() != open(CSV, 'rb').read()


def test_an_existing_train_csv_is_kept(tmp_path):
    """The command may be started in the folder of Kaggle's data set."""
    (tmp_path / 'train.csv').write_text('mine')
    done = subprocess.run([sys.executable, '-m', 'datasets.sample'], cwd=str(tmp_path), stderr=subprocess.PIPE,
                          env=dict(os.environ, PYTHONPATH=ROOT))
    assert done.returncode == 2
    assert done.stderr == b'error: train.csv: already exists; start this command in another folder\n'
    assert (tmp_path / 'train.csv').read_text() == 'mine'


def test_cells_do_not_overlap_and_are_of_some_size():
    images = tables.read_cells(CSV, datasets.sartorius.INDICES)
    assert len(images) == cells.NUM_IMAGES
    for height, width, rows in images.values():
        assert (height, width) == (cells.HEIGHT, cells.WIDTH)
        masks = list(tables.cell_masks(CSV, (height, width), rows))
        assert np.sum(masks, 0).max() == 1
        assert min(mask.sum() for mask in masks) >= cells.SMALLEST
        assert {class_id for _, class_id, _ in rows} == {1, 2, 3}, 'all cell types in each image'


def test_splits_and_shares():
    dataset = datasets.sample.read()
    assert [len(dataset.examples[split]) for split in ('train', 'val')] == [48, 16]
    for split in ('train', 'val'):
        pixels, _ = data.class_counts(dataset, split)
        shares = pixels[:4] / pixels.sum()
        assert 0.6 < shares[0] < 0.8 and (shares[1:] > 0.05).all() and pixels[4] == 0


def test_rendering_is_a_function_of_the_name():
    dataset = datasets.sample.read()
    image, label = dataset.load('train', 3)
    assert image.dtype == np.uint8 and image.shape == label.shape + (3,) == (128, 176, 3)
    np.testing.assert_array_equal(image, dataset.load('train', 3)[0])
    mask = label > 0
    assert (cells.render([mask], ['cort'], 'a') != cells.render([mask], ['cort'], 'b')).mean() > 0.5


def local_mean_and_variance(image, window):
    """uint8 [h, w, 3] -> float [h * w, 2]."""
    x = image[:, :, 0].astype(np.float32)
    mean = cv2.blur(x, (window, window))
    return np.stack([mean.ravel(), (cv2.blur(x * x, (window, window)) - mean ** 2).ravel()], 1)


def logistic_regression_mIoU(train, val, window, balanced):
    """Multinomial logistic regression on local mean and variance, fitted to convergence on 20,000 pixels."""
    x, y = (np.concatenate(arrays) for arrays in zip(*[(local_mean_and_variance(image, window), label.ravel())
                                                       for image, label in train]))
    some = np.random.RandomState(0).permutation(len(y))[:20000]
    centre, scale = x.mean(0), x.std(0)

    def features(x):
        return np.concatenate([np.ones((len(x), 1)), (x - centre) / scale], 1)

    x, y = features(x[some]), y[some]
    weights = len(y) / 4.0 / np.bincount(y, minlength=4)[y] if balanced else np.ones(len(y))

    def objective(parameters):
        scores = x.dot(parameters.reshape(3, 4))
        scores -= np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True)) + scores.max(
            1, keepdims=True)
        slope = (np.exp(scores) - np.eye(4)[y]) * weights[:, None]
        return -(weights * scores[np.arange(len(y)), y]).mean(), (x.T.dot(slope) / len(y)).ravel()

    best = scipy.optimize.minimize(objective, np.zeros(12), jac=True, method='L-BFGS-B').x.reshape(3, 4)
    counts = sum(metrics.confusion(label.ravel(), features(local_mean_and_variance(image, window)).dot(best).argmax(1),
                                   4) for image, label in val)
    return metrics.scores(counts)['mIoU']


def test_logistic_regression_fails():
    """On local mean and variance, at three window sizes, balanced or not: below 0.45."""
    train, val = examples('train'), examples('val')
    best = max(logistic_regression_mIoU(train, val, window, balanced)
               for window in (5, 9, 15) for balanced in (False, True))
    assert 0.2 < best < 0.45


@pytest.mark.slow
def test_segnet_succeeds(tmp_path):
    """`python main.py` without flags: validation mIoU at least 0.75."""
    folder = main.train(main.parse_args(['--output', str(tmp_path / 'run')]))
    assert main.records.read_json(os.path.join(folder, 'metrics.json'))['val (while training)']['mIoU'] >= 0.75
