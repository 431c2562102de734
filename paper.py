"""The paper's tables as data (arXiv 1511.00561 v3; Bayesian SegNet: arXiv 1511.02680). No network, no file.

Scores are (G, C, mIoU, BF) in percent, None where the paper gives none. A network's flag value is its name in lower
case.
"""
import collections

# Table 1: CamVid, 367 training and 233 test images, trained with median frequency balancing or without.
Variant = collections.namedtuple('Variant', 'name parameters storage milliseconds balanced balanced_train natural '
                                            'natural_train')  # parameters in millions
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

# The benchmark: tables 3 and 4, at the end of training. Table 3's networks saw 3,433 road scenes, not CamVid's 367.
TABLE3 = {'SegNet': (90.40, 71.20, 60.10, 46.84), 'DeepLab-LargeFOV': (88.20, 62.53, 53.88, 32.77),
          'FCN': (83.27, 59.56, 49.83, 27.99), 'FCN-Deconv': (83.14, 64.21, 51.96, 33.18),
          'DeconvNet': (89.58, 70.24, 59.77, 52.23)}
TABLE4 = {'SegNet': (72.63, 44.76, 31.84, 12.66), 'DeepLab-LargeFOV': (71.90, 42.21, 32.08, 8.26),
          'FCN-Deconv': (68.18, 38.41, 27.39, 9.68), 'DeconvNet': (66.13, 32.28, 22.57, 10.47)}
# CamVid by its 367 training images: SegNet as arXiv v2 of the paper has it, and Bayesian SegNet.
CAMVID_367 = {'SegNet': (88.6, 65.9, 50.2, None), 'Bayesian-SegNet': (86.9, 76.3, 63.1, None)}


def rows(dataset, model, class_weights):
    """What the paper prints for such a network on the test split: list of (where, (G, C, mIoU, BF))."""
    found = []
    if dataset == 'camvid':
        for variant in TABLE1:
            if variant.name.lower() == model:
                natural = class_weights == 'none'
                found.append(('table 1, %s' % ('natural frequencies' if natural else 'median frequency balancing'),
                              variant.natural if natural else variant.balanced))
        tables = [('arXiv v2, 367 training images', CAMVID_367),
                  ('table 3, by 3,433 training images, not comparable', TABLE3)]
    else:
        tables = [('table 4', TABLE4)] if dataset == 'sunrgbd' else []
    return found + [(where, scores) for where, table in tables for name, scores in table.items()
                    if name.lower() == model]
