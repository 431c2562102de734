"""Imports TensorFlow without its start-up messages. Each command imports this module first."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # drops most messages of TensorFlow's C++ code
os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'] = str(2 ** 40)  # disables OpenCV's limit: `data.decode` checks the size
warnings.filterwarnings('ignore', category=FutureWarning)  # TensorFlow 1.15 warns with NumPy 1.17 or later


if sys.stderr is None:  # standard error was closed, for example by `2>&-`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stderr = os.fdopen(2, 'w')


@contextlib.contextmanager
def suppress_stderr(importing: bool = False):
    """Context manager: silences standard error inside the block.

    With an NVIDIA driver, TensorFlow's warnings and errors are printed after the block. All other text is dropped.
    Without a driver, TensorFlow's warnings are dropped too, because they only report missing CUDA libraries. With
    `importing`, everything that was silenced is printed if the block raises an error or ends the process.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        watcher = watch(kept) if importing and os.path.exists('/bin/sh') else None
        os.dup2(kept.fileno(), 2)
        failed = importing
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            if watcher:
                watcher.communicate(b'\n')
            kept.seek(0)
            for line in kept if failed or os.path.exists('/proc/driver/nvidia') else ():
                if failed or re.match(rb'[WEF][0-9]|.*: [WEF] ', line):
                    os.write(2, line)


def watch(kept):
    """Starts a process that prints the file `kept` on standard error if the caller dies -> subprocess.Popen.

    On a CPU without AVX, the import of TensorFlow aborts the calling process, so only a second process can print the
    reason. The started process ends without printing when a line is written to its standard input.
    """
    number = kept.fileno()
    command = ['/bin/sh', '-c', 'read -r line || cat /dev/fd/%d >&2' % number]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[number])


def silence_tensorflow():
    """Drops all later messages of TensorFlow's C++ code; Python can still print on standard error."""
    sys.stderr = os.fdopen(os.dup(2), 'w', 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports prints no traceback; `cli.main` sets a handler

with suppress_stderr(importing=True):
    import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)
