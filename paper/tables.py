"""The tables of the SegNet paper (arXiv 1511.00561 v3) and of Bayesian SegNet (arXiv 1511.02680) as data.

Scores are (G, C, mIoU, BF) in percent, with None for a score that the paper does not give.
"""
import collections

# Table 1: decoder variants on CamVid, with 367 training images and 233 test images.
# parameters: number of parameters in millions. ms: forward time in milliseconds. balanced, natural: scores on test
# with and without median frequency balancing. balanced_train, natural_train: (G, C, mIoU) on the training images.
Variant = collections.namedtuple('Variant', 'name parameters storage ms balanced balanced_train natural natural_train')
TABLE1 = [
    Variant('Bilinear-Interpolation', 0.625, '0', 24.2, (77.9, 61.1, 43.3, 20.83), (89.1, 90.2, 82.7),
            (82.7, 52.5, 43.8, 23.08), (93.5, 74.1, 59.9)),
    Variant('SegNet-Basic', 1.425, '1', 52.6, (82.7, 62.0, 47.7, 35.78), (94.7, 96.2, 92.7),
            (84.0, 54.6, 46.3, 36.67), (96.1, 83.9, 73.3)),
    Variant('SegNet-Basic-EncoderAddition', 1.425, '64', 53.0, (83.4, 63.6, 48.5, 35.92), (94.3, 95.8, 92.0),
            (84.2, 56.5, 47.7, 36.27), (95.3, 80.9, 68.9)),
    Variant('SegNet-Basic-SingleChannelDecoder', 0.625, '1', 33.1, (81.2, 60.7, 46.1, 31.62), (93.2, 94.8, 90.3),
            (83.5, 53.9, 45.2, 32.45), (92.6, 68.4, 52.8)),
    Variant('FCN-Basic', 0.65, '11', 24.2, (81.7, 62.4, 47.3, 38.11), (92.8, 93.6, 88.1),
            (83.9, 55.6, 45.0, 37.33), (92.0, 66.8, 50.7)),
    Variant('FCN-Basic-NoAddition', 0.65, 'n/a', 23.8, (80.5, 58.6, 44.1, 31.96), (92.5, 93.0, 87.2),
            (82.3, 53.9, 44.2, 29.43), (93.1, 72.8, 57.6)),
    Variant('FCN-Basic-NoDimReduction', 1.625, '64', 44.8, (84.1, 63.4, 50.1, 37.37), (95.1, 96.5, 93.2),
            (83.5, 57.3, 47.0, 37.13), (97.2, 91.7, 84.8)),
    Variant('FCN-Basic-NoAddition-NoDimReduction', 1.625, '0', 43.9, (80.5, 61.6, 45.9, 30.47), (92.5, 94.6, 89.9),
            (83.7, 54.8, 45.5, 33.17), (95.0, 80.2, 67.8)),
]

# Table 3 (trained on 3,433 road scenes, tested on CamVid) and table 4 (SUN RGB-D): scores at the end of training.
TABLE3 = {'SegNet': (90.40, 71.20, 60.10, 46.84), 'DeepLab-LargeFOV': (88.20, 62.53, 53.88, 32.77),
          'FCN': (83.27, 59.56, 49.83, 27.99), 'FCN-Deconv': (83.14, 64.21, 51.96, 33.18),
          'DeconvNet': (89.58, 70.24, 59.77, 52.23)}
TABLE4 = {'SegNet': (72.63, 44.76, 31.84, 12.66), 'DeepLab-LargeFOV': (71.90, 42.21, 32.08, 8.26),
          'FCN-Deconv': (68.18, 38.41, 27.39, 9.68), 'DeconvNet': (66.13, 32.28, 22.57, 10.47)}
# Accuracy of each class in percent, for SegNet: table 2 on CamVid (trained on 3,433 images), table 5 on SUN RGB-D.
TABLE2_CLASSES = {'Building': 89.6, 'Tree': 83.4, 'Sky': 96.1, 'Car': 87.7, 'SignSymbol': 52.7, 'Road': 96.4,
                  'Pedestrian': 62.2, 'Fence': 53.45, 'Pole': 32.1, 'Pavement': 93.3, 'Bicyclist': 36.5}
