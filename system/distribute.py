"""Trains with several processes: each takes a share of the batch, and an all-reduce sums the gradients.

Each process has a session and a copy of all variables. TensorFlow's CollectiveReduce sums values over the processes,
without a parameter server. The first process, the chief, writes the run folder.
"""
import contextlib
import itertools
import pickle
import tempfile
import threading

import numpy as np
import tensorflow.compat.v1 as tf

from system import cli, cluster, devices, quiet
from system.files import UserError

HANG_SECONDS = 900  # longest wait for a process that is alive but does not reach the CollectiveReduce op
CHUNK = 1 << 16     # number of int32 words that each process sends in one CollectiveReduce op
OWN = ('run', 'weights', 'output', 'data_dir', 'device', 'gpus', 'publish')  # flags that may differ between processes
LOST = tuple(getattr(tf.errors, name + 'Error')  # errors that a session raises if another process is lost
             for name in ('Unavailable', 'Aborted', 'DeadlineExceeded', 'Internal', 'Cancelled'))


class Group:
    """Represents the processes that train together, and exchanges values between the processes.

    Args:
      hosts: 'host:port' of each process; [''] for a single process.
      index: index of this process in `hosts`; 0 is the chief.
    """

    def __init__(self, hosts=('',), index: int = 0):
        self.hosts = list(hosts)
        self.index = index
        self.size = len(hosts)
        self.chief = index == 0
        self.place = '/job:worker/task:%d' % index if self.size > 1 else ''
        self.keys = itertools.count(1)
        self.done = threading.Event()
        self.target = ''  # address for tf.Session
        self.temporary = None if self.chief else tempfile.TemporaryDirectory()
        self.scratch = None if self.chief else self.temporary.name  # only the chief writes the run folder

    def share(self, batch_size: int) -> range:
        """Returns the share of this process in a batch: a range of positions in the batch.

        The sizes of the shares differ by at most one image. Raises UserError if there are fewer images in a batch than
        processes.
        """
        if batch_size < self.size:
            raise UserError('--batch_size %d: must be at least the number of processes, %d' % (batch_size, self.size))
        return range(batch_size * self.index // self.size, batch_size * (self.index + 1) // self.size)

    def local_size(self) -> int:
        """Counts the processes of the group that run on this machine."""
        names = [host.rpartition(':')[0] for host in self.hosts]
        return names.count(names[self.index])

    def all_reduce(self, tensors, device: str = 'CPU') -> list:
        """Sums each tensor over all processes -> list of tensors.

        All tensors are concatenated for a single CollectiveReduce. The tensors are float32, lie on `device`, 'CPU' or
        'GPU', and have the same static shapes in all processes.
        """
        if self.size == 1:
            return list(tensors)
        with tf.device('%s/device:%s:0' % (self.place, device)):
            total = self._reduce(tf.concat([tf.reshape(x, [-1]) for x in tensors], 0), device)
            parts = tf.split(total, [x.shape.num_elements() for x in tensors])
            return [tf.reshape(part, x.shape) for part, x in zip(parts, tensors)]

    def _reduce(self, x, device='CPU'):
        """Adds a CollectiveReduce op, which sums the tensor `x` over all processes -> tensor like `x`."""
        hint = {} if tf.__version__.startswith('1.') else {'communication_hint': 'nccl' if device == 'GPU' else 'ring'}
        return tf.raw_ops.CollectiveReduce(input=x, group_size=self.size, group_key=1 + (device == 'GPU'),
                                           instance_key=next(self.keys), merge_op='Add', final_op='Id',
                                           subdiv_offsets=[0], **hint)

    def broadcast(self, variables) -> tf.Operation:
        """Returns an op that sets `variables` in all processes to the chief's values.

        The op computes a sum over all processes, to which all processes but the chief contribute zeros.
        """
        mine = [tf.cast(variable if self.chief else tf.zeros_like(variable), tf.float32) for variable in variables]
        return tf.group(*[tf.assign(variable, tf.cast(value, variable.dtype.base_dtype))
                          for variable, value in zip(variables, self.all_reduce(mine))])

    def all_gather(self, value) -> list:
        """Returns the list of the values that the processes pass, in the order of the processes.

        All processes must call this method. `value` is any object that pickle can write.
        """
        if self.size == 1:
            return [value]
        text = pickle.dumps(value, 2)
        words = np.frombuffer(np.int32(len(text)).tobytes() + text + bytes(-len(text) % 4), np.int32)
        chunks = []  # results of the CollectiveReduce ops, each int32 [size, CHUNK]
        while not chunks or 4 * CHUNK * len(chunks) < 4 + chunks[0][:, 0].max():
            part = words[CHUNK * len(chunks):][:CHUNK]
            given = np.zeros([self.size, CHUNK], np.int32)
            given[self.index, :len(part)] = part
            chunks.append(self.session.run(self.sum, {self.given: given}))
        return [pickle.loads(row[1:].tobytes()[:row[0]]) for row in np.hstack(chunks)]

    def session_config(self, device: str, xla: bool = False, tf32: str = None) -> tf.ConfigProto:
        """Configures a session of this process on `device`, a value of --device -> tf.ConfigProto.

        If there are several processes, the session sees only the devices of this process, and an operation that takes
        longer than HANG_SECONDS ends with an error.
        """
        config = devices.session_config(device, xla, tf32)
        if self.size > 1:
            config.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
            config.device_filters.append(self.place)
            config.operation_timeout_in_ms = 1000 * HANG_SECONDS
        return config

    def connect(self, device: str, settings: dict) -> None:
        """Connects the processes and starts a thread that watches the other processes.

        With a single process, the method returns at once. The commands call this method before any other work, because
        processes wait only START_SECONDS for each other. Raises UserError if the port of this process is in use or if a
        process is missing. Raises UserError if the processes differ in a flag of `settings` {flag: value}, in the Git
        revision, in the version of TensorFlow or in the kind of device. Flags whose names are in OWN may differ. Ends
        this process if a different program answers at the port of a process, because TensorFlow 1.15 would wait for
        ever.
        """
        if self.size == 1:
            return
        cluster.check_port(self.hosts[self.index])
        config = self.session_config(device)
        print('Process %d of %s waits for the others' % (self.index, ', '.join(self.hosts)), flush=True)
        with quiet.suppress_stderr():
            self.server = tf.train.Server({'worker': self.hosts}, 'worker', self.index, config=config)
            self.target = self.server.target
            cluster.wait_for_peers(self.hosts)
        quiet.silence_tensorflow()  # TensorFlow prints seven lines when a process is lost
        with tf.Graph().as_default(), tf.device(self.place + '/device:CPU:0'):
            self.given = tf.placeholder(tf.int32, [self.size, CHUNK])
            self.sum = self._reduce(self.given)
            self.session = tf.Session(self.target, config=config)
        silence = threading.Timer(60 - cluster.START_SECONDS, cluster.abort, (self.hosts, (
            '%s: no agreement; a port may belong to another program, or the lists differ' % ', '.join(self.hosts)), 2))
        silence.daemon = True
        silence.start()
        self.check_equal(dict({'--' + name: value for name, value in settings.items() if name not in OWN},
                              revision=cli.revision(), tensorflow=tf.__version__, device=devices.kind(device)))
        silence.cancel()
        threading.Thread(target=cluster.monitor_peers, args=(self.hosts, self.done), daemon=True).start()

    def check_equal(self, settings: dict) -> None:
        """Raises UserError if `settings`, a dict, differs between the processes.

        All processes must call this method. Ends this process if another process is lost.
        """
        try:
            everybody = self.all_gather(settings)
        except LOST as error:
            cluster.abort(self.hosts, cli.first_line(error), 2)
        for host, theirs in zip(self.hosts, everybody):
            for name in sorted(set(theirs) | set(everybody[0])):
                if theirs.get(name) != everybody[0].get(name):
                    raise UserError('%s: %s has %s, %s has %s; start all processes with the same flags and code' % (
                        name, self.hosts[0], everybody[0].get(name), host, theirs.get(name)))

    @contextlib.contextmanager
    def barrier(self):
        """Context manager: at the end of the block, all processes wait for each other.

        Ends this process if another process is lost.
        """
        try:
            yield
            self.all_gather(None)
        except LOST as error:
            if self.size == 1:
                raise
            cluster.abort(self.hosts, cli.first_line(error))
        finally:
            self.done.set()
