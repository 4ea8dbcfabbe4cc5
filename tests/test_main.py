"""The entry: what importing it costs, and how errors read."""

import re
import subprocess
import sys

import pytest

from tests.conftest import Compose
from trainer.errors import SettingError
from trainer.failing import sentence
from trainer.main import hydra_errors_as_sentences


def test_importing_the_entry_imports_nothing_slow() -> None:
    slow = ("wandb", "torchvision", "sklearn", "matplotlib", "rich")
    code = f"import sys, trainer.main; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=resnet33", r"^model=resnet33 is unknown; it is one of .*resnet110, .*resnet32"),
        ("nonsense=1", r"^nonsense is no option; python -m trainer.main --help lists them all$"),
        ("engine.queue=1", r"^engine.queue is no option"),
        ("epochs=many", r"^epochs=many: .*could not be converted to Integer$"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(override: str, message: str, configured: Compose) -> None:
    with pytest.raises(SettingError) as caught, hydra_errors_as_sentences():
        configured(override)
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(message, text), text


def test_our_own_sentences_stay_as_they_are() -> None:
    assert sentence(SettingError("batch_size=0 must be at least 1")) == "batch_size=0 must be at least 1"
    assert sentence(KeyError("x")) == "KeyError: 'x'"
