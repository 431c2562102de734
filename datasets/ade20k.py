"""Reads ADE20K in the layout of the scene parsing challenge of 2016 -> `Dataset`."""
import os

from datasets import files, labels, tables

# Class names: the first name in each row of the challenge's objectInfo150.txt. The id of a class in label files is the
# position of the class in this list, counted from 1.
CLASSES = (
    'wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, '
    'door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, '
    'field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, '
    'signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, '
    'stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, '
    'toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, '
    'arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, '
    'airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, '
    'ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, '
    'tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, '
    'dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt '
    'screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag').split(', ')


def read(data_dir: str):
    """Reads ADE20K -> `Dataset`: 150 classes, id 0 is void; the training size is 384x384.

    The palette is PASCAL VOC's, because two classes share a colour in the palette of the scene parsing challenge. The
    test split is left out, because the test labels are not public. Raises UserError for a missing folder and for an
    image without a label.
    """
    files.check_data_dir(data_dir, 'ade20k', 'ADEChallengeData2016/images/training and annotations/training')
    inner = os.path.join(data_dir, 'ADEChallengeData2016')
    root = inner if os.path.isdir(inner) else data_dir
    pairs = {split: labels.pairs_of_files(*(os.path.join(root, kind, folder) for kind in ('images', 'annotations')))
             for split, folder in (('train', 'training'), ('val', 'validation'))}
    ids = list(range(1, len(CLASSES) + 1))
    classes = [tables.Class(name, (i,), None) for name, i in zip(CLASSES, ids)] + [tables.Class('void', (0,), None)]
    return labels.dataset_of_pairs('ade20k', CLASSES, map(files.voc_color, ids), (384, 384), pairs,
                                   lambda path: labels.read_class_label(path, classes), class_ids=ids)
