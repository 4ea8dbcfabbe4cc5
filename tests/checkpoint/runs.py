"""What a run left behind, for comparing."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

Record = dict[str, Any]


def model(run: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model.safetensors").items()}


def metrics(run: Path) -> list[Record]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def results(run: Path) -> list[Record]:
    """The metrics without what a clock measured."""
    kept = []
    for record in metrics(run):
        timeless = {
            key: record.get(key) for key in ("kind", "step", "epoch", "train", "test", "test_accuracy", "steps")
        }
        blocks = [{k: v for k, v in block.items() if k != "busy"} for block in record.get("blocks", [])]
        kept.append({**timeless, "blocks": blocks, "best": record.get("best_test_accuracy")})
    return kept
