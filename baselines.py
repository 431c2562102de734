"""FCN, DeconvNet and DeepLab-LargeFOV, the paper's baselines (section 4), and U-Net.

Batch norm follows each convolution, as in the paper's benchmark. Classifiers and transposed convolutions have no batch
norm. Convolutions are padded, so images of any size work. Dropout follows the same layers as in the original networks.

Each network takes images [batch, h, w, 3], num_classes, is_training and a function dropout(x, name), and returns logits
[batch, h, w, num_classes].
"""
import tensorflow.compat.v1 as tf

import utils
from segnet import ENCODER


def vgg16(x, is_training, pool, rates=(1, 1, 1, 1, 1)):
    """Builds VGG16's 13 convolutions, each with batch norm and ReLU; returns the pooled maps of the 5 blocks.

    Args:
      pool: function (x, number of the block, 1 to 5) -> pooled feature maps.
      rates: dilation rate of the convolutions in each block.
    """
    pooled = []
    for block, (filters, convolutions) in enumerate(ENCODER, 1):
        for i in range(1, convolutions + 1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d' % (block, i), is_training, rates[block - 1])
        x = pool(x, block)
        pooled.append(x)
    return pooled


def fcn(images, num_classes, is_training, dropout, learnt):
    """Builds FCN-8s (Long, Shelhamer and Darrell 2015) and returns the logits.

    The class scores of pool3, pool4 and fc7 are upsampled and summed.

    Args:
      learnt: bool. True: the class scores are upsampled by trainable deconvolutions that start as bilinear
        interpolation. False: the class scores are upsampled by bilinear interpolation.
    """
    def up(x, stride, shape_like, name):
        return (utils.deconv(x, num_classes, 2 * stride, stride, shape_like, name) if learnt
                else utils.upsample_bilinear(x, shape_like))

    _, _, pool3, pool4, x = vgg16(images, is_training, lambda x, block: utils.max_pool(x))
    x = dropout(utils.conv_bn_relu(x, 4096, 7, 'fc6', is_training), 'drop6')
    x = dropout(utils.conv_bn_relu(x, 4096, 1, 'fc7', is_training), 'drop7')
    x = utils.conv(x, num_classes, 1, 'score_fr')
    x = up(x, 2, pool4, 'upscore2') + utils.conv(pool4, num_classes, 1, 'score_pool4')
    x = up(x, 2, pool3, 'upscore_pool4') + utils.conv(pool3, num_classes, 1, 'score_pool3')
    return up(x, 8, images, 'upscore8')  # [batch, h, w, num_classes]


def deconvnet(images, num_classes, is_training, dropout):
    """Builds DeconvNet (Noh, Hong and Han 2015) and returns the logits.

    DeconvNet is SegNet with fully connected layers between encoder and decoder. As in the SegNet paper, the layers fc6
    and fc7 have 1,024 units, not 4,096 as in the original DeconvNet. Fully connected layers are built as convolutions.
    """
    pooled = []

    def pool(x, block):
        y, indices = utils.max_pool_with_argmax(x)
        pooled.append((indices, x))
        return y

    x = vgg16(images, is_training, pool)[-1]
    x = dropout(utils.conv_bn_relu(x, 1024, 7, 'fc6', is_training), 'drop6')
    x = dropout(utils.conv_bn_relu(x, 1024, 1, 'fc7', is_training), 'drop7')
    x = utils.conv_bn_relu(x, 512, 7, 'fc6_deconv', is_training)
    for block in range(5, 0, -1):
        filters, convolutions = ENCODER[block - 1]
        x = utils.unpool(x, *pooled.pop())
        for i in range(1, convolutions + 1):  # equivalent to deconvolutions of stride 1
            filters = ENCODER[block - 2][0] if i == convolutions and block > 1 else filters
            x = utils.conv_bn_relu(x, filters, 3, 'deconv%d_%d' % (block, i), is_training)
    return utils.conv(x, num_classes, 1, 'seg_score')  # [batch, h, w, num_classes]


def deeplab_largefov(images, num_classes, is_training, dropout):
    """Builds DeepLab-LargeFOV (Chen et al., 2015) and returns the logits.

    The feature maps are pooled to 1/8 of the image size. The convolutions of the last block and of the layer fc6 are
    dilated. The logits are upsampled bilinearly.
    """
    x = vgg16(images, is_training, lambda x, block: utils.max_pool(x, 3, 2 if block <= 3 else 1), (1, 1, 1, 1, 2))[-1]
    x = dropout(utils.conv_bn_relu(x, 1024, 3, 'fc6', is_training, rate=12), 'drop6')
    x = dropout(utils.conv_bn_relu(x, 1024, 1, 'fc7', is_training), 'drop7')
    return utils.upsample_bilinear(utils.conv(x, num_classes, 1, 'fc8'), images)  # [batch, h, w, num_classes]


def unet(x, num_classes, is_training, dropout):
    """Builds U-Net (Ronneberger, Fischer and Brox 2015) with padding and returns the logits.

    The number of filters doubles at each level of the encoder, from 64 to 1,024. Each level of the decoder concatenates
    its upsampled feature maps with the encoder's feature maps of the same size.
    """
    def pair(x, filters, name):
        x = utils.conv_bn_relu(x, filters, 3, name + '_1', is_training)
        return utils.conv_bn_relu(x, filters, 3, name + '_2', is_training)

    skips = []
    for level, filters in enumerate((64, 128, 256, 512), 1):
        x = pair(x, filters, 'down%d' % level)
        x = dropout(x, 'drop4') if level == 4 else x
        skips.append(x)
        x = utils.max_pool(x)  # [batch, ceil(h/2), ceil(w/2), filters]
    x = dropout(pair(x, 1024, 'bottom'), 'drop5')
    for level, filters in ((4, 512), (3, 256), (2, 128), (1, 64)):
        skip = skips.pop()
        # With Monte-Carlo dropout, x holds several samples of an image, which all need the feature maps `skip`.
        skip = tf.tile(skip, [tf.shape(x)[0] // tf.shape(skip)[0], 1, 1, 1])
        x = tf.concat([skip, utils.deconv(x, filters, 2, 2, skip, 'upconv%d' % level)], 3)
        x = pair(x, filters, 'up%d' % level)
    return utils.conv(x, num_classes, 1, 'classifier')  # [batch, h, w, num_classes]
