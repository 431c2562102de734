"""Refuses TIFF files that Pillow cannot decode, or would decode with fewer bits."""
import io

from PIL import TiffImagePlugin

from system.files import UserError


def check_tiff(content: bytes, path: str):
    """Raises UserError if a TIFF is not grey, RGB or CMYK (alpha is allowed), or if Pillow would lose bits.

    Pillow cannot read planar bands of more than 8 bits, RGB of more than 16 bits per band, CMYK of more than 8 bits per
    band, or grey with alpha of more than 8 bits per band. `content`: the bytes of the file.
    """
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[:16] if 43 in content[2:4] else content[:8])
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    bands = directory.get(277, 1)
    bits = max(directory.get(258, (1,)))
    cmyk = directory.get(262) == 5  # tag 262, PhotometricInterpretation: 5 is CMYK
    if bands > 1 and directory.get(284) == 2 and bits > 8:  # tag 284, PlanarConfiguration: 2 is planar
        raise UserError('%s: has planar bands of more than 8 bits; save the bands interleaved' % path)
    alphas = sum(kind in (1, 2) for kind in directory.get(338, ()))  # tag 338, ExtraSamples: 1 and 2 are alpha
    if bands - alphas not in (1, 4 if cmyk else 3):
        raise UserError('%s: has %d bands, %d of them alpha; save one band or three (RGB)' % (path, bands, alphas))
    if bits > 16 < 16 * bands or bits > 8 and (cmyk or bands == 2):  # more bits than Pillow can read
        kind = 'CMYK' if cmyk else 'grey with alpha' if bands == 2 else 'RGB'
        raise UserError('%s: is %s of %d bits a band; save it as grey or RGB of 8 or 16 bits' % (path, kind, bits))
