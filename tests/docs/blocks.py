"""Finds the marked code blocks of a Markdown page: `<!-- mark -->`, then a fenced block."""

import pathlib
import re
from typing import NamedTuple

FENCED = re.compile(r"^<!-- (?P<mark>[^\n]+?) -->\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    page: pathlib.Path
    line: int  # of the fence, from 1
    mark: str
    language: str
    text: str


def blocks_of(page):
    text = pathlib.Path(page).read_text()
    for match in FENCED.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        yield Block(pathlib.Path(page), line, match["mark"], match["language"], match["text"])


def same_output(expected, found):
    """Whether `found` is `expected`, in which a line `...` stands for any lines. Spaces at the ends of lines
    do not count."""
    expected_lines = [line.rstrip() for line in expected.strip("\n").splitlines()]
    found_lines = [line.rstrip() for line in found.strip("\n").splitlines()]
    parts = [re.escape(line) + "\n" if line != "..." else r"(?:.*\n)*?" for line in expected_lines]
    return re.fullmatch("".join(parts), "".join(line + "\n" for line in found_lines)) is not None
