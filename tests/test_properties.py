"""What holds for every input: packets do not overlap, and damaged files never surprise."""

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from trainer.checkpoint.manifest import CheckpointError, Manifest, Part
from trainer.checkpoint.reader import Checkpoint, Weights
from trainer.errors import SettingError
from trainer.packet import ALIGNMENT, Field, Layout
from trainer.settings import Settings, check

FIELDS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]),
    ),
    max_size=5,
)


@given(FIELDS)
def test_fields_are_aligned_apart_and_come_back(shapes: list[tuple[tuple[int, ...], torch.dtype]]) -> None:
    layout = Layout(Field(f"f{index}", shape, dtype) for index, (shape, dtype) in enumerate(shapes))
    buffer = torch.zeros(layout.nbytes, dtype=torch.uint8)
    views = layout.views(buffer)
    assert list(views) == ["header", *(f"f{index}" for index in range(len(shapes)))]
    for number, view in enumerate(views.values()):
        view.fill_(number)
        assert number == 0 or view.shape == shapes[number - 1][0]
    for number, view in enumerate(views.values()):
        assert bool((view == number).all())
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets) and layout.nbytes % ALIGNMENT == 0


NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.just(0))


@given(NUMBERS, NUMBERS, NUMBERS, st.one_of(st.none(), NUMBERS), st.text(max_size=5), st.text(max_size=5))
def test_checked_settings_are_in_range_or_refused(
    epochs: int, batch: int, seed: int, steps: int | None, precision: str, on_nan: str
) -> None:
    try:
        check(Settings(epochs=epochs, batch_size=batch, seed=seed, max_steps=steps, precision=precision, on_nan=on_nan))
    except SettingError as error:
        assert "=" in str(error) and str(error).count("\n") <= precision.count("\n") + on_nan.count("\n")
    else:
        assert epochs >= 1 and batch >= 1 and 0 <= seed < 2**63 and (steps is None or steps >= 1)
        assert precision in ("fp32", "bf16") and on_nan in ("stop", "skip")


TENSORS = save({"stem.weight": torch.ones(2, 3), "optimizer.stem.weight.momentum_buffer": torch.zeros(2, 3)})
MANIFEST = (
    Manifest(3, [Part("rank-0.safetensors", len(TENSORS), "0" * 64)], {}, {}, {"cut_points": ["stem"]})
    .to_json()
    .encode()
)
FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with a few of them changed, cut out, or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 12))] = draw(st.binary(max_size=12))
    return bytes(data)


@FUZZ
@given(mutated(MANIFEST))
def test_a_mutated_manifest_is_read_or_refused(text: bytes) -> None:
    try:
        manifest = Manifest.from_json(text, Path("manifest.json"))
    except CheckpointError as error:
        assert "manifest.json" in str(error)
    else:
        assert manifest.step >= 1 and all("/" not in part.file for part in manifest.parts)


@FUZZ
@given(mutated(TENSORS))
def test_mutated_weights_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "rank-0.safetensors"
    file.write_bytes(data)
    try:
        weights = Weights(file)
        for name in weights.names():
            assert isinstance(weights.read(name), torch.Tensor)
    except CheckpointError as error:
        assert str(file) in str(error)


@FUZZ
@given(mutated(TENSORS), st.booleans())
def test_a_checkpoint_is_what_its_manifest_says_or_refused(tmp_path: Path, data: bytes, damaged: bool) -> None:
    import hashlib

    content = data if damaged else TENSORS
    part = Part("rank-0.safetensors", len(TENSORS), hashlib.sha256(TENSORS).hexdigest())
    (tmp_path / part.file).write_bytes(content)
    (tmp_path / "manifest.json").write_text(Manifest(3, [part], {}, {}, {"cut_points": []}).to_json())
    try:
        Checkpoint.verify(tmp_path)
    except CheckpointError as error:
        assert content != TENSORS and str(tmp_path) in str(error)
    else:
        assert content == TENSORS
