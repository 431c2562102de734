"""Defines `Dataset`; reads images, labels and run-length masks; counts pixels; computes class weights.

The modules in `datasets/` read the data sets. `batches.py` makes the batches. This module does not import TensorFlow.
"""
import collections
import contextlib
import io
import re
import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from system import formats
from system.files import UserError, note, read_bytes

Image.init()  # loads Pillow's decoders of all image formats
Image.MAX_IMAGE_PIXELS = None  # turns off Pillow's own limit, because `decode` checks max_pixels
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # accepts text chunks of 64 MiB; the default is 1 MiB
warnings.filterwarnings('ignore', module='PIL')  # hides Pillow's warnings, such as about damaged EXIF data

MAX_PIXELS = 2 ** 27    # images with more pixels are refused before decoding
IGNORE = 255            # label of void (unlabelled) pixels, in all data sets
RLE_ORDERS = ('rows', 'columns', 'relative')  # pixel orders of the run-length encoding, explained in `rle_decode`
CACHE_BYTES = 8 << 30   # bytes of memory for decoded examples; examples that do not fit are read again in each epoch
# File extensions of images and of labels, in lower case.
IMAGE_FILES = ('.png', '.jpg', '.jpeg', '.jfif', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.jp2')
LABEL_FILES = ('.png', '.tif', '.tiff', '.bmp', '.gif', '.npy')
FORMATS = ('PNG', 'JPEG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'JPEG2000')  # Pillow's names of the accepted formats


class Dataset(collections.namedtuple('Dataset', 'name class_names colors size examples load panel released_weights '
                                     'class_ids depth rle', defaults=(None, None, None, None))):
    """A data set: classes, training size, names of the examples, and a function that loads an example.

    name: str, the value of --dataset.
    class_names: list of str. Void is not a class.
    colors: list of (red, green, blue), one per class.
    size: (height, width) to train at by default, in pixels.
    examples: {split: list of example names}.
    load: function (split, i) -> image uint8 [h, w, 3] RGB, label uint8 [h, w]. A label holds indices of `class_names`,
        and IGNORE at unlabelled pixels. Height and width may differ between examples.
    panel: file name of the figure of predictions: 'predictions.png', or 'cell_types.png', which has a row per class.
    released_weights: class weights that the authors of the data set or of the paper published, or None.
    class_ids: list of int, the id of each class in label files and in predictions; None if the ids are 0, 1, 2, ...
    depth: number of bits, 9 to 16, that the values in 16-bit images use. If None, `read_image` measures the number of
        bits in each image.
    rle: None if the labels are image files. If the labels are run-length masks in a table, the format of the table:
        (column names, one of RLE_ORDERS, file extension in the image ids). `predict.py --submission` writes a table in
        the same format.
    """


# ---------------------------------------------------------------- run-length encoding

def rle_numbers(rle: str, order: str = 'rows'):
    """Parses Kaggle's run-length encoding -> (starts, ends) of the runs, int64 pixel indices.

    Pixel indices start at 0. The end of a run is the index of the first pixel after the run. `order` is one of
    RLE_ORDERS, explained in `rle_decode`. Raises UserError for a string that does not consist of pairs of whole
    numbers, and for runs that overlap, are empty or are out of order.
    """
    if not re.match(r'\A *([0-9]{1,18}( +[0-9]{1,18})* *)?\Z', rle):
        bad = next((token for token in rle.split(' ') if token and not re.match(r'\A[0-9]{1,18}\Z', token)), rle)
        raise UserError('RLE token %r is not a whole number; write a mask without pixels as an empty text' % bad[:40])
    numbers = np.array(rle.split(), np.int64)
    if len(numbers) % 2:
        raise UserError('RLE has %d numbers; expected pairs of a start and a length' % len(numbers))
    lengths = numbers[1::2]
    if order == 'relative':
        ends = (numbers[0::2] + lengths).cumsum()
        starts = ends - lengths
    else:
        starts = numbers[0::2] - 1
        ends = starts + lengths
    if (starts < 0).any() or (lengths < 1).any():
        raise UserError('RLE has a start or a length of 0; starts count from 1, and lengths are at least 1')
    if (starts[1:] < ends[:-1]).any():
        i = int(np.argmax(starts[1:] < ends[:-1]))
        raise UserError('RLE runs overlap or are out of order: %d %d, then %d %d' % tuple(numbers[2 * i:2 * i + 4]))
    return starts, ends


def rle_decode(rle: str, height: int, width: int, order: str = 'rows'):
    """Decodes Kaggle's run-length encoding of a mask -> bool [height, width].

    `rle` is the string 'start length start length ...', where starts increase; '' is a mask without pixels. The first
    pixel has number 1. Values of `order`:
      rows: pixels are counted along the rows, as in the Sartorius competition;
      columns: pixels are counted down the columns, as in most of Kaggle's competitions;
      relative: pixels are counted down the columns, and a start is the number of pixels between the end of the previous
        run and the start of the run, as in the SIIM-ACR competition.
    Raises UserError for a string that does not consist of pairs of whole numbers, and for runs that overlap, are empty,
    are out of order or end outside the image.
    """
    starts, ends = rle_numbers(rle, order)
    if ends.max(initial=0) > height * width:
        raise UserError('RLE run ends at pixel %d, outside the %dx%d image' % (ends.max(), height, width))
    edges = np.stack([starts, ends], 1).ravel()
    stretches = np.diff(edges, prepend=0, append=height * width)  # lengths of background, run, background, run, ...
    pixels = np.repeat(np.arange(len(stretches)) % 2 == 1, stretches)
    return pixels.reshape(height, width) if order == 'rows' else pixels.reshape(width, height).T


def rle_encode(mask, order: str = 'rows'):
    """Encodes a mask, bool [height, width], in Kaggle's run-length encoding -> str.

    A mask without pixels gives ''. `order` is one of RLE_ORDERS, explained in `rle_decode`.
    """
    padded = np.zeros(mask.size + 2, np.int8)
    padded[1:-1] = np.asarray(mask if order == 'rows' else mask.T, bool).ravel()
    edges = np.flatnonzero(np.diff(padded))  # zero-based pixel indices: start and (exclusive) end of each run
    starts = np.diff(edges, prepend=0)[0::2] if order == 'relative' else edges[0::2] + 1
    return ' '.join(map(str, np.stack([starts, edges[1::2] - edges[0::2]], 1).ravel().tolist()))


# ---------------------------------------------------------------- images and labels

def decode(path: str, max_pixels: int = MAX_PIXELS, stored: bool = False):
    """Decodes an image file -> (`PIL.Image`, array of the pixels), rotated as the EXIF data says.

    The array is bool, uint8, uint16, int32 or float32, [h, w] or [h, w, channels], and holds the values of the file.
    The `PIL.Image` may hold other values, because Pillow scales 2-bit grey, 4-bit grey and 16-bit colours to 8 bits.
    The array of a palette image holds palette indices. If 0 means white in a TIFF file, the values in the array are
    inverted, so that 0 means black; with `stored` the values are not inverted. Only the first page of a file is read,
    and a note is printed if the file has more pages. Raises UserError if the file is unreadable, damaged or of an
    unknown format, or has more than `max_pixels` pixels.
    """
    content = read_bytes(path)
    kind = 'image'
    try:
        if content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            formats.check_tiff(content, path)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        kind = image.format
        if image.width * image.height > max_pixels:
            raise UserError('%s: more than %d pixels; shrink it, or raise predict.py --max_pixels' % (path, max_pixels))
        if kind == 'PNG':
            Image.open(io.BytesIO(content)).verify()  # checks the checksums; an Image cannot be decoded after verify()
        if kind != 'MPO' and getattr(image, 'n_frames', 1) > 1:  # an MPO's second image is a preview
            note('%s: has %d pages; only the first page of a file is read' % (path, image.n_frames), 'pages')
        coding = str([tile[3] for tile in image.tile])
        image.load()
        with contextlib.suppress(Exception):  # damaged EXIF data is ignored
            if kind != 'TIFF' and image.getexif().get(0x0112, 1) > 1:  # Pillow rotates a TIFF itself
                image = ImageOps.exif_transpose(image)
        array = np.array(image)
        if ';16' in coding and array.ndim == 3:  # Pillow keeps 8 of the 16 bits; OpenCV keeps 16
            array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)[:, :, ::-1]
    except UnidentifiedImageError:
        kind = 'HEIC or AVIF' if content[4:8] == b'ftyp' else 'not an image of a known format, or damaged'
        raise UserError('%s: %s; convert the file to PNG or TIFF' % (path, kind))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds of error for a damaged file
        raise UserError('%s: the %s is truncated or damaged; get the file again (%s)' % (path, kind, error))
    # If 0 means white in a TIFF file, Pillow inverts pixels of up to 8 bits, but not pixels of 16 bits.
    inverted = bool(re.search(r"'(1|L|L;2|L;4);?I", coding))
    deep = array.dtype.kind == 'u' and array.itemsize == 2
    if inverted if stored else deep and kind == 'TIFF' and image.tag_v2.get(262) == 0:
        array = ~array
    for bits, scale in (('L;2', 85), ('L;4', 17)):  # undoes Pillow's scaling of 2-bit and 4-bit grey values to 0..255
        array = array // scale if bits in coding else array
    image.format = kind
    return image, array


def read_image(path: str, depth: int = None, max_pixels: int = MAX_PIXELS):
    """Reads an image file -> uint8 [h, w, 3] RGB, rotated as the EXIF data says. Alpha is dropped.

    Grey is copied to all three channels. A 16-bit image is reduced to 8 bits: each value is shifted right by depth - 8
    bits. Values of more than `depth` bits become 255, and a note is printed. If `depth` is None, the number of bits is
    measured from the largest value, because most microscopes use 12 of the 16 bits. If the largest value has at most 12
    bits, `depth` is max(9, number of bits of the largest value), and a note is printed; otherwise `depth` is 16. Raises
    UserError for an unreadable or damaged file, for more than `max_pixels` pixels, and for pixels that are floats, or
    integers outside 0 to 65535.
    """
    image, array = decode(path, max_pixels)
    if array.dtype == np.float32 or array.dtype == np.int32 and not 0 <= array.min() <= array.max() < 1 << 16:
        kind = ('floats' if array.dtype == np.float32 else 'signed integers of 16 bits'
                if -1 << 15 <= array.min() <= array.max() < 1 << 15 else 'integers of 32 bits')
        raise UserError('%s: has %s; save the image as unsigned integers of 8 or 16 bits' % (path, kind))
    if array.dtype.itemsize == 1:
        return array if image.mode == 'RGB' else np.array(image.convert('RGB'))
    bits = max(9, int(array.max()).bit_length())
    if depth is None:
        depth = bits if bits <= 12 else 16
        if depth < 16:
            note('%s: has 16 bits a channel, of which %d are in use; such images are brightened' % (path, bits), 'bits')
    if bits > depth:
        note('%s: has values up to %d; values over %d bits become white' % (path, array.max(), depth), 'depth')
    grey_or_rgb = np.minimum(array >> (depth - 8), 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey_or_rgb.reshape(array.shape[:2] + (-1,)), array.shape[:2] + (3,)))


