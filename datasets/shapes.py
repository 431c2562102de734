"""Draws annotations as masks: polygons, ellipses, lines, run lengths; shapes of COCO, labelme, VIA, YOLO.

A pixel at row i, column j belongs to a polygon if its centre (j + 0.5, i + 0.5) lies inside, by the even-odd rule.
A pixel with its centre on an edge belongs to the polygon to the right of the edge or below it. So polygons with a
common edge neither overlap nor leave a gap. Pillow and OpenCV, in contrast, also fill the pixels on the boundary. All
masks are bool [height, width]. Malformed annotations raise UserError, or KeyError, ValueError and similar errors, which
`annotations.error_context` turns into UserError.
"""
import base64

import cv2
import numpy as np

from system.files import UserError


class NoArea(Exception):
    """Raised for an annotation without an area; the message names the kind of annotation, in the plural."""


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
    mask = np.zeros((height, width), bool)
    starts, ends = points, np.roll(points, -1, axis=0)
    falls = starts[:, 1] > ends[:, 1]
    x0, y0 = np.where(falls, ends.T, starts.T)
    x1, y1 = np.where(falls, starts.T, ends.T)
    first, stop = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (y0, y1))
    counts = stop - first  # number of pixel rows that each edge crosses
    edge = np.repeat(np.arange(len(points)), counts)
    if not len(edge):
        return mask
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x = x0[edge] + (rows + 0.5 - y0[edge]) * (x1 - x0)[edge] / np.maximum(y1 - y0, 1e-300)[edge]
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max()
    flat = (rows - top) * (right - left + 1) + columns - left
    crossed = np.bincount(flat, minlength=(bottom - top) * (right - left + 1)).reshape(bottom - top, -1) % 2 == 1
    mask[top:bottom, left:right] = np.bitwise_xor.accumulate(crossed[:, :-1], axis=1)
    return mask


def ellipse_mask(center, radii, angle: float, height: int, width: int):
    """Fills an ellipse whose centre (x, y) is `center`: bool [height, width].

    Args:
      radii: (radius along the first axis, radius along the second axis), in pixels.
      angle: from the x axis to the first axis, in radians, clockwise in the image.
    """
    mask = np.zeros((height, width), bool)
    if not np.isfinite([*center, *radii, angle]).all() or min(radii) <= 0:
        return mask
    reach = max(radii)
    top, bottom, left, right = (int(np.clip(edge, 0, size)) for edge, size in (
        (center[1] - reach, height), (center[1] + reach + 1, height),
        (center[0] - reach, width), (center[0] + reach + 1, width)))
    y, x = np.ogrid[top:bottom, left:right]
    x, y = x + 0.5 - center[0], y + 0.5 - center[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask[top:bottom, left:right] = (along * radii[1]) ** 2 + (across * radii[0]) ** 2 <= (radii[0] * radii[1]) ** 2
    return mask


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
        mask |= ellipse_mask(point, [line_width / 2] * 2, 0, height, width)
    return mask


def coco_counts(text: str):
    """Decodes the text of a compressed COCO mask -> list of run lengths, int.

    Each character holds five bits of a number, the lowest bits first. From the fourth number on, the text holds the
    difference between a number and the number two places before. An unfinished last number is dropped without an error,
    so the caller checks the sum of the run lengths. pycocotools, in contrast, returns uninitialized memory for a text
    with an unfinished number.
    """
    counts = []
    value = shift = 0
    for code in text.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:  # the last character of a number; the highest of the five bits is the sign
            value -= (code - 48 & 16) << shift - 4
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def coco_mask(segmentation, height: int, width: int):
    """Draws a COCO segmentation: a union of polygons, or run lengths down the columns -> bool [height, width].

    A single polygon may be a flat list of numbers or a list of (x, y). Run lengths are a list or COCO's compressed
    text. Raises NoArea for an empty segmentation, and UserError for sizes or run lengths that do not fit the image, and
    for coordinates beyond a million.
    """
    if not segmentation:
        raise NoArea('annotations without a segmentation (boxes or key points)')
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], (list, dict)) or all(np.shape(point) == (2,) for point in segmentation):
            return polygon_mask(segmentation, height, width)
        return np.any([coco_mask(part, height, width) if isinstance(part, dict) else polygon_mask(part, height, width)
                       for part in segmentation], axis=0)
    if list(segmentation['size']) != [height, width]:
        raise UserError('the mask has size %s, the image has size %s' % (segmentation['size'], [height, width]))
    counts = segmentation['counts']
    if isinstance(counts, str):
        counts = coco_counts(counts)
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise UserError('the run lengths cover %d pixels, the image has %d' % (sum(counts), height * width))
    return (np.repeat(np.arange(len(counts)), counts) % 2 == 1).reshape(width, height).T


