"""Figures: the legend below a predicted image, names of any alphabet."""
import numpy as np

from runtime import plots

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_legend_holds_each_name_whole():
    """W is three times as wide as i: the widths are measured, and each row ends in white."""
    image = np.full((45, 61, 3), 7, np.uint8)
    names = ['W' * 30, 'iii', 'палка']
    out = plots.with_legend(image, names, [RED, GREEN, BLUE], np.array([0, 1, 2]))
    assert (out[:45, :61] == image).all() and (out[:45, 61:] == 255).all()
    legend = out[45:]
    assert legend.shape[0] == 2 * 18 and (legend[:, -2:] == 255).all()
    for color, where in ((RED, legend[:18]), (GREEN, legend[18:]), (BLUE, legend[18:])):
        assert (where == color).all(2).sum() == 11 * 11
    black = (legend[18:].max(2) < 128).any(0)
    blue = (legend[18:] == BLUE).all(2).any(0)
    between = black & (np.arange(len(black)) < blue.argmax())
    assert 0 < np.flatnonzero(between).max() < blue.argmax() - 2  # iii ends before the next class begins


def test_letters_without_a_glyph_are_escaped():
    assert plots.drawable('Straße палка') == 'Straße палка'
    assert plots.drawable('背b\udc80') == '\\u80ccb\\udc80'
    assert plots.plain('$背$') == r'\$\u80cc\$'
    image = np.zeros((9, 9, 3), np.uint8)
    legends = [plots.with_legend(image, [name], [RED], [0]) for name in ('палка', '?????', '背', '\\u80cc')]
    assert legends[0].shape != legends[1].shape or (legends[0] != legends[1]).any()
    assert (legends[2] == legends[3]).all()
