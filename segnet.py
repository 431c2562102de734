"""SegNet, SegNet-Basic and the variants of the paper's table 1 (Badrinarayanan, Kendall and Cipolla, arXiv 1511.00561).

Builds graphs; opens no session, looks at no flag, knows no data set. Scopes bear the layer names of the authors'
released prototxts. Each network takes x [batch, h, w, 3], num_classes, is_training and drop(x, place), and returns
logits [batch, h, w, num_classes]; `networks.build` calls it.
"""
import tensorflow.compat.v1 as tf

import utils

ENCODER = [      # (filters, convolutions); VGG16's 13 convolutions, 3x3. The decoder is its mirror image.
    (64, 2),     # 360x480x3   -> 360x480x64,  pooled to 180x240
    (128, 2),    # 180x240x64  -> 180x240x128, pooled to 90x120
    (256, 3),    # 90x120x128  -> 90x120x256,  pooled to 45x60
    (512, 3),    # 45x60x256   -> 45x60x512,   pooled to 23x30
    (512, 3),    # 23x30x512   -> 23x30x512,   pooled to 12x15
]


def segnet(x, num_classes, is_training, drop):
    """SegNet: each decoder undoes one encoder; the last decoder convolution is the classifier (segnet_train.prototxt).

    `drop` acts at the six places of bayesian_segnet_train.prototxt and train_segnet_sun.prototxt.
    """
    pooled = []
    for level, (filters, convolutions) in enumerate(ENCODER, 1):
        for i in range(1, convolutions + 1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d' % (level, i), is_training)
        encoded = x
        x, indices = utils.max_pool_with_argmax(x)  # [batch, ceil(h/2), ceil(w/2), filters]
        x = drop(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append((indices, encoded))
    for level in range(len(ENCODER), 0, -1):
        filters, convolutions = ENCODER[level - 1]
        x = utils.unpool(x, *pooled.pop())  # back to the size of the level's encoder
        for i in range(convolutions, 1, -1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d_D' % (level, i), is_training)
        if level > 1:
            x = utils.conv_bn_relu(x, ENCODER[level - 2][0], 3, 'conv%d_1_D' % level, is_training)
        x = drop(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 3, 'conv1_1_D')  # [batch, h, w, num_classes]


VARIANTS = {  # table 1 of the paper: SegNet-Basic's encoder, eight ways to decode
    'bilinear-interpolation':              {'upsample': 'bilinear'},
    'segnet-basic':                        {'upsample': 'indices', 'decoder': 'full'},
    'segnet-basic-encoderaddition':        {'upsample': 'indices', 'decoder': 'full', 'addition': True},
    'segnet-basic-singlechanneldecoder':   {'upsample': 'indices', 'decoder': 'single channel'},
    'fcn-basic':                           {'upsample': 'deconv', 'reduction': True, 'addition': True},
    'fcn-basic-noaddition':                {'upsample': 'deconv', 'reduction': True},
    'fcn-basic-nodimreduction':            {'upsample': 'deconv', 'addition': True},
    'fcn-basic-noaddition-nodimreduction': {'upsample': 'deconv'},
}


def segnet_basic(x, num_classes, is_training, drop, upsample, decoder=None, addition=False, reduction=False):
    """SegNet-Basic and its variants: 4 encoders and 4 decoders, 7x7, 64 maps (segnet_basic_train.prototxt).

    `drop` acts at the four places of bayesian_segnet_basic_train.prototxt.

    Args:
      upsample: by 'indices', by a learnt 'deconv' (8x8, starts as bilinear), or 'bilinear' in one go.
      decoder: what follows the unpooling, a 'full' 7x7 convolution or a 'single channel' one for each map; batch norm,
        no ReLU.
      addition: the maps of the encoder of the same size are added: SegNet's before pooling, FCN's after.
      reduction: 1x1 convolutions first reduce FCN's maps to num_classes.
    """
    encoded, pooled, indices = [x], [x], [None]  # by level, that of 0 is the input
    for level in range(1, 5):
        encoded.append(tf.nn.relu(utils.conv_bn(x, 64, 7, 'conv%d' % level, is_training)))
        x, places = utils.max_pool_with_argmax(encoded[level])  # [batch, ceil(h/2), ceil(w/2), 64]
        x = drop(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append(x)
        indices.append(places)
    if upsample == 'bilinear':
        return utils.upsample_bilinear(utils.conv(x, num_classes, 1, 'conv_classifier'), encoded[0])
    if upsample == 'deconv':
        return fcn_decoder(pooled, num_classes, is_training, addition, reduction)
    for level in range(4, 0, -1):
        x = utils.unpool(x, indices[level], encoded[level])
        x = utils.conv_bn(x, 64, 7, 'conv_decode%d' % level, is_training, single_channel=decoder == 'single channel')
        x = x + encoded[level] if addition else x
        x = drop(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 1, 'conv_classifier')  # [batch, h, w, num_classes]


def fcn_decoder(pooled, num_classes, is_training, addition, reduction):
    """FCN-Basic's decoder (figure 3 of the paper): upsampled by two and added to what the encoder pooled, four times.

    `pooled`: the input, and what each encoder pooled. With `reduction` the last deconvolution gives the logits, without
    it a 1x1 classifier. Batch norm follows the other deconvolutions: the paper is silent on it, but at its rate of 0.1
    64 maps without it overflow within five steps.
    """
    def reduced(x, level):
        return utils.conv(x, num_classes, 1, 'conv_reduce%d' % level) if reduction else x

    x = reduced(pooled[4], 4)
    for level in range(4, 0, -1):
        channels, like, name = x.shape.as_list()[-1], pooled[level - 1], 'deconv%d' % level
        if reduction and level == 1:
            return utils.deconv(x, channels, 8, 2, like, name)  # [batch, h, w, num_classes]
        x = utils.deconv_bn(x, channels, 8, 2, like, name, is_training)
        if addition and level > 1:
            x += reduced(pooled[level - 1], level - 1)
    return utils.conv(x, num_classes, 1, 'conv_classifier')  # [batch, h, w, num_classes]
