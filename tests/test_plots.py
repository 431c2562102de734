"""Tests figures, legends, and pictures of labelled examples."""
import cv2
import numpy as np
import pytest
from conftest import put_text

import data
import datasets
from networks import Layer
from runs import pictures, plots

pytestmark = pytest.mark.usefixtures('figures')
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_legend_holds_each_name_whole():
    """The legend measures the width of each name, because W is three times as wide as i."""
    image = np.full((45, 61, 3), 7, np.uint8)
    out = plots.with_legend(image, ['W' * 30, 'iii', 'палка'], [RED, GREEN, BLUE], np.array([0, 1, 2]))
    assert (out[:45, :61] == image).all() and (out[:45, 61:] == 255).all()
    legend = out[45:]
    assert legend.shape[0] == 2 * 18 and (legend[:, -2:] == 255).all()
    for color, where in ((RED, legend[:18]), (GREEN, legend[18:]), (BLUE, legend[18:])):
        assert (where == color).all(2).sum() == 11 * 11
    blue = (legend[18:] == BLUE).all(2).any(0).argmax()  # first pixel column of the blue square
    black = (legend[18:, :blue].max(2) < 128).any(0)
    assert 0 < np.flatnonzero(black).max() < blue - 2  # the name iii ends before the next class begins


def test_letters_without_a_glyph_are_escaped():
    assert plots.drawable('Straße палка') == 'Straße палка'
    assert plots.drawable('背b\udc80') == '\\u80ccb\\udc80'
    assert plots.plain('$背$') == r'\$\u80cc\$'
    image = np.zeros((9, 9, 3), np.uint8)
    legends = [plots.with_legend(image, [name], [RED], [0]) for name in ('палка', '?????', '背', '\\u80cc')]
    assert not np.array_equal(legends[0], legends[1]) and np.array_equal(legends[2], legends[3])


def write_panel(dataset, predictions, tmp_path, monkeypatch):
    """Draws the panel of the split val; returns the titles of the rows."""
    titles = []
    monkeypatch.setattr('matplotlib.axes.Axes.set_ylabel', lambda axes, text, **_: titles.append(text))
    plots.panel(dataset, 'val', predictions, str(tmp_path / 'a.png'))
    return titles


def test_long_names_in_a_panel(tmp_path, monkeypatch):
    name = 'frankfurt_000000_000294_leftImg8bit'
    example = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)
    dataset = data.Dataset('x', ['a'], [(0, 0, 0)], (4, 5), {'val': [name]}, lambda *_: example, 'predictions.png')
    assert write_panel(dataset, {0: example[1]}, tmp_path, monkeypatch) == ['...' + name[-21:]]


def test_panel_names_the_cell_types_that_the_split_lacks(tmp_path, monkeypatch):
    rows = ''.join('%d,1 40,20,20,astro\n' % i for i in range(8))
    put_text(str(tmp_path), 'train.csv', 'id,annotation,width,height,cell_type\n' + rows)
    dataset = datasets.open('sample', str(tmp_path))
    predictions = {i: np.zeros((20, 20), np.uint8) for i in range(2)}
    assert write_panel(dataset, predictions, tmp_path, monkeypatch) == ['no shsy5y', 'astro', 'no cort']
    labels = [np.full((4, 5), class_id, np.uint8) for class_id in (3, 0, 2, 1)]
    black = np.zeros((4, 5, 3), np.uint8)
    dataset = dataset._replace(examples={'val': 'abcd'}, load=lambda split, i: (black, labels[i]))
    assert write_panel(dataset, dict(enumerate(labels)), tmp_path, monkeypatch) == ['shsy5y', 'astro', 'cort']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('count, length', [(2, 28), (20, 100)])
def test_confusion_with_long_names(tmp_path, count, length):
    """Matplotlib warns if long names leave no room for the matrix."""
    plots.confusion(np.eye(count, dtype=int), ['m' * length] * count, str(tmp_path / 'a.png'))
    assert cv2.imread(str(tmp_path / 'a.png')).shape[0] > 14 * length


