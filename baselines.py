"""The networks that the paper compares SegNet with (its section 4), and U-Net. As segnet.py: builds graphs only.

All have batch norm after each convolution, as in the paper's benchmark, and keep sizes by padding, so that any size
goes in. `drop` acts where the originals have dropout.
"""
import tensorflow.compat.v1 as tf

import utils
from segnet import ENCODER


def vgg16(x, is_training, pool, rates=(1, 1, 1, 1, 1)):
    """VGG16's 13 convolutions -> the five blocks' outputs after `pool(x, block)`; `rates` dilate a block."""
    pooled = []
    for block, (filters, convolutions) in enumerate(ENCODER, 1):
        for i in range(1, convolutions + 1):
            x = utils.conv_bn_relu(x, filters, 3, 'conv%d_%d' % (block, i), is_training, rates[block - 1])
        x = pool(x, block)
        pooled.append(x)
    return pooled


def fcn(images, num_classes, is_training, drop, learnt):
    """FCN-8s (Long, Shelhamer and Darrell 2015): scores of three depths, upsampled and added.

    Args:
      learnt: deconvolutions that start as bilinear, instead of fixed bilinear upsampling.
    """
    def up(x, stride, like, name):
        return (utils.deconv(x, num_classes, 2 * stride, stride, like, name) if learnt
                else utils.upsample_bilinear(x, like))

    _, _, pool3, pool4, x = vgg16(images, is_training, lambda x, block: utils.max_pool(x))
    x = drop(utils.conv_bn_relu(x, 4096, 7, 'fc6', is_training), 'drop6')
    x = drop(utils.conv_bn_relu(x, 4096, 1, 'fc7', is_training), 'drop7')
    x = utils.conv(x, num_classes, 1, 'score_fr')
    x = up(x, 2, pool4, 'upscore2') + utils.conv(pool4, num_classes, 1, 'score_pool4')
    x = up(x, 2, pool3, 'upscore_pool4') + utils.conv(pool3, num_classes, 1, 'score_pool3')
    return up(x, 8, images, 'upscore8')  # [batch, h, w, num_classes]


def deconvnet(images, num_classes, is_training, drop):
    """DeconvNet (Noh, Hong and Han 2015): SegNet's shape with two fully connected layers in its middle.

    1,024 wide instead of 4,096, as in the paper; here they are convolutions, so that any size goes in.
    """
    pooled = []

    def pool(x, block):
        y, indices = utils.max_pool_with_argmax(x)
        pooled.append((indices, x))
        return y

    x = vgg16(images, is_training, pool)[-1]
    x = drop(utils.conv_bn_relu(x, 1024, 7, 'fc6', is_training), 'drop6')
    x = drop(utils.conv_bn_relu(x, 1024, 1, 'fc7', is_training), 'drop7')
    x = utils.conv_bn_relu(x, 512, 7, 'fc6_deconv', is_training)
    for block in range(5, 0, -1):
        filters, convolutions = ENCODER[block - 1]
        x = utils.unpool(x, *pooled.pop())
        for i in range(1, convolutions + 1):  # a deconvolution of stride 1 is a convolution
            last = i == convolutions and block > 1
            x = utils.conv_bn_relu(x, ENCODER[block - 2][0] if last else filters, 3, 'deconv%d_%d' % (block, i),
                                   is_training)
    return utils.conv(x, num_classes, 1, 'seg_score')  # [batch, h, w, num_classes]


def deeplab_largefov(images, num_classes, is_training, drop):
    """DeepLab-LargeFOV (Chen et al. 2015): pooled to an eighth only, then dilated; bilinear upsampling by 8."""
    x = vgg16(images, is_training, lambda x, block: utils.max_pool(x, 3, 2 if block <= 3 else 1), (1, 1, 1, 1, 2))[-1]
    x = drop(utils.conv_bn_relu(x, 1024, 3, 'fc6', is_training, rate=12), 'drop6')
    x = drop(utils.conv_bn_relu(x, 1024, 1, 'fc7', is_training), 'drop7')
    return utils.upsample_bilinear(utils.conv(x, num_classes, 1, 'fc8'), images)  # [batch, h, w, num_classes]


def unet(x, num_classes, is_training, drop):
    """U-Net (Ronneberger, Fischer and Brox 2015), padded; 64 to 1,024 maps, 2x2 up-convolutions, skips by joining."""
    def pair(x, filters, name):
        x = utils.conv_bn_relu(x, filters, 3, name + '_1', is_training)
        return utils.conv_bn_relu(x, filters, 3, name + '_2', is_training)

    skips = []
    for level, filters in enumerate((64, 128, 256, 512), 1):
        x = pair(x, filters, 'down%d' % level)
        x = drop(x, 'drop4') if level == 4 else x
        skips.append(x)
        x = utils.max_pool(x)  # [batch, ceil(h/2), ceil(w/2), filters]
    x = drop(pair(x, 1024, 'bottom'), 'drop5')
    for level, filters in ((4, 512), (3, 256), (2, 128), (1, 64)):
        skip = skips.pop()
        skip = tf.tile(skip, [tf.shape(x)[0] // tf.shape(skip)[0], 1, 1, 1])  # samples share one encoder pass
        x = tf.concat([skip, utils.deconv(x, filters, 2, 2, skip, 'upconv%d' % level)], 3)
        x = pair(x, filters, 'up%d' % level)
    return utils.conv(x, num_classes, 1, 'classifier')  # [batch, h, w, num_classes]
