"""From files to examples: RLE, image and label decoding, the `Dataset` contract, class frequencies and weights.

Holds no fact of any one data set (those are in `datasets/`), no batches (`batches.py`) and no TensorFlow.
"""
import collections
import concurrent.futures
import contextlib
import csv
import io
import os
import re
import stat
import zlib

MAX_PIXELS = 2 ** 27  # in an image; a header that claims more is refused unread
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))  # quiet.py sets it too, before any other import
import cv2  # noqa: E402  (reads the limit above when it is imported)
import numpy as np  # noqa: E402

IGNORE = 255            # the label of void pixels, in every data set, behind its reader
CACHE_BYTES = 8 << 30   # decoded examples kept in memory; what is beyond is read again when needed
IMAGE_FILES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')  # extensions, in lower case
MAX_FIELD = 1 << 22     # characters in one CSV field: the RLE of a 2000x2000 checkerboard has 2 ** 24 / 4

Dataset = collections.namedtuple('Dataset', 'name class_names colors size examples load panel released_weights',
                                 defaults=(None,))
Dataset.__doc__ = """One data set, all splits.

name: str.  class_names: list of str, void never counted.  colors: list of (red, green, blue), one a class.
size: (height, width) that is trained at unless flags say otherwise.
examples: {split: list of example names}.
load: function (split, i) -> image uint8 [h, w, 3] RGB, label uint8 [h, w] of class ids, IGNORE where unlabelled;
    sizes may differ from example to example.
panel: file name of the picture of results: 'predictions.png', or 'cell_types.png' with one row a class.
released_weights: class weights that the data set's authors or the paper's authors published, or None.
"""


class UserError(Exception):
    """What the user can mend: one line that names the file, row or flag, and the mend. Scripts exit with status 2."""


# ---------------------------------------------------------------- run-length encoding

def rle_decode(rle, height, width):
    """Kaggle's run-length encoding -> bool [height, width].

    `rle` is 'start length start length ...': starts count from 1 along the rows and grow; '' is the empty mask.
    Raises UserError for anything else: an odd count, a token that is no number, runs that overlap, are out of
    order, empty or outside the image.
    """
    mask = np.zeros(height * width, bool)
    if not rle.strip(' '):
        return mask.reshape(height, width)
    if not re.match(r'\A *[0-9]{1,18}( +[0-9]{1,18})* *\Z', rle):
        bad = next((token for token in rle.split(' ') if token and not re.match(r'\A[0-9]{1,18}\Z', token)), rle)
        raise UserError('RLE token %r is not a whole number' % bad[:40])
    numbers = np.array(rle.split(), np.int64)
    if len(numbers) % 2:
        raise UserError('RLE has %d numbers; they come in pairs, start and length' % len(numbers))
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    ends = starts + lengths
    if starts[0] < 0 or (lengths < 1).any():
        raise UserError('RLE starts count from 1 and lengths are at least 1')
    if ends[-1] > mask.size or ends.max() > mask.size:
        raise UserError('RLE run ends at pixel %d, outside the %dx%d image' % (ends.max(), height, width))
    if (starts[1:] < ends[:-1]).any():
        i = int(np.argmax(starts[1:] < ends[:-1]))
        raise UserError('RLE runs overlap or are out of order: %d %d, then %d %d' % tuple(numbers[2 * i:2 * i + 4]))
    offsets = np.cumsum(lengths) - lengths  # how many pixels lie in the runs before
    mask[np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())] = True
    return mask.reshape(height, width)


def rle_encode(mask):
    """bool [height, width] -> Kaggle's run-length encoding, the exact inverse of `rle_decode`."""
    padded = np.zeros(mask.size + 2, np.int8)
    padded[1:-1] = np.asarray(mask, bool).ravel()
    edges = np.flatnonzero(np.diff(padded))  # run starts (0-based) and ends, by turns
    runs = np.stack([edges[0::2] + 1, edges[1::2] - edges[0::2]], 1)
    return ' '.join(map(str, runs.ravel().tolist()))


# ---------------------------------------------------------------- files

@contextlib.contextmanager
def atomic_write(path):
    """Gives the name of a file to write, which becomes `path` when it is done; one that is not done is removed."""
    part = path + '.part'
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(part)
        if isinstance(error, OSError) and not error.filename:
            raise OSError(error.errno, error.strerror, path)
        raise


