"""Tests faults in a long run: kills at any moment, full and read-only disks, damaged files."""
import contextlib
import ctypes
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import (ROOT, assert_refused, assert_same_weights, file_size_limit, png_bytes, put_text, weights_of,
                      write_folder)
from test_main import read_log, score, start, train, wait_for_log

import data
import datasets
import evaluate
import main
from datasets import files, rle
from runs import folder as run_folder, plots, weights
from runs.folder import checkpoints, read_json
from system import cli, files as system_files, machine
from system.files import read_bytes, read_csv, write_json

LIBC = ctypes.CDLL(None)  # loaded at import, because dlopen is unsafe between fork and exec


@pytest.mark.slow
def test_killed_at_twenty_random_moments(camvid_folder, tmp_path, monkeypatch):
    """The process is killed during training, validation and saving.

    The run ends with the weights of an uninterrupted run.
    """
    whole, killed = str(tmp_path / 'whole'), str(tmp_path / 'killed')
    train(camvid_folder, whole, '--steps', '600')
    rng = np.random.RandomState(4)
    for _ in range(20):
        lines = len(run_folder.read_log(killed))
        process = start(camvid_folder, killed, '--steps', '600')
        wait_for_log(process, killed, lines + 1)
        time.sleep(rng.uniform(0, 1.5))
        assert process.poll() is None, ('it ended too soon', process.communicate())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    monkeypatch.setattr(system_files, 'KEPT_SECONDS', 0)  # a restart deletes temporary files of any age
    train(camvid_folder, killed, '--steps', '600')
    assert_same_weights(weights_of(whole), weights_of(killed))
    assert [record['step'] for record in read_log(killed) if 'loss' in record] == list(range(1, 601))
    left = [name for _, _, names in os.walk(killed) for name in names]
    assert not [name for name in left if 'temp' in name or name.endswith('.part')]
    assert {name.split('.')[0] for name in os.listdir(os.path.join(killed, 'checkpoints'))} == {
        'checkpoint', 'model-595', 'model-599', 'model-600'}  # epochs have 3.5 steps; step 600 is the end


def test_second_signal_ends_at_once():
    script = ('import os\nfrom system import cli\nwith cli.stop_signals():\n    os.kill(os.getpid(), 15)\n'
              '    os.kill(os.getpid(), 15)\nprint("late")')
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.returncode == 128 + signal.SIGTERM and not done.stdout


def test_stop_signals_are_collected():
    """A second SIGHUP does not end the process. Ignored signals stay ignored, and old handlers are restored."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with cli.stop_signals() as stop:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert stop == [signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM]
    assert signal.signal(signal.SIGHUP, signal.SIG_IGN) == signal.SIG_DFL
    with cli.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop == []
    signal.signal(signal.SIGUSR1, before[0]), signal.signal(signal.SIGHUP, before[1])


def test_closed_terminal():
    """A closed terminal sends SIGHUP. Printing to the closed terminal raises no error, so the run can be saved."""
    script = ('import sys, time\nsys.path.insert(0, %r)\nfrom system import cli\nwith cli.stop_signals() as stop:\n'
              '    print("ready", flush=True)\n    while not stop:\n        time.sleep(0.01)\n'
              'print("saved", flush=True)\nprint("saved", file=sys.stderr)\nsys.exit(128 + stop[0])' % ROOT)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, '-c', script])
    assert os.read(terminal, 100).startswith(b'ready')
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + signal.SIGHUP


def assert_ends(capsys, status, said, command, *args):
    """Checks that a script that calls `command` exits with `status` and one line on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(lambda: command(*args))
    error = capsys.readouterr().err
    assert end.value.code == status and error.startswith('error: ') and error.count('\n') == 1 and said in error, error


def test_full_disk(camvid_folder, output, capsys):
    """On a full disk, main.py prints one error line and exits with status 1.

    With free disk space, the same command resumes the run from the last complete checkpoint.
    """
    flags = [camvid_folder, output, '--schedule', 'constant', '--steps']
    train(*flags, '4')
    before = weights_of(output)
    with file_size_limit(3 << 20):
        assert_ends(capsys, 1, 'make room', train, *flags, '7')
    assert_same_weights(before, weights_of(output))
    train(*flags, '7')
    assert int(weights_of(output)['global_step']) == 7


