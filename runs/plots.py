"""Draws figures of training and scores, and colours label images. Does not import TensorFlow."""
import collections
import os

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data import IGNORE

matplotlib.use('Agg')  # Agg draws without a screen
from matplotlib import ft2font  # noqa: E402
from matplotlib import pyplot as plt

from system.files import atomic_write

FONT = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
GLYPHS = frozenset(ft2font.FT2Font(FONT).get_charmap())  # code points of the characters in the font
PANEL_ROWS = 4  # number of examples in predictions.png
LAYER_COLORS = {'convolution': '0.85', 'pooling': '#e69f00', 'upsampling by indices': '#56b4e9'}


def save(figure, path: str):
    """Writes a Matplotlib figure to `path` as PNG, atomically, and closes the figure."""
    with atomic_write(path) as part:
        figure.savefig(part, format='png', dpi=100, bbox_inches='tight')
    plt.close(figure)


def drawable(text: str) -> str:
    """Escapes each character that the font DejaVu Sans lacks, for example as \\u80cc."""
    return ''.join(char if ord(char) in GLYPHS else char.encode('ascii', 'backslashreplace').decode() for char in text)


def plain(text: str) -> str:
    """Escapes `$`, which Matplotlib would parse as math text, and characters that DejaVu Sans lacks."""
    return drawable(text).replace('$', r'\$')


def loss_curves(log: list, path: str):
    """Draws the training loss with a running mean and, in a second panel, the validation scores G, C and mIoU.

    The axis of the loss ends at 1.1 times the 99th percentile of the losses, so rare peaks are cut off. With fewer than
    20 steps no running mean is drawn.

    Args:
      log: records of log.jsonl.
      path: path of the PNG.
    """
    training = [record for record in log if 'loss' in record]
    scored = [record for record in log if 'mIoU' in record]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), sharex=True)
    steps = [record['step'] for record in training]
    losses = np.array([record['loss'] for record in training])
    above.plot(steps, losses, color='0.75', linewidth=0.8, label='batch')
    width = min(50, len(losses) // 10)
    if width > 1:
        mean = np.convolve(losses, np.ones(width) / width, 'valid')
        above.plot(steps[width - 1:], mean, color='tab:red', label='mean of %d batches' % width)
    above.set(ylabel='training loss', ylim=(0, np.percentile(losses, 99) * 1.1))
    above.legend(loc='upper right')
    for name in ('G', 'C', 'mIoU'):
        below.plot([record['step'] for record in scored], [record.get(name) for record in scored], '.-', label=name)
    below.set(xlabel='step', ylabel='validation', ylim=(0, 1))
    below.legend(loc='lower right')
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, path)


def scores_against_time(rows: list, split: str, path: str):
    """Draws mIoU and BF against the time of a forward pass, a dot per row of table 1; writes the PNG `path`.

    Args:
      rows: list of (network, class weights, ms, mIoU, BF). mIoU and BF are percentages as text, such as '61.3' or
        '61.3 +- 0.4'; a missing score is '-'.
      split: name of the split that was scored.
    """
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    for axes, measure, column in zip(panels, ('mIoU', 'BF'), (3, 4)):
        for label, median in (('median frequency balancing', True), ('natural frequencies', False)):
            scored = [row for row in rows if (row[1] == 'median') == median and row[column] != '-']
            values = [float(row[column].split()[0]) for row in scored]
            axes.plot([row[2] for row in scored], values, 'o', label=label)
            for row, value in zip(scored, values):
                axes.annotate(row[0], (row[2], value), fontsize=7, xytext=(4, 3), textcoords='offset points')
        axes.margins(x=0.3)  # room for the names of the networks
        axes.set(xlabel='forward pass, ms', ylabel='%s on %s, %%' % (measure, split))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc='upper center', bbox_to_anchor=(0.5, 0), ncol=2)
    save(figure, path)


