"""The pictures in README.md are small, whole, and show what a terminal does."""

import runpy
from xml.etree import ElementTree

import pytest

from support.boxes import ROOT

PICTURES = ROOT / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"


def test_all_are_in_the_readme_and_small():
    text = (ROOT / "README.md").read_text("utf-8")
    for path in PICTURES.glob("*.[ps][nv]g"):
        assert f"](docs/pictures/{path.name})" in text
        assert path.stat().st_size < 200_000


@pytest.mark.parametrize("name", ["ls", "diff"])
def test_those_of_the_terminal_have_a_title_and_no_markup_of_it(name):
    root = ElementTree.parse(PICTURES / f"{name}.svg").getroot()
    assert root.findtext(f"{SVG}title")
    lines = ["".join(line.itertext()) for line in root.iter(f"{SVG}text")]
    assert lines[0].startswith("$\N{NO-BREAK SPACE}elementsckpt")
    assert max(map(len, lines)) <= 88
    assert not any("\x1b" in line for line in lines)


def test_pieces_of_a_line_have_their_colours_and_places():
    row = runpy.run_path(str(PICTURES / "make.py"))["row"]
    made = ElementTree.fromstring(row(0, "\x1b[31m<a>\x1b[0m & b"))
    first, second = made
    assert (first.text, second.text) == ("<a>", " & b".replace(" ", "\xa0"))
    assert first.get("fill") == "#ff7b72"
    assert second.get("fill") is None
    assert float(second.get("x")) - float(first.get("x")) == pytest.approx(3 * 8.4)
