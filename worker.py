"""A measurement in a process of its own, whose memory is that of one network: both ends of its pipe.

Knows no TensorFlow, so that a network of another framework can be at the far end (tests/peers/).
"""
import ctypes
import errno
import json
import re
import signal
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec there may be no loading
WARM_UP = 3  # runs that are not counted: kernels are chosen, memory is taken


def memory():
    """Peak memory of this process so far, in bytes; unlike getrusage's it does not begin with the parent's."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))


def answer(tasks, taken, replies):
    """The far end: each line of standard input, 'TASK REPEATS', is answered by a line of JSON on `replies`.

    Args:
      tasks: {name: function without arguments}.
      taken: function that tells the peak memory in bytes, or None where it cannot be told.
    """
    for line in sys.stdin:
        name, repeats = line.split()
        seconds = []
        for _ in range(int(repeats)):
            began = time.perf_counter()
            tasks[name]()
            seconds.append(time.perf_counter() - began)
        print(json.dumps({'seconds': seconds, 'memory': taken()}), file=replies, flush=True)


def die_with_parent():
    """For a new process: it is killed when the one that started it ends, in whatever way."""
    PR_SET_PDEATHSIG = 1
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Worker:
    """The near end: a process that runs `command` and answers.

    MemoryError where memory runs out there, ChildProcessError where it dies of something else.
    """

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        universal_newlines=True, preexec_fn=die_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def run(self, repeats, task='step'):
        """dict: seconds, of each of `repeats` runs; memory, the peak so far in bytes, or None."""
        try:
            self.process.stdin.write('%s %d\n' % (task, repeats))
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ''
        if not line:
            lines = self.process.communicate()[1].strip().splitlines() or ['ended without a word']
            memory = [line for line in lines if re.search('OOM|out of memory|bad_alloc|allocate', line)]
            if memory or self.process.returncode == -signal.SIGKILL:
                raise MemoryError('%s: %s' % (' '.join(self.command[1:])[:100], (memory or lines)[-1][:300]))
            raise ChildProcessError(errno.ECHILD, '%s (status %d)' % (lines[-1][:300], self.process.returncode),
                                    self.command[0])
        return json.loads(line)
