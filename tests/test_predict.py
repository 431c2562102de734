"""Tests predict.py on images, folders, globs, videos and a camera."""
import contextlib
import os
import pathlib
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import (ROOT, SHARED, assert_refused, file_size_limit, needs_real_data, noise_video, put, random_image,
                      write_camvid)
from test_main import score, train

import batches
import data
import networks
import predict
from inference import outputs, video
from inference.predictor import Predictor
from runs import plots, weights
from runs.folder import read_config, read_json
from system.files import write_json


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Trains SegNet-Basic for four steps at 23x31; returns the run folder."""
    folder = write_camvid(str(tmp_path_factory.mktemp('data')), {'train': 4, 'val': 2})
    return train(folder, str(tmp_path_factory.mktemp('run') / 'r'), '--steps', '4', '--optimizer', 'adam')


def picture(path, height=40, width=56, seed=1):
    """Writes an image of random colours; returns the path."""
    put('', path, random_image(height, width, seed))
    return path


def go(run, *flags):
    return predict.predict(predict.parse_args([run] + [str(flag) for flag in flags]))


def test_results_of_a_picture(run, tmp_path):
    """The id map equals the ids of the prediction graph.

    The overlay and the colour map show the same ids as colours.
    """
    path, out = picture(str(tmp_path / 'in' / 'a.jpg')), str(tmp_path / 'out')
    assert go(run, path, '--output', out, '--side_by_side') == 0
    assert sorted(os.listdir(out)) == ['a-colors.png', 'a-ids.png', 'a-overlay.png', 'a-side.png']
    ids, image = data.read_label(os.path.join(out, 'a-ids.png')), data.read_image(path)
    config = read_config(run)
    with tf.Graph().as_default(), tf.Session() as sess:
        seen = batches.resize(image, 23, 31)[None]
        graph = networks.prediction_graph(networks.spec_of(config['flags'], 11), tf.constant(seen), (40, 56))
        weights.load_all(sess, weights.load(run), run)
        expected, probabilities = sess.run(graph[:2])
    np.testing.assert_array_equal(ids, expected[0])
    assert probabilities.shape == (1, 23, 31, 11) and len(np.unique(ids)) > 1
    colors = [tuple(color) for color in config['colors']]
    np.testing.assert_array_equal(data.read_image(os.path.join(out, 'a-colors.png')), plots.colored(ids, colors))
    overlay = data.read_image(os.path.join(out, 'a-overlay.png'))
    np.testing.assert_array_equal(overlay[:40, :56], plots.overlay(image, plots.colored(ids, colors)))
    assert overlay.shape[0] > 40, 'the legend is below'


def test_folders_globs_names_and_a_bad_picture(run, tmp_path, capsys):
    """Each result has a unique name. A bad image is reported, and the other images are labelled.

    The exit status is 2.
    """
    folder, out = str(tmp_path / 'x y \u00e9'), str(tmp_path / 'out')
    for name in ('one/a.jpg', 'one/a.png', 'two/a.png', 'two/b.png'):
        picture(os.path.join(folder, name), 20, 30)
    pathlib.Path(folder, 'two', 'c.png').write_text('no picture')
    assert go(run, os.path.join(folder, 'one'), os.path.join(folder, 'two', '*.png'), '--output', out) == 2
    assert 'c.png: not an image' in capsys.readouterr().err
    done = [name for name in os.listdir(out) if name.endswith('-ids.png')]
    assert len(done) == 4 and 'b-ids.png' in done and 'a.jpg-ids.png' in done


def test_entries_of_a_folder_that_are_passed_over(run, tmp_path, capsys):
    """A note names the entries of a folder that predict.py skips.

    A HEIC file that is given by name or by a glob is an error.
    """
    folder, out = str(tmp_path / 'in'), str(tmp_path / 'out')
    picture(os.path.join(folder, 'a.png'))
    picture(os.path.join(folder, 'more.png', 'deep.jpg'))
    for name in ('IMG.HEIC', '.hidden', 'note.txt'):
        pathlib.Path(folder, name).write_bytes(b'\0\0\0\x18ftypheic')
    assert go(run, folder, '--output', out) == 0
    err = capsys.readouterr().err
    assert err.count('not labelled') == 1 and 'in: 3 entries are not labelled: IMG.HEIC, more.png, note.txt;' in err
    assert sum(name.endswith('-ids.png') for name in os.listdir(out)) == 1
    for named in ('IMG.HEIC', '*.HEIC'):
        assert go(run, os.path.join(folder, named), '--output', str(tmp_path / 'named')) == 2
        assert 'IMG.HEIC: HEIC or AVIF; convert the file to PNG' in capsys.readouterr().err


def test_refusals(run, tmp_path):
    os.makedirs(str(tmp_path / 'empty'))
    for flags, said in (([str(tmp_path / 'no.png')], 'no such file'), ([str(tmp_path / 'empty')], 'a folder without'),
                        ([], 'nothing to label'), (['--camera', '99999999999'], '--camera: 99999999999'),
                        (['x', '--tta', '0'], '--tta: 0'), (['x', '--shard', '3/2'], '--shard: 3/2'),
                        (['x', '--tile', '4x0'], '--tile: 4x0'),
                        (['--shard', '1/2', '--camera', '0'], '--shard: cannot be used with --camera'),
                        ([picture(str(tmp_path / 'a.png')), '--tile_overlap', '0.2'], '--tile_overlap 0.2: needs'),
                        ([str(tmp_path / 'a.png'), '--samples', '8'], '--samples 8: the run has no')):
        assert_refused(said, go, run, '--output', tmp_path / 'out', *flags)
    assert_refused('no such run folder', go, str(tmp_path / 'none'), 'x')
    assert not os.path.exists(str(tmp_path / 'out'))


def test_video(run, tmp_path, capsys):
    """The overlay video has as many frames as the input video.

    Readable frames of a damaged video are labelled, and missing frames are reported.
    """
    path, out = noise_video(str(tmp_path / 'v.avi'), 9), str(tmp_path / 'out')
    assert go(run, path, '--output', out) == 0
    assert '9 frames' in capsys.readouterr().out and os.listdir(out) == ['v-overlay.mp4']
    with predict.video.read_frames(os.path.join(out, 'v-overlay.mp4')) as (_, _, frames):
        assert [image.shape for image in frames] == [(48, 64, 3)] * 9
    noise_video(path, 40)
    os.truncate(path, os.path.getsize(path) // 2)
    assert go(run, path, picture(str(tmp_path / 'b.png')), '--output', str(tmp_path / 'out2')) == 2
    assert 'v.avi: ends after frame' in capsys.readouterr().err
    assert {'v-overlay.mp4', 'b-ids.png'} <= set(os.listdir(str(tmp_path / 'out2')))
    pathlib.Path(path).write_text('no video')
    assert go(run, path, '--output', tmp_path / 'out3') == 2


def test_full_disk_leaves_no_half_result(run, tmp_path, capsys):
    """On a full disk, a video that cannot be written is reported, and no partial file is left.

    An image that cannot be written ends the command with an error.
    """
    video, image = noise_video(str(tmp_path / 'v.avi'), 40), picture(str(tmp_path / 'b.png'), 400, 560)
    with file_size_limit(2000):
        assert go(run, video, '--output', tmp_path / 'out') == 2
        with pytest.raises(OSError, match='b-ids.png'):
            go(run, image, '--output', tmp_path / 'out')
    assert 'v-overlay.mp4: could not be written' in capsys.readouterr().err and os.listdir(str(tmp_path / 'out')) == []


def test_same_picture_by_two_paths_is_labelled_once(tmp_path):
    path, other = [picture(str(tmp_path / 'p' / name)) for name in ('x.png', 'y.png')]
    twice = os.path.join(str(tmp_path), 'p', '..', 'p', 'x.png')
    assert predict.expand([path, twice, other, path]) == [path, other]
    assert predict.expand([str(tmp_path / '*')]) == [path, other]  # * matches a folder of two images


def test_memory_that_one_picture_fills_is_told_of(run, tmp_path, monkeypatch, capsys):
    real = Predictor.predict

    def predict_41(predictor, images):
        if images[0].shape[0] == 41:
            raise tf.errors.ResourceExhaustedError(None, None, 'OOM')
        return real(predictor, images)

    monkeypatch.setattr(Predictor, 'predict', predict_41)
    large, small = picture(str(tmp_path / 'a.png'), 41), picture(str(tmp_path / 'b.png'))
    assert go(run, large, small, '--output', tmp_path / 'out') == 2
    assert 'a.png: too large for the memory of this machine; give --tile HEIGHTxWIDTH, or' in capsys.readouterr().err
    assert 'b-ids.png' in os.listdir(str(tmp_path / 'out'))


def test_probabilities_confidence_alpha_and_class_ids(run, tmp_path):
    """The id map holds the most probable class of each pixel as a class id from config.json.

    With --alpha 0, the overlay equals the image.
    """
    copy, out = str(tmp_path / 'copy'), str(tmp_path / 'out')
    shutil.copytree(run, copy)
    config = dict(read_config(copy), class_ids=[20, 3, 5, 7, 9, 11, 13, 15, 17, 19, 1])
    write_json(os.path.join(copy, 'config.json'), config)
    path = picture(str(tmp_path / 'a.png'), 41, 57)
    assert go(copy, path, '--output', out, '--probabilities', 'npz', '--confidence', '--alpha', 0) == 0
    with np.load(os.path.join(out, 'a-probabilities.npz')) as arrays:
        probabilities, class_ids, names = arrays['probabilities'], arrays['class_ids'], list(arrays['class_names'])
    assert class_ids.tolist() == config['class_ids']
    assert probabilities.dtype == np.float16 and probabilities.shape == (41, 57, 11) and names == config['class_names']
    ids = data.read_label(os.path.join(out, 'a-ids.png'))
    assert (class_ids[probabilities.argmax(-1)] == ids).mean() > 0.99
    assert set(np.unique(ids)) <= set(config['class_ids'])
    confidence = data.read_label(os.path.join(out, 'a-confidence.png'))
    np.testing.assert_allclose(confidence / 255.0, probabilities.max(-1), atol=4e-3)
    np.testing.assert_array_equal(data.read_image(os.path.join(out, 'a-overlay.png'))[:41, :57], data.read_image(path))
    assert go(copy, path, '--output', out, '--probabilities', 'png', '--overwrite') == 0
    for i, class_id in enumerate(config['class_ids']):
        share = data.read_label(os.path.join(out, 'a-probability-%d.png' % class_id))
        np.testing.assert_allclose(share / 255.0, probabilities[:, :, i], atol=4e-3)


def test_batches_and_shards_change_no_label(run, tmp_path):
    """Two shards that predict in batches give the same labels as a single call that predicts images one by one.

    The images are 56, 55 or 54 pixels wide.
    """
    paths = [picture(str(tmp_path / ('%d.png' % i)), 40, 56 - i // 2, seed=i) for i in range(5)]
    assert go(run, *paths, '--output', tmp_path / 'one', '--submission') == 0
    assert go(run, *paths, '--output', tmp_path / 'two', '--batch_size', '3', '--shard', '1/2', '--submission') == 0
    images = {'%d-%s.png' % (i, kind) for i in (0, 2, 4) for kind in ('ids', 'colors', 'overlay')}
    assert set(os.listdir(str(tmp_path / 'two'))) == images | {'submission-1-of-2.csv'}
    assert go(run, *paths, '--output', tmp_path / 'two', '--batch_size', '3', '--shard', '2/2') == 0
    for i in range(5):
        one, two = [data.read_label(str(tmp_path / folder / ('%d-ids.png' % i))) for folder in ('one', 'two')]
        np.testing.assert_array_equal(one, two)
    one, two = [(tmp_path / name).read_text() for name in ('one/submission.csv', 'two/submission-1-of-2.csv')]
    assert two.splitlines() == [row for row in one.splitlines() if row[0] not in '13']


def test_tiles_larger_than_an_image_and_shrunk_images_are_told(run, tmp_path, capsys):
    small, large = picture(str(tmp_path / 'small.png'), 30, 40), picture(str(tmp_path / 'large.png'), 50, 70)
    assert go(run, small, large, '--output', tmp_path / 'out', '--tile', '33x47', '--tta', 'flip') == 2
    assert 'small.png: --tile 33x47: larger than the image of 30x40' in capsys.readouterr().err
    assert 'large-ids.png' in os.listdir(str(tmp_path / 'out'))
    assert go(run, small, large, '--output', tmp_path / 'out2', '--tile', 'off') == 0
    err = capsys.readouterr().err
    assert 'large.png: shrinks by more than half to 23x31' in err and 'small.png:' not in err
    assert go(run, large, '--output', tmp_path / 'out3', '--max_pixels', 50 * 70 - 1) == 2
    assert 'large.png: more than 3499 pixels; shrink it' in capsys.readouterr().err


def test_evaluate_by_tiles_and_augmentation(run):
    """metrics.json records the flags --tile and --tta.

    A tile as large as the image does not change the confusion matrix. The flag --tta flip changes the confusion matrix.
    """
    flags = [run, '--bn', 'moving', '--bf_images', '0']
    for more in ([], ['--tile', '45x61'], ['--tta', 'flip']):
        score(*flags + more)
    stored = read_json(os.path.join(run, 'metrics.json'))
    plain, tiled, flipped = [stored['val (moving%s)' % kind] for kind in ('', ', tile 45x61', ', tta flip')]
    assert plain['confusion'] == tiled['confusion'] != flipped['confusion']
    assert np.sum(flipped['confusion'], 1).tolist() == np.sum(plain['confusion'], 1).tolist()
    assert (plain['tile'], plain['tta']) == ('auto', None) and (tiled['tile'], flipped['tta']) == ([45, 61], 'flip')
    for bad in (['--bf_images', '-5'], ['--tta', '0'], ['--bf_form', 'distance']):
        assert_refused(bad[0], score, run, *bad)
    assert_refused('--tile 46x61: larger than the image of 45x61', score, *flags + ['--tile', '46x61'])


def test_camera_is_an_input_and_ends_at_ctrl_c(run, tmp_path, monkeypatch, capsys):
    real = predict.video.read_frames

    def frames():
        for i in range(3):
            yield np.full((48, 64, 3), 60 * i, np.uint8)
        raise KeyboardInterrupt

    camera = contextlib.nullcontext((10.0, 0, frames()))
    monkeypatch.setattr(predict.video, 'read_frames', lambda source: camera if source == 5 else real(source))
    assert go(run, '--camera', 5, '--output', tmp_path) == 0
    out = capsys.readouterr().out
    assert '5: 3 frames' in out and '1 of 1 labelled' in out
    assert predict.video.num_frames(str(tmp_path / 'camera5-overlay.mp4')) == 3


def test_uncertainty_has_one_scale():
    """The colour of a variance does not depend on other pixels.

    The variance 0 has the first colour of viridis. The largest possible variance has the last colour.
    """
    # If each of four samples is certain of a different class, the variance of each class is 0.25 * 0.75.
    largest = 0.75 / 4
    one, other = [plots.uncertainty(np.array([row, [0.01, 0.01]], np.float32), 4) for row in ([0, largest], [0, 0.03])]
    assert (one[1] == other[1]).all()
    ends = cv2.applyColorMap(np.array([[0, 255]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, :, ::-1]
    np.testing.assert_array_equal(one[0], ends)


def test_submission_rows():
    """Each row is a four-connected component of a class.

    Small components are left out, and no pixel belongs to two rows.
    """
    config = {'class_names': ['ground', 'cat', 'dog'], 'class_ids': [0, 4, 9]}
    ids = np.zeros((20, 30), np.uint8)
    ids[2:8, 2:10], ids[2:8, 10:20], ids[12:18, 2:10], ids[15, 25] = 1, 2, 1, 2
    rows = outputs.submission_rows('im', ids, config)
    masks = [data.rle_decode(rle, 20, 30) for _, rle in rows]
    assert [name for name, _ in rows] == ['im'] * 3 and sorted(mask.sum() for mask in masks) == [48, 48, 60]
    assert np.sum(masks, 0).max() == 1
    empty = np.zeros((3, 4), np.uint8)
    assert outputs.submission_rows('im', empty, config) == []
    config['rle'] = ['ImageId', 'ClassId', 'EncodedPixels'], 'columns', '.jpg'
    rows = outputs.submission_rows('im', ids, config)
    assert [row[:2] for row in rows] == [('im.jpg', '4'), ('im.jpg', '9')]
    for class_id, (_, _, rle) in zip((1, 2), rows):
        np.testing.assert_array_equal(data.rle_decode(rle, 20, 30, 'columns'), ids == class_id)
    assert outputs.submission_rows('im', empty, config) == [('im.jpg', '', '')]
    config.update(rle=(['ImageId', 'EncodedPixels'], 'relative', ''), class_names=['cat', 'background', 'dog'])
    rows = outputs.submission_rows('im', ids, config)
    np.testing.assert_array_equal(data.rle_decode(rows[0][1], 20, 30, 'relative'), ids == 0)
    assert len(rows) == 2 and outputs.submission_rows('im', empty + 1, config) == [('im', '-1')]


def test_names():
    assert predict.output_names(['a/x.png', 'b/y.png']) == ['x', 'y']
    assert predict.output_names(['a/x.png', 'a/x.jpg']) == ['x.png', 'x.jpg']
    assert predict.output_names(['/q/a/x.png', '/q/b/x.png', '/q/b/x.jpg']) == ['q-a-x.png', 'q-b-x.png', 'x.jpg']
    assert predict.output_names(['/q/a/b/x.png', '/q/a-b/x.png']) == ['q-a-b-x.png', 'q-a-b-x.png-2']
    long = predict.output_names(['\u00e9' * 150 + '.png', 'y' * 300 + '.png', '/' + 'y' * 300 + '.jpg'])
    assert len(set(long)) == 3 and all(len(name.encode()) < 210 for name in long)


PRETRAINED = [os.path.join(ROOT, 'Output', 'pretrained', name)
              for name in ('camvid-segnet', 'camvid-segnet-basic', 'camvid-segnet-360x480',
                           'camvid-bayesian-segnet')]


@pytest.mark.parametrize('pretrained, size', zip(PRETRAINED, (32e6, 1.5e6, 32e6, 32e6)),
                         ids=map(os.path.basename, PRETRAINED))
def test_pretrained_weights_label_a_picture(tmp_path, pretrained, size):
    """The blue upper half of an image is labelled as sky. weights.npz has at most `size` bytes."""
    scene = np.full((120, 160, 3), 90, np.uint8)
    scene[:60] = 170, 200, 230
    put(str(tmp_path), 'scene.png', scene)
    assert go(pretrained, tmp_path / 'scene.png', '--output', tmp_path / 'out') == 0
    ids = data.read_label(str(tmp_path / 'out' / 'scene-ids.png'))
    assert (ids[:40] == read_config(pretrained)['class_names'].index('Sky')).mean() > 0.8
    assert os.path.getsize(os.path.join(pretrained, 'weights.npz')) <= size
    assert os.path.exists(str(tmp_path / 'out' / 'scene-uncertainty.png')) == ('bayesian' in pretrained)


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize('pretrained', PRETRAINED[:2], ids=os.path.basename)
def test_pretrained_scores_are_those_that_evaluate_prints(tmp_path, pretrained):
    folder = str(tmp_path / 'copy')
    shutil.copytree(pretrained, folder)
    stated = read_json(os.path.join(folder, 'metrics.json'))['val (moving)']
    scores = score(folder, '--data_dir', os.path.join(SHARED, 'camvid'), '--bn', 'moving', '--bf_images', '0')['val']
    for name in ('G', 'C', 'mIoU'):
        assert abs(scores[name] - stated[name]) < 2e-3


def test_video_with_a_colon_in_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    os.rename(noise_video(str(tmp_path / 'v.avi'), 3), '12:30.avi')
    assert go(run, '12:30.avi', '--output', '.') == 0
    with video.read_frames('12:30-overlay.mp4') as (_, _, frames):
        assert len(list(frames)) == 3


@pytest.mark.parametrize('name, flags', [('a-ids.png', []), ('a-overlay.png', []), ('a-confidence.png', []),
                                         ('a-probability-7.png', ['--probabilities', 'png']),
                                         ('b-overlay.mp4', []), ('submission.csv', ['--submission'])])
def test_existing_results_are_kept(tmp_path, name, flags):
    for each in ('a.png', 'b.mp4', name):
        (tmp_path / each).touch()
    inputs = [str(tmp_path / each) for each in ('a.png', 'b.mp4')]
    flags = ['run'] + inputs + ['--output', str(tmp_path)] + flags
    assert_refused('%s: exists already; give --overwrite' % name, predict.plan, predict.parse_args(flags))
    assert len(predict.plan(predict.parse_args(flags + ['--overwrite']))) == 2
    flags[flags.index('--output') + 1] = inputs[0]
    assert_refused('--output .*a.png: is a file', predict.plan, predict.parse_args(flags))


@pytest.mark.parametrize('columns', [('id', 'predicted'), ('ImageId', 'ClassId', 'EncodedPixels')])
def test_memory_of_a_submission(columns):
    """An image of 400 cells needs no more memory than a few masks."""
    ids = np.kron(np.pad(np.ones((20, 20), np.uint8), 0), np.pad(np.ones((7, 7), np.uint8), 2))  # [220, 220]
    config = {'class_names': ['ground', 'cell'], 'class_ids': [0, 1], 'rle': (columns, 'rows', '')}
    tracemalloc.start()
    rows = outputs.submission_rows('im', ids, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == (1 if 'ClassId' in columns else 400) and peak < 40 * ids.size
