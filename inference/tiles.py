"""Covers large images with overlapping tiles; blends and enlarges the probability maps of the tiles.

`blend` keeps in memory only one tile and the overlap between two rows of tiles, so the memory does not grow with the
height of the image.
"""
import collections

import cv2
import numpy as np

OVERLAP = 0.5  # minimum overlap of neighbouring tiles, as a fraction of a tile's side

# tops: top pixel row of each row of tiles.  lefts: left pixel column of each column of tiles.
# tile: (height, width) of a tile.  size: (height, width) of the image.
Grid = collections.namedtuple('Grid', 'tops lefts tile size')


def grid(size: tuple, tile: tuple, overlap: float = None) -> Grid:
    """Covers an image with overlapping tiles -> `Grid`.

    Args:
      size, tile: (height, width) of the image and of a tile, in pixels.
      overlap: minimum overlap of neighbouring tiles, as a fraction of a tile's side; None for OVERLAP.
    """
    overlap = OVERLAP if overlap is None else overlap
    return Grid(*(tile_offsets(length, side, overlap) for length, side in zip(size, tile)), tile, size)


def tile_offsets(length: int, tile: int, overlap: float) -> list:
    """Covers an axis of `length` pixels with tiles of `tile` pixels -> list of each tile's first pixel.

    The first tile begins at pixel 0, the last tile ends at the last pixel, and the tiles are evenly spaced.
    Neighbouring tiles share at least int(tile * overlap) pixels. If a tile is as long as the axis, the result is [0].
    """
    shared = int(tile * overlap)
    count = 1 if tile >= length else int(np.ceil((length - shared) / (tile - shared)))
    return [int(start) for start in np.linspace(0, length - tile, count).round()]


def blending_weights(first: list, tile: int):
    """Computes blending weights along one axis, for tiles that start at `first` -> float32 [len(first), tile].

    The weights of a tile rise linearly from the border to the centre of the tile. Each weight is divided by the sum of
    the weights of all tiles at the same pixel. The weight is therefore 1 where a single tile covers the pixel.
    """
    hat = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 1.0
    total = np.zeros(first[-1] + tile)
    for start in first:
        total[start:start + tile] += hat
    return np.array([hat / total[start:start + tile] for start in first], np.float32)


def blend(maps, grid: Grid, channels: int):
    """Blends the probability maps of overlapping tiles; yields each image block once the block is complete.

    Args:
      maps: iterable of float32 [tile height, tile width, channels], one map per tile, in row-major order of the grid.
    Yields:
      (top, left, float32 [block height, block width, channels]); the blocks cover the image without overlap.
    """
    tops, lefts, tile, (height, width) = grid
    maps = iter(maps)
    row_weights = blending_weights(tops, tile[0])
    column_weights = blending_weights(lefts, tile[1])
    # In `shared` rows of pixels, the current row of tiles overlaps the row of tiles above. The first `shared` rows of
    # `carried` hold the weighted probability sums of the tiles above. After each tile, the columns of this tile in
    # `carried` are overwritten with the sums in the overlap with the next row of tiles.
    carried = np.empty((tile[0] - min(np.diff(tops), default=tile[0]), width, channels), np.float32)
    shared = 0
    for row, next_top in enumerate(tops[1:] + [height]):
        rows = next_top - tops[row]
        # `right`: weighted probability sums at the right edge of the previous tile, where the next tile overlaps it.
        right = np.empty((tile[0], 0, channels), np.float32)
        for column, next_left in enumerate(lefts[1:] + [width]):
            left, columns = lefts[column], next_left - lefts[column]
            known = right.shape[1]
            block = next(maps) * (row_weights[row][:, None, None] * column_weights[column][:, None])
            block[:, :known] += right
            block[:shared, known:] += carried[:shared, left + known:left + tile[1]]
            right = block[:, columns:].copy()
            carried[:tile[0] - rows, left:next_left] = block[rows:, :columns]
            yield tops[row], left, block[:rows, :columns]
        shared = tile[0] - rows


def enlarge(maps, height: int, width: int, first: int, last: int):
    """Resizes maps bilinearly, as `tf.image.resize_bilinear` does with half_pixel_centers=True.

    Args:
      maps: float32 [h, w, channels].
      first, last: the rows `first` to `last` - 1 of the enlarged maps are returned.
    Returns:
      float32 [last - first, width, channels].
    """
    if maps.shape[:2] == (height, width):
        return maps[first:last]
    y = np.clip((np.arange(first, last) + 0.5) * len(maps) / height - 0.5, 0, len(maps) - 1).astype(np.float32)
    low = y.astype(int)
    share = (y - low).astype(np.float32)[:, None, None]
    rows = maps[low] * (1 - share) + maps[np.minimum(low + 1, len(maps) - 1)] * share
    resized = cv2.resize(rows, (width, last - first), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(last - first, width, -1)  # OpenCV drops the last axis if there is one channel
