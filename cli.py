"""The command line: how a script ends and says why, its signals, the form of its flags."""
import argparse
import contextlib
import os
import re
import shlex
import signal
import sys

import tensorflow.compat.v1 as tf

import quiet
from data import UserError


def main(script):
    """Runs `script()` and exits: 0 done, 1 failed in mid-run, 2 for what the user can mend, 128 + signal."""
    try:
        script()
    except UserError as error:
        sys.exit(_say(error, 2))
    except FloatingPointError as error:
        sys.exit(_say(error, 1))
    except MemoryError as error:
        sys.exit(_say('out of memory: lower --batch_size, or --height and --width (%s)' % error, 1))
    except tf.errors.OpError as error:
        sys.exit(_say(_failed_op(error), 1))
    except OSError as error:
        sys.exit(_say('%s: %s' % (error.filename or 'input or output failed', error.strerror or error), 1))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _failed_op(error):
    """What went wrong in a session, in one line that says what to do."""
    found = re.search(r'UserError: (.*)', error.message)  # raised in the input pipeline
    first = quiet.first_line(error)
    if found:
        return found.group(1)
    if 'No space left' in error.message or 'File too large' in error.message or 'Disk quota' in error.message:
        return 'the disk is full: %s; make room, then the same command goes on from the last checkpoint' % first
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return 'out of memory: lower --batch_size, or --height and --width, or use --precision bfloat16 (%s)' % first
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
        value, most = getattr(args, name), 1e5 if name in ('height', 'width', 'batch_size') else 1e9
        if value is not None and not 0 < value <= most:
            raise UserError('--%s %s: must be above 0, and at most %d' % (name, value, most))


def command():
    """The command line, to be pasted into a shell."""
    return ' '.join(['python', os.path.basename(sys.argv[0])] + [shlex.quote(a) for a in sys.argv[1:]])
