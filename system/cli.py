"""The command line: argparse types, recipe files, exit statuses and signals. Does not import TensorFlow."""
import argparse
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys

from system.files import UserError, check_names

MAX_SIDE = 11585  # largest side of an image; a square of this side has at most data.MAX_PIXELS pixels
# SIGHUP: the terminal was closed. Slurm can send SIGUSR1 before the time limit. Windows lacks SIGHUP and SIGUSR1.
STOP_SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1') if hasattr(signal, name)]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # root folder of the project


# ---------------------------------------------------------------- flags

def number(kind: type, low: float, high: float):
    """Makes an argparse type that converts text to a number from `low` to `high`; `kind` is int or float."""
    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:
                return value
        noun = 'whole number' if kind is int else 'number'
        raise argparse.ArgumentTypeError('%s: must be a %s from %s to %s' % (text[:60], noun, low, high))
    return parse


positive_int = number(int, 1, 10 ** 9)
side = number(int, 1, MAX_SIDE)               # in pixels
fraction = number(float, 0, 1)
positive_float = number(float, 1e-12, 1e9)
seed = number(int, 0, 2 ** 32 - 1)


def interval(text: str):
    """Argparse type of --validate_every: checks and returns a text such as '5' (epochs) or '500steps'."""
    if not re.match(r'\A[1-9][0-9]{0,8}(steps)?\Z', text):
        raise argparse.ArgumentTypeError('%s: must be a number of epochs, or of steps as 500steps' % text[:40])
    return text


def size(*words: str):
    """Makes an argparse type that converts 'HEIGHTxWIDTH', in pixels, to (height, width).

    A text that is one of `words` is returned unchanged. Each side has 8 to MAX_SIDE pixels.
    """
    def parse(text):
        match = re.match(r'\A([0-9]{1,5})x([0-9]{1,5})\Z', text)
        sides = tuple(map(int, match.groups())) if match else ()
        if text in words or sides and 8 <= min(sides) <= max(sides) <= MAX_SIDE:
            return sides or text
        raise argparse.ArgumentTypeError('%s: must be %s or HEIGHTxWIDTH, such as 360x480, of 8 to %d pixels'
                                         % (text[:60], ' or '.join(words), MAX_SIDE))

    parse.words = words  # marks the type of a size for `Parser.parse_known_args`
    return parse


class Parser(argparse.ArgumentParser):
    """ArgumentParser that reads recipe files (`@FILE`), raises UserError for bad flags and shows defaults."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, fromfile_prefix_chars='@', formatter_class=Help, **settings)

    def convert_arg_line_to_args(self, line):
        """Splits a line of a recipe file into arguments by the rules of a shell; drops `# comments`.

        A comment begins at a # that is not inside a word or quotes. Raises UserError for an open quote or
        a backslash at the end.
        """
        try:
            line = line.lstrip('\ufeff')  # drops the byte order mark of some editors
            return shlex.split(re.sub(r'''(\\.|"(?:\\.|[^"\\])*"|'[^']*')|(?<!\S)#.*''', r'\1', line))
        except ValueError as error:
            raise UserError('recipe line %r: %s' % (line[:60], error))

    def parse_known_args(self, words=None, namespace=None):
        """Parses flags as argparse does; '--tile 360 480', as in older revisions, means --tile 360x480.

        Raises UserError for a recipe that is not UTF-8 or includes itself.
        """
        words = list(sys.argv[1:] if words is None else words)
        sizes = {flag for action in self._actions if hasattr(action.type, 'words') for flag in action.option_strings}
        for i in range(len(words) - 2)[::-1]:
            if words[i] in sizes and words[i + 1].isdigit() and words[i + 2].isdigit():
                words[i + 1:i + 3] = ['x'.join(words[i + 1:i + 3])]
        try:
            return super().parse_known_args(words, namespace)
        except (UnicodeDecodeError, RecursionError) as error:
            raise UserError('recipe: %s; save the file as UTF-8, and let no recipe include itself' % first_line(error))

    def refuse_unused(self, values: dict, used, reason: str):
        """Raises UserError if the user set a flag that is not in `used` to another value than the default.

        `values`: {name of the flag: value}. `reason` ends the error message, for example 'has no effect with --sweep'.
        """
        for name, value in values.items():
            if name not in used and value not in (self.get_default(name), []):
                raise UserError('--%s: %s' % (name, reason))

    def error(self, message):
        """Raises UserError with argparse's message, instead of printing the usage and exiting."""
        raise UserError(message)


