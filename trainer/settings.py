"""The settings of a run: their schema, and the checks that need neither data nor model."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import SettingError, at_least
from trainer.precision import DTYPES
from trainer.update import UpdateOptions
from trainer.usage import shown

ON_NAN = ("stop", "skip")

TIMEOUTS = 1.0, 1e9
"""How long a rank may be told to wait for another, in seconds: what the clocks of torch.distributed can count."""


@dataclass
class LogSettings:
    """How often a step is reported."""

    every_steps: int = 10


@dataclass
class EvalSettings:
    """How often the test set is evaluated; after the last epoch in any case."""

    every_epochs: int = 1


@dataclass
class CheckpointSettings:
    """How often the state of training is kept, beside the end of the run, and how many whole ones stay."""

    every_steps: int | None = None
    every_epochs: int | None = 1
    keep: int = 2


@dataclass
class Settings:
    """The top level of the configuration; ``conf/config.yaml`` says what each is for."""

    model: Any = None
    dataset: Any = None
    partition: Any = None
    local_loss: Any = None
    engine: Any = None
    optimizer: Any = None
    scheduler: Any = None
    tracker: Any = None
    seed: int = 0
    epochs: int = 30
    batch_size: int = 64
    precision: str = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = False
    device: str = "auto"
    threads: Any = "auto"
    max_steps: int | None = None
    timeout_seconds: float = 600.0
    output_dir: str | None = None
    dry_run: bool = False
    update: UpdateOptions = field(default_factory=UpdateOptions)
    resume: str = "auto"
    resume_strict: bool = True
    init_from: str | None = None
    on_nan: str = "stop"
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)


def check(settings: Settings, names: Collection[str] = ()) -> None:
    """Check what can be checked without data or model; ``names`` are those that the configuration has on its top level.
    Raises ``SettingError``."""
    for name in names:
        if name not in Settings.__dataclass_fields__:
            raise SettingError(f"{name} is no option; python -m trainer.main --help lists them all")
    for name in Settings.__dataclass_fields__:
        if names and name not in names:
            raise SettingError(f"{name} can't be left out of the configuration; give it a value")
    counts = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "log.every_steps": settings.log.every_steps,
        "eval.every_epochs": settings.eval.every_epochs,
        "checkpoint.keep": settings.checkpoint.keep,
        "checkpoint.every_steps": settings.checkpoint.every_steps,
        "checkpoint.every_epochs": settings.checkpoint.every_epochs,
        "max_steps": settings.max_steps,
    }
    at_least(1, counts)
    if not 0 <= settings.seed < 2**63:
        raise SettingError(f"seed={settings.seed} must be a whole number from 0 to 2^63 - 1")
    shortest, longest = TIMEOUTS
    if not shortest <= settings.timeout_seconds <= longest:
        raise SettingError(f"timeout_seconds={settings.timeout_seconds} must lie between {shortest:g} and {longest:g}")
    for name in ("output_dir", "resume", "init_from"):
        if getattr(settings, name) == "":
            raise SettingError(f"{name}= is empty; leave it out, or give it a value")
    if settings.precision not in DTYPES:
        raise SettingError(f"precision={settings.precision} is unknown; it is {' or '.join(DTYPES)}")
    if settings.deterministic and settings.cudnn_benchmark:
        raise SettingError(
            "cudnn_benchmark=true does not go with deterministic=true: which kernel is fastest may change between runs"
        )
    if settings.on_nan not in ON_NAN:
        raise SettingError(f"on_nan={settings.on_nan} is unknown; it is {' or '.join(ON_NAN)}")
    threads = settings.threads
    if threads != "auto" and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise SettingError(f"threads={shown(threads)} must be auto or a whole number of at least 1")
