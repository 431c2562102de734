"""Draws images beside their labels, so that users can find wrong labels. Does not import TensorFlow."""
import os

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import data
from runs.plots import FONT, colored, drawable, overlay, with_legend
from system.files import atomic_write

NUMBER = 8    # largest number of examples in a figure
SIDE = 400    # longest side of a drawn image or label, in pixels
CAPTION = 18  # height of the line with the name of an example, in pixels
GAP = 4       # space between drawn images, in pixels


def choose(counts, number: int = NUMBER) -> list:
    """Chooses images so that each class appears -> sorted list of at most `number` indices.

    The images are chosen one by one, always the image with the most points. An image gets 1 + n / m points for each of
    its classes that no chosen image shows yet. Here n is the number of pixels of the class in the image, and m is the
    largest such number in all images. When the chosen images show all classes, the remaining choices are evenly spaced
    over the other images, so that typical images appear too.

    Args:
      counts: int64 [images, classes], the number of pixels of each class in each image.
    """
    value = (counts > 0) + counts / np.maximum(counts.max(0), 1)
    missing = counts.any(0)
    chosen = []
    while missing.any() and len(chosen) < number:
        chosen.append(int(value[:, missing].sum(1).argmax()))
        missing &= counts[chosen[-1]] == 0
    others = [i for i in range(len(counts)) if i not in chosen]
    places = np.linspace(0, len(others) - 1, min(number - len(chosen), len(others)))
    return sorted(chosen + [others[int(place)] for place in places])


def fitted(picture):
    """Resizes an image uint8 [h, w, 3] so that the longer side has SIDE pixels."""
    scale = SIDE / max(picture.shape[:2])
    size = tuple(max(1, int(round(side * scale))) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)


def class_texts(class_names: list, counts, seen: set) -> list:
    """Formats the legend -> list of str: the name and the share of the pixels, for each class and for void.

    Args:
      counts: int64 [num_classes + 1], number of pixels of each class, void last.
      seen: indices of the classes in the drawn images; the texts of all other classes say that the class is absent.
    """
    texts = []
    for i, name in enumerate(class_names + ['void (white)']):
        share = 100.0 * counts[i] / max(counts.sum(), 1)
        text = '%s %.2g%%' % (name, share) if share < 10 else '%s %.0f%%' % (name, share)
        absent = i not in seen and i < len(class_names)
        texts.append(text + (' (not in these images)' if absent and counts[i] else ' (no pixel)' if absent else ''))
    return texts


def draw(examples: list, dataset, counts, path: str):
    """Draws two examples per row, and a legend below the examples; writes the PNG `path`.

    Args:
      examples: list of (name, left picture, right picture, label); pictures uint8 [h, w, 3], label uint8 [h, w].
      counts: int64 [num_classes + 1], number of pixels of each class, void last, for the shares in the legend.
    """
    pictures = [[Image.fromarray(fitted(picture)) for picture in pair] for _, *pair, _ in examples]
    row_height = CAPTION + max(picture.height for pair in pictures for picture in pair) + GAP
    sheet = Image.new('RGB', (4 * (SIDE + GAP), -(-len(pictures) // 2) * row_height), 'white')
    font = ImageFont.truetype(FONT, 11)
    for i, (name, pair) in enumerate(zip([os.path.basename(str(name)) for name, *_ in examples], pictures)):
        x, y = i % 2 * 2 * (SIDE + GAP), i // 2 * row_height
        text = name if len(name) <= 80 else '...' + name[-77:]
        ImageDraw.Draw(sheet).text((x + 2, y + 2), drawable(text), font=font, fill='black')
        for place, picture in enumerate(pair):
            sheet.paste(picture, (x + place * (SIDE + GAP), y + CAPTION))
    seen = set(np.concatenate([np.unique(label) for *_, label in examples]))
    legend = with_legend(np.array(sheet), class_texts(dataset.class_names, counts, seen),
                         list(dataset.colors) + [(data.IGNORE,) * 3], range(len(counts)))
    with atomic_write(path) as part:
        Image.fromarray(legend).save(part, 'PNG')


def draw_examples(dataset, split: str, counts, path: str):
    """Draws up to eight examples of a split; writes the PNG `path`.

    Each example is drawn twice: as the plain image and with the class colours overlaid.

    Args:
      counts: int64 [images, num_classes + 1], number of pixels of each class in each label, void last.
    """
    examples = []
    for i in choose(counts):
        image, label = dataset.load(split, i)
        examples.append((dataset.examples[split][i], image, overlay(image, colored(label, dataset.colors), 0.4), label))
    draw(examples, dataset, counts.sum(0), path)


def draw_batch(images, labels, names: list, dataset, path: str):
    """Draws up to eight examples of a training batch, each image beside its label; writes the PNG `path`.

    Args:
      images, labels: uint8 [batch, h, w, 3] and [batch, h, w], after augmentation.
      names: names of the examples; more names than images are allowed, and the additional names are ignored.
    """
    counts = sum(data.label_counts(label, len(dataset.class_names)) for label in labels)
    draw([(name, image, colored(label, dataset.colors), label) for name, image, label in
          list(zip(names, images, labels))[:NUMBER]], dataset, counts, path)