def refuse_pixels(label, bad, path: str, kind: str, fix: str):
    """Raises UserError if `bad` is true anywhere.

    The message gives the value, row and column of the first bad pixel.

    Args:
      label: array [h, w] or [h, w, channels], the pixels.
      bad: bool array of the same shape.
      kind: noun for the value in the message, such as 'id'.
      fix: end of the message: advice for the user.
    """
    if bad.any():
        y, x = np.argwhere(bad)[0][:2]
        raise UserError('%s: %s %s at row %d, column %d; %s' % (path, kind, label[y, x].tolist(), y, x, fix))


def read_ids_or_colors(path: str, binary: bool = False):
    """Reads a label file -> (ids or colours, palette).

    Ids are uint8 [h, w], as stored in a grey image, a palette image or an NPY file. Colours are uint8 [h, w, 3] RGB.
    The palette is uint8 [n, 3] RGB, or None if the file is not a palette image. With `binary`, a black and white JPEG,
    or an image whose values are 0 and 65535, is read as ids 0 and 255. Raises UserError for an
    unreadable file, for a lossy file other than a black and white JPEG, for transparent pixels, for an array that is
    neither [h, w] nor [h, w, 3], and for ids that are not whole numbers from 0 to 255.
    """
    palette = None
    if path.lower().endswith('.npy'):
        content = read_bytes(path)
        try:
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:  # NumPy raises many kinds of error for a damaged header
            raise UserError('%s: not a whole NPY file of numbers (%s)' % (path, error))
    else:
        image, array = decode(path, stored=True)
        lossless = ('PNG', 'TIFF', 'BMP', 'DIB', 'GIF') + ('JPEG', 'MPO') * binary
        if image.format not in lossless or image.info.get('compression') == 'jpeg':
            raise UserError('%s: lossy %s changes ids; save labels as PNG, TIFF, BMP or NPY' % (path, image.format))
        if image.mode in ('LA', 'RGBA', 'PA') and array.dtype == np.uint8:
            if (array[:, :, -1] < 255).any():
                raise UserError('%s: has transparent pixels, which have no id; save the label without alpha' % path)
            array = array[:, :, :-1] if image.mode == 'RGBA' else array[:, :, 0]
        if image.format in ('JPEG', 'MPO'):
            spread = np.ptp(array, 2) if array.ndim == 3 else array * 0
            refuse_pixels(array, spread > 64, path, 'colour', 'lossy JPEG changes colours; save labels as PNG')
            array = black_and_white(np.array(image.convert('L')), path, 0.05)
        if binary and array.max() == 65535 and np.isin(array, (0, 65535)).all():
            array = array // 257
        if image.mode in ('P', 'PA'):
            palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] != 3 or array.dtype.kind not in 'buif':
        raise UserError('%s: is %s %s, not ids [h, w] or colours [h, w, 3]' % (path, array.dtype, array.shape))
    if array.dtype == np.uint8:
        return array, palette
    with np.errstate(invalid='ignore'):  # no warning for NaN: `refuse_pixels` below refuses NaN
        ids = array.astype(np.uint8)
    refuse_pixels(array, ids != array, path, 'id', 'ids are whole numbers from 0 to 255')
    return ids, palette


