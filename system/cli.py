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

MAX_SIDE = 11585  # largest height or width in pixels; 11585 x 11585 is just below data.MAX_PIXELS
# A terminal sends SIGHUP when closed. Slurm can send SIGUSR1 before the time limit. Windows lacks both signals.
STOP_SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1') if hasattr(signal, name)]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # root folder of the project


# ---------------------------------------------------------------- flags

def number(kind: type, low: float, high: float):
    """Makes an argparse type: a number from `low` to `high`, where `kind` is int or float."""
    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:
                return value
        noun = 'whole number' if kind is int else 'number'
        raise argparse.ArgumentTypeError('%s: must be a %s from %s to %s' % (text[:60], noun, low, high))
    return parse


positive_int = number(int, 1, 10 ** 9)
side = number(int, 1, MAX_SIDE)               # height or width in pixels
fraction = number(float, 0, 1)
positive_float = number(float, 1e-12, 1e9)
seed = number(int, 0, 2 ** 32 - 1)


def interval(text: str):
    """Argparse type of --validate_every: returns the text unchanged, such as '5' (epochs) or '500steps'."""
    if not re.match(r'\A[1-9][0-9]{0,8}(steps)?\Z', text):
        raise argparse.ArgumentTypeError('%s: must be epochs such as 5, or steps such as 500steps' % text[:40])
    return text


def size(*words: str):
    """Makes an argparse type that converts 'HEIGHTxWIDTH', in pixels, to (height, width).

    Height and width are 8 to MAX_SIDE pixels. A text that is one of `words` is returned unchanged.
    """
    def parse(text):
        match = re.match(r'\A([0-9]{1,5})x([0-9]{1,5})\Z', text)
        sides = tuple(map(int, match.groups())) if match else ()
        if text in words or sides and 8 <= min(sides) <= max(sides) <= MAX_SIDE:
            return sides or text
        raise argparse.ArgumentTypeError('%s: must be %s or HEIGHTxWIDTH, such as 360x480, of 8 to %d pixels'
                                         % (text[:60], ' or '.join(words), MAX_SIDE))

    parse.words = words  # by this attribute, `Parser.parse_known_args` recognizes flags whose value is a size
    return parse


class Parser(argparse.ArgumentParser):
    """ArgumentParser that reads recipe files (`@FILE`) and raises UserError for bad flags."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, fromfile_prefix_chars='@', formatter_class=Help, **settings)

    def convert_arg_line_to_args(self, line):
        """Splits a line of a recipe file into arguments, by the rules of a shell -> list of str.

        Comments are dropped; a comment begins at a # outside words and quotes. Raises UserError if a quote is not
        closed or if the line ends with a backslash.
        """
        try:
            line = line.lstrip('\ufeff')  # some editors write a byte order mark
            return shlex.split(re.sub(r'''(\\.|"(?:\\.|[^"\\])*"|'[^']*')|(?<!\S)#.*''', r'\1', line))
        except ValueError as error:
            raise UserError('recipe line %r: %s' % (line[:60], error))

    def parse_known_args(self, words=None, namespace=None):
        """Parses flags. For commands of older revisions, '--tile 360 480' is read as '--tile 360x480'.

        Raises UserError if a recipe is not UTF-8 or includes itself.
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
        """Raises UserError if a flag that is not in `used` has a value other than the default.

        `values`: {name of the flag: value}. `reason`: end of the message, such as 'has no effect with --sweep'.
        """
        for name, value in values.items():
            if name not in used and value not in (self.get_default(name), []):
                raise UserError('--%s: %s' % (name, reason))

    def error(self, message):
        """Raises UserError with argparse's message. The method of argparse would print the usage and exit."""
        raise UserError(message)


class Help(argparse.RawDescriptionHelpFormatter):
    """Formats --help: shows the defaults of the flags and keeps the line breaks of the description."""

    def _get_help_string(self, action):
        """Returns the help text of a flag, with '(default: ...)' at the end.

        Defaults of None, False, '' and [] are not shown. A help text that already contains '(default' is not changed.
        The values of a list are separated by spaces, as on the command line.
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
    """Runs `script()`. For an expected error, prints one line and exits with a status.

    Status 1: a failure while running. Status 2: an error that the user can fix. Status 128 + signal number: Ctrl-C
    (SIGINT) or a closed pipe (SIGPIPE). Any other error is a bug, for which Python prints the traceback.

    Args:
      smaller: text after 'out of memory: lower' in the error message: the flags that the user should lower.
    """
    sys.stdout = sys.stdout or open(os.devnull, 'w')  # None if standard output is closed, as by `>&-`
    sys.stdout.reconfigure(errors='backslashreplace')  # escapes characters that the locale lacks
    signal.signal(signal.SIGINT, signal.default_int_handler)  # undoes the handler that `system.quiet` has set
    try:
        check_names(sys.argv, 'command line')
        try:
            script()
        finally:
            sys.stdout.flush()  # a closed pipe raises BrokenPipeError here, inside the try block
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # a reader such as `| head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + 13)  # 13 is SIGPIPE, a name that Python lacks on Windows
    except Exception as error:
        reason = explain(error, smaller)
        if reason is None:
            raise
        print('error: ' + one_line(reason), file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def one_line(text: str) -> str:
    """Joins the lines of `text` with spaces. Spaces inside a line are kept: file names may contain spaces."""
    return ' '.join(line.strip() for line in text.splitlines())


def explain(error: Exception, smaller: str = 'the size'):
    """Returns the message of an expected error, with the fix if known -> str.

    Any other error is a bug, for which the result is None.

    Args:
      smaller: text after 'out of memory: lower' in the message: the flags or sizes that the user should lower.
    """
    if isinstance(error, (UserError, FloatingPointError)):
        return str(error)
    full = re.search('No space left|File too large|Disk quota', str(error))
    fix = '; make room, then run the same command again' if full else ''
    if isinstance(error, OSError):
        return '%s: %s%s' % (error.filename or 'input or output failed', error.strerror or error, fix)
    if not isinstance(error, MemoryError) and not hasattr(error, 'error_code'):  # only tf.errors.OpError has error_code
        return None
    raised = re.search('UserError: (.*)', str(error))  # a UserError that Python code raised inside a tf.data pipeline
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

    The function first removes the code locations and the count of root errors at the start of TensorFlow 2's messages.
    """
    message = re.split(r"^Node: '.*'\n", getattr(error, 'message', str(error)), flags=re.MULTILINE)[-1]
    message = re.sub(r'^\d+ root error\(s\) found\.\s*\(0\) ', '', message.strip())
    return (message.splitlines() or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def stop_signals():
    """Context manager: inside the block each signal of STOP_SIGNALS is only appended to the yielded list.

    A second SIGINT or SIGTERM exits immediately. A second SIGHUP does not exit, because the shell and the terminal each
    send a SIGHUP. A signal that was ignored before the block, such as SIGHUP under nohup, stays ignored. Output to a
    closed terminal is dropped. After the block the former handlers are restored.
    """
    received = []
    forced = {signal.SIGINT, signal.SIGTERM}
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream and stream.isatty()]

    def note(number, _):
        if number in forced and forced & set(received):
            os._exit(128 + number)
        received.append(number)
        for terminal in terminals:
            if not os.isatty(terminal):  # writing to a closed terminal would raise an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)

    numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
