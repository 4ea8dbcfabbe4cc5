"""A local loss that looks at values can't be counted, but measured."""

import pytest
from torch import Tensor

from tests.command_line import TINY, CommandLine, assert_one_sentence
from trainer.local_losses.base import HeadClassifier, LocalClassifier, LocalLoss, LossOutput, Site
from trainer.models.heads import linear_head
from trainer.packet import Packet


class Hard(LocalLoss):
    """Cross-entropy, twice as heavy where it is large."""

    def classifier(self, site: Site) -> LocalClassifier:
        return HardClassifier(linear_head(site.features, site.num_classes))


class HardClassifier(HeadClassifier):
    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        plain = super().compute_loss(features, packet)
        return plain._replace(loss=plain.loss * (2 if plain.loss.item() > 2 else 1))


@pytest.mark.parametrize("points", ["[stem,layer2.0]", "null"])
def test_what_to_do_is_said(points: str, command: CommandLine) -> None:
    settings = (*TINY, f"local_loss._target_={__name__}.Hard", f"partition.points={points}", "max_steps=1")
    outcome = command(*settings)
    assert_one_sentence(outcome, "the local loss can't be run on tensors without values (")
    assert outcome.err.strip().endswith("; if it looks at values, set partition=profiled")
    assert command(*settings, "partition=profiled", "partition.repeats=1").status == 0
