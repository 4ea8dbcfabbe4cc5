"""What ``--help`` says, taken from the comments of the configuration files."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PARTS = ("images", "weights")
"""Folders of config fragments that other files include; no groups to choose from."""

COLUMN = 28
"""Where the word on a name begins; a longer name has a line of its own."""

WIDTHS = (60, 110)
"""The widths of lines, in columns, however narrow or wide the terminal is."""


def usage(configs: Path, config: Mapping[str, Any], choices: Mapping[str, str | None]) -> str:
    """Every group with its files, and every option of ``config``, with a word on each.

    Args:
        configs: the folder of the configuration files.
        config: the composed configuration, plain values.
        choices: which file was chosen of each group, as Hydra has it: ``GROUP`` or ``GROUP@PACKAGE`` to the file.
    """
    lines = ["Groups and their files (GROUP=FILE):"]
    for folder in sorted(path for path in configs.iterdir() if path.is_dir() and path.name not in PARTS):
        lines += ["", f"  {folder.name}"]
        for file in sorted(folder.glob("*.yaml")):
            lines += entry(file.stem, first_sentence(first_comment(file.read_text())))
    said = words((configs / "config.yaml").read_text())
    own = {key: value for key, value in config.items() if not (configs / key).is_dir()}
    lines += ["", "Options of every run (OPTION=VALUE):", ""]
    for name, value in flat(own):
        lines += entry(f"{name}={shown(value)}", said.get(name, ""))
    for group in (key for key in config if key not in own):
        lines += _of_group(configs, group, config[group], choices)
    # Hydra puts this into a template, in which a dollar sign is special.
    return "\n".join(lines).replace("$", "$$")


def _of_group(configs: Path, group: str, config: Any, choices: Mapping[str, str | None]) -> list[str]:
    """What the chosen file of a group is, and its options."""
    said: dict[str, str] = {}
    for choice, name in [(f"images/common@{group}", "common"), *choices.items()]:
        folder, _, package = choice.partition("@")
        file = configs / folder.removesuffix("/common") / f"{name}.yaml"
        if (package or folder).split(".")[0] == group and file.is_file():
            said |= words(file.read_text(), f"{package or folder}.")
    file = configs / group / f"{choices.get(group)}.yaml"
    comment = f": {first_comment(file.read_text())}" if file.is_file() else ""
    lines = ["", *_filled(f"{group}={choices.get(group)}{comment}", "", "  "), ""]
    for name, value in flat(config or {}, f"{group}."):
        if not name.endswith("._target_"):
            lines += entry(f"{name}={shown(value)}", said.get(name, ""))
    return lines


def entry(name: str, word: str) -> list[str]:
    """A name and the word on it, in as many lines as they need."""
    name = f"    {name}"
    if len(name) > COLUMN - 2:
        return [name, *_filled(word, " " * COLUMN, " " * COLUMN)]
    return _filled(word, f"{name:<{COLUMN}}", " " * COLUMN) if word else [name]


def _filled(text: str, first: str, later: str) -> list[str]:
    narrow, wide = WIDTHS
    width = min(wide, max(narrow, shutil.get_terminal_size().columns))
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a configuration under their dotted names."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """A value as the command line takes it; lists of what has settings itself are left out."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case [Mapping(), *_]:
            return "[...]"
        case [*items]:
            return f"[{','.join(map(shown, items))}]"
    return str(value)


def first_comment(text: str) -> str:
    """The comment that a file begins with, without Hydra's own."""
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            comments.append(line.removeprefix("#").strip())
    return " ".join(comments)


def first_sentence(text: str) -> str:
    """A text up to the first full stop that a capital follows."""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)[0]


def words(text: str, prefix: str = "") -> dict[str, str]:
    """The comments next to the options of a file, by the options' dotted names."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        if option := re.fullmatch(r"((?:  )*)(\w+):(?: [^#]*)?(?:# (.*))?", line):
            indent, name, word = option.groups()
            path[len(indent) // 2 :] = [name]
            if word:
                found[prefix + ".".join(path)] = word
    return found
