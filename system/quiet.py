"""Imports TensorFlow without its start-up messages. Each command imports this module first."""
import contextlib
import os
import re
import signal
import sys
import tempfile
import warnings

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # obeyed by TensorFlow 1.15; 2.21 still prints a dozen lines
os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'] = str(2 ** 40)  # OpenCV reads it when imported; `data.decode` has the limit
warnings.filterwarnings('ignore', category=FutureWarning)  # TensorFlow 1.15 with NumPy 1.17 and later


if sys.stderr is None:  # closed, as by `2>&-`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stderr = os.fdopen(2, 'w')


@contextlib.contextmanager
def suppress_stderr():
    """Context manager: silences standard error inside the block.

    With an NVIDIA driver TensorFlow's warnings and errors are printed afterwards. All other text is dropped,
    Python's too. Without a driver everything is dropped: the messages are about missing CUDA libraries.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept if os.path.exists('/proc/driver/nvidia') else ():
                if re.match(rb'[WEF][0-9]|.*: [WEF] ', line):
                    os.write(2, line)


def silence_tensorflow():
    """Drops the standard error of TensorFlow's C++ code from now on; Python's standard error stays open."""
    sys.stderr = os.fdopen(os.dup(2), 'w', 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until cli.main runs: Ctrl-C while importing prints no traceback

with suppress_stderr():
    import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)