@contextlib.contextmanager
def as_any_user():
    """Context manager in which even root cannot write to read-only files.

    Inside the block, this thread does not have the capability CAP_DAC_OVERRIDE (bit 1).
    """
    version, rights = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    LIBC.capget(version, rights)
    rights[0] ^= 2
    assert LIBC.capset(version, rights) == 0
    try:
        yield
    finally:
        rights[0] ^= 2
        LIBC.capset(version, rights)


def set_mode(folder, mode):
    """Sets the mode of a folder and of all folders below."""
    for place, _, _ in os.walk(folder):
        os.chmod(place, mode)


def test_forbidden_output(camvid_folder, output, monkeypatch, capsys):
    """In a read-only folder, main.py prints one error line and exits with status 1.

    When the folder is writable again, the same command resumes the run.
    """
    parent = os.path.dirname(output)
    log_step, modes = main.Run.log_step, [0o555, 0o755]

    def forbidding(run, step, fetched):
        log_step(run, step, fetched)
        if step == 5:
            set_mode(output, modes.pop(0))

    monkeypatch.setattr(main.Run, 'log_step', forbidding)
    with as_any_user():
        os.chmod(parent, 0o555)
        assert_ends(capsys, 1, 'run: Permission denied', train, camvid_folder, output, '--steps', '7')
        assert os.listdir(parent) == ['camvid']
        os.chmod(parent, 0o755)
        assert_ends(capsys, 1, 'Permission denied', train, camvid_folder, output, '--steps', '7')
        assert_ends(capsys, 1, 'Permission denied', score, output, '--bf_images', '0')
        set_mode(output, 0o755)
        train(camvid_folder, output, '--steps', '7')
    assert int(weights_of(output)['global_step']) == 7


def test_data_that_disappears_is_named(camvid_folder, output, monkeypatch):
    """Images that do not fit in memory are read again in each epoch.

    If the images have disappeared, the error names an image.
    """
    monkeypatch.setattr(data, 'CACHE_BYTES', 0)
    real = evaluate.score_split

    def gone(*args, **named):
        shutil.rmtree(os.path.join(camvid_folder, 'train'), ignore_errors=True)
        return real(*args, **named)

    monkeypatch.setattr(main.evaluate, 'score_split', gone)
    with pytest.raises(tf.errors.OpError) as error:
        train(camvid_folder, output, '--steps', '90')
    said = cli.explain(error.value)
    assert '.png: cannot be read' in said and '\n' not in said
    assert checkpoints(output, 'last'), 'the checkpoint of the first validation exists'


@pytest.mark.parametrize('files, free', [
    ({}, 921600), ({'group/job/memory.max': 500, 'group/job/memory.current': 480}, 20),
    ({'group/job/memory.max': 'max', 'group/memory.max': 700, 'group/memory.current': 600,
      'group/memory.stat': 'active_file 5\ninactive_file 30'}, 130),
    ({'memory/old/memory.limit_in_bytes': 300, 'memory/old/memory.usage_in_bytes': 250,
      'memory/old/memory.stat': 'inactive_file 1\ntotal_inactive_file 7'}, 57),
    ({'memory/memory.limit_in_bytes': 300, 'memory/memory.usage_in_bytes': 310}, 0),
    ({'memory.max': 200, 'memory.current': 50}, 150), ({'memory/old/memory.limit_in_bytes': 1 << 62}, 921600)])
def test_free_memory(tmp_path, files, free):
    """The free memory is limited by the machine and by all control groups that contain this process."""
    for name, content in files.items():
        put_text(str(tmp_path / 'root'), name, '%s\n' % content)
    put_text(str(tmp_path), 'groups', '7:cpu:/x\n5:memory:/old\n0::/group/job\n')
    put_text(str(tmp_path), 'meminfo', 'MemTotal: 9999 kB\nMemAvailable:    900 kB\n')
    places = [str(tmp_path / name) for name in ('meminfo', 'groups', 'root')]
    assert machine.free_memory(*places) == free
    os.remove(places[0])
    assert machine.free_memory(*places) == (machine.UNKNOWN_FREE if free == 921600 else free)


