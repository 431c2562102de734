"""Draws annotations of COCO, labelme, VIA and YOLO as masks: polygons, ellipses, lines and run lengths.

The centre of the pixel at row i and column j is (j + 0.5, i + 0.5). A pixel belongs to a polygon if the centre lies
inside the polygon by the even-odd rule. If the centre lies on an edge, the pixel belongs to the polygon to the right of
the edge, or below a horizontal edge. So polygons with a common edge neither overlap nor leave a gap. Pillow and OpenCV,
in contrast, also fill the pixels on the boundary. Malformed annotations raise UserError, or KeyError, ValueError and
similar errors, which `annotations.error_context` converts to UserError.
"""
import base64

import cv2
import numpy as np

from system.files import UserError


def polygon_mask(points, height: int, width: int):
    """Fills a polygon by the even-odd rule -> bool [height, width], True at pixels whose centres lie inside.

    Args:
      points: float [n, 2] or [2 n], x and y of the vertices in pixels. The last vertex is joined to the first.
    Raises:
      UserError: the number of coordinates is odd, or a coordinate is not finite or has an absolute value above one
        million.
    """
    points = np.asarray(points, float)
    if points.size % 2:
        raise UserError('a polygon has %d coordinates; each vertex needs x and y' % points.size)
    points = points.reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
        raise UserError('coordinates must be numbers up to a million')
    mask = np.zeros((height, width), bool)
    starts, ends = points.T, np.roll(points, -1, axis=0).T
    (x0, y0), (x1, y1) = np.where(starts[1] > ends[1], (ends, starts), (starts, ends))  # y0 <= y1
    first, stop = np.clip(np.ceil([y0 - 0.5, y1 - 0.5]), 0, height).astype(int)
    edge = np.repeat(np.arange(len(points)), stop - first)  # edge number, once for each pixel row that the edge crosses
    if not len(edge):
        return mask
    rows = first[edge] + np.arange(len(edge)) - np.searchsorted(edge, edge)
    x = x0[edge] + (rows + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max()
    flat = (rows - top) * (right - left + 1) + columns - left
    crossed = np.bincount(flat, minlength=(bottom - top) * (right - left + 1)).reshape(bottom - top, -1) % 2 == 1
    mask[top:bottom, left:right] = np.bitwise_xor.accumulate(crossed[:, :-1], axis=1)
    return mask


def ellipse_mask(center, radii, angle: float, height: int, width: int):
    """Fills an ellipse whose centre (x, y) is `center` -> bool [height, width].

    Args:
      radii: (radius along the first axis, radius along the second axis), in pixels.
      angle: from the x axis to the first axis, in radians, clockwise in the image.
    """
    mask = np.zeros((height, width), bool)
    if not np.isfinite([*center, *radii, angle]).all() or min(radii) <= 0:
        return mask
    reach = max(radii)
    (left, top), (right, bottom) = np.clip([np.subtract(center, reach), np.add(center, reach + 1)],
                                           0, (width, height)).astype(int)
    y, x = np.ogrid[top:bottom, left:right]
    x, y = x + 0.5 - center[0], y + 0.5 - center[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask[top:bottom, left:right] = (along * radii[1]) ** 2 + (across * radii[0]) ** 2 <= (radii[0] * radii[1]) ** 2
    return mask


def line_mask(points, line_width: float, height: int, width: int):
    """Draws a line `line_width` pixels wide, with flat (butt) caps and round joins -> bool [height, width].

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


def box_mask(points, height: int, width: int):
    """Fills the bounding box of `points`, float [n, 2] of (x, y) in pixels -> bool [height, width]."""
    (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
    return polygon_mask([left, top, right, top, right, bottom, left, bottom], height, width)


def coco_counts(text: str):
    """Decodes a compressed RLE string of COCO -> list of run lengths, int.

    Each character holds five bits of a number, the lowest bits first. From the fourth number on, each stored number is
    the run length minus the run length two positions earlier. An incomplete last number is dropped without an error, so
    the caller must check the sum of the run lengths.
    """
    counts = []
    value = shift = 0
    for code in text.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:  # 32 marks that the next character continues the number
            value -= (code - 48 & 16) << shift - 4  # 16 marks a negative number
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def coco_mask(segmentation, height: int, width: int):
    """Draws a COCO segmentation: a union of polygons, or a column-major RLE -> bool [height, width].

    A single polygon may be a flat list of numbers or a list of (x, y). The counts of an RLE are a list or COCO's
    compressed RLE string. Raises UserError if the size or the counts of an RLE do not fit the image, and for
    coordinates whose absolute value is above one million.
    """
    if isinstance(segmentation, list):
        parts = [part for part in segmentation if isinstance(part, (list, dict))]
        if not parts or all(np.shape(part) == (2,) for part in segmentation):
            return polygon_mask(segmentation, height, width)
        return np.any([coco_mask(part, height, width) for part in segmentation], axis=0)
    if list(segmentation['size']) != [height, width]:
        raise UserError('the mask has size %s, the image has size %s' % (segmentation['size'], [height, width]))
    counts = segmentation['counts']
    counts = coco_counts(counts) if isinstance(counts, str) else counts
    if min(counts, default=-1) < 0 or sum(counts) != height * width:
        raise UserError('the run lengths cover %d pixels, the image has %d' % (sum(counts), height * width))
    return (np.repeat(np.arange(len(counts)), counts) % 2 == 1).reshape(width, height).T


def labelme_mask(shape: dict, line_width: float, height: int, width: int):
    """Draws a shape of labelme, X-AnyLabeling or ISAT -> bool [height, width].

    Lines are `line_width` pixels wide. Raises UserError for an unknown shape type or a mask that is not a PNG.
    """
    kind = shape.get('shape_type') or 'polygon'
    points = np.array(shape['points'], float).reshape(-1, 2)
    if kind in ('polygon', 'oriented_rectangle', 'rotation', 'quadrilateral', 'rectangle'):
        # If a vertex lies on the right border of the image, X-AnyLabeling and ISAT write x = width - 1, not width. If a
        # vertex lies on the lower border, these tools write y = height - 1, not height.
        points = np.where(points == (width - 1, height - 1), (width, height), points)
        return box_mask(points, height, width) if kind == 'rectangle' else polygon_mask(points, height, width)
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
    """Pastes the mask of a box into a mask of the image, as labelme does -> bool [height, width].

    The box may extend beyond the image. If the corners of the box are integers, `patch` is cropped to the box. If a
    user has moved the box, the corners may be fractional; then only the upper left corner is used, after rounding.
    Raises UserError if a box with integer corners is larger than `patch`.

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
    """Draws a VIA region from its shape_attributes, the dict `shape` -> bool [height, width].

    Lines are `line_width` pixels wide. Raises UserError for an unknown shape.
    """
    kind = shape['name']
    if kind in ('polygon', 'polyline'):
        points = np.array([shape['all_points_x'], shape['all_points_y']], float).T
        is_line = kind == 'polyline'
        return line_mask(points, line_width, height, width) if is_line else polygon_mask(points, height, width)
    if kind == 'rect':
        left, top = shape['x'], shape['y']
        return box_mask([(left, top), (left + shape['width'], top + shape['height'])], height, width)
    if kind not in ('circle', 'ellipse'):
        raise UserError('shape %r is unknown' % kind)
    radii = (shape['r'], shape['r']) if kind == 'circle' else (shape['rx'], shape['ry'])
    return ellipse_mask((shape['cx'], shape['cy']), radii, shape.get('theta', 0), height, width)


def yolo_mask(numbers: list, height: int, width: int):
    """Draws a YOLO polygon -> bool [height, width].

    `numbers`: [x, y, x, y, ...]. An x is a fraction of the width, a y is a fraction of the height. A vertex may lie
    outside the image. Raises UserError for fewer than three vertices, and if a coordinate is not between -2 and 2.
    """
    points = np.array(numbers).reshape(-1, 2)
    if len(points) < 3:
        raise UserError('%d numbers behind the class; a polygon needs 6 or more' % len(numbers))
    if np.abs(np.nan_to_num(points)).max() >= 2:
        raise UserError('coordinates must be shares of the image, 0 to 1; key points need kpt_shape in data.yaml')
    points = np.round(points * (width, height), 4)  # because x / width * width may differ from x by a rounding error
    return polygon_mask(points, height, width)