class Help(argparse.RawDescriptionHelpFormatter):
    """Formats --help: shows the default of each flag that has one, and keeps the description's line breaks."""

    def _get_help_string(self, action):
        """Returns the help text of a flag, with '(default: ...)' at the end.

        A text that has '(default' already is returned unchanged, and so is the text of a flag whose default is None,
        False or empty. The values of a list are separated by spaces, as on the command line.
        """
        default = ' '.join(map(str, action.default)) if isinstance(action.default, list) else str(action.default)
        hidden = default in ('', 'None', 'False', argparse.SUPPRESS) or '(default' in action.help
        return action.help if hidden else '%s (default: %s)' % (action.help, default)


def command_line() -> str:
    """Returns the command line of this process, quoted for a shell, such as 'python main.py --steps 5'."""
    return ' '.join(['python', os.path.basename(sys.argv[0])] + [shlex.quote(argument) for argument in sys.argv[1:]])


def revision() -> str:
    """Returns the Git commit of the code, with '-dirty' for uncommitted changes; 'unknown' outside a checkout."""
    try:
        return subprocess.check_output(['git', '-C', ROOT, 'describe', '--always', '--dirty', '--abbrev=12',
                                        '--exclude', '*'], stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


# ---------------------------------------------------------------- exit status and signals

def main(script, smaller: str = '--batch_size, or --height and --width, or use --precision bfloat16'):
    """Runs `script()`. Prints an expected error as one line and exits with a status.

    Exit statuses: 1 for a failure while running, 2 for an error that the user can fix, 128 + signal number for Ctrl-C
    (SIGINT) or a closed pipe (SIGPIPE). Any other error is a bug, and Python prints the traceback.

    Args:
      smaller: the flags that the user should lower when memory runs out, for the error message.
    """
    sys.stdout = sys.stdout or open(os.devnull, 'w')  # standard output may be closed, for example by `>&-`
    sys.stdout.reconfigure(errors='backslashreplace')  # escapes characters that the locale lacks
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `system.quiet` set another handler for the imports
    try:
        check_names(sys.argv, 'command line')
        try:
            script()
        finally:
            sys.stdout.flush()  # raises BrokenPipeError here if the pipe is closed
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, such as `| head`, has closed its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + 13)  # 13 is SIGPIPE; Python on Windows lacks the name
    except Exception as error:
        reason = explain(error, smaller)
        if reason is None:
            raise
        print('error: ' + one_line(reason), file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def one_line(text: str) -> str:
    """Joins the lines of `text` by spaces. Spaces inside a line stay, because file names may contain spaces."""
    return ' '.join(line.strip() for line in text.splitlines())


def explain(error: Exception, smaller: str = 'the size'):
    """Describes an expected error -> str, with the fix if known.

    Any other error is a bug, for which the result is None.

    Args:
      smaller: the flags or sizes that the user should lower when memory runs out.
    """
    if isinstance(error, (UserError, FloatingPointError)):
        return str(error)
    full = re.search('No space left|File too large|Disk quota', str(error))
    fix = '; make room, then run the same command again' if full else ''
    if isinstance(error, OSError):
        return '%s: %s%s' % (error.filename or 'input or output failed', error.strerror or error, fix)
    is_op_error = hasattr(error, 'error_code') and hasattr(error, 'op')  # detects tf.errors.OpError without an import
    if not is_op_error and not isinstance(error, MemoryError):
        return None
    raised = re.search('UserError: (.*)', str(error))  # Python code in a tf.data pipeline raised a UserError
    first = first_line(error)
    if raised:
        return raised.group(1)
    if full:
        return 'the disk is full: %s%s' % (first, fix)
    if isinstance(error, MemoryError) or type(error).__name__ == 'ResourceExhaustedError':
        return 'out of memory: lower %s (%s)' % (smaller, first)
    return '%s: %s' % (type(error).__name__, first)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, at most 300 characters.

    TensorFlow 2 begins a message with a list of code locations and the number of root errors. The list and the number
    are removed first.
    """
    message = re.split(r"^Node: '.*'\n", getattr(error, 'message', str(error)), flags=re.MULTILINE)[-1]
    message = re.sub(r'^\d+ root error\(s\) found\.\s*\(0\) ', '', message.strip())
    return (message.splitlines() or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def stop_signals():
    """Context manager: inside the block each signal of STOP_SIGNALS is only appended to the yielded list.

    A second SIGINT or SIGTERM exits immediately. A second SIGHUP does not exit, because the shell and the terminal each
    send a SIGHUP. A signal that was ignored before the block stays ignored; nohup, for example, ignores SIGHUP. After
    the block the former handlers are restored. Output to a closed terminal is dropped.
    """
    received = []
    forced = {signal.SIGINT, signal.SIGTERM}
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]

    def note(number, _):
        if number in forced and forced & set(received):
            os._exit(128 + number)
        received.append(number)
        for terminal in terminals:
            if not os.isatty(terminal):  # the terminal was closed, so writing would raise an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)

    numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