def black_and_white(grey, path: str, soft: float = 0):
    """Rounds a mask [h, w] that is nearly black and white -> uint8 [h, w] of 0 and 255.

    Raises UserError if the share of pixels with values from 32 to 223 exceeds `soft`. Also raises UserError if a mask
    has values above 0 but no value above 223, because small values may be class ids.
    """
    bad = (grey > 31) & (grey < 224)
    if grey.max() < 224:
        bad = grey > 0
    elif bad.mean() <= soft:
        bad[:] = False
    refuse_pixels(grey, bad, path, 'value', 'a mask of two classes holds their ids, or black (0) and white (255)')
    return np.where(grey > 127, 255, 0).astype(np.uint8)


def read_label(path: str):
    """Reads a label file -> ids, uint8 [h, w]. An image with three equal channels counts as grey.

    Raises UserError for an unreadable or lossy file, for transparent pixels, for colours, and for ids that are not
    whole numbers from 0 to 255. Also raises UserError if a grey palette maps an index i to a grey value other than i,
    because the id could be the index or the grey value.
    """
    label, palette = read_ids_or_colors(path)
    if label.ndim == 3 and (label != label[:, :, :1]).any():
        raise UserError('%s: labels must be ids, not colours; --dataset folder reads colours too' % path)
    if palette is not None and label.max() < len(palette):
        shown = palette[label]
        if (shown == shown[:, :, :1]).all():
            refuse_pixels(label, shown[..., 0] != label, path, 'index', 'the palette shows another grey; save grey ids')
    return label if label.ndim == 2 else label[:, :, 0].copy()


