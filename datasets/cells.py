"""Draws synthetic cells: random masks for the table `train.csv`, and images rendered from masks.

The cells resemble the cells of Sartorius, but contain no real pixel or outline. Shapes are drawn in integers only, so
that `train.csv` is the same on every machine.
"""
import collections
import zlib

import cv2
import numpy as np

import data

SEED = 1
NUM_IMAGES = 64
HEIGHT, WIDTH = 128, 176  # small enough that SegNet learns them in minutes on two CPU cores
COLUMNS = 'id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta'  # Kaggle's

# Ranges are (low, high), high excluded, in pixels. `cells`: number of cells in an image of HEIGHT x WIDTH.
Shape = collections.namedtuple('Shape', 'cells radius stretch arms arm_length arm_radius clumped neurites')
SHAPES = {  # in the order of drawing: large cells first, while there is room
    # few and large, with long arms
    'astro': Shape((2, 3), (13, 17), (0, 7), (4, 6), (30, 46), 11, False, 2),
    # compact spindles and triangles in clumps, with short processes
    'shsy5y': Shape((4, 7), (10, 13), (7, 12), (2, 4), (9, 15), 7, True, 1),
    # small round somata far apart; the mask leaves out the many thin processes, as in the real labels
    'cort': Shape((4, 7), (10, 14), (0, 2), (0, 2), (6, 9), 4, False, 2),
}

UNIT = 1024  # fixed point: a pixel is 1024 units
TURN = 64  # angles are in 1/64 of a full turn
DIRECTIONS = np.rint(UNIT * np.exp(2j * np.pi * np.arange(TURN) / TURN)).view(np.float64).reshape(-1, 2).astype(int)
TIP = 3000  # radius at the end of an arm, in units: 6 pixels wide, which a network can still segment
SMALLEST = 100  # pixels of a cell that the edge of the image or a neighbour cuts off