def growth(rows: list, path: str):
    """Draws time and peak memory against batch size (left) and image size (right); writes the PNG `path`.

    The left panels show the rows with the most frequent image size, the right panels the rows with batch size 1. All
    other rows are left out. Each combination of network, task and precision has a curve.

    Args:
      rows: rows of the benchmark table, a list of {column: text}.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 7))
    pixels = {row['size']: np.prod([int(x) for x in row['size'].split('x')]) / 1e6 for row in rows}
    size = collections.Counter(row['size'] for row in rows).most_common(1)[0][0]
    for name in sorted({(row['network'], row['what'], row['precision']) for row in rows}):
        chosen = [row for row in rows if (row['network'], row['what'], row['precision']) == name]
        by_batch = [(int(row['batch']), row) for row in chosen if row['size'] == size]
        by_size = [(pixels[row['size']], row) for row in chosen if row['batch'] == '1']
        for column, points in enumerate((by_batch, by_size)):
            points = [(x, float(row['ms/image']), float(row['peak MB'].replace('-', 'nan'))) for x, row in points]
            x, milliseconds, megabytes = np.array(sorted(points)).reshape(-1, 3).T
            axes[0, column].plot(x, milliseconds, 'o-', label=', '.join(name))
            axes[1, column].plot(x[megabytes > 0], megabytes[megabytes > 0], 'o-')
    axes[0, 0].set(ylabel='ms per image', ylim=(0, None))
    axes[0, 1].set(ylabel='ms', ylim=(0, None))
    axes[1, 0].set(xlabel='images per batch', ylabel='peak MB', ylim=(0, None))
    axes[1, 1].set(xlabel='megapixels of one image', ylabel='peak MB', ylim=(0, None))
    axes[0, 0].legend()
    save(figure, path)


def confusion(counts, class_names: list, path: str, title: str = ''):
    """Draws a confusion matrix in percent of the pixels of each true class; writes the PNG `path`.

    Args:
      counts: int array [num_classes, num_classes]; rows are true classes, columns are predicted classes.
    """
    share = 100.0 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    class_names = [plain(name) for name in class_names]
    size = min(2 + 0.45 * len(class_names) + 0.14 * max(map(len, class_names)), 40)  # in inches
    figure, axes = plt.subplots(figsize=(size + 1, size), constrained_layout=True)
    axes.imshow(share, cmap='Blues', vmin=0, vmax=100)
    axes.set(xlabel='prediction', ylabel='truth (rows sum to 100%)', title=title)
    axes.set_xticks(range(len(class_names)), class_names, rotation=90)
    axes.set_yticks(range(len(class_names)), class_names)
    for i, j in np.argwhere(share >= 0.5):
        axes.text(j, i, '%.0f' % share[i, j], ha='center', va='center', fontsize=min(8, 600 / len(class_names)),
                  color='white' if share[i, j] > 60 else 'black')
    save(figure, path)


def architecture(layers: list, path: str):
    """Draws SegNet: a bar for each layer, arrows for the pooling indices; writes the PNG `path`.

    The height of a bar grows with the height of the feature maps, the width of a bar with the number of feature maps.
    The number of feature maps is written into the bar. Where the size of the feature maps changes, the new size is
    written below the bar.

    Args:
      layers: list of `networks.Layer`. Layers of a kind that LAYER_COLORS lacks are not drawn.
    """
    figure, axes = plt.subplots(figsize=(12, 3.8))
    bars = {}  # {name of a layer: (x of the middle, y of the top) of the bar}
    x = 0.0
    size = None
    orange = LAYER_COLORS['pooling']
    for layer in [layer for layer in layers if layer.kind in LAYER_COLORS]:
        height, width, channels = layer.shape
        top, thickness = height ** 0.5, 0.28 * np.log2(channels)
        if (height, width) != size:
            size = height, width
            x += 1.0
            axes.text(x, -top - 0.6, '%dx%d' % size, fontsize=7.5, va='top')
        axes.add_patch(plt.Rectangle((x, -top), thickness, 2 * top, edgecolor='0.3',
                                     facecolor=LAYER_COLORS[layer.kind]))
        x += thickness / 2
        axes.text(x, 0, channels, fontsize=7, ha='center', va='center')
        bars[layer.name] = x, top
        if layer.kind == 'upsampling by indices':
            left, bottom = bars[layer.name.replace('upsample', 'pool')]
            axes.plot([left, left, x], [bottom, top + 2, top + 2], color=orange)
            axes.annotate('', (x, top), (x, top + 2.2), arrowprops={'arrowstyle': '->', 'color': orange})
        x += thickness / 2 + 0.1
    axes.legend([plt.Rectangle((0, 0), 1, 1, facecolor=color, edgecolor='0.3') for color in LAYER_COLORS.values()]
                + [plt.Line2D([], [], color=orange)], list(LAYER_COLORS) + ['pooling indices'],
                loc='upper center', bbox_to_anchor=(0.5, 0.05), ncol=4, frameon=False)
    axes.text(0.4, 0.15, 'encoder', transform=axes.transAxes, ha='center')
    axes.text(0.6, 0.15, 'decoder', transform=axes.transAxes, ha='center')
    axes.axis('off')
    save(figure, path)


def colored(label, colors: list):
    """Colours a label: uint8 class indices [h, w] -> uint8 RGB [h, w, 3]; void is white."""
    table = np.full((256, 3), 255, np.uint8)
    table[:len(colors)] = colors
    return table[label]


def overlay(image, colored_label, alpha: float = 0.5):
    """Blends an image and a coloured label, both uint8 RGB [h, w, 3] -> uint8 RGB [h, w, 3].

    `alpha`: weight of the coloured label, 0 to 1.
    """
    return cv2.addWeighted(image, 1 - alpha, colored_label, alpha, 0)


def uncertainty(variance, num_classes: int):
    """Colours the variance of Monte-Carlo samples in viridis: float32 [h, w] -> uint8 RGB [h, w, 3].

    The colour shows the standard deviation. The scale is the same for all images, from 0 to the largest possible
    standard deviation for `num_classes` classes. The standard deviation is largest if each sample is certain of one
    class, and the samples are evenly distributed over all classes.
    """
    largest = (1 - 1.0 / num_classes) / num_classes  # largest possible variance, averaged over the classes
    share = np.sqrt(np.minimum(variance / largest, 1))
    return cv2.applyColorMap(np.uint8(255 * share), cv2.COLORMAP_VIRIDIS)[:, :, ::-1]


def with_legend(image, class_names: list, colors: list, shown):
    """Adds, below an image, a legend of the classes in `shown` -> uint8 RGB, a larger image.

    The result is wide enough for the image and for the longest name, and at least 160 pixels wide.

    Args:
      image: uint8 RGB [h, w, 3].
      shown: indices of the classes in the legend.
    """
    font, row = ImageFont.truetype(FONT, 11), 18
    names = [drawable(class_names[class_id]) for class_id in shown]
    widths = [24 + int(np.ceil(font.getlength(name))) for name in names]
    width = max([image.shape[1], 160] + widths)
    out = Image.new('RGB', (width, image.shape[0] + row * max(len(names), 1)), 'white')
    out.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(out)
    x, y = 4, image.shape[0]
    for class_id, name, needed in zip(shown, names, widths):
        if x + needed > width and x > 4:
            x, y = 4, y + row
        draw.rectangle((x, y + 4, x + 10, y + 14), fill=tuple(int(c) for c in colors[class_id]))
        draw.text((x + 14, y + 9), name, font=font, fill='black', anchor='lm')
        x += needed
    return np.array(out.crop((0, 0, width, y + row)))


def panel_examples(dataset, split: str) -> list:
    """Selects the examples that `panel` shows -> list of indices.

    If `dataset.panel` is 'cell_types.png', the function loads the whole split and selects for each class the example
    with the most pixels of the class; an index can occur twice. Otherwise the function selects at most PANEL_ROWS
    examples, evenly spaced over the split.
    """
    size = len(dataset.examples[split])
    if dataset.panel != 'cell_types.png':
        return sorted({size * i // PANEL_ROWS for i in range(PANEL_ROWS)})
    counts = np.array([np.bincount(dataset.load(split, i)[1].ravel(), minlength=256) for i in range(size)])
    return list(counts[:, 1:len(dataset.class_names)].argmax(0))


def panel(dataset, split: str, predictions: dict, path: str, names: dict = None, title: str = ''):
    """Draws rows of image, truth and prediction, with a legend; writes the PNG `path`.

    Args:
      predictions: {example index: uint8 class indices [h, w]}, one for each row.
      names: {example index: row title}; the keys select and order the rows. If `names` is None, `panel_examples`
        selects the rows.
    """
    rows = list(names or panel_examples(dataset, split))
    row_height = 10.0 / 3 * min(max(dataset.size[0] / dataset.size[1], 0.2), 4)  # in inches; a column is 10/3 wide
    figure, axes = plt.subplots(len(rows), 3, figsize=(10, row_height * len(rows) + 0.6),
                                squeeze=False, constrained_layout=True)
    for row, i in enumerate(rows):
        image, label = dataset.load(split, i)
        pictures = image, colored(label, dataset.colors), colored(predictions[i], dataset.colors)
        for column, (head, picture) in enumerate(zip(('image', 'truth', 'prediction'), pictures)):
            axes[row, column].imshow(picture, interpolation='nearest')
            axes[row, column].set(xticks=[], yticks=[], title=head if row == 0 else '')
        name = names[i] if names else os.path.splitext(os.path.basename(dataset.examples[split][i]))[0]
        if dataset.panel == 'cell_types.png' and not names:
            name = ('' if (label == row + 1).any() else 'no ') + dataset.class_names[row + 1]
        axes[row, 0].set_ylabel(plain(name if len(name) <= 24 else '...' + name[-21:]))
    figure.suptitle(title, fontsize='medium')
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=np.array(color) / 255.0, edgecolor='0.5')
               for color in list(dataset.colors) + [(IGNORE,) * 3]]
    figure.legend(patches, [plain(name) for name in dataset.class_names + ['void']], ncol=6, loc='upper center',
                  bbox_to_anchor=(0.5, 0))
    save(figure, path)