# ---------------------------------------------------------------- class weights

def label_counts(label, num_classes: int):
    """Counts the pixels of each class in a label uint8 [h, w] -> int64 [num_classes + 1]; void is last."""
    counts = np.bincount(label.ravel(), minlength=256)
    return np.append(counts[:num_classes], counts[IGNORE])


def pixel_sums(counts):
    """Sums pixel counts over the images of a split -> (pixels, present), for `median_frequency_weights`.

    Args:
      counts: int64 [images, num_classes + 1], number of pixels of each class in each image. Void is last.
    Returns:
      pixels: int64 [num_classes + 1], number of pixels of each class in all images.
      present: int64 [num_classes + 1], number of pixels, including void, in the images that contain the class.
    """
    return counts.sum(0), ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)


def class_counts(dataset, split: str):
    """Counts the pixels of each class in all labels of a split -> the results of `pixel_sums`."""
    labels = (dataset.load(split, i)[1] for i in range(len(dataset.examples[split])))
    return pixel_sums(np.array([label_counts(label, len(dataset.class_names)) for label in labels]))


def median_frequency_weights(pixels, present, void_in_median: bool = False):
    """Computes class weights by median frequency balancing: median of all class frequencies / class frequency.

    The formula is from Eigen and Fergus 2015 and from section 3.1 of the SegNet paper. The frequency of a class is
    `pixels` / `present`: the share of the class in the images that contain the class.

    Args:
      pixels: int64 [num_classes + 1], number of pixels of each class. Void is last.
      present: int64 [num_classes + 1], number of pixels, including void, in the images that contain the class.
      void_in_median: whether the median includes the frequency of void, as in the weights released with SegNet.
    Returns:
      float64 [num_classes], with 0 for a class without a pixel.
    Raises:
      UserError: no class has a pixel.
    """
    frequency = pixels / np.maximum(present, 1.0)
    known = frequency > 0
    known[-1] &= void_in_median
    if not frequency[:-1].any():
        raise UserError('the training split holds no labelled pixel, so there are no class weights; check the labels')
    return np.where(frequency > 0, np.median(frequency[known]) / np.where(frequency > 0, frequency, 1), 0)[:-1]