def test_failed_op_says_what_to_do():
    """`cli.explain` drops the code locations that TensorFlow 2 puts before an error message."""
    with tf.Graph().as_default(), tf.Session() as sess, pytest.raises(tf.errors.ResourceExhaustedError) as error:
        shape = tf.placeholder(tf.int32, [2])  # the next line feeds a shape that is too large for any address space
        sess.run(tf.nn.relu(tf.fill(shape, 1.)) + 1, {shape: [1 << 23, 1 << 23]})
    said = cli.explain(error.value)
    assert 'lower the size' in said and 'OOM when allocating tensor with shape[8388608,8388608]' in said
    assert '\n' not in said and 'Graph execution' not in said
    full = tf.errors.ResourceExhaustedError(None, None, 'run/model.data: No space left on device\nmore')
    assert 'the disk is full' in cli.explain(full) and 'more' not in cli.explain(full)
    two = tf.errors.UnknownError(None, None, '2 root error(s) found.\n  (0) Internal: it broke\n  (1) Internal: more')
    assert cli.explain(two) == 'UnknownError: Internal: it broke'


@pytest.mark.parametrize('flag, value', [('model', 'lenet'), ('input', 'xyz'), ('dataset', 'imagenet')])
def test_edited_config_is_refused(tmp_path, flag, value):
    flags = dict(vars(main.parse_args([])), **{flag: value})
    write_json(str(tmp_path / 'config.json'), {'flags': flags, 'class_names': [], 'colors': []})
    assert_refused('config.json|--dataset imagenet', score, str(tmp_path))


def test_claims_of_size(tmp_path):
    """A PNG that claims 100000x100000 pixels and a CSV field of 100 million characters are refused in seconds."""
    (tmp_path / 'big.png').write_bytes(png_bytes(100000, 100000, 8, b'', color_type=2))
    began = time.process_time()
    assert_refused('big.png', data.read_image, str(tmp_path / 'big.png'))
    (tmp_path / 'long.csv').write_text('id,annotation,width,height,cell_type\na,' + '1 2 ' * (25 << 20) + ',3,4,cort\n')
    assert_refused('long.csv', rle.read_cells, str(tmp_path / 'long.csv'), {'cort': 3})
    assert time.process_time() - began < 10


def test_pipes_devices_and_loops_are_no_files(tmp_path):
    """A pipe does not block, a device is not read endlessly, and a link to itself is an error."""
    os.mkfifo(str(tmp_path / 'pipe'))
    os.symlink('/dev/zero', str(tmp_path / 'zero'))
    os.symlink(str(tmp_path / 'loop'), str(tmp_path / 'loop'))
    for name, said in (('pipe', 'not a regular file'), ('zero', 'not a regular file'), ('loop', 'cannot be read')):
        for read in (data.read_image, files.read_names, read_json, weights.npz, weights.caffemodel, weights.vgg16,
                     lambda path: list(read_csv(path, ['id']))):
            assert_refused(said, read, str(tmp_path / name))


def test_junk_in_the_log_is_passed_over(tmp_path):
    """After a power cut, log.jsonl may contain junk. Complete records up to the checkpoint's step are kept."""
    junk = b'\xff\xfe\0\n[1,2]\n7\nnull\n{"loss": 1}\n{"step": "x"}\n' + b'[' * 200000
    (tmp_path / 'log.jsonl').write_bytes(
        b'{"step": 1}\n%s\n{"step": 2, "mIoU": 0.3}\n{"step": 3}\n{"step": 2, "mIo' % junk)
    assert run_folder.read_log(str(tmp_path), 2) == [{'step': 1}, {'step': 2, 'mIoU': 0.3}]


def test_names_with_dollars_are_no_formulas(tmp_path, figures):
    """Matplotlib would fail to parse $x^$ as a formula."""
    names = ['$x^$', 'caf\udce9', 'US$ and CA$']
    plots.confusion(np.ones((3, 3)), names, str(tmp_path / 'a.png'))
    label = np.arange(6, dtype=np.uint8).reshape(2, 3) % 3
    dataset = data.Dataset('made', names, [(0, 0, 0)] * 3, (70000, 1), {'val': ['x$_^$y.png']},
                           lambda split, i: (np.zeros((2, 3, 3), np.uint8), label), 'predictions.png')
    plots.panel(dataset, 'val', {0: label}, str(tmp_path / 'b.png'))
    assert max(data.read_image(str(tmp_path / 'b.png')).shape) < 3000