def add_disc(mask, y: int, x: int, radius: int):
    """Draws a disc around (y, x) into `mask` [height, width] bool; y, x and radius are in 1/1024 pixel."""
    top, left = max((y - radius) // UNIT, 0), max((x - radius) // UNIT, 0)
    part = mask[top:max((y + radius) // UNIT + 1, 0), left:max((x + radius) // UNIT + 1, 0)]
    rows = (np.arange(part.shape[0], dtype=np.int64) + top) * UNIT - y
    columns = (np.arange(part.shape[1], dtype=np.int64) + left) * UNIT - x
    part |= rows[:, None] ** 2 + columns ** 2 <= radius ** 2


def add_arm(mask, rng, y: int, x: int, angle: int, length: int, root: int, tip: int):
    """Draws a winding arm of `length` pixels from (y, x) into `mask` [height, width] bool.

    The arm starts in direction `angle`, in 1/64 turns. The radius changes linearly from `root` to `tip`. y, x, `root`
    and `tip` are in 1/1024 pixel.
    """
    for i in range(length + 1):
        add_disc(mask, y, x, root + (tip - root) * i // max(length, 1))
        y, x = y + int(DIRECTIONS[angle % TURN, 0]), x + int(DIRECTIONS[angle % TURN, 1])
        angle += rng.randint(-1, 2)


def cell(rng, shape: Shape, y: int, x: int):
    """Draws one random cell around pixel (y, x) and returns the mask: bool [HEIGHT, WIDTH]."""
    mask = np.zeros([HEIGHT, WIDTH], bool)
    y, x = y * UNIT, x * UNIT
    angle = rng.randint(TURN)
    radius = rng.randint(shape.radius[0] * UNIT, shape.radius[1] * UNIT)
    add_arm(mask, rng, y, x, angle, rng.randint(*shape.stretch), radius, radius * 3 // 4)
    num_arms = rng.randint(*shape.arms)
    for i in range(num_arms):  # evenly around the body, with jitter
        turn = angle + TURN * (2 * i + 1) // (2 * num_arms) + rng.randint(-3, 4)
        add_arm(mask, rng, y, x, turn, rng.randint(*shape.arm_length) + radius // UNIT // 2,
                shape.arm_radius * UNIT, TIP)
    return mask


def cells(name: str):
    """Draws the cells of image `name` -> list of (cell type, mask bool [HEIGHT, WIDTH]).

    The name seeds the random numbers: equal names give equal cells. The masks do not overlap.
    """
    rng = np.random.RandomState([zlib.crc32(name.encode()), 0])
    drawn = []
    taken = np.zeros([HEIGHT, WIDTH], bool)
    for cell_type, shape in SHAPES.items():
        centres = []
        wanted = rng.randint(*shape.cells)
        for _ in range(20 * wanted):  # tries, since a crowded image has no room for more
            y, x = rng.randint(HEIGHT), rng.randint(WIDTH)
            if shape.clumped and centres and rng.randint(2):
                y, x = np.array(centres[rng.randint(len(centres))]) + rng.randint(-24, 25, 2)
            mask = cell(rng, shape, int(y), int(x))
            free = mask & ~taken
            if free.sum() >= max(SMALLEST, mask.sum() * 7 // 8):
                drawn.append((cell_type, free))
                centres.append((y, x))
                taken |= mask
            if len(centres) == wanted:
                break
    return drawn


def write_csv(path: str, seed: int = SEED):
    """Writes the masks of NUM_IMAGES synthetic images as CSV in the columns of Kaggle's train.csv.

    Each cell is a row. The names of the images follow from `seed`, and the cells from the names.
    """
    rng = np.random.RandomState(seed)
    with open(path, 'w', newline='\n') as file:
        file.write(COLUMNS + '\n')
        for _ in range(NUM_IMAGES):
            name = '%06x%06x' % tuple(rng.randint(1 << 24, size=2))
            for cell_type, mask in cells(name):
                file.write('%s,%s,%d,%d,%s,,,,\n' % (name, data.rle_encode(mask), WIDTH, HEIGHT, cell_type))


def noise(rng, height: int, width: int, sigma: float):
    """Draws smooth random noise: float32 [height, width] of mean 0 and standard deviation 1.

    `sigma`: standard deviation of the blur, in pixels.
    """
    blurred = cv2.GaussianBlur(rng.randn(height, width).astype(np.float32), (0, 0), sigma)
    return (blurred - blurred.mean()) / blurred.std()


def debris(rng, union, num_neurites: int):
    """Draws thin processes that start on cells, and scattered specks -> thickness float32 [height, width].

    Both appear in the image only: no mask includes them.

    Args:
      union: bool [height, width], the pixels of all cells.
      num_neurites: number of processes.
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
    """Draws the random texture of a cell type: float32 [height, width].

    The texture is of fine grains, fibres or a lattice of granules. Each has mean 0 and a standard deviation of about 1,
    so that textures differ by pattern only.
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
    """Renders an image of cells, as under a phase-contrast microscope: [height, width] uint8.

    Brightness is the difference of two blurs of the thickness: dark rims inside, a bright halo outside, and an
    interior as bright as the background. Cell types differ by shape and pattern, not by brightness or contrast.
    The background has patches of texture too, so that contrast alone does not reveal cells.

    Args:
      masks: [cells, height, width] bool, at least one cell.
      cell_types: the cell type of each mask.
      name: name of the image, which seeds the random numbers.
    """
    rng = np.random.RandomState([zlib.crc32(name.encode()), 1])
    union = np.any(masks, axis=0)
    height, width = union.shape
    thickness = np.zeros([height, width], np.float32)
    texture = np.clip(noise(rng, height, width, 12), 0, 0.4) * noise(rng, height, width, 2.5)  # the background's
    for mask, cell_type in zip(masks, cell_types):  # one by one: touching cells keep a seam
        filling = rng.uniform(0.8, 1.2) * pattern(rng, cell_type, height, width)  # cells differ in contrast
        texture[mask] = filling[mask]
        distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
        thickness += rng.uniform(0.8, 1.2) * np.minimum(distance / 2, 1)
    thickness += debris(rng, union, sum(SHAPES[cell_type].neurites for cell_type in cell_types))
    phase = cv2.GaussianBlur(thickness, (0, 0), 2.5) - 0.8 * cv2.GaussianBlur(thickness, (0, 0), 0.7)
    image = 128 + 6 * noise(rng, height, width, 50) + 2 * noise(rng, height, width, 0.5) + 24 * texture
    image += rng.uniform(80, 100) * phase
    return np.clip(np.rint(128 + 1.6 * (image - 128)), 0, 255).astype(np.uint8)
