"""One measurement: runs a network on constant data as often as it is told to; benchmark.py starts this process."""
from runtime import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import json
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import devices
import networks
import optimize
import worker

SIZE = 3072  # of the matrices that tell the machine's peak
NUM_CLASSES = 11


def graph(model, height, width, batch_size, training, precision):
    """The op of one training step, or of one prediction, on images that lie on the device."""
    rng = np.random.RandomState(0)
    images = tf.get_local_variable('images', initializer=rng.randint(
        0, 256, (batch_size, height, width, 3)).astype(np.float32))
    logits = networks.build(model, images, NUM_CLASSES, training, precision=precision)
    if not training:
        return tf.argmax(logits, -1, name='ids')
    labels = tf.constant(rng.randint(0, NUM_CLASSES, (batch_size, height, width)).astype(np.uint8))
    loss = optimize.loss(logits, labels, np.ones(NUM_CLASSES))
    return optimize.train_op(loss, 1e-4, 0.9, 5e-4, lambda variable: networks.multipliers(model, variable),
                             precision=precision)


def multiplication(precision):
    """A product of two matrices of SIZE x SIZE."""
    a = tf.get_local_variable('a', initializer=tf.ones([SIZE, SIZE], tf.as_dtype(precision)))
    return tf.matmul(a, a).op


def main(settings):
    """Answers benchmark.py, which closes the pipe when it has enough."""
    replies, sys.stdout = sys.stdout, sys.stderr
    network = [settings[name] for name in ('model', 'height', 'width', 'batch_size', 'training', 'precision')]
    on_gpu = devices.device_name(settings['device']).startswith('GPU')
    config = devices.session_config(settings['device'], settings['xla'])
    before = worker.memory()
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        op = graph(*network)
        product = multiplication(settings['precision'])
        sess.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        worker.answer({'step': lambda: sess.run(op), 'multiply': lambda: sess.run(product)},
                      lambda: None if on_gpu else worker.memory() - before, replies)


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
