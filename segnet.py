"""SegNet, SegNet-Basic and the variants of the paper's table 1 (arXiv 1511.00561).

Each network takes x [batch, h, w, 3], num_classes, is_training and a function dropout(x, name), and returns logits
[batch, h, w, num_classes]. Variable scopes have the layer names of the released prototxts.
"""
import tensorflow.compat.v1 as tf

import utils

ENCODER = [      # (filters, number of 3x3 convolutions) per level, as in VGG16. The decoder mirrors the encoder.
    (64, 2),     # 360x480x3   -> 360x480x64,  pooled to 180x240
    (128, 2),    # 180x240x64  -> 180x240x128, pooled to 90x120
    (256, 3),    # 90x120x128  -> 90x120x256,  pooled to 45x60
    (512, 3),    # 45x60x256   -> 45x60x512,   pooled to 23x30
    (512, 3),    # 23x30x512   -> 23x30x512,   pooled to 12x15
]


def segnet(x, num_classes, is_training, dropout):
    """Builds SegNet: five encoders, five decoders, the classifier (segnet_train.prototxt); returns the logits.

    Source of the six dropout layers: bayesian_segnet_train.prototxt and train_segnet_sun.prototxt.
    """
    pooled = []
    for level, (filters, convolutions) in enumerate(ENCODER, 1):
        for i in range(1, convolutions + 1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d' % (level, i), is_training)
        encoded = x
        x, indices = utils.max_pool_with_argmax(x)  # [batch, ceil(h/2), ceil(w/2), filters]
        x = dropout(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append((indices, encoded))
    for level in range(len(ENCODER), 0, -1):
        filters, convolutions = ENCODER[level - 1]
        x = utils.unpool(x, *pooled.pop())  # [batch, h, w, filters] of the level's encoder
        for i in range(convolutions, 1, -1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d_D' % (level, i), is_training)
        if level > 1:
            x = utils.conv_bn_relu(x, ENCODER[level - 2][0], 3, 'conv%d_1_D' % level, is_training)
        x = dropout(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 3, 'conv1_1_D')  # [batch, h, w, num_classes]


VARIANTS = {  # the networks of the paper's table 1, SegNet-Basic's encoder with eight different decoders
    'bilinear-interpolation':              {'upsample': 'bilinear'},
    'segnet-basic':                        {'upsample': 'indices', 'decoder': 'full'},
    'segnet-basic-encoderaddition':        {'upsample': 'indices', 'decoder': 'full', 'addition': True},
    'segnet-basic-singlechanneldecoder':   {'upsample': 'indices', 'decoder': 'single channel'},
    'fcn-basic':                           {'upsample': 'deconv', 'reduction': True, 'addition': True},
    'fcn-basic-noaddition':                {'upsample': 'deconv', 'reduction': True},
    'fcn-basic-nodimreduction':            {'upsample': 'deconv', 'addition': True},
    'fcn-basic-noaddition-nodimreduction': {'upsample': 'deconv'},
}


def segnet_basic(x, num_classes, is_training, dropout, upsample, decoder=None, addition=False, reduction=False):
    """Builds SegNet-Basic or a variant of table 1 (4 encoders, 4 decoders, 64 filters); returns the logits.

    Source: segnet_basic_train.prototxt. Source of the four dropout layers: bayesian_segnet_basic_train.prototxt.
    Variants without pooling indices have only the two dropout layers of the encoder.

    Args:
      upsample: 'indices': unpooling with the pooling indices. 'deconv': learned 8x8 deconvolutions, initialized as
        bilinear upsampling. 'bilinear': bilinear resizing of the classifier's output.
      decoder: with 'indices', the kind of the 7x7 convolution after unpooling: 'full', or 'single channel' (depthwise).
        The convolution is followed by batch norm, without a ReLU.
      addition: bool, whether the encoder's feature maps of the same size are added to the decoder's feature maps: with
        'indices' the encoder's feature maps before pooling, with 'deconv' after pooling.
      reduction: bool, with 'deconv': whether 1x1 convolutions reduce the pooled feature maps to num_classes channels.
    """
    pooled = [x]  # the network's input, then the pooled feature maps of each level
    unpooling = {}  # {level: (pooling indices, feature maps before pooling)}
    for level in range(1, 5):
        encoded = tf.nn.relu(utils.conv_bn(x, 64, 7, 'conv%d' % level, is_training))
        x, indices = utils.max_pool_with_argmax(encoded)  # [batch, ceil(h/2), ceil(w/2), 64]
        x = dropout(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append(x)
        unpooling[level] = indices, encoded
    if upsample == 'bilinear':
        return utils.upsample_bilinear(utils.conv(x, num_classes, 1, 'conv_classifier'), pooled[0])
    if upsample == 'deconv':
        return fcn_decoder(pooled, num_classes, is_training, addition, reduction)
    for level in range(4, 0, -1):
        indices, encoded = unpooling[level]
        x = utils.unpool(x, indices, encoded)
        x = utils.conv_bn(x, 64, 7, 'conv_decode%d' % level, is_training, single_channel=decoder == 'single channel')
        x = x + encoded if addition else x
        x = dropout(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 1, 'conv_classifier')  # [batch, h, w, num_classes]


def fcn_decoder(pooled, num_classes, is_training, addition, reduction):
    """Builds FCN-Basic's decoder (figure 3 of the paper), four 2x upsamplings; returns the logits.

    With `addition`, the pooled feature maps are added after each upsampling except the last. With `reduction`, 1x1
    convolutions first reduce the pooled feature maps to num_classes channels, and the last deconvolution returns the
    logits. Without `reduction`, a 1x1 convolution returns the logits.

    Batch norm follows each deconvolution that does not return the logits. The paper does not mention this batch norm.
    Without batch norm, the values in decoders with 64 feature maps overflow within five steps at the paper's learning
    rate of 0.1.

    Args:
      pooled: list of five tensors: the network's input, then the pooled feature maps of the encoders 1 to 4.
      addition, reduction: bool.
    """
    def reduced(x, level):
        return utils.conv(x, num_classes, 1, 'conv_reduce%d' % level) if reduction else x

    x = reduced(pooled[4], 4)
    for level in range(4, 0, -1):
        channels = x.shape.as_list()[-1]
        name = 'deconv%d' % level
        if reduction and level == 1:
            return utils.deconv(x, channels, 8, 2, pooled[level - 1], name)  # the logits; channels is num_classes here
        x = utils.deconv_bn(x, channels, 8, 2, pooled[level - 1], name, is_training)
        if addition and level > 1:
            x += reduced(pooled[level - 1], level - 1)
    return utils.conv(x, num_classes, 1, 'conv_classifier')  # [batch, h, w, num_classes]
