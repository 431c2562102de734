"""Labels images of any size, whole or in tiles; test-time augmentation is optional."""
import argparse
import collections
import functools
import itertools

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import batches
import networks
from inference import tiles
from system import cli, devices, machine
from system.files import UserError

SMALLEST_TILE = 512     # smallest side of a tile in pixels, with --tile auto
WHOLE_VALUES = 2 ** 26  # the graph upsamples at most this many probabilities at once (256 MiB in float32)
MAX_SCALE = 8           # largest scale in --tta


class Settings(collections.namedtuple('Settings', 'samples tile tile_overlap tta batch_size confidence probabilities',
                                      defaults=(0, 'auto', None, None, 1, False, False))):
    """Settings of a prediction.

    samples: number of Monte-Carlo dropout samples, 0 for none.  tile: 'auto', 'off' or (height, width).
    tile_overlap: minimum overlap of neighbouring tiles, as a fraction of a tile's side; None selects tiles.OVERLAP.
    tta: value of --tta, or None.  batch_size: number of images or tiles per forward pass.
    confidence: bool, whether to compute the confidence.  probabilities: bool, whether to return the probabilities.
    """


class Prediction(collections.namedtuple('Prediction', 'ids variance confidence probabilities', defaults=(None,) * 3)):
    """The prediction of one image, at the size of the image. A map that was not computed is None.

    ids: uint8 [h, w], class indices.
    variance: float32 [h, w], variance of the probabilities over the Monte-Carlo samples, averaged over the classes.
    confidence: uint8 [h, w], the highest probability times 255.
    probabilities: float16 [h, w, num_classes].
    """


def add_flags(parser, batch_size: int = 1):
    """Adds to `parser` the flags that evaluate.py, predict.py and demo.py share.

    `batch_size`: default of --batch_size.
    """
    parser.add_argument('--checkpoint', choices=('best', 'last'), default='best',
                        help='best: weights with the best validation score; last: newest weights')
    parser.add_argument('--samples', type=cli.number(int, 0, 10000), help='number of Monte-Carlo dropout samples '
                        '(default: 4 for bayesian-segnet, 8 for bayesian-segnet-basic, else 0)')
    parser.add_argument('--tile', type=cli.size('auto', 'off'), default='auto', metavar='auto|off|HEIGHTxWIDTH',
                        help='size of overlapping tiles; auto: only large images of --fit crop runs are cut into tiles')
    parser.add_argument('--tile_overlap', type=cli.number(float, 0, 0.9), metavar='FRACTION',
                        help="minimum overlap of tiles, as a fraction of a tile's side (default: %s)" % tiles.OVERLAP)
    parser.add_argument('--tta', type=check_tta, metavar='flip,SCALE,...',
                        help='average over mirrored and scaled images, such as flip,0.75,1 (default: one forward pass)')
    parser.add_argument('--batch_size', type=cli.number(int, 1, 10000), default=batch_size, help='images per batch')
    parser.add_argument('--precision', choices=devices.PRECISIONS, help='dtype of the layers (default: as in training)')
    devices.add_flags(parser)
    devices.add_tf32_flag(parser, None)


def passes(text: str) -> list:
    """Parses the value of --tta -> list of (scale, mirrored), one pair per forward pass.

    'flip' adds a pass over the mirrored image for each scale. None gives the single pass [(1.0, False)].
    """
    words = ('1' if text is None else text).split(',')
    scales = [float(word) for word in words if word != 'flip'] or [1.0]
    return [(scale, mirrored) for scale in scales for mirrored in ([False, True] if 'flip' in words else [False])]


def check_tta(text: str) -> str:
    """Argparse type of --tta: checks and returns the text.

    Raises ValueError for a word that is neither flip nor a number, ArgumentTypeError for a scale out of range.
    """
    if not all(1 / MAX_SCALE <= scale <= MAX_SCALE for scale, _ in passes(text)):
        raise argparse.ArgumentTypeError('%s: must be flip and scales up to %d, such as flip,2'
                                         % (text[:60], MAX_SCALE))
    return text


def mean_enlarged(maps, height: int, width: int, first: int, last: int):
    """Enlarges maps to `height` x `width` and averages the maps -> float32 [last - first, width, channels].

    The maps are enlarged one at a time, to save memory.

    Args:
      maps: list of float32 [h, w, channels], of any sizes.
      first, last: the rows `first` to `last` - 1 of the enlarged maps are returned.
    """
    return functools.reduce(np.add, (tiles.enlarge(each, height, width, first, last) for each in maps)) / len(maps)


