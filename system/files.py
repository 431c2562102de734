"""Reads files that users give, writes files atomically, and defines UserError. Does not import TensorFlow."""
import contextlib
import csv
import functools
import io
import json
import os
import re
import stat
import sys
import time
import uuid

MAX_FIELD = 1 << 25  # characters in a CSV field; the RLE of a 2000x2000 checkerboard has 19.4 million
KEPT_SECONDS = 3600  # a temporary file older than this number of seconds belongs to a killed process
_noted = set()       # topics of the notes that this process has printed


class UserError(Exception):
    """An error that the user can fix. The message is one line: the file, row or flag, and the fix."""


def note(text: str, about: str = None):
    """Prints 'note: TEXT' on standard error, unless this process has printed a note on the same topic before.

    `about`: the topic, by default `text`.
    """
    if (about or text) not in _noted:
        _noted.add(about or text)
        print('note: ' + text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def atomic_write(path: str):
    """Context manager: yields the name of a temporary file, which is renamed to `path` at the end of the block.

    After an error the temporary file is deleted, and `path` stays as before. The temporary file is in the folder of
    `path` and has a unique name, because other processes may write `path` too.
    """
    folder = os.path.dirname(path)
    remove_unfinished(folder)
    part = os.path.join(folder, '.%s.part' % uuid.uuid4().hex)
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(part)
        if isinstance(error, OSError) and error.filename in (None, part):
            raise OSError(error.errno, error.strerror, path)
        raise


@functools.lru_cache(maxsize=None)
def remove_unfinished(folder: str):
    """Deletes temporary files that killed processes left in `folder` and that are older than KEPT_SECONDS.

    Listing a large folder is slow, so the call is cached: each process lists a folder only once.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder or '.'):
            path = os.path.join(folder, name)
            if re.match(r'\A\.[0-9a-f]{32}\.part\Z', name) and time.time() - os.path.getmtime(path) > KEPT_SECONDS:
                os.remove(path)


def check_file(path: str):
    """Raises UserError unless `path` is a regular file. Reading a pipe or a device might never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError('%s: cannot be read (not a regular file)' % path)
    except (OSError, ValueError) as error:  # a NUL byte in the path raises ValueError
        raise UserError('%s: cannot be read (%s)' % (path, getattr(error, 'strerror', error)))


def check_output(path: str):
    """Raises UserError if `path`, the value of --output, exists and is not a folder."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError('--output %s: is a file; name a folder' % path)


def read_bytes(path: str) -> bytes:
    """Reads a whole file -> bytes. Raises UserError for an unreadable file, a device or a Git LFS pointer."""
    check_file(path)
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UserError('%s: cannot be read (%s)' % (path, error.strerror))
    if content.startswith(b'version https://git-lfs'):
        raise UserError('%s: is a pointer of Git LFS, not the file; run git lfs pull' % path)
    return content


def check_names(names, folder: str):
    """Raises UserError if a name is not valid UTF-8, because text files could not contain the name.

    Args:
      names: file names, paths or command-line arguments.
      folder: where the names come from, for the error message: a folder or a flag.
    """
    for name in names:
        if name != name.encode('utf-8', 'replace').decode():
            raise UserError('%s: the file name %a is not UTF-8; rename the file' % (folder, name))


def read_text(path: str) -> str:
    """Reads a text file -> str. The encoding is UTF-8, or UTF-16 with a byte order mark (Windows).

    Raises UserError if the file cannot be read or decoded.
    """
    content = read_bytes(path)
    encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError('%s: not text in UTF-8 (%s); save the file as UTF-8' % (path, error))


def read_csv(path: str, columns):
    """Reads a CSV file with a header line; yields (line number, {column: text}) for each row.

    Raises UserError if the file cannot be read, if the header lacks one of `columns`, if a row lacks a cell in one of
    `columns`, or if a cell holds NUL bytes.
    """
    csv.field_size_limit(MAX_FIELD)
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=''), skipinitialspace=True)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError('%s: has no column %r; expected %s' % (path, missing[0], ','.join(columns)))
        for row in reader:
            if any(row[column] is None or '\0' in row[column] for column in columns):
                raise UserError('%s row %d: cut short, or holds NUL bytes' % (path, reader.line_num))
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError('%s: not a CSV file (%s)' % (path, error))


def write_bytes(path: str, content):
    """Writes bytes to a file atomically."""
    with atomic_write(path) as part, open(part, 'wb') as file:
        file.write(content)


def write_text(path: str, text: str):
    """Writes text to a file in UTF-8, atomically."""
    write_bytes(path, text.encode('utf-8'))


def write_json(path: str, value):
    """Writes `value` as JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + '\n')


def write_csv(path: str, rows: list):
    """Writes `rows`, a list of sequences of values, to a CSV file in UTF-8, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    write_text(path, text.getvalue())
