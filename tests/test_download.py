"""Downloads from a server on the loopback interface: broken transfers, unsafe archives, wrong checksums."""
import hashlib
import http.server
import io
import os
import socketserver
import tarfile
import threading
import zipfile

import pytest

import datasets.__main__
from data import UserError
from datasets import download


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the first `sent` bytes of `content`."""
    content, sent = b'', None

    def do_GET(self):
        if self.path != '/archive':
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[:self.sent])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A plain TCPServer, because HTTPServer asks a name server for the host's full name, which may take minutes."""
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = type('Handler', (Server,), {})
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        handler.url = 'http://127.0.0.1:%d/archive' % running.server_address[1]
        yield handler
        running.shutdown()


def zipped(files, links=()):
    """Bytes of a zip of {name: content}; `links`: names of symbolic links, with the target as content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(member, content)
    return out.getvalue()


def tarred(files, links=(), kind=tarfile.SYMTYPE):
    """Bytes of a tar of {name: content}; `links`: names of symbolic links, with the target as content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if name in links:
                member.type, member.linkname = kind, content.decode()
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


GOOD = {'repo/data/train/a.png': b'abc', 'repo/data/train/b.png': b'', 'repo/data/train.txt': b'a b', 'repo/x': b'x'}
DIGEST = hashlib.sha256(b'a.png\0' + hashlib.sha256(b'abc').digest()
                        + b'b.png\0' + hashlib.sha256(b'').digest()).hexdigest()


def tree(folder):
    """{path below the folder: content} of all files, and of empty folders."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), 'rb') as f:
                found[os.path.relpath(os.path.join(root, name), folder)] = f.read()
        if not folders and not files and root != folder:
            found[os.path.relpath(root, folder)] = None
    return found


def serve(server, monkeypatch, content, md5=None, contents=None, into=''):
    server.content = content
    monkeypatch.setitem(download.SOURCES, 'camvid', download.Source(server.url, 'repo/data', into, md5, contents or {}))


@pytest.mark.parametrize('pack', [zipped, tarred])
def test_unpacked_and_verified(server, monkeypatch, tmp_path, pack):
    content = pack(GOOD)
    serve(server, monkeypatch, content, hashlib.md5(content).hexdigest(), {'train': (2, 3, DIGEST)}, 'below')
    download.download('camvid', str(tmp_path / 'd'))
    assert tree(str(tmp_path / 'd' / 'below')) == {'train/a.png': b'abc', 'train/b.png': b'', 'train.txt': b'a b'}
    assert os.listdir(str(tmp_path / 'd')) == ['below']
    with pytest.raises(UserError, match='holds files already'):
        download.download('camvid', str(tmp_path / 'd'))


BAD = {'absolute': dict(GOOD, **{'/tmp/evil': b'x'}), 'above': dict(GOOD, **{'repo/data/../../../evil': b'x'}),
       'above on Windows': dict(GOOD, **{'repo\\..\\evil': b'x'}), 'drive': dict(GOOD, **{'C:evil': b'x'}),
       'link': dict(GOOD, **{'repo/data/link': b'../../../evil'}), 'absolute link': dict(GOOD, link=b'/etc'),
       'no such folder': {'other/a': b'x'}, 'two slashes': dict(GOOD, **{'repo/data//tmp/evil': b'x'})}


@pytest.mark.parametrize('name', sorted(BAD))
@pytest.mark.parametrize('pack', [zipped, tarred])
def test_bad_archive_leaves_nothing(server, monkeypatch, tmp_path, name, pack):
    links = [member for member in BAD[name] if 'link' in member]
    serve(server, monkeypatch, pack(BAD[name], links))
    with pytest.raises(UserError, match='refused'):
        download.download('camvid', str(tmp_path / 'd'))
    assert tree(str(tmp_path)) == {'d': None}


def test_hard_link_is_refused(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, tarred(BAD['link'], ['repo/data/link'], tarfile.LNKTYPE))
    with pytest.raises(UserError, match='is a link'):
        download.download('camvid', str(tmp_path / 'd'))
    assert tree(str(tmp_path)) == {'d': None}


@pytest.mark.parametrize('md5, contents, said', [
    ('0' * 32, {}, 'MD5'), (None, {'train': (2, 3, '0' * 64)}, 'SHA-256 0000'),
    (None, {'train': (2, 4, None)}, '4 bytes'), (None, {'val': (1, 1, None)}, 'val: the archive holds 0 files')])
def test_wrong_checksum_leaves_nothing(server, monkeypatch, tmp_path, md5, contents, said):
    serve(server, monkeypatch, zipped(GOOD), md5, contents)
    with pytest.raises(UserError, match=said):
        download.download('camvid', str(tmp_path / 'd'))
    assert tree(str(tmp_path)) == {'d': None}


@pytest.mark.parametrize('sent', [0, 100])
def test_broken_transfer_leaves_nothing(server, monkeypatch, tmp_path, sent):
    serve(server, monkeypatch, zipped(GOOD))
    server.sent = sent
    with pytest.raises(UserError, match='download failed') as error:
        download.download('camvid', str(tmp_path / 'd'))
    assert server.url in str(error.value) and tree(str(tmp_path)) == {'d': None}
    server.sent = None
    download.download('camvid', str(tmp_path / 'd'))
    assert len(tree(str(tmp_path))) == 3


def test_damaged_archive_leaves_nothing(server, monkeypatch, tmp_path):
    content = bytearray(zipped({'repo/data/a': bytes(1000)}))
    content[100] ^= 255
    for broken in (bytes(content), content[:-30], b'', b'hello'):
        serve(server, monkeypatch, broken)
        with pytest.raises(UserError, match='refused'):
            download.download('camvid', str(tmp_path / 'd'))
        assert tree(str(tmp_path)) == {'d': None}


def test_steps_where_an_account_is_needed(capsys):
    for name in ('sartorius', 'sunrgbd'):
        with pytest.raises(UserError, match='the steps are printed'):
            datasets.__main__.main([name, '--download'])
        assert 'DIR' in capsys.readouterr().out
    with pytest.raises(UserError, match='--data_dir'):
        datasets.__main__.main(['camvid', '--download'])