def check_file(path):
    """Raises UserError unless there is a regular file: a pipe would be waited for, a device might never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s: cannot be read (it is no regular file)' % path)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UserError('%s: cannot be read (%s)' % (path, getattr(error, 'strerror', error)))


def read_bytes(path):
    """The file's content; UserError if it cannot be had."""
    check_file(path)
    try:
        with open(path, 'rb') as f:
            return f.read()
    except OSError as error:
        raise UserError('%s: cannot be read (%s)' % (path, error.strerror))


def check_names(names, folder):
    """Raises UserError for a file name that is no UTF-8: no list, table or page could hold it."""
    for name in names:
        if name != name.encode('utf-8', 'replace').decode():
            raise UserError('%s: the file name %a is not UTF-8; rename the file' % (folder, name))


def png_chunks(content, path):
    """{chunk type: content of the first one} of a PNG; UserError where a chunk is cut short or its checksum is off."""
    chunks, at = {}, 8
    while b'IEND' not in chunks:
        size, kind = int.from_bytes(content[at:at + 4], 'big'), content[at + 4:at + 8]
        body, crc = content[at + 8:at + 8 + size], content[at + 8 + size:at + 12 + size]
        if len(crc) < 4 or zlib.crc32(kind + body) != int.from_bytes(crc, 'big'):
            raise UserError('%s: the PNG is truncated or damaged; get the file again' % path)
        chunks.setdefault(kind, body)
        at += 12 + size
    return chunks


def decode(path, flags):
    """Image file -> (array as OpenCV decodes it with `flags`, {PNG chunk: content}); UserError if it is not whole."""
    content, chunks = read_bytes(path), {}
    if content[:8] == b'\x89PNG\r\n\x1a\n':
        chunks = png_chunks(content, path)
    elif content[:2] == b'\xff\xd8' and b'\xff\xd9' not in content[-4096:]:
        raise UserError('%s: the JPEG is truncated; get the file again' % path)
    try:
        array = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:
        raise UserError('%s: refused by the decoder (%s)' % (path, ' '.join(str(error).split())[-120:]))
    if array is None:
        raise UserError('%s: not an image that OpenCV can decode' % path)
    return array, chunks


def read_image(path):
    """Image file -> uint8 [h, w, 3] RGB: grey is repeated, alpha dropped, 16 bits cut to 8, EXIF rotation applied."""
    return np.ascontiguousarray(decode(path, cv2.IMREAD_COLOR)[0][:, :, ::-1])


def read_ids_or_colors(path):
    """Label file -> uint8 [h, w] of ids (a grey or palette PNG), as stored, or [h, w, 3] RGB of colours."""
    array, chunks = decode(path, cv2.IMREAD_UNCHANGED)
    if array.dtype != np.uint8:
        raise UserError('%s: labels must have 8 bits a pixel, this has %s' % (path, array.dtype))
    if array.ndim == 2:
        return array
    if array.shape[2] == 4 and (array[:, :, 3] < 255).any():
        raise UserError('%s: has transparent pixels, which are no label; save it without an alpha channel' % path)
    rgb = array[:, :, 2::-1]
    if b'PLTE' not in chunks or chunks[b'IHDR'][9] != 3:
        return rgb
    palette = np.frombuffer(chunks[b'PLTE'], np.uint8).reshape(-1, 3)
    return colors_to_ids(rgb, palette, range(len(palette)), path)


def read_label(path):
    """Label file of 8-bit ids (grey or palette PNG) -> uint8 [h, w], as stored."""
    label = read_ids_or_colors(path)
    if label.ndim == 3:
        raise UserError('%s: labels must be ids (a grey or palette PNG), this has colours' % path)
    return label


def colors_to_ids(rgb, colors, ids, path):
    """Colour-coded label uint8 [h, w, 3] -> uint8 [h, w]: the id beside each colour; UserError for other colours."""
    table = np.full(1 << 24, -1, np.int16)
    shifts = np.array([1 << 16, 1 << 8, 1])
    for color, i in reversed(list(zip(np.asarray(colors, int) @ shifts, ids))):  # the first of equal colours wins
        table[color] = i
    label = table[rgb.astype(np.int32) @ shifts.astype(np.int32)]
    if (label < 0).any():
        y, x = np.argwhere(label < 0)[0]
        raise UserError('%s: colour %s at row %d, column %d is no class (%d such pixels); labels must be saved '
                        'without smoothing' % (path, tuple(rgb[y, x].tolist()), y, x, (label < 0).sum()))
    return label.astype(np.uint8)


def voc_color(i):
    """Colour of id `i` in PASCAL VOC's palette: its bits, three at a time, from each channel's highest bit down."""
    return tuple(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))