def test_file_names_that_are_no_utf8(tmp_path, monkeypatch, capsys):
    folder = write_folder(str(tmp_path))
    open(os.path.join(folder, 'images').encode() + b'/caf\xe9.png', 'wb').close()
    assert_refused('images: the file name .* is not UTF-8; rename the file', datasets.folder.read, folder)
    monkeypatch.setattr(sys, 'argv', ['main.py', '--output', 'o\udce9'])
    assert_ends(capsys, 2, 'is not UTF-8', main.main)


@pytest.mark.parametrize('end, status, last', [
    ('os.abort()', -signal.SIGABRT, 'needs AVX'), ('raise ImportError("libcuda")', 1, 'ImportError: libcuda'),
    ('os.kill(os.getpid(), 4)', -signal.SIGILL, 'needs AVX'), ('os.kill(os.getpid(), 2)', -signal.SIGINT, 'needs AVX')])
def test_messages_of_an_import_that_fails_are_shown(tmp_path, end, status, last):
    """Messages that the import of TensorFlow writes to file descriptor 2 are shown if the import fails.

    A stub in place of TensorFlow writes a message, as C++ code does, and then fails or gets a signal.
    """
    put_text(str(tmp_path), 'tensorflow/__init__.py', 'import os\nos.write(2, b"needs AVX\\n")\n' + end)
    done = subprocess.run([sys.executable, os.path.join(ROOT, 'main.py')], stderr=subprocess.PIPE, text=True,
                          env=dict(os.environ, PYTHONPATH=str(tmp_path)), timeout=60)
    assert done.returncode == status and done.stderr.splitlines()[-1] == last and 'needs AVX' in done.stderr


def test_closed_standard_error(tmp_path):
    """`system.quiet` works when standard error is closed.

    A stub in place of TensorFlow prints the log level that is set.
    """
    put_text(str(tmp_path), 'tensorflow/__init__.py', '')
    put_text(str(tmp_path), 'tensorflow/compat/v1.py', 'class logging:\n    ERROR, set_verbosity = 3, print')
    command = '"%s" -c "import sys; from system import quiet; print(file=sys.stderr)" 2>&-' % sys.executable
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    assert subprocess.check_output(command, shell=True, cwd=ROOT, env=environment) == b'3\n'


@pytest.mark.parametrize('failing', ['pytest', 'benchmark.py', 'main.py', 'nothing'])
def test_gpu_report_fails_with_its_parts(tmp_path, failing):
    """If one command of `make gpu-report` fails, make fails, but the rest of the report is still written.

    A stub in place of the Python interpreter makes one command fail.
    """
    shutil.copy(os.path.join(ROOT, 'Makefile'), str(tmp_path))
    put_text(str(tmp_path), '.venv/bin/python', '#!/bin/sh\ncase "$*" in *%s*) exit 3; esac\n' % failing)
    (tmp_path / '.venv' / 'bin' / 'python').chmod(0o755)
    for name in ('requirements.txt', 'requirements-dev.txt', '.venv/ready', '.venv/ready-dev'):
        (tmp_path / name).touch()
    done = subprocess.run(['make', 'gpu-report'], cwd=str(tmp_path), capture_output=True)
    assert done.returncode == (0 if failing == 'nothing' else 2)
    assert (tmp_path / 'Output' / 'gpu-report.md').read_text().endswith('```\n')


def test_reader_that_has_seen_enough():
    """`main.py --describe | head -1` ends without an error message."""
    buffered = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
    main_py = subprocess.Popen([sys.executable, os.path.join(ROOT, 'main.py'), '--describe', '--model', 'fcn-basic'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
    main_py.stdout.close()
    assert main_py.stderr.read() == b'' and main_py.wait(120) == 128 + signal.SIGPIPE


def test_names_in_errors_and_of_the_working_folder(monkeypatch, capsys):
    """Error messages show file names unchanged, even double spaces and the narrow space U+202F of macOS.

    A working folder whose name is not UTF-8 is refused.
    """
    assert_ends(capsys, 2, 'error: a  b\u202fAM.png: cannot', read_bytes, 'a  b\u202fAM.png')
    monkeypatch.setattr(os, 'getcwd', lambda: '/home/m\udcfcller')
    flags = vars(main.parse_args('--dataset folder --data_dir x --height 9 --width 9'.split()))
    assert_refused('--data_dir: the file name .* is not UTF-8', main.Run, flags, datasets.sample.read(), {})
