"""Tests that images and labels are decoded to the expected pixel values."""
import functools
import pathlib
import struct

import cv2
import numpy as np
import pytest
from conftest import assert_refused, png_bytes, save_palette
from PIL import Image, PngImagePlugin

import data
import datasets
from system import files as system_files

IDS = np.array([[0, 3, 2, 0, 1], [1, 1, 0, 2, 3], [3, 0, 0, 1, 2]], np.uint8)
TWINS = [(9, 9, 9), (200, 0, 0), (200, 0, 0), (0, 0, 0)] + [(0, 0, 0)] * 252  # several ids have the same colour


def noise(height=99, width=95):
    return np.random.RandomState(1).randint(0, 255, (height, width, 3)).astype(np.uint8)


def save(path, array, **settings):
    Image.fromarray(array).save(path, **settings)
    return path


# ---------------------------------------------------------------- images

@pytest.mark.parametrize('extension', ['png', 'tif'])
@pytest.mark.parametrize('scale, dtype', [(1, np.uint8), (257, np.uint16)])
def test_read_image_is_rgb(tmp_path, extension, scale, dtype):
    """OpenCV writes BGR, but `read_image` returns RGB. Grey is repeated in all channels.

    The upper 8 bits of a 16-bit image are kept.
    """
    path = str(tmp_path / ('a.' + extension))
    stored = np.array([[[91, 92, 93], [4, 5, 6]]]) * scale
    cv2.imwrite(path, stored.astype(dtype))
    assert data.read_image(path).tolist() == [[[93, 92, 91], [6, 5, 4]]]
    cv2.imwrite(path, stored[:, :, 0].astype(dtype))
    assert data.read_image(path).tolist() == [[[91, 91, 91], [4, 4, 4]]]


