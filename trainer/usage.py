"""What ``--help`` says, taken from the comments of the configuration files."""

import re
import textwrap
from pathlib import Path

PARTS = ("images", "weights")
"""Folders of pieces that other files take in, from which nobody chooses."""

WIDTH = 120


def usage(configs: Path) -> str:
    """Every group with its files, and every option of the top level, with a word on each."""
    lines = ["Groups and their files (GROUP=FILE):"]
    for folder in sorted(path for path in configs.iterdir() if path.is_dir() and path.name not in PARTS):
        lines += ["", f"  {folder.name}"]
        lines += [entry(file.stem, first_comment(file.read_text())) for file in sorted(folder.glob("*.yaml"))]
    lines += ["", "Options of the top level (OPTION=VALUE):", ""]
    lines += [entry(name, word) for name, word in options((configs / "config.yaml").read_text())]
    lines += ["", "Options of every dataset:", ""]
    common = options((configs / "images" / "common.yaml").read_text())
    lines += [entry(f"dataset.{name}", word) for name, word in common]
    # Hydra puts this into a template, in which a dollar sign is special.
    return "\n".join(lines).replace("$", "$$")


def entry(name: str, word: str) -> str:
    """A line or more of the list."""
    return textwrap.fill(word, WIDTH, initial_indent=f"    {name:<36} ", subsequent_indent=" " * 41)


def first_comment(text: str) -> str:
    """The comment that a file begins with, without Hydra's own."""
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            comments.append(line.removeprefix("#").strip())
    return " ".join(comments)


def options(text: str) -> list[tuple[str, str]]:
    """The options of ``config.yaml`` with a comment behind them: ``NAME=DEFAULT`` or ``SECTION.NAME=DEFAULT``, and the
    comment."""
    found, section = [], ""
    for line in text.splitlines():
        if header := re.fullmatch(r"(\w+):", line):
            section = f"{header[1]}."
        elif option := re.fullmatch(r"( *)(\w+): *([^ #]+) +# (.*)", line):
            indent, name, default, word = option.groups()
            found.append((f"{section if indent else ''}{name}={default}", word))
    return found
