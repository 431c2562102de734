"""The command line: how a script ends and says why, its signals, the form of its flags."""
import argparse
import contextlib
import errno
import os
import re
import shlex
import signal
import sys

import tensorflow.compat.v1 as tf

from runtime import quiet
from data import MAX_PIXELS, UserError, check_names

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
MAX_SIDE = 1 << 15  # pixels; data.MAX_PIXELS bounds their product


def main(script, smaller='--batch_size, or --height and --width, or use --precision bfloat16'):
    """Runs `script()` and exits: 0 done, 1 failed in mid-run, 2 for what the user can mend, 128 + signal.

    `smaller`: what to lower when memory runs out.
    """
    if sys.stdout:
        sys.stdout.reconfigure(errors='backslashreplace')  # in a locale without the letters of a path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # quiet.py held it off
    try:
        check_names(sys.argv, 'command line')
        try:
            script()
        finally:
            if sys.stdout:
                sys.stdout.flush()  # here, where a reader that is gone can be told of
    except UserError as error:
        sys.exit(_say(error, 2))
    except FloatingPointError as error:
        sys.exit(_say(error, 1))
    except MemoryError as error:
        sys.exit(_say('out of memory: lower %s (%s)' % (smaller, error), 1))
    except tf.errors.OpError as error:
        sys.exit(_say(_failed_op(error, smaller), 1))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        mend = '; make room, then the same command goes on' if error.errno in FULL else ''
        sys.exit(_say('%s: %s%s' % (error.filename or 'input or output failed', error.strerror or error, mend), 1))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _failed_op(error, smaller='the size'):
    """What went wrong in a session, in one line that says what to do."""
    found = re.search(r'UserError: (.*)', error.message)  # raised in the input pipeline
    first = quiet.first_line(error)
    if found:
        return found.group(1)
    if 'No space left' in error.message or 'File too large' in error.message or 'Disk quota' in error.message:
        return 'the disk is full: %s; make room, then the same command goes on from the last checkpoint' % first
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return 'out of memory: lower %s (%s)' % (smaller, first)
    return '%s: %s' % (type(error).__name__, first)


def _say(error, status):
    """One line on standard error; returns the exit status."""
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return status


@contextlib.contextmanager
def stop_signals():
    """Within, SIGINT and SIGTERM are noted in the list that this gives; a second one ends the process at once."""
    received = []

    def note(number, _):
        if received:
            os._exit(128 + number)
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """--help with each default, once, and only where there is one."""

    def _get_help_string(self, action):
        told = action.default is None or action.default is False or '(default' in action.help
        return action.help if told else super()._get_help_string(action)


class HelpAsWritten(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def check_positive(args, *names):
    """Raises UserError for a flag that is set and not above 0, or larger than anything that makes sense."""
    for name in names:
        value = getattr(args, name)
        most = MAX_SIDE if name in ('height', 'width', 'max_side') else 1e4 if name in ('batch_size', 'gpus') else 1e9
        if value is not None and not 0 < value <= most:
            raise UserError('--%s %s: must be above 0, and at most %d' % (name, value, most))
    if (getattr(args, 'height', 0) or 0) * (getattr(args, 'width', 0) or 0) > MAX_PIXELS:
        raise UserError('--height %d --width %d: %d pixels are the most' % (args.height, args.width, MAX_PIXELS))


def command():
    """The command line, to be pasted into a shell."""
    return ' '.join(['python', os.path.basename(sys.argv[0])] + [shlex.quote(a) for a in sys.argv[1:]])
