"""Random numbers depend on their purpose alone."""

import torch

from trainer.seeds import derive, generator, seed_device, seeded


def test_a_seed_for_a_purpose_is_the_same_on_every_machine() -> None:
    assert derive(0, "order", 1) == 6234617378211481862  # the first 8 bytes of a SHA-256, little-endian, halved
    assert derive(0, "order", 1) != derive(0, "order", 2) != derive(1, "order", 2)


def test_purposes_are_not_run_together() -> None:
    assert derive(1, "a", "b") != derive(1, "ab")


def test_seeded_code_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(0, "model"):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(0, "model"):
        assert torch.equal(torch.rand(2), first)


def test_dropout_draws_what_the_device_was_seeded_with() -> None:
    drawn = []
    for _ in range(2):
        seed_device(torch.device("cpu"), 5)
        drawn.append(torch.nn.functional.dropout(torch.ones(64)))
    assert torch.equal(*drawn)
    assert not torch.equal(torch.nn.functional.dropout(torch.ones(64)), drawn[0])


def test_generators_of_one_purpose_agree() -> None:
    assert torch.equal(torch.rand(3, generator=generator(1, "x")), torch.rand(3, generator=generator(1, "x")))
