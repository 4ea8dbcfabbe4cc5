"""What the documents point at."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Compose

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


COMMAND = re.compile(r"(?:-m trainer\.main|launch\.sh) ([^#\n]*?)(?:\\?\n| {2,}#|$)", re.M)


def commands() -> list[tuple[str, ...]]:
    """The settings of every command that a document shows in a block of code."""
    texts = [document.read_text() for document in DOCUMENTS]
    blocks = [block for text in texts for block in re.findall(r"^```\n(.*?)^```", text, re.S | re.M)]
    words = [tuple(shlex.split(found)) for block in blocks for found in COMMAND.findall(block)]
    return [settings for settings in words if settings]


@pytest.mark.parametrize("settings", commands(), ids=" ".join)
def test_commands_of_the_documents_have_options_that_there_are(settings: tuple[str, ...], configured: Compose) -> None:
    first = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in settings if not word.startswith("-")]  # of a sweep
    assert configured(*first)["model"]


def test_the_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+/|[\w/]+\.(?:py|yaml))`", text)
    assert len(named) > 30
    assert [name for name in named if not ((ROOT / "trainer" / name).exists() or (ROOT / name).exists())] == []