TABLE5_CLASSES = dict(zip((
    'wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves curtain dresser '
    'pillow mirror floor_mat clothes ceiling books fridge tv paper towel shower_curtain box whiteboard person '
    'night_stand toilet sink lamp bathtub bag').split(), [
    83.42, 93.43, 63.37, 73.18, 75.92, 59.57, 64.18, 52.50, 57.51, 42.05, 56.17, 37.66, 40.29, 11.92, 11.45, 66.56,
    52.73, 43.80, 26.30, 0.00, 34.31, 74.11, 53.77, 29.85, 33.76, 22.73, 19.83, 0.03, 23.14, 60.25, 27.27, 29.88,
    76.00, 58.10, 35.27, 48.86, 16.76]))
# Table 6: forward time and backward time in ms; GPU memory in training (batch size 4), GPU memory in prediction, and
# size of the model in MB.
TABLE6 = {'SegNet': (422.50, 488.71, 6803, 1052, 117), 'DeepLab-LargeFOV': (110.06, 160.73, 5618, 1993, 83),
          'FCN-Deconv': (317.09, 484.11, 9735, 1806, 539), 'DeconvNet': (474.65, 602.15, 9731, 1872, 877)}
# arXiv 1511.02680: scores on CamVid (367 training images) and on SUN RGB-D.
BAYESIAN = {'SegNet': (88.6, 65.9, 50.2, None), 'Bayesian-SegNet': (86.9, 76.3, 63.1, None),
            'SegNet-Basic': (82.8, 62.3, 46.3, None), 'Bayesian-SegNet-Basic': (81.6, 70.5, 55.8, None)}
BAYESIAN_SUN = {'SegNet': (70.3, 35.6, 22.1, None), 'Bayesian-SegNet': (71.2, 45.9, 30.7, None)}
TABLE4_BALANCED = {'SegNet': (71.75, 44.85, 32.08, 14.06)}  # section 4.2: trained with median frequency balancing


class Row(collections.namedtuple('Row', 'name class_weights recipe steps published')):
    """A row of a table: the flags of main.py that differ between rows, and the paper's scores.

    recipe: name of a file in recipes/, without the extension; None in table 6, where networks are timed, not trained.
    steps: number of training steps in the paper.
    published: {split: (G, C, mIoU, BF)} in percent.
    """

    @property
    def model(self):
        """Returns the value of --model: the name of the network in lower case."""
        return self.name.lower()


# note: text below the title. class_accuracies: {class: the paper's accuracy in percent}, or None.
Table = collections.namedtuple('Table', 'title dataset splits note rows class_accuracies', defaults=(None,))

ROAD_SCENES = "Not comparable: the paper trained on 3,433 road scenes, we trained on CamVid's 367 images. "
FROM_SCRATCH = "The paper's networks start from VGG16's weights; ours start from scratch, unless --flags has --vgg16. "
LAST_WEIGHTS = 'The last weights are scored, because the best weights on val are selected on images of test. '
NO_CRF = 'DeepLab-LargeFOV-denseCRF is left out: it needs post-processing by a dense CRF.'
OTHERS = 'Methods other than networks are left out, such as Boosting and Random Forests.'
# Number of training steps of each network in tables 3 and 4, in thousands.
THOUSANDS3 = {'SegNet': 140, 'DeepLab-LargeFOV': 140, 'FCN': 200, 'FCN-Deconv': 160, 'DeconvNet': 260}
THOUSANDS4 = {'SegNet': 240, 'DeepLab-LargeFOV': 240, 'FCN-Deconv': 200, 'DeconvNet': 380}


def table_rows(scores: dict, recipe: str, thousands: dict, class_weights: str = 'none'):
    """Makes a `Row` for each network in `thousands`, with the paper's test scores -> list of `Row`.

    Args:
      scores: {network: (G, C, mIoU, BF)} on the test split, in percent. Networks that `thousands` lacks are ignored.
      recipe: name of a file in recipes/, without the extension.
      thousands: {network: number of training steps, in thousands}, in the order of the rows.
      class_weights: value of --class_weights for all rows.
    """
    return [Row(name, class_weights, recipe, 1000 * steps, {'test': scores[name]}) for name, steps in thousands.items()]


