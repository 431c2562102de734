"""SegNet and SegNet-Basic (Badrinarayanan, Kendall and Cipolla, arXiv 1511.00561) as graph-building functions.

Opens no session, looks at no flag, knows no data set. Scopes bear the layer names of the authors' released prototxts.
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


INPUTS = {  # what a network can see instead of BGR, 0..255
    'raw': lambda x: x,     # segnet_train.prototxt: neither scaled nor centred, batch norm does both
    'lrn': utils.lrn,       # segnet_basic_train.prototxt
    'lcn': utils.lcn,       # section 3 of the paper, for SegNet-Basic and its variants
}


def segnet(x, num_classes, is_training, drop):
    """SegNet: each decoder undoes one encoder; the last decoder convolution is the classifier (segnet_train.prototxt).

    `drop` acts at the six places of train_segnet_sun.prototxt and of Bayesian SegNet.
    """
    def conv_bn_relu(x, filters, name):
        x = utils.conv(x, filters, 3, name)
        return tf.nn.relu(utils.batch_norm(x, is_training, name + '_bn', beta=0.001))

    pooled = []
    for level, (filters, convolutions) in enumerate(ENCODER, 1):
        for i in range(1, convolutions + 1):
            x = conv_bn_relu(x, filters, 'conv%d_%d' % (level, i))
        encoded = x
        x, indices = utils.max_pool_with_argmax(x)  # [batch, ceil(h/2), ceil(w/2), filters]
        x = drop(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append((indices, encoded))
    for level in range(len(ENCODER), 0, -1):
        filters, convolutions = ENCODER[level - 1]
        x = utils.unpool(x, *pooled.pop())  # back to the size of the level's encoder
        for i in range(convolutions, 1, -1):
            x = conv_bn_relu(x, filters, 'conv%d_%d_D' % (level, i))
        if level > 1:
            x = conv_bn_relu(x, ENCODER[level - 2][0], 'conv%d_1_D' % level)
        x = drop(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 3, 'conv1_1_D')  # [batch, h, w, num_classes]


def segnet_basic(x, num_classes, is_training, drop):
    """SegNet-Basic: 4 encoders, 4 decoders, 7x7, 64 maps, no ReLU in the decoder (segnet_basic_train.prototxt).

    `drop` acts at the four places of bayesian_segnet_basic_train.prototxt.
    """
    def conv_bn(x, name):
        return utils.batch_norm(utils.conv(x, 64, 7, name), is_training, name + '_bn')

    pooled = []
    for level in range(1, 5):
        encoded = tf.nn.relu(conv_bn(x, 'conv%d' % level))
        x, indices = utils.max_pool_with_argmax(encoded)  # [batch, ceil(h/2), ceil(w/2), 64]
        x = drop(x, 'encdrop%d' % level) if level >= 3 else x
        pooled.append((indices, encoded))
    for level in range(4, 0, -1):
        x = utils.unpool(x, *pooled.pop())  # back to the size of the level's encoder
        x = conv_bn(x, 'conv_decode%d' % level)
        x = drop(x, 'decdrop%d' % level) if level >= 3 else x
    return utils.conv(x, num_classes, 1, 'conv_classifier')  # [batch, h, w, num_classes]


NETWORKS = {'segnet': segnet, 'segnet-basic': segnet_basic}


def default_input(name):
    """What the released `name` sees: one of INPUTS."""
    return 'lrn' if 'basic' in name else 'raw'


def no_dropout(x, name):
    """Leaves `x` as it is."""
    return x


def build(name, images, num_classes, is_training, input_norm=None, drop=no_dropout, reuse=False):
    """The network `name` under the scope `name`.

    Args:
      images: [batch, height, width, 3] RGB, 0..255, uint8 or float32, of any height and width.
      num_classes: int, void not counted.
      is_training: Python bool; batch norm by the batch (True) or by the moving averages (False).
      input_norm: one of INPUTS, applied to BGR 0..255; None for the released network's own.
      drop: function (x, place) -> x, dropout at the places of the released Bayesian network.
      reuse: take the variables of an earlier call.
    Returns:
      logits [batch, height, width, num_classes] float32.
    """
    with tf.variable_scope(name, reuse=reuse):
        x = INPUTS[input_norm or default_input(name)](tf.reverse(tf.cast(images, tf.float32), [-1]))
        return NETWORKS[name](x, num_classes, is_training, drop)


def multipliers(name, variable):
    """(learning rate, weight decay) multipliers of a trainable variable, as `param` blocks of the released prototxts.

    Biases learn twice as fast and do not decay. SegNet's batch-norm shift does not decay; SegNet-Basic's does, since
    its prototxt gives batch norm no `param` block.
    """
    kind = variable.op.name.split('/')[-1]
    if kind == 'biases':
        return 2.0, 0.0
    return 1.0, 0.0 if kind == 'beta' and name == 'segnet' else 1.0