def test_bits_in_use(tmp_path, capsys):
    """The argument `depth` of `read_image` is the number of bits in use. The upper 8 of these bits are kept.

    A value that needs more than `depth` bits becomes white, and a note is printed. Without `depth`, the number of bits
    is measured.
    """
    values = np.array([[0, 15, 16, 4095, 2048]], np.uint16)
    for name in ('a.png', 'b.tif'):
        path = str(tmp_path / name)
        cv2.imwrite(path, values)
        assert data.read_image(path, 12)[:, :, 1].tolist() == [[0, 0, 1, 255, 128]]
        assert data.read_image(path, 16)[0, 3].tolist() == [15, 15, 15]
        cv2.imwrite(path, np.dstack([values, values // 2, values * 0]))
        assert data.read_image(path, 12)[0, 3].tolist() == [0, 127, 255]
    assert 'note' not in capsys.readouterr().err
    assert data.read_image(path, 11)[0, 3].tolist() == [0, 255, 255]
    assert 'b.tif: has values up to 4095' in capsys.readouterr().err
    assert data.read_image(path)[0, 3].tolist() == [0, 127, 255]
    assert 'b.tif: has 16 bits a channel, of which 12 are in use' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.webp'])
@pytest.mark.parametrize('orientation, upright', [(1, 'abc def'), (3, 'fed cba'), (6, 'da eb fc'), (8, 'cf be ad')])
def test_exif_rotation_is_applied_and_alpha_dropped(tmp_path, name, orientation, upright):
    """Colours are not multiplied by alpha."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.array([list(b'abc'), list(b'def')], np.uint8)
    for image in (np.dstack([stored] * 3), np.dstack([stored] * 3 + [stored // 2])):
        save(str(tmp_path / name), image, exif=exif, **({'lossless': True, 'exact': True} if name == 'a.webp' else {}))
        found = data.read_image(str(tmp_path / name))
        assert found.shape[2] == 3 and b' '.join(map(bytes, found[:, :, 1].tolist())).decode() == upright


def write_tiff(path, body, *tags):
    """Writes an uncompressed TIFF without an image library. A tag is (number, type, count, value)."""
    directory = struct.pack('<H', len(tags) + 1) + b''.join(struct.pack('<HHII', *tag) for tag in sorted(
        tags + ((273, 4, 1, 8),))) + b'\0' * 4
    pathlib.Path(path).write_bytes(b'II*\0' + struct.pack('<I', 8 + len(body)) + body + directory)


def test_rotation_of_16_bits(tmp_path):
    """The EXIF rotation is applied exactly once, although Pillow and OpenCV may apply the rotation too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ('a.png', 'a.tif'):
        path = save(str(tmp_path / name), np.array([[256, 512, 768]], np.uint16) * 16, exif=exif)
        assert data.read_image(path, 16)[:, :, 0].tolist() == [[16], [32], [48]]
    values = np.arange(6).reshape(2, 3, 1) * 256 + [0, 512, 1024]
    bits = struct.pack('<HHH', 16, 16, 16)  # BitsPerSample, stored after the pixel data
    write_tiff(path, values.astype('<u2').tobytes() + bits, (256, 3, 1, 3), (257, 3, 1, 2), (258, 3, 3, 8 + 36),
               (262, 3, 1, 2), (274, 3, 1, 6), (277, 3, 1, 3))
    assert data.read_image(path, 16).tolist() == [[[i, i + 2, i + 4] for i in row] for row in ((3, 0), (4, 1), (5, 2))]


def test_bytes_behind_a_jpeg(tmp_path):
    """In a phone's motion photo, a video is appended to the JPEG data. The video is ignored."""
    path = str(tmp_path / 'a.jpg')
    cv2.imwrite(path, noise())
    image = cv2.imread(path)[:, :, ::-1]
    for _ in range(2):
        np.testing.assert_array_equal(data.read_image(path), image)
        with open(path, 'ab') as f:
            f.write(b'\0\0\0\x18ftypmp42' * 999)


@pytest.mark.parametrize('extension', ['png', 'jpg', 'tif', 'bmp', 'webp', 'gif', 'jp2'])
def test_damaged_image(tmp_path, extension):
    """`read_image` refuses the first half of a file, an empty file, and a PNG or JPEG without the last bytes.

    A PNG with a changed byte is refused too.
    """
    path = save(str(tmp_path / ('a.' + extension)), noise())
    content = pathlib.Path(path).read_bytes()
    more = {'png': [content[:-13], content[:5000] + bytes([content[5000] ^ 255]) + content[5001:]],
            'jpg': [content[:-2]]}.get(extension, [])
    for part in [content[:len(content) // 2], b''] + more:
        pathlib.Path(path).write_bytes(part)
        assert_refused('a.%s: .*damaged' % extension, data.read_image, path)


def test_not_an_image(tmp_path):
    (tmp_path / 'a.png').write_text('hello')
    (tmp_path / 'b.jpg').write_bytes(b'\0\0\0\x18ftypheic' + b'\0' * 99)
    save(str(tmp_path / 'c.png'), noise(3, 2))
    for said in ('a.png: not an image', 'b.jpg: HEIC or AVIF; convert', 'c.png: more than 5 pixels; shrink it',
                 'd.png: cannot be read'):
        assert_refused(said, data.read_image, str(tmp_path / said[:5]), max_pixels=5)


def test_further_pages_are_told_of(tmp_path, capsys):
    first, second = noise(5, 7), noise(5, 7) // 2
    for name in ('a.tif', 'b.gif'):
        system_files._noted.clear()
        data.read_image(save(str(tmp_path / name), first, save_all=True, append_images=[Image.fromarray(second)]))
        assert '%s: has 2 pages' % name in capsys.readouterr().err
    np.testing.assert_array_equal(data.read_image(str(tmp_path / 'a.tif')), first)


def test_0_is_white(tmp_path):
    """In a TIFF file, 0 may mean white, as in ImageJ's masks. Then an image is inverted, but a label is not.

    `datasets.folder.measured_depth`, which finds the number of bits in use, counts the bits of the inverted values.
    """
    path = str(tmp_path / 'a.tif')
    ids = np.array([[0, 0, 255], [0, 255, 0]], np.uint8)
    write_tiff(path, ids.tobytes(), (256, 3, 1, 3), (257, 3, 1, 2), (258, 3, 1, 8), (262, 3, 1, 0))
    assert data.read_label(path).tolist() == ids.tolist() and (data.read_image(path)[:, :, 0] == 255 - ids).all()
    values = np.array([[0, 65535 - 256 * 3], [65535, 300]], '<u2')
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 16), (277, 3, 1, 1)]
    write_tiff(path, values.tobytes(), *tags, (262, 3, 1, 0))
    assert data.read_image(path, 16)[:, :, 1].tolist() == [[255, 3], [0, 254]]
    write_tiff(path, np.array([[0, 255], [3, 200]], '<u2').tobytes(), *tags, (262, 3, 1, 0))
    assert data.read_label(path).tolist() == [[0, 255], [3, 200]]
    write_tiff(path, (65535 - np.array([[4095, 0], [16, 2048]], '<u2')).tobytes(), *tags, (262, 3, 1, 0))
    assert datasets.folder.measured_depth([path]) == 12
    assert data.read_image(path, 12)[:, :, 0].tolist() == [[255, 0], [1, 128]]


@pytest.mark.parametrize('bands, bits, tags, said', [
    (1, 16, {339: 2}, 'signed integers of 16 bits'), (1, 32, {339: 3}, 'floats'), (1, 32, {339: 1}, 'of 32 bits'),
    (4, 16, {262: 5}, 'CMYK of 16 bits'), (2, 16, {338: 2}, 'grey with alpha of 16 bits'),
    (3, 32, {262: 2, 339: 3}, 'RGB of 32 bits'), (3, 16, {262: 2, 284: 2}, 'planar'),
    (4, 8, {262: 2}, '4 bands, 0 of them'), (4, 8, {262: 2, 338: 0}, '4 bands, 0 of them'),
    (7, 8, {262: 2, 338: 0}, '7 bands'), (2, 8, {262: 2, 338: 0}, '2 bands'), (5, 8, {262: 2, 338: 2}, '5 bands, 1')])
def test_tiff_that_is_no_image_of_grey_or_colours(tmp_path, bands, bits, tags, said):
    """TIFF files with extra bands, signed integers, floats or 32-bit integers are refused.

    Such pixel formats are common in satellite and microscope images. Extra bands are neither dropped nor read as alpha.
    """
    dtype = {8: '<u1', 16: '<i2', 32: '<f4' if tags.get(339) == 3 else '<u4'}[bits]
    body = np.full(2 * bands, {8: 0, 16: -1, 32: 4e9}[bits], dtype)
    fields = {256: 2, 257: 1, 258: bits, 262: 1, 277: bands, 279: body.nbytes}
    fields.update(tags)
    write_tiff(str(tmp_path / 'a.tif'), body.tobytes(), *((tag, 3, 1, value) for tag, value in fields.items()))
    assert_refused('a.tif: .*' + said, data.read_image, str(tmp_path / 'a.tif'))


# ---------------------------------------------------------------- labels

def test_palette_of_other_greys(tmp_path):
    """GIF stores grey values as a palette. A label whose grey values differ from the indices is refused.

    The class ids of such a label may be the indices or the grey values.
    """
    save_palette(str(tmp_path / 'a.gif'), IDS, [(0, 0, 0), (1, 1, 1), (2, 2, 2), (9, 9, 9)])
    assert_refused('a.gif: index 3 at row 0, column 1; the palette shows another grey', data.read_label,
                   str(tmp_path / 'a.gif'))


def write_grey(path, ids, bits):
    """Writes ids uint8 [h, w] as a grey PNG of 1 to 8 bits, without Pillow.

    Pillow cannot write all of these bit depths.
    """
    each = 8 // bits
    pixels = np.pad(ids, [(0, 0), (0, -ids.shape[1] % each)], 'constant').reshape(len(ids), -1, each)
    rows = (pixels.astype(int) << bits * np.arange(each)[::-1]).sum(2).astype(np.uint8)
    pathlib.Path(path).write_bytes(png_bytes(*ids.shape, bits, np.pad(rows, [(0, 0), (1, 0)], 'constant').tobytes()))


LABEL_WRITERS = {  # {file name: function (path, ids)}; a digit in the name is the number of bits
    'transparent.png': lambda path, ids: save_palette(path, ids, TWINS, transparency=b'\0\x80'),
    'long.png': lambda path, ids: cv2.imwrite(path, ids.astype(np.uint16)),
    'long.tif': lambda path, ids: cv2.imwrite(path, ids.astype(np.uint16)),
    'channels.png': lambda path, ids: cv2.imwrite(path, np.dstack([ids] * 3)),
    'long_channels.png': lambda path, ids: cv2.imwrite(path, np.dstack([ids] * 3).astype(np.uint16)),
    'opaque.png': lambda path, ids: Image.fromarray(np.dstack([ids, ids * 0 + 255])).save(path),
    'float.tif': lambda path, ids: Image.fromarray(ids.astype(np.float32)).save(path),
    'fortran.npy': lambda path, ids: np.save(path, np.asfortranarray(ids)),
    'deep.npy': lambda path, ids: np.save(path, ids[:, :, None].astype(np.int32)),
    'bool1.tif': lambda path, ids: Image.fromarray(ids > 0).save(path),
    'bool1.npy': lambda path, ids: np.save(path, ids > 0)}
for name in ('palette.tif', 'palette.bmp', 'palette.gif'):
    LABEL_WRITERS[name] = functools.partial(save_palette, palette=TWINS)
for bits in (1, 2, 4, 8):
    LABEL_WRITERS['grey%d.png' % bits] = functools.partial(write_grey, bits=bits)
    LABEL_WRITERS['palette%d.png' % bits] = functools.partial(save_palette, palette=TWINS[:1 << bits], bits=bits)


@pytest.mark.parametrize('name', sorted(LABEL_WRITERS))
def test_labels_are_their_ids(tmp_path, name):
    path = str(tmp_path / name)
    ids = IDS % 2 if '1' in name else IDS
    LABEL_WRITERS[name](path, ids)
    label = data.read_label(path)
    assert label.dtype == np.uint8 and label.tolist() == ids.tolist()
    label[0] = 1  # the arrays that the readers return must be writable


@pytest.mark.parametrize('name, settings', [
    ('a.jpg', {}), ('a.png', {'format': 'JPEG'}), ('a.tif', {'format': 'JPEG'}), ('b.webp', {}),
    ('c.tif', {'compression': 'jpeg'})])
def test_formats_that_change_ids_are_refused(tmp_path, name, settings):
    """The format is recognized by the content of a file, not by the extension. A TIFF may contain JPEG data."""
    path = save(str(tmp_path / name), np.dstack([IDS] * 3), **settings)
    assert_refused(name + ': lossy (JPEG|WEBP|TIFF) changes ids', data.read_label, path)


@pytest.mark.parametrize('array, said', [
    (np.full((4, 5), 256), 'id 256 at row 0, column 0'), (np.full((4, 5), -1), 'id -1 at row 0'),
    (np.full((4, 5), 0.5), 'id 0.5 at row 0'), (np.full((4, 5), np.nan), 'id nan'), (np.zeros(4), 'ids .h, w.'),
    (np.zeros((4, 5, 2)), 'ids .h, w.'), (np.array(['a']), 'ids .h, w.'), (np.array([None]), 'not a whole NPY')])
def test_npy_that_is_no_label(tmp_path, array, said):
    np.save(str(tmp_path / 'a.npy'), array)
    assert_refused('a.npy: .*' + said, data.read_label, str(tmp_path / 'a.npy'))


def test_labels_of_colours_or_transparent(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.dstack([IDS, IDS, IDS + 1]))
    assert_refused('must be ids', data.read_label, path)
    assert data.read_ids_or_colors(path)[0][0, 1].tolist() == [4, 3, 3]
    for bands in (1, 3):
        save(path, np.dstack([IDS] * bands + [np.where(IDS, 255, 254).astype(np.uint8)]))
        assert_refused('has transparent pixels', data.read_label, path)


# ---------------------------------------------------------------- rare TIFF, PNG and NPY files

def test_large_metadata_of_a_png(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text('a', 'x' * (1 << 21), zip=True)
    Image.new('RGB', (5, 4)).save(str(tmp_path / 'a.png'), pnginfo=info)
    assert data.read_image(str(tmp_path / 'a.png')).shape == (4, 5, 3)


def test_damaged_npy(tmp_path):
    """An .npz file that is named .npy, an invalid shape in the header, and a truncated file are refused."""
    path = tmp_path / 'a.npy'
    np.save(str(path), IDS)
    content = path.read_bytes()
    np.savez(str(tmp_path / 'a.npz'), IDS)
    for damaged in ((tmp_path / 'a.npz').read_bytes(), content.replace(b'(3, 5)', b'(3, 5,'), content[:-3]):
        path.write_bytes(damaged)
        assert_refused('a.npy: not a whole NPY file', data.read_label, str(path))