def test_architecture_has_a_bar_per_layer_and_an_arrow_per_pooling(monkeypatch):
    """An arrow leads from each pooling to the upsampling with the same number."""
    shapes = {'norm': (9, 13, 3), 'conv1': (9, 13, 64), 'pool1': (5, 7, 64), 'conv2': (5, 7, 32), 'pool2': (3, 4, 32),
              'upsample2': (5, 7, 32), 'upsample1': (9, 13, 32), 'classifier': (9, 13, 2)}
    kinds = {'no': 'normalization', 'po': 'pooling', 'up': 'upsampling by indices'}
    figures = []
    monkeypatch.setattr(plots, 'save', lambda figure, path: figures.append(figure))
    plots.architecture([Layer(name, kinds.get(name[:2], 'convolution'), shape, 0, 0)
                        for name, shape in shapes.items()], 'unused.png')
    axes = figures[0].axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.isdigit()] == ['64', '64', '32', '32', '32', '32', '2']
    assert [text for text in texts if 'x' in text] == ['9x13', '5x7', '3x4', '5x7', '9x13']
    middle = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    ends = [tuple(line.get_xdata()[[0, -1]]) for line in axes.lines]
    assert np.allclose(ends, [(middle[3], middle[4]), (middle[1], middle[5])])
    assert [text.xy[0] for text in axes.texts if hasattr(text, 'xy')] == [middle[4], middle[5]]
# ---------------------------------------------------------------- pictures of a data set

def test_each_class_is_chosen():
    """First, images that together show all classes are chosen. Then evenly spaced images are added."""
    counts = np.zeros((100, 9), int)
    counts[:, 0] = 50
    for image, classes in ((3, (1, 2, 5)), (40, (3, 4, 6)), (41, (3,)), (77, (7,))):
        counts[image, list(classes)] = 9
    counts[78, 7] = 800
    chosen = pictures.choose(counts)
    assert len(chosen) == 8 and {3, 40, 78} < set(chosen) and chosen[0] == 0 and chosen[-1] == 99
    assert np.diff(chosen).max() < 40
    assert pictures.choose(np.eye(30, 20, dtype=int)) == list(range(8)) and pictures.choose(counts[:3]) == [0, 1, 2]


def colored_pixels(path, color):
    """Counts the pixels of an RGB colour in an image file."""
    return (cv2.imread(path)[:, :, ::-1] == color).all(2).sum()


def example_set(labels):
    """Makes a data set of nine grey 30x50 images; the class colours are red, green and blue."""
    return data.Dataset('x', ['a', 'b', 'c'], [RED, GREEN, BLUE], (30, 50), {'train': ['im%d' % i for i in range(9)]},
                        lambda split, i: (np.full((30, 50, 3), 100, np.uint8), labels[i]), '')


def test_examples_show_where_and_what_a_label_is(tmp_path, monkeypatch):
    """The picture changes if two classes are swapped or if a label is all background."""
    texts, legend = [], plots.with_legend
    monkeypatch.setattr(pictures, 'with_legend', lambda image, names, *rest: texts.append(names) or
                        legend(image, names, *rest))
    label = np.zeros((30, 50), np.uint8)
    label[5:15, 10:30] = 1
    label[0, 0] = 255
    path, drawn = str(tmp_path / 'a.png'), {}
    for kind, changed in (('right', label), ('swapped', np.array([1, 0], np.uint8)[np.minimum(label, 1)]),
                          ('background', np.zeros_like(label))):
        dataset = example_set([changed] * 9)
        pictures.draw_examples(dataset, 'train', np.array([data.label_counts(changed, 3)] * 9), path)
        drawn[kind] = cv2.imread(path)[:, :, ::-1]
    half_green, half_red = (60, 162, 60), (162, 60, 60)
    scale = pictures.SIDE / 50
    tile = drawn['right'][pictures.CAPTION:, pictures.SIDE + pictures.GAP:][:int(30 * scale), :pictures.SIDE]
    green = (tile == half_green).all(2)
    rows, columns = np.flatnonzero(green.any(1)), np.flatnonzero(green.any(0))
    assert [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1] == [5 * scale, 15 * scale, 10 * scale, 30 * scale]
    count = {kind: ((image == half_green).all(2).sum(), (image == half_red).all(2).sum())
             for kind, image in drawn.items()}
    assert count['right'][0] == 8 * 200 * scale ** 2 and count['background'][0] == 0
    assert count['swapped'][0] > count['right'][0] and count['background'][1] == 8 * 1500 * scale ** 2
    assert texts[0] == ['a 87%', 'b 13%', 'c 0% (no pixel)', 'void (white) 0.067%']
    assert texts[2][:2] == ['a 100%', 'b 0% (no pixel)']


def test_batch_has_each_label_beside_its_image(tmp_path):
    images = np.zeros((3, 40, 80, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    labels = np.stack([np.full((40, 80), i, np.uint8) for i in (0, 1, 255)])
    path = str(tmp_path / 'a.png')
    pictures.draw_batch(images, labels, ['one/' + 'x' * 200, 'b', 'c'], example_set([]), path)
    legend, area = 11 * 11, pictures.SIDE ** 2 // 2
    assert colored_pixels(path, (10, 20, 30)) == 3 * area
    assert [colored_pixels(path, color) - legend for color in (RED, GREEN, BLUE)] == [area, area, 0]