def read_names(path):
    """List file, a name a line -> names; UserError for an empty list or a name that leads out of the folder."""
    lines = read_bytes(path).decode('utf-8', 'replace').splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError('%s: lists no images' % path)
    for name in names:
        if '..' in name.split('/') or name.startswith('/') or '\0' in name:
            raise UserError('%s: %r leads out of the folder' % (path, name[:80]))
    return names


def read_csv(path, columns):
    """Yields (row number in the file, {column: text}) for each row; UserError for a bad file or a missing column."""
    csv.field_size_limit(MAX_FIELD)
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode('utf-8-sig'), newline=''))
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError('%s: has no column %r; expected %s' % (path, missing[0], ','.join(columns)))
        for row in reader:
            if any(row[column] is None or '\0' in row[column] for column in columns):
                raise UserError('%s row %d: cut short, or holds NUL bytes' % (path, reader.line_num))
            yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError('%s: not a CSV file in UTF-8 (%s)' % (path, error))


def read_cells(path, class_names):
    """Kaggle's cell table -> {image id: (height, width, [(row number, class id, RLE), ...])}, in the file's order."""
    images = collections.OrderedDict()
    for number, row in read_csv(path, ('id', 'annotation', 'width', 'height', 'cell_type')):
        where = '%s row %d: ' % (path, number)
        if not re.match(r'\A[A-Za-z0-9_-]{1,100}\Z', row['id']):
            raise UserError(where + 'id %r; letters, digits, _ and - only, it becomes a file name' % row['id'][:60])
        if row['cell_type'] not in class_names[1:]:
            raise UserError(where + 'cell_type %r; expected one of %s'
                            % (row['cell_type'][:60], ', '.join(class_names[1:])))
        if not all(re.match(r'\A[1-9][0-9]{0,4}\Z', row[side]) for side in ('height', 'width')):
            raise UserError(where + 'height %r and width %r must be whole numbers of pixels, up to 99999'
                            % (row['height'][:20], row['width'][:20]))
        size = int(row['height']), int(row['width'])
        if size[0] * size[1] > MAX_PIXELS:
            raise UserError(where + 'an image of %dx%d; %d pixels are the most' % (size + (MAX_PIXELS,)))
        height, width, cells = images.setdefault(row['id'], size + ([],))
        if (height, width) != size:
            raise UserError(where + 'size %dx%d, an earlier row of image %s has %dx%d'
                            % (size + (row['id'], height, width)))
        cells.append((number, class_names.index(row['cell_type']), row['annotation']))
    if not images:
        raise UserError('%s: holds no rows' % path)
    return images


def check_cells_size(path, name, image, height, width):
    """Raises UserError unless `image` has the size that its rows in the table `path` say."""
    if image.shape[:2] != (height, width):
        raise UserError('%s: image %s has %dx%d, its rows say %dx%d'
                        % ((path, name) + image.shape[:2] + (height, width)))


def cell_masks(path, height, width, cells):
    """Yields the cells of one image, one mask in memory at a time: bool [height, width]; errors name the row."""
    for number, _, rle in cells:
        try:
            yield rle_decode(rle, height, width)
        except UserError as error:
            raise UserError('%s row %d: %s' % (path, number, error))


def cells_label(masks, cells, height, width):
    """Cells of one image -> label uint8 [height, width]: 0 is background; a later row wins where cells overlap."""
    label = np.zeros((height, width), np.uint8)
    for mask, (_, class_id, _) in zip(masks, cells):
        label[mask] = class_id
    return label


def check_data_dir(data_dir, name, layout):
    """Raises UserError unless `data_dir` is there and holds something."""
    if not data_dir:
        raise UserError('--data_dir: data set %s needs it; the folder that holds %s' % (name, layout))
    if not os.path.isdir(data_dir):
        raise UserError('--data_dir %s: no such folder; data set %s expects %s there' % (data_dir, name, layout))
    if not os.listdir(data_dir):
        raise UserError('--data_dir %s: is empty; data set %s expects %s there' % (data_dir, name, layout))


def check_example(image, label, num_classes, name):
    """Raises UserError unless image and label keep the `Dataset` contract."""
    if image.shape[:2] != label.shape:
        raise UserError('%s: the label is %dx%d, its image %dx%d' % ((name,) + label.shape + image.shape[:2]))
    bad = (label >= num_classes) & (label != IGNORE)
    if bad.any():
        y, x = np.argwhere(bad)[0]
        raise UserError('%s: class id %d at row %d, column %d; the data set has ids 0 to %d'
                        % (name, label[y, x], y, x, num_classes - 1))


