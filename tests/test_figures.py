"""The style of figures: what is read in print, by all readers, and written the same again."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.figures import (
    COLOURS,
    COLUMN,
    DOUBLE,
    label_panels,
    legend_below,
    panels,
    save,
    series,
    style,
)

# Machado, Oliveira, Fernandes 2009, severity 1: linear red, green, blue as three kinds of readers
# see them.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(colour, seen):
    """CIE Lab of a colour through a deficiency."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(np.array(seen) @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("name", DEFICIENCIES)
def test_colours_differ_for_all_readers(name):
    seen = [lab(colour, DEFICIENCIES[name]) for colour in COLOURS]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert len(distances) == 21
    assert min(distances) > 10  # 2.3 is just noticeable side by side
    assert all(np.linalg.norm(colour - lab("white", np.eye(3))) > 30 for colour in seen)


def test_curves_differ_by_more_than_colour():
    looks = [series(number) for number in range(21)]
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == 21
    assert len({(look["color"], look["marker"]) for look in looks}) == 21
    with pytest.raises(ValueError, match="number must be .* got -1"):
        series(-1)


def test_letters_are_read_in_print_and_the_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with style():
        sizes = [matplotlib.rcParams[f"{what}.labelsize"] for what in ("axes", "xtick", "ytick")]
        assert min([*sizes, matplotlib.rcParams["legend.fontsize"]]) >= 6.5
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def draw(folder, name="curves"):
    with style():
        figure, axes = panels(3, columns=2, width=COLUMN, height=1.5)
        for i, panel in enumerate(axes):
            panel.plot([0, 1], [0, i], label="first", **series(0))
            panel.set_title("same")
        axes[2].plot([0, 1], [1, 0], label="second", **series(1))
        label_panels(axes)
        legend_below(figure)
        return figure, save(figure, folder, name)


def test_a_figure_is_written_twice_the_same(tmp_path):
    figure, (picture, drawing) = draw(tmp_path / "one")
    assert not plt.fignum_exists(figure.number)
    assert [panel.get_title() for panel in figure.axes] == ["(a) same", "(b) same", "(c) same"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    again = draw(tmp_path / "two")[1]
    assert picture.read_bytes() == again[0].read_bytes()
    assert drawing.read_bytes() == again[1].read_bytes()
    assert b"CreationDate" not in drawing.read_bytes()


def test_sizes_are_those_of_the_page(tmp_path):
    picture, drawing = draw(tmp_path)[1]
    height, width, _ = plt.imread(picture).shape
    assert (width, height) == (700, 600)
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", drawing.read_bytes())
    np.testing.assert_allclose([float(x) for x in box.groups()], [3.5 * 72, 3.0 * 72], atol=0.5)
    assert DOUBLE > 2 * COLUMN


@pytest.mark.parametrize("name", ["", "a/b", "a.png"])
def test_a_figure_has_a_plain_name(name, tmp_path):
    with pytest.raises(ValueError, match="name must be a plain name"):
        save(plt.figure(), tmp_path, name)
    plt.close("all")
