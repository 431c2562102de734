"""TensorFlow without its chatter; what matters still shows. Imported first by each script."""
import contextlib
import os
import re
import signal
import sys
import tempfile
import warnings

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # TensorFlow 1.15 heeds it; 2.21 writes a dozen lines all the same
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(2 ** 27))  # data.MAX_PIXELS; OpenCV reads it when imported
warnings.filterwarnings('ignore', category=FutureWarning)  # 1.15 with NumPy 1.17 and later


@contextlib.contextmanager
def suppress_stderr():
    """Within, standard error is kept; afterwards its warnings and errors are shown if the machine has a GPU driver.

    Without one they tell of CUDA libraries that are not there and not needed.
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


if os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # in a script, until cli.main: no traceback of imports half done

with suppress_stderr():
    import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)


def first_line(error):
    """What an error of TensorFlow's says, without the list of places in code that 2.x puts in front of it."""
    said = re.split(r"^Node: '.*'\n", getattr(error, 'message', str(error)), flags=re.MULTILINE)[-1]
    said = re.sub(r'^\d+ root error\(s\) found\.\s*\(0\) ', '', said.strip())
    return (said.splitlines() or [type(error).__name__])[0][:300]