TABLES = {
    'table1': Table(
        'Table 1: decoder variants on CamVid', 'camvid', ('test', 'train'),
        'Weights: median frequency balancing, or none. Storage: the multiplier that the paper gives.',
        [Row(variant.name, weights, 'paper-table1', 10000,
             {'test': getattr(variant, kind), 'train': getattr(variant, kind + '_train') + (None,)})
         for weights, kind in (('median', 'balanced'), ('none', 'natural')) for variant in TABLE1]),
    'table2': Table('Table 2: CamVid, accuracy of each class', 'camvid', ('test',), ROAD_SCENES + FROM_SCRATCH + OTHERS,
                    table_rows(TABLE3, 'paper-benchmark', {'SegNet': 140}), TABLE2_CLASSES),
    'table3': Table('Table 3: CamVid', 'camvid', ('test',), ROAD_SCENES + FROM_SCRATCH + NO_CRF,
                    table_rows(TABLE3, 'paper-benchmark', THOUSANDS3)),
    'table4': Table('Table 4: SUN RGB-D', 'sunrgbd', ('test',), LAST_WEIGHTS + FROM_SCRATCH + NO_CRF,
                    table_rows(TABLE4, 'paper-benchmark-sunrgbd', THOUSANDS4)),
    'table5': Table('Table 5: SUN RGB-D, accuracy of each class', 'sunrgbd', ('test',), LAST_WEIGHTS + FROM_SCRATCH,
                    table_rows(TABLE4, 'paper-benchmark-sunrgbd', {'SegNet': 240}), TABLE5_CLASSES),
    'table6': Table('Table 6: time and memory at 360x480', None, (),
                    'Backward: a training step of one image, weight update included, less a prediction.',
                    [Row(name, 'none', None, None, {}) for name in TABLE6]),
    'bayesian': Table(
        'Bayesian SegNet on CamVid', 'camvid', ('test',), 'Trained on 367 images, as arXiv 1511.02680. ' + FROM_SCRATCH,
        table_rows(BAYESIAN, 'released-segnet', {'SegNet': 40, 'Bayesian-SegNet': 60}, 'median')
        + table_rows(BAYESIAN, 'released-segnet-basic', {'SegNet-Basic': 10, 'Bayesian-SegNet-Basic': 10}, 'median')),
}


def published_scores(dataset: str, model: str, class_weights: str) -> list:
    """Returns the paper's scores of a network on the test split -> list of (source, (G, C, mIoU, BF)).

    The source names the table and the settings, such as 'table 1, natural frequencies'.

    Where the paper gives scores with and without class balancing, `class_weights` 'none' selects the scores without
    class balancing, and any other value selects the scores with class balancing. The list is empty if the paper does
    not score the network on the data set.
    """
    natural = class_weights == 'none'
    balancing = 'natural frequencies' if natural else 'median frequency balancing'
    table1 = {variant.name: variant.natural if natural else variant.balanced for variant in TABLE1}
    sources = {
        'camvid': [('table 1, ' + balancing, table1), ('arXiv 1511.02680, trained on 367 images', BAYESIAN),
                   ('table 3, natural frequencies, trained on 3,433 images, not comparable', TABLE3)],
        'sunrgbd': [(('table 4, ' if natural else 'section 4.2, ') + balancing, TABLE4 if natural else TABLE4_BALANCED),
                    ('arXiv 1511.02680', BAYESIAN_SUN)]}.get(dataset, [])
    return [(where, scores) for where, table in sources for name, scores in table.items() if name.lower() == model]


def class_accuracies(dataset: str, model: str) -> dict:
    """Returns the paper's class accuracies on the test split -> {class: percent}.

    The result is {} unless `model` is segnet and `dataset` is camvid.
    """
    return TABLE2_CLASSES if (dataset, model) == ('camvid', 'segnet') else {}
