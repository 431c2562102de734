"""Renders the images of the bundled data set `sample`: synthetic cells, drawn from masks.

The masks in `train.csv` resemble the cells of Sartorius but contain no real outline. The masks were drawn with random
numbers by `write_csv`, a function that this file had until revision 0179e8f.
"""
import zlib

import cv2
import numpy as np

HEIGHT, WIDTH = 128, 176  # image size in pixels; SegNet trains on images of this size in minutes on two CPU cores
NEURITES = {'astro': 2, 'shsy5y': 1, 'cort': 2}  # neurites (thin outgrowths) per cell; masks leave neurites out


def noise(rng, height: int, width: int, sigma: float):
    """Draws white noise smoothed by a Gaussian filter -> float32 [height, width], mean 0, standard deviation 1.

    `sigma`: standard deviation of the Gaussian filter, in pixels.
    """
    blurred = cv2.GaussianBlur(rng.randn(height, width).astype(np.float32), (0, 0), sigma)
    return (blurred - blurred.mean()) / blurred.std()


def debris(rng, union, num_neurites: int):
    """Draws neurites (thin outgrowths of cells) and scattered specks -> thickness, float32 [height, width].

    Neurites and specks appear only in the image, not in the masks.

    Args:
      union: bool [height, width], the pixels of all cells.
      num_neurites: number of neurites to draw.
    """
    height, width = union.shape
    layer = np.zeros([height, width], np.float32)
    roots = np.argwhere(union)
    for _ in range(num_neurites):
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(-0.15, 0.15, rng.randint(15, 40)))
        path = roots[rng.randint(len(roots))] + np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), 0)
        cv2.polylines(layer, [np.rint(path[:, ::-1]).astype(np.int32)], False, rng.uniform(0.3, 0.8))
    for _ in range(rng.randint(10, 25) * height * width // (HEIGHT * WIDTH)):
        centre = (rng.randint(width), rng.randint(height))
        cv2.circle(layer, centre, rng.randint(1, 3), rng.uniform(0.8, 1.8), -1)
    return layer


def pattern(rng, cell_type: str, height: int, width: int):
    """Draws the random texture of a cell type -> float32 [height, width].

    Depending on the cell type, the texture consists of fine grains, fibres or a lattice of granules. Each texture has
    mean 0 and a standard deviation of about 1, so that textures differ by pattern only.
    """
    if cell_type == 'shsy5y':
        return noise(rng, height, width, 0.6)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = 2 * np.pi * np.mgrid[:height, :width]
    along = y * np.sin(angle) + x * np.cos(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    if cell_type == 'astro':
        return np.sqrt(2) * np.cos(along / 5)
    return 2 * np.cos(along / 8) * np.cos(across / 8)


def render(masks, cell_types: list, name: str):
    """Renders an image of cells, as under a phase-contrast microscope -> uint8 [height, width].

    The brightness of cells is the difference of two blurred maps of the thickness of the cells. So a cell has a dark
    rim inside, a bright halo outside, and an interior as bright as the background. Cell types differ by shape and
    pattern, not by brightness or contrast. The background has patches of texture too, so that contrast alone does not
    reveal cells.

    Args:
      masks: bool [cells, height, width], at least one cell.
      cell_types: the cell type of each mask.
      name: name of the image, which seeds the random numbers.
    """
    rng = np.random.RandomState([zlib.crc32(name.encode()), 1])
    union = np.any(masks, axis=0)
    height, width = union.shape
    thickness = np.zeros([height, width], np.float32)
    # Draws patches of texture in the background, then adds the cells one by one, so that touching cells have a visible
    # seam. A random factor varies the contrast of the cells.
    texture = np.clip(noise(rng, height, width, 12), 0, 0.4) * noise(rng, height, width, 2.5)
    for mask, cell_type in zip(masks, cell_types):
        filling = rng.uniform(0.8, 1.2) * pattern(rng, cell_type, height, width)
        texture[mask] = filling[mask]
        distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
        thickness += rng.uniform(0.8, 1.2) * np.minimum(distance / 2, 1)
    thickness += debris(rng, union, sum(NEURITES[cell_type] for cell_type in cell_types))
    phase = cv2.GaussianBlur(thickness, (0, 0), 2.5) - 0.8 * cv2.GaussianBlur(thickness, (0, 0), 0.7)
    image = 128 + 6 * noise(rng, height, width, 50) + 2 * noise(rng, height, width, 0.5) + 24 * texture
    image += rng.uniform(80, 100) * phase
    return np.clip(np.rint(128 + 1.6 * (image - 128)), 0, 255).astype(np.uint8)
