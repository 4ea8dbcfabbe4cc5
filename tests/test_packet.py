"""Packets are one message of named, aligned, dense fields."""

import pytest
import torch

from trainer.packet import ALIGNMENT, Field, Kind, Layout, Tag, header


def fields() -> list[Field]:
    return [
        Field("x", (2, 3, 4, 5), torch.float32),
        Field("label", (2,), torch.int64),
        Field("image", (2, 3, 1, 1), torch.uint8),
        Field("tokens", (2, 7, 3), torch.bfloat16),
    ]


def test_fields_start_at_multiples_of_256_bytes_after_the_header() -> None:
    layout = Layout(fields())
    assert layout.offsets == (0, 256, 256 + 512, 512 + 512, 512 + 512 + 256)  # 480 bytes of x take up 512
    assert layout.nbytes == layout.offsets[-1] + 256  # 84 bytes of tokens
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets)


def test_a_layout_with_other_places_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Layout(fields()).digest()
    assert Layout(fields()).digest() == before
    monkeypatch.setattr("trainer.packet.ALIGNMENT", 64)  # another version of the trainer
    assert Layout(fields()).digest() != before


def test_views_write_their_own_bytes_and_no_others() -> None:
    layout = Layout(fields())
    buffer = torch.zeros(layout.nbytes, dtype=torch.uint8)
    views = layout.views(buffer)
    expected = {}
    for name, view in views.items():
        expected[name] = torch.randint(0, 100, view.shape).to(view.dtype)
        view.copy_(expected[name])
    again = layout.views(buffer.clone())
    for name, value in expected.items():
        assert torch.equal(again[name], value)


def test_feature_maps_are_channels_last_and_dense() -> None:
    layout = Layout(fields())
    x = layout.views(torch.zeros(layout.nbytes, dtype=torch.uint8))["x"]
    assert x.shape == (2, 3, 4, 5) and x.is_contiguous(memory_format=torch.channels_last)


def test_two_layouts_differ_in_their_digest_where_a_field_differs() -> None:
    same, other = Layout(fields()), Layout([*fields()[:-1], Field("tokens", (2, 7, 3), torch.float16)])
    assert Layout(fields()).digest() == same.digest() != other.digest()
    assert 0 <= same.digest() < 2**63


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        Layout([Field("x", (1,), torch.uint8)] * 2)


def test_the_header_holds_the_tag_and_the_end_of_the_run() -> None:
    assert header(Tag(Kind.TEST, 7, 3), last_step=12, evaluate=False).tolist() == [1, 7, 3, 12, 0, 0, 0, 0]


def test_a_full_batch_is_no_slice_of_itself() -> None:
    batch = torch.arange(6).view(3, 2)
    assert Tag(Kind.TRAIN, 1, 3).valid(batch) is batch
    assert Tag(Kind.TEST, 1, 2).valid(batch).tolist() == [[0, 1], [2, 3]]
