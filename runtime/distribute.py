"""Several GPUs, several machines: one graph, whose towers each take a share of the batch on a device of their own.

The first process (the chief) holds data, variables and run folder and drives all; the others lend their devices until
it is done. So a checkpoint does not know how many there were. Each process finds itself in TF_CONFIG:
{"cluster": {"worker": ["first:2222", "second:2222"]}, "task": {"type": "worker", "index": 0}}
"""
import collections
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf

from runtime import devices
from runtime import quiet
from data import UserError

Cluster = collections.namedtuple('Cluster', 'hosts index')  # host:port of each process; which one this is, 0 the chief
CHIEF = '/job:worker/task:0'
SILENCE = 30  # seconds that a process may not answer


def from_environment():
    """`Cluster` of TF_CONFIG, or None where it is not set or names this process alone."""
    text = os.environ.get('TF_CONFIG')
    if not text:
        return None
    try:
        config = json.loads(text)
        hosts, task = config['cluster']['worker'], config['task']
        fits = list(config['cluster']) == ['worker'] and task['type'] == 'worker' and 0 <= task['index'] < len(hosts)
        fits = fits and isinstance(hosts, list) and type(task['index']) is int and len(set(hosts)) == len(hosts)
        places = [host.rpartition(':') for host in hosts]
        fits = fits and all(host and 0 < int(port) < 1 << 16 for host, _, port in places)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise UserError('TF_CONFIG %s: expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
                        '"index": 0}}, with the place of this process in the list as index' % text[:200])
    return Cluster(hosts, task['index']) if len(hosts) > 1 else None


def towers(cluster, device, gpus):
    """Names of the devices that share a batch: `gpus` in each process ('cpu': as many parts of its CPU)."""
    found = len(devices.gpus()) if device != 'cpu' else 0
    if found and gpus > found:
        raise UserError('--gpus %d: TensorFlow sees %d here; give at most that' % (gpus, found))
    if gpus > 1 and not found and device != 'cpu':
        raise UserError('--gpus %d: TensorFlow sees no GPU; with --device cpu the CPU is shared, to try it' % gpus)
    kind = 'GPU' if found else 'CPU'
    if not cluster and gpus == 1:
        return ['']  # where TensorFlow would put it
    return ['%s/device:%s:%d' % ('/job:worker/task:%d' % task if cluster else '', kind, i)
            for task in range(len(cluster.hosts) if cluster else 1) for i in range(gpus)]


def session_config(cluster, device, gpus, xla):
    """As `devices.session_config`, for several devices."""
    config = devices.session_config(device, xla)
    if device == 'cpu':
        config.device_count['CPU'] = gpus
    if cluster or gpus > 1:
        config.inter_op_parallelism_threads = 0  # towers run side by side
    return config


def shares(batch_size, count):
    """Images of a batch for each of `count` towers, as even as can be."""
    if batch_size < count:
        raise UserError('--batch_size %d: must be at least the number of devices, %d' % (batch_size, count))
    return [batch_size // count + (i < batch_size % count) for i in range(count)]


def leave(hosts):
    """Ends this process at once, with one line; a session that waits for a lost process would not come back."""
    print('error: %s of TF_CONFIG is gone; start all again, the same commands go on from the last checkpoint'
          % ' or '.join([host for host in hosts if not answers(host)] or hosts), file=sys.stderr, flush=True)
    os._exit(1)


def answers(host):
    """Whether something listens at host:port."""
    name, _, port = host.rpartition(':')
    try:
        socket.create_connection((name, int(port)), 5).close()
        return True
    except OSError:
        return False


def watch(hosts):
    """From now on, in a thread: ends this process when one of `hosts` has not answered for SILENCE seconds."""
    def look():
        heard = {host: time.time() for host in hosts}
        while True:
            time.sleep(5)
            for host in hosts:
                heard[host] = time.time() if answers(host) else heard[host]
                if time.time() - heard[host] > SILENCE:
                    leave([host])
    threading.Thread(target=look, daemon=True).start()


def farewells(count):
    """Queue at the chief from which each other process takes one when all is done, with what to run for it."""
    with tf.device(CHIEF + '/device:CPU:0'):
        queue = tf.FIFOQueue(count, tf.int32, [()], shared_name='farewells')
        return queue.enqueue_many([tf.zeros([count], tf.int32)]), queue.dequeue(), queue.size()


def listen(cluster, config):
    """The server of this process."""
    with quiet.suppress_stderr():
        return tf.train.Server({'worker': cluster.hosts}, 'worker', cluster.index, config=config)


@contextlib.contextmanager
def session(cluster, config, farewell):
    """The session that drives all devices; at its end the other processes are let go, by what `farewells` gave."""
    if not cluster:
        with tf.Session(config=config) as sess:
            yield sess
        return
    server = listen(cluster, config)
    print('Waiting for %s' % ', '.join(cluster.hosts[1:]), flush=True)
    sess = tf.Session(server.target, config=config)
    enqueue, _, size = farewell
    try:
        with quiet.suppress_stderr():
            sess.run(size)  # comes back when all are there
        watch(cluster.hosts[1:])
        yield sess
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        leave(cluster.hosts[1:])
    finally:
        sess.run(enqueue)
        until = time.time() + SILENCE
        while sess.run(size) and time.time() < until:
            time.sleep(0.1)
        sess.close()


def lend(cluster, config):
    """Runs a process that is not the chief, until the chief is done; ends the process if the chief is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    server = listen(cluster, config)
    print('Lending the devices of %s to %s' % (cluster.hosts[cluster.index], cluster.hosts[0]), flush=True)
    while not answers(cluster.hosts[0]):
        time.sleep(1)
    watch(cluster.hosts[:1])
    def wait():
        with tf.Graph().as_default():
            _, dequeue, size = farewells(len(cluster.hosts) - 1)
            with tf.Session('grpc://' + cluster.hosts[0]) as sess:
                try:
                    with quiet.suppress_stderr():
                        sess.run(size)
                    sess.run(dequeue)
                except tf.errors.OpError:
                    leave(cluster.hosts[:1])

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(1)
    del server
    print('%s is done' % cluster.hosts[0])
