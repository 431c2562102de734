"""Tests downloads from a local server: broken transfers, unsafe archives, wrong checksums."""
import hashlib
import http.server
import io
import os
import socketserver
import tarfile
import threading
import zipfile

import pytest
from conftest import assert_refused

import datasets.__main__
from datasets import download


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the first `sent` bytes of `content`, or all bytes if `sent` is None."""
    content, sent = b'', None

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[:self.sent])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """Starts a server on this machine.

    The server is not an HTTPServer, because an HTTPServer looks up the host name in the DNS, which may take minutes.
    """
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = type('Handler', (Server,), {})
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        handler.url = 'http://127.0.0.1:%d/archive.zip' % running.server_address[1]
        yield handler
        running.shutdown()


def zipped(files):
    """Returns the bytes of a zip archive with the files {name: content}.

    A member whose name ends in 'link' is a symbolic link.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o120777 if name.endswith('link') else 0o100644) << 16
            archive.writestr(member, content)
    return out.getvalue()


def tarred(files):
    """Returns the bytes of a tar archive with the files {name: content}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


GOOD = {'repo/data/train/a.png': b'abc', 'repo/data/train/b.png': b'', 'repo/data/train.txt': b'a b', 'repo/x': b'x'}
DIGEST = hashlib.sha256(b'a.png\0' + hashlib.sha256(b'abc').digest()
                        + b'b.png\0' + hashlib.sha256(b'').digest()).hexdigest()


@pytest.fixture
def serve(server, monkeypatch):
    """Returns a function that makes the server send an archive in place of the CamVid download."""
    def start(content, md5=None, contents=None, into='', ending='.zip'):
        server.content = content
        monkeypatch.setitem(download.SOURCES, 'camvid', download.Source(
            server.url[:-4] + ending, 'repo/data', into, md5, contents or {}))
    return start


def files_below(folder):
    """Returns {path relative to `folder`: content} for all files in `folder` and its subfolders."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def check_refused(folder, said):
    """Checks that a download is refused and leaves no files."""
    assert_refused(said, download.download, 'camvid', str(folder / 'd'))
    assert [path.name for path in folder.rglob('*')] == ['d']


@pytest.mark.parametrize('pack, ending', [(zipped, '.zip'), (tarred, '.tar')])
def test_unpacked_and_verified(serve, tmp_path, pack, ending):
    content = pack(GOOD)
    serve(content, hashlib.md5(content).hexdigest(), {'train': (2, 3, DIGEST)}, 'below', ending)
    download.download('camvid', str(tmp_path))
    assert files_below(tmp_path) == {'below/train/a.png': b'abc', 'below/train/b.png': b'', 'below/train.txt': b'a b'}
    assert os.listdir(str(tmp_path)) == ['below']
    assert_refused('holds files already', download.download, 'camvid', str(tmp_path))


@pytest.mark.parametrize('name', ['/tmp/evil', '../../../evil', 'repo/data/../../../evil', 'repo\\..\\evil', 'C:evil',
                                  'repo/data//tmp/evil', 'repo/data/link'])
def test_unsafe_zip_stays_in_its_folder(serve, tmp_path, name):
    """Absolute paths, Windows paths and paths with .. are unpacked inside the folder.

    A symbolic link in the zip becomes a text file.
    """
    serve(zipped(dict(GOOD, **{name: b'../../../evil'})))
    download.download('camvid', str(tmp_path / 'd' / 'e' / 'f'))
    below = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*') if not path.is_dir()}
    assert {'d/e/f/train/a.png', 'd/e/f/train/b.png', 'd/e/f/train.txt'} <= below
    assert all(path.startswith('d/e/f/') for path in below) and not os.path.exists('/tmp/evil')
    assert not any(path.is_symlink() for path in tmp_path.rglob('*'))


def test_a_tar_is_unpacked_only_after_its_checksum(serve, tmp_path):
    """A tar file with a wrong checksum is refused, because paths in a tar may point outside the folder.

    A tar file that is named .zip is refused too.
    """
    assert all(source.md5 for source in download.SOURCES.values() if not source.url.endswith('.zip'))
    for md5, ending in (('0' * 32, '.tar'), (None, '.zip')):
        serve(tarred(dict(GOOD, **{'repo/data/../../../evil': b'x'})), md5, ending=ending)
        check_refused(tmp_path, 'refused')


@pytest.mark.parametrize('files, md5, contents, said', [
    (GOOD, '0' * 32, {}, 'MD5'), (GOOD, None, {'train': (2, 3, '0' * 64)}, 'SHA-256 0000'),
    (GOOD, None, {'train': (2, 4, None)}, '4 bytes'), (GOOD, None, {'val': (1, 1, None)}, 'holds 0 files'),
    ({'other/a': b'x'}, None, {}, 'holds no folder')])
def test_other_content_leaves_nothing(serve, tmp_path, files, md5, contents, said):
    serve(zipped(files), md5, contents)
    check_refused(tmp_path, said)


@pytest.mark.parametrize('sent', [0, 100])
def test_broken_transfer_leaves_nothing(server, serve, tmp_path, sent):
    serve(zipped(GOOD))
    server.sent = sent
    check_refused(tmp_path, server.url + '.* download failed')
    server.sent = None
    download.download('camvid', str(tmp_path / 'd'))
    assert len(files_below(tmp_path)) == 3


def test_damaged_archive_leaves_nothing(serve, tmp_path):
    content = zipped({'repo/data/a': bytes(1000)})
    for damaged in (content[:100] + b'x' + content[101:], content[:-30], b'', b'hello'):
        serve(damaged)
        check_refused(tmp_path, 'refused or damaged')


@pytest.mark.parametrize('name, said', [('sartorius', 'the steps are printed'), ('sunrgbd', 'the steps are printed'),
                                        ('camvid', '--data_dir')])
def test_what_cannot_be_fetched(capsys, name, said):
    assert_refused(said, datasets.__main__.main, [name, '--download'])
    assert ('DIR' in capsys.readouterr().out) == (name != 'camvid')


def test_download_into_a_file(tmp_path):
    (tmp_path / 'a').write_text('')
    assert_refused('--data_dir .*a: File exists', download.download, 'camvid', str(tmp_path / 'a'))