def batches_of_one_size(examples, batch_size: int):
    """Groups successive examples with images of the same size; yields lists of at most `batch_size` examples.

    Args:
      examples: iterable of tuples. The second item of a tuple is the image.
    """
    for _, group in itertools.groupby(examples, lambda example: example[1].shape):
        for first in group:
            yield [first, *itertools.islice(group, batch_size - 1)]  # noqa: B031  the loop and islice share the iterator


class Predictor:
    """Labels images with the network of a run. The caller loads the variables into the session.

    Args:
      sess: tf.Session of the default graph, in which the prediction graph is built.
      spec: the run's `networks.Spec`.
      settings: a `Settings` tuple.
      reuse: bool, whether the default graph already contains the network's variables, as it does in training.
    Raises:
      UserError: --tile_overlap is set, but images are not cut into tiles.
    """

    def __init__(self, sess, spec, settings: Settings, reuse=False):
        self.sess = sess
        self.spec = spec
        self.settings = settings
        self.uses_tiles = settings.tile != 'off' and (settings.tile != 'auto' or spec.fit == 'crop')
        if settings.tile_overlap is not None and not self.uses_tiles:
            raise UserError('--tile_overlap %g: needs --tile HEIGHTxWIDTH' % settings.tile_overlap)
        self.passes = passes(settings.tta)
        # With Monte-Carlo samples a batch has one image, because dropout masks depend on the position in a batch.
        self.batch_size = 1 if settings.samples else settings.batch_size
        self.images = tf.placeholder(tf.uint8, [1 if settings.samples else None, None, None, 3], 'image')
        self.size = tf.placeholder(tf.int32, [2], 'size')
        ids, probabilities, variance, confidence = networks.prediction_graph(spec, self.images, self.size, reuse,
                                                                             settings.samples)
        self.maps = tf.concat([probabilities, variance[..., None]], -1) if settings.samples else probabilities
        self.whole = {'ids': ids}  # {field of `Prediction`: tensor}, for images that are not cut into tiles
        if settings.samples:
            self.whole['variance'] = variance
        if settings.confidence:
            self.whole['confidence'] = confidence

    def tile_size(self, height: int, width: int) -> tuple:
        """Returns the (height, width) of the tiles for an image; without tiles, the size of the image.

        With --tile auto, images are cut into tiles if the run was trained with --fit crop. Each side of a tile is twice
        the side of the training size, but at least SMALLEST_TILE. An image with no more pixels than a tile is not cut,
        because each edge of a tile costs accuracy. Raises UserError if --tile is larger than the image.
        """
        tile = self.settings.tile
        if not self.uses_tiles:
            return height, width
        if tile != 'auto':
            if tile[0] > height or tile[1] > width:
                raise UserError('--tile %dx%d: larger than the image of %dx%d; use auto' % (tile + (height, width)))
            return tile
        sides = [max(2 * side, SMALLEST_TILE) for side in (self.spec.height, self.spec.width)]
        if height * width <= sides[0] * sides[1]:
            return height, width
        return min(height, sides[0]), min(width, sides[1])

    def shrinks(self, height: int, width: int) -> bool:
        """Returns whether the network's input has less than half the height or width of the image or tile."""
        tile = self.tile_size(height, width)
        seen = self.network_size(*tile)
        return tile[0] > 2 * seen[0] or tile[1] > 2 * seen[1]

    def predict_split(self, dataset, split: str, first: int = 0, step: int = 1):
        """Yields (example index, true label, `Prediction`) for each image of a split, in order.

        Threads load the next examples while the network labels a batch. A terminal shows a progress bar. If `step`
        processes share the split, the process with the number `first` labels every `step`-th image, beginning with
        image `first`.
        """
        # With --fit crop, images may be large. Each batch then has one image, to save memory.
        batch_size = 1 if self.spec.fit == 'crop' else self.batch_size
        share = range(first, len(dataset.examples[split]), step)
        loading = machine.read_ahead(functools.partial(dataset.load, split), share, batch_size)
        examples = ((i, *result()) for i, result in loading)
        with tqdm.tqdm(total=len(share), desc=split, unit='image', disable=None, leave=False) as bar:
            for batch in batches_of_one_size(examples, batch_size):
                predictions = self.predict([image for _, image, _ in batch])
                yield from ((i, label, prediction) for (i, _, label), prediction in zip(batch, predictions))
                bar.update(len(batch))

    def predict(self, images: list) -> list:
        """Labels uint8 RGB images [h, w, 3] of one size -> list of `Prediction`.

        `images` has at most `self.batch_size` images, and only one image if Monte-Carlo dropout is on. Raises UserError
        if --tile is larger than the image.
        """
        height, width = images[0].shape[:2]
        tile = self.tile_size(height, width)
        small = len(images) * height * width * self.spec.num_classes <= WHOLE_VALUES
        if tile != (height, width) or self.passes != passes(None) or self.settings.probabilities or not small:
            return [self.assemble(height, width, self.blocks(image, tile)) for image in images]
        seen = np.stack([batches.resize(image, *self.network_size(height, width)) for image in images])
        maps = self.sess.run(self.whole, {self.images: seen, self.size: [height, width]})
        if self.settings.samples:
            maps['variance'] = [tiles.enlarge(maps['variance'][0][:, :, None], height, width, 0, height)[:, :, 0]]
        return [Prediction(**dict(zip(maps, of_image))) for of_image in zip(*maps.values())]

    def network_size(self, height: int, width: int, scale: float = 1.0) -> tuple:
        """Returns the size of the network's input, (height, width), for an image or tile of `height` x `width`.

        If the run was trained with --fit resize, the input has the training size times `scale`. If the run was trained
        with --fit crop, the input has the size of the image times `scale`. The result is rounded.
        """
        if self.spec.fit == 'resize':
            height, width = self.spec.height, self.spec.width
        return max(1, int(round(height * scale))), max(1, int(round(width * scale)))

    def passes_over(self, images: list) -> list:
        """Runs the network on images of one size, once per pass of --tta.

        The results of a mirrored pass are mirrored back.

        Returns:
          list of float32 [batch, h, w, num_classes], one array per pass, at the size of the network's input. With
          Monte-Carlo samples, an additional last channel holds the variance.
        """
        of_passes = []
        for scale, mirrored in self.passes:
            size = self.network_size(*images[0].shape[:2], scale=scale)
            seen = np.stack([batches.resize(image, *size) for image in images])
            flip = slice(None, None, -1 if mirrored else 1)
            of_passes.append(self.sess.run(self.maps, {self.images: seen[:, :, flip]})[:, :, flip])
        return of_passes

    def blocks(self, image, tile: tuple):
        """Yields the probabilities of an image in blocks: (top, left, float32 [h, w, channels]).

        The blocks cover the image without overlap. Each block is the mean over the passes of --tta. With Monte-Carlo
        samples, an additional last channel holds the variance.

        Args:
          tile: (height, width) of the tiles. If the tile size is the size of the image, the image is not cut.
        """
        height, width = image.shape[:2]
        channels = self.spec.num_classes + bool(self.settings.samples)
        if tile == (height, width):
            of_passes = [maps[0] for maps in self.passes_over([image])]
            rows = max(1, WHOLE_VALUES // 8 // (width * channels))
            for top in range(0, height, rows):
                yield top, 0, mean_enlarged(of_passes, height, width, top, min(top + rows, height))
            return
        grid = tiles.grid((height, width), tile, self.settings.tile_overlap)
        yield from tiles.blend(self.tile_maps(image, grid), grid, channels)

    def tile_maps(self, image, grid: tiles.Grid):
        """Yields the probabilities of each tile, averaged over the passes of --tta.

        A result is float32 [tile height, tile width, channels]. With Monte-Carlo samples, an additional last channel
        holds the variance.
        """
        height, width = grid.tile
        corners = list(itertools.product(grid.tops, grid.lefts))
        for first in range(0, len(corners), self.batch_size):
            batch = corners[first:first + self.batch_size]
            of_passes = self.passes_over([image[top:top + height, left:left + width] for top, left in batch])
            for same_tile in zip(*of_passes):
                yield mean_enlarged(same_tile, height, width, 0, height)

    def assemble(self, height: int, width: int, blocks) -> Prediction:
        """Builds the `Prediction` of an image of `height` x `width` pixels.

        `blocks`: iterable of the blocks that `self.blocks` yields for the image.
        """
        settings = self.settings
        num_classes = self.spec.num_classes
        ids = np.empty((height, width), np.uint8)
        variance = np.empty((height, width), np.float32) if settings.samples else None
        confidence = np.empty((height, width), np.uint8) if settings.confidence else None
        probabilities = np.empty((height, width, num_classes), np.float16) if settings.probabilities else None
        for top, left, block in blocks:
            place = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
            classes = block[:, :, :num_classes]
            ids[place] = classes.argmax(-1)
            if settings.samples:
                variance[place] = block[:, :, -1]
            if settings.confidence:
                confidence[place] = np.round(255 * classes.max(-1))
            if settings.probabilities:
                probabilities[place] = classes
        return Prediction(ids, variance, confidence, probabilities)
