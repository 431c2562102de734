"""Refuses TIFF files that Pillow cannot decode, or would decode with fewer bits."""
import io

from PIL import TiffImagePlugin

from system.files import UserError


def check_tiff(content: bytes, path: str):
    """Raises UserError unless a TIFF has grey, RGB or CMYK bands, with or without alpha, that Pillow can read.

    `content`: the bytes of the file. Pillow cannot read planar bands of more than 8 bits, RGB bands of more than 16
      bits, and bands of more than 8 bits in CMYK or grey with alpha.
    """
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[:16] if 43 in content[2:4] else content[:8])
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    bands = directory.get(277, 1)
    bits = max(directory.get(258, (1,)))
    cmyk = directory.get(262) == 5  # TIFF tag 262 is PhotometricInterpretation; 5 is CMYK
    if bands > 1 and directory.get(284) == 2 and bits > 8:  # Pillow would drop bits of planar bands
        raise UserError('%s: has 16-bit bands one after the other (planar); save the pixels interleaved' % path)
    alphas = sum(kind in (1, 2) for kind in directory.get(338, ()))  # ExtraSamples: 1 and 2 are alpha
    if bands - alphas not in (1, 4 if cmyk else 3):
        raise UserError('%s: has %d bands, %d of them alpha; save one band or three (RGB)' % (path, bands, alphas))
    if bits > 16 < 16 * bands or bits > 8 and (cmyk or bands == 2):  # Pillow cannot read such bands
        kind = 'CMYK' if cmyk else 'grey with alpha' if bands == 2 else 'RGB'
        kind += ' as floats' if 3 in directory.get(339, ()) else ''
        raise UserError('%s: is %s of %d bits a band; save it as grey or RGB of 8 or 16 bits' % (path, kind, bits))