def preload(dataset, splits):
    """Reads and checks every example of `splits` once -> the same data set, served from memory."""
    jobs = [(split, i) for split in splits for i in range(len(dataset.examples[split]))]

    def load(job):
        image, label = dataset.load(*job)
        check_example(image, label, len(dataset.class_names), dataset.examples[job[0]][job[1]])
        return job, image, label

    cache, size = {}, 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV decodes outside Python's lock
        for job, image, label in pool.map(load, jobs):
            size += image.nbytes + label.nbytes
            if size <= CACHE_BYTES:
                cache[job] = image, label
    return dataset._replace(load=lambda split, i: cache.get((split, i)) or dataset.load(split, i))


# ---------------------------------------------------------------- class weights

def label_counts(label, num_classes):
    """uint8 [h, w] -> int64 [num_classes + 1], pixels of each class; void last."""
    counts = np.bincount(label.ravel(), minlength=256)
    return np.append(counts[:num_classes], counts[IGNORE])


def class_counts(dataset, split):
    """Pixel counts over a split, at the labels' own sizes.

    Returns:
      pixels: int64 [num_classes + 1], pixels of each class; void last.
      present: int64 [num_classes + 1], all pixels (void too) of the images that hold the class.
    """
    pixels, present = np.zeros((2, len(dataset.class_names) + 1), np.int64)
    for i in range(len(dataset.examples[split])):
        label = dataset.load(split, i)[1]
        counts = label_counts(label, len(dataset.class_names))
        pixels += counts
        present += (counts > 0) * label.size
    return pixels, present


def median_frequency_weights(pixels, present, void_in_median=False):
    """Median frequency balancing (Eigen and Fergus 2015; SegNet, section 3.1): median frequency / class frequency.

    A class's frequency is its pixels over all pixels, void included, of the images that hold it.

    Args:
      pixels, present: as from `class_counts`, void last.
      void_in_median: void's frequency takes part in the median, as in the weights released with SegNet.
    Returns:
      float64 [num_classes]; 0 for a class that the split does not hold.
    """
    frequency = pixels / np.maximum(present, 1.0)
    known = frequency > 0
    known[-1] &= void_in_median
    if not known.any():
        raise UserError('the training split holds no labelled pixel, so there are no class weights; check the labels')
    weights = np.where(frequency > 0, np.median(frequency[known]) / np.where(frequency > 0, frequency, 1), 0)
    return weights[:-1]


def read_class_weights(path, class_names):
    """CSV with columns name,weight -> float64 [num_classes] in the order of `class_names`."""
    weights = {}
    for number, row in read_csv(path, ('name', 'weight')):
        if row['name'] in weights:
            raise UserError('%s row %d: class %s stands in an earlier row too' % (path, number, row['name'][:60]))
        try:
            weights[row['name']] = float(row['weight'])
        except ValueError:
            raise UserError('%s row %d: weight %r is no number' % (path, number, row['weight']))
        if not (0 <= weights[row['name']] < np.inf):
            raise UserError('%s row %d: weight %r must be 0 or more' % (path, number, row['weight']))
    if set(weights) != set(class_names):
        raise UserError('%s: must name each class once: %s' % (path, ', '.join(class_names)))
    return np.array([weights[name] for name in class_names])


def class_weights(choice, dataset):
    """Class weights of the loss by the value of `--class_weights` -> float64 [num_classes].

    Args:
      choice: 'none', 'median', 'median-sqrt' (square roots of the median weights), 'median-void', 'released', or the
        path of a CSV file with columns name,weight.
    Raises:
      UserError: no such choice or file, or a data set without released weights.
    """
    if choice == 'none':
        return np.ones(len(dataset.class_names))
    if choice in ('median', 'median-sqrt', 'median-void'):
        median = median_frequency_weights(*class_counts(dataset, 'train'), choice == 'median-void')
        return np.sqrt(median) if choice == 'median-sqrt' else median
    if choice == 'released':
        if dataset.released_weights is None:
            raise UserError('--class_weights released: nobody released weights for %s (but for camvid); use median'
                            % dataset.name)
        return np.array(dataset.released_weights)
    if not os.path.exists(choice):
        raise UserError('--class_weights %s: no such file, and no name that --help knows' % choice)
    return read_class_weights(choice, dataset.class_names)
