"""Time, memory, parameters and multiply-adds of the networks, on constant input: python benchmark.py segnet --train

Each measurement runs in a process of its own, so that memory is that of one network.
"""
import quiet  # noqa: F401  first of all: TensorFlow without its chatter
import argparse
import concurrent.futures.process
import multiprocessing
import time

import numpy as np
import tensorflow.compat.v1 as tf

import describe
import networks
import optimize
import runs

WARM_UP = 3  # runs that are not counted: kernels are chosen, memory is taken


def memory():
    """Peak memory of this process so far, in bytes; unlike getrusage's it does not begin with the parent's."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))


def measure(model, height, width, batch_size=1, num_classes=11, training=False, precision='float32', device='auto',
            repeats=50):
    """Runs a network on constant data, in this very process.

    Returns:
      dict: seconds, of each of the `repeats` runs; memory, the peak above that after imports, in bytes, or None on a
        GPU, whose memory is not this process's.
    """
    on_gpu = runs.device_name(device).startswith('GPU')  # TensorFlow's search for GPUs happens here, quietly
    before = memory()
    rng = np.random.RandomState(0)
    with tf.Graph().as_default():
        images = tf.Variable(rng.randint(0, 256, (batch_size, height, width, 3)).astype(np.float32), trainable=False)
        logits = networks.build(model, images, num_classes, is_training=training)
        if training:
            labels = tf.constant(rng.randint(0, num_classes, (batch_size, height, width)).astype(np.uint8))
            loss = optimize.loss(logits, labels, np.ones(num_classes))
            op = optimize.train_op(loss, 1e-4, 0.9, 5e-4, lambda variable: networks.multipliers(model, variable))
        else:
            op = tf.argmax(logits, -1).op
        with tf.Session(config=runs.session_config(device, precision)) as sess:
            sess.run(tf.global_variables_initializer())
            seconds = []
            for _ in range(WARM_UP + repeats):
                began = time.perf_counter()
                sess.run(op)
                seconds.append(time.perf_counter() - began)
    return {'seconds': seconds[WARM_UP:], 'memory': None if on_gpu else memory() - before}


def measured(settings):
    """`measure`, whose errors can travel between processes."""
    try:
        return measure(**settings)
    except (tf.errors.OpError, MemoryError) as error:
        raise MemoryError(str(error).splitlines()[0][:200])


def measure_apart(**settings):
    """`measure` in a process of its own."""
    context = multiprocessing.get_context('spawn')
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measured, settings).result()
    except concurrent.futures.process.BrokenProcessPool:
        raise MemoryError('the process that measured %s was killed' % settings['model'])


def parse_args(argv=None):
    """Every setting of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=runs.Help)
    parser.add_argument('models', nargs='*', default=['segnet', 'segnet-basic'], metavar='MODEL',
                        help='networks: ' + ', '.join(sorted(networks.NETWORKS)))
    parser.add_argument('--height', type=int, default=360)
    parser.add_argument('--width', type=int, default=480)
    parser.add_argument('--batch_size', type=int, default=1, help='images a run')
    parser.add_argument('--train', action='store_true', help='measure a training step, not a prediction')
    parser.add_argument('--precision', choices=runs.PRECISIONS, default='float32', help='of convolutions')
    parser.add_argument('--repeats', type=int, default=50, help='runs that are counted; the paper: 50')
    parser.add_argument('--device', choices=runs.DEVICES, default='auto', help='gpu refuses to run without one')
    args = parser.parse_args(argv)
    runs.check_positive(args, 'height', 'width', 'batch_size', 'repeats')
    for model in args.models:
        if model not in networks.NETWORKS:
            raise runs.UserError('%s: no such network; one of %s' % (model, ', '.join(sorted(networks.NETWORKS))))
    return args


def main(args):
    """Prints a row a network."""
    print('%s, %s, %dx%d, batch %d, %s' % (runs.device_name(args.device), args.precision, args.height, args.width,
                                           args.batch_size, 'training step' if args.train else 'prediction'))
    row = '%-36s %10s %10s %9s %9s %9s'
    print(row % ('network', 'parameters', 'multiply', 'ms/image', 'images/s', 'peak MB'))
    for model in args.models:
        layers = describe.layers(model, args.height, args.width, 11)
        got = measure_apart(model=model, height=args.height, width=args.width, batch_size=args.batch_size,
                            training=args.train, precision=args.precision, device=args.device, repeats=args.repeats)
        seconds = float(np.median(got['seconds'])) / args.batch_size
        print(row % (model, '%.3fM' % (sum(layer.parameters for layer in layers) / 1e6),
                     '%.1fG' % (sum(layer.multiply_adds for layer in layers) / 1e9), '%.1f' % (1000 * seconds),
                     '%.2f' % (1 / seconds), '%.0f' % (got['memory'] / 1e6) if got['memory'] else '-'), flush=True)


if __name__ == '__main__':
    runs.main(lambda: main(parse_args()))