def labelme_mask(shape: dict, line_width: float, height: int, width: int):
    """Draws a shape of labelme or X-AnyLabeling: bool [height, width]; lines are `line_width` pixels wide.

    Raises NoArea for single points, and UserError for an unknown shape type or a mask that is no PNG.
    """
    kind = shape.get('shape_type') or 'polygon'
    points = np.array(shape['points'], float).reshape(-1, 2)
    if kind in ('point', 'points'):
        raise NoArea('points')
    if kind in ('polygon', 'oriented_rectangle', 'rotation', 'quadrilateral', 'rectangle'):
        # X-AnyLabeling and ISAT store a vertex on the right or lower border of the image at width - 1 or height - 1.
        points = np.where(points == (width - 1, height - 1), (width, height), points)
    if kind in ('polygon', 'oriented_rectangle', 'rotation', 'quadrilateral'):
        return polygon_mask(points, height, width)
    if kind == 'rectangle':
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return polygon_mask([(left, top), (right, top), (right, bottom), (left, bottom)], height, width)
    if kind == 'circle':
        center, rim = points
        return ellipse_mask(center, [np.hypot(*(rim - center))] * 2, 0, height, width)
    if kind in ('line', 'linestrip'):
        return line_mask(points, line_width, height, width)
    if kind == 'mask':
        content = np.frombuffer(base64.b64decode(shape['mask']), np.uint8)
        patch = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
        if patch is None:
            raise UserError('the mask must be a PNG in base64')
        return _patch_mask(patch > 0, points, height, width)
    raise UserError('shape_type %r is unknown' % kind)


def _patch_mask(patch, points, height, width):
    """Pastes the mask of a box into a mask of the image, as labelme does: bool [height, width].

    The box may extend beyond the image. If the corners are whole numbers, the patch is cropped to the box; a patch
    smaller than the box raises UserError. If the corners are fractional, as after a user moved the box, only the upper
    left corner is used.

    Args:
      patch: bool [h, w], the mask of the box.
      points: float [2, 2], (x, y) of the upper left and the lower right corner.
    """
    (left, top), (right, bottom) = points.round().astype(int)
    if (points == np.trunc(points)).all():
        if (patch.shape < np.array([bottom - top + 1, right - left + 1])).any():
            raise UserError('the box of the mask is larger than its PNG of %dx%d' % patch.shape)
        patch = patch[:max(bottom - top + 1, 0), :max(right - left + 1, 0)]
    patch = patch[max(-top, 0):max(height - top, 0), max(-left, 0):max(width - left, 0)]
    mask = np.zeros((height, width), bool)
    mask[max(top, 0):max(top, 0) + patch.shape[0], max(left, 0):max(left, 0) + patch.shape[1]] = patch
    return mask


def via_mask(shape: dict, line_width: float, height: int, width: int):
    """Draws the shape_attributes of a VIA region: bool [height, width]; lines are `line_width` pixels wide.

    Raises NoArea for single points, and UserError for an unknown shape.
    """
    kind = shape['name']
    if kind == 'point':
        raise NoArea('points')
    if kind in ('polygon', 'polyline'):
        points = np.array([shape['all_points_x'], shape['all_points_y']], float).T
        is_line = kind == 'polyline'
        return line_mask(points, line_width, height, width) if is_line else polygon_mask(points, height, width)
    if kind == 'rect':
        left, top, right, bottom = shape['x'], shape['y'], shape['x'] + shape['width'], shape['y'] + shape['height']
        return polygon_mask([left, top, right, top, right, bottom, left, bottom], height, width)
    if kind not in ('circle', 'ellipse'):
        raise UserError('shape %r is unknown' % kind)
    radii = (shape['r'], shape['r']) if kind == 'circle' else (shape['rx'], shape['ry'])
    return ellipse_mask((shape['cx'], shape['cy']), radii, shape.get('theta', 0), height, width)


def yolo_mask(numbers: list, height: int, width: int):
    """Draws a YOLO polygon: bool [height, width].

    `numbers`: x y x y ..., as shares of the width and height. Raises NoArea for a box (four numbers), and UserError for
    fewer than three vertices and for coordinates of 2 and above.
    """
    if len(numbers) == 4:
        raise NoArea('boxes')
    points = np.array(numbers).reshape(-1, 2)
    if len(points) < 3:
        raise UserError('%d numbers behind the class; a polygon needs 6 or more' % len(numbers))
    if np.abs(np.nan_to_num(points)).max() >= 2:
        raise UserError('coordinates must be shares of the image, 0 to 1; key points need kpt_shape in data.yaml')
    points = np.round(points * (width, height), 4)  # rounds, because x / 61 * 61 may differ from x by 1e-15
    return polygon_mask(points, height, width)
