"""Draws annotations as masks: polygons, discs and lines; COCO's run lengths; shapes of labelme and YOLO.

A pixel at row i, column j belongs to a polygon if its centre (j + 0.5, i + 0.5) lies inside, by the even-odd rule.
A centre on an edge belongs to the polygon right of the edge or below, so that neighbours neither overlap nor leave a
gap. Pillow and OpenCV would add the pixels on the boundary. All masks are bool [height, width].
Other malformed annotations raise KeyError, ValueError and the like, which `annotations.naming` turns into UserError.
"""
import base64

import cv2
import numpy as np

from system.files import UserError


class NoArea(Exception):
    """Raised for an annotation without an area; the text names the kind, in the plural."""


def polygon_mask(points, height: int, width: int):
    """Fills a polygon: bool [height, width], True for the pixels whose centres lie inside by the even-odd rule.

    Args:
      points: float [n, 2] or [2 n], x and y of the vertices in pixels. The last vertex is joined to the first.
    Raises:
      UserError: a coordinate beyond a million, or not finite.
    """
    points = np.asarray(points, float).reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
        raise UserError('coordinates must be numbers up to a million')
    crossed = np.zeros((height, width + 1), np.uint8)
    for start, end in zip(points, np.roll(points, -1, axis=0)):
        (x0, y0), (x1, y1) = sorted((start, end), key=lambda point: point[1])
        rows = np.arange(max(0, np.ceil(y0 - 0.5)), min(height, np.ceil(y1 - 0.5)), dtype=int)
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / max(y1 - y0, 1e-300)
        crossed[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= 1
    return np.bitwise_xor.accumulate(crossed[:, :width], axis=1).astype(bool)


def disc_mask(center, radius: float, height: int, width: int):
    """Fills the disc around `center`, (x, y), with a radius of `radius` pixels: bool [height, width]."""
    y, x = np.ogrid[:height, :width]
    return (x + 0.5 - center[0]) ** 2 + (y + 0.5 - center[1]) ** 2 <= radius ** 2


def line_mask(points, line_width: float, height: int, width: int):
    """Draws a line `line_width` pixels wide, with flat ends (butt caps) and round bends: bool [height, width].

    Args:
      points: float [n, 2] of (x, y) in pixels.
    """
    mask = np.zeros((height, width), bool)
    for start, end in zip(points[:-1], points[1:]):
        along = (end - start) / max(np.hypot(*(end - start)), 1e-9)
        across = along[::-1] * (-1, 1) * line_width / 2
        mask |= polygon_mask([start + across, end + across, end - across, start - across], height, width)
    for point in points[1:-1]:
        mask |= disc_mask(point, line_width / 2, height, width)
    return mask


def coco_counts(text: str):
    """Decodes the text of a compressed COCO mask -> list of run lengths, int.

    Each character holds five bits of a number, the lowest bits first. From the fourth number on, the text holds the
    difference from the number two places before. An unfinished last number is dropped without an error, so the caller
    checks the sum. pycocotools would return unset memory for such a text.
    """
    counts = []
    value = shift = 0
    for code in text.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:  # the last character of a number; its highest bit is the sign
            value -= (code - 48 & 16) << shift - 4
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def coco_mask(annotation: dict, height: int, width: int):
    """Mask bool [height, width] of a COCO annotation: the union of polygons, or run lengths along the columns.

    Run lengths are a list or COCO's compressed text. Raises NoArea without a segmentation; UserError for sizes or run
    lengths that do not fit the image, and as `polygon_mask`.
    """
    segmentation = annotation.get('segmentation')
    if not segmentation:
        raise NoArea('annotations without a segmentation (boxes or key points)')
    if isinstance(segmentation, list):
        return np.any([polygon_mask(polygon, height, width) for polygon in segmentation], axis=0)
    if list(segmentation['size']) != [height, width]:
        raise UserError('the mask has size %s, the image %s' % (segmentation['size'], [height, width]))
    counts = segmentation['counts']
    if isinstance(counts, str):
        counts = coco_counts(counts)
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise UserError('the run lengths cover %d pixels, the image has %d' % (sum(counts), height * width))
    return (np.repeat(np.arange(len(counts)), counts) % 2 == 1).reshape(width, height).T


def labelme_mask(shape: dict, line_width: float, height: int, width: int):
    """Mask bool [height, width] of a shape of labelme; lines are `line_width` pixels wide.

    Raises NoArea for points, UserError for an unknown shape type or a mask that does not fit the image.
    """
    kind = shape.get('shape_type') or 'polygon'
    points = np.array(shape['points'], float).reshape(-1, 2)
    if kind in ('point', 'points'):
        raise NoArea('points')
    if kind in ('polygon', 'oriented_rectangle'):
        return polygon_mask(points, height, width)
    if kind == 'rectangle':
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return polygon_mask([(left, top), (right, top), (right, bottom), (left, bottom)], height, width)
    if kind == 'circle':
        center, rim = points
        return disc_mask(center, np.hypot(*(rim - center)), height, width)
    if kind in ('line', 'linestrip'):
        return line_mask(points, line_width, height, width)
    if kind == 'mask':  # the box holds both corners
        (left, top), (right, bottom) = points.astype(int)
        content = np.frombuffer(base64.b64decode(shape['mask']), np.uint8)
        box = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
        mask = np.zeros((height, width), bool)
        if box is None or mask[top:bottom + 1, left:right + 1].shape != box.shape or min(left, top) < 0:
            raise UserError('the mask must be a PNG with the size of the box, inside the image')
        mask[top:bottom + 1, left:right + 1] = box > 0
        return mask
    raise UserError('shape_type %r is unknown' % kind)


def yolo_mask(numbers: list, height: int, width: int):
    """Mask bool [height, width] of a YOLO polygon: x y x y ..., as shares of the width and height.

    Raises NoArea for a box, UserError for coordinates above 2.
    """
    if len(numbers) == 4:
        raise NoArea('boxes')
    points = np.array(numbers).reshape(-1, 2)
    if np.abs(np.nan_to_num(points)).max() > 2:
        raise UserError('coordinates must be shares of the image, 0 to 1')
    points = np.round(points * (width, height), 4)  # a share of the width of 61 pixels and back may miss by 1e-15
    return polygon_mask(points, height, width)
