"""The settings of a run: their schema, their checks, and how the classes that they name are built."""

import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import SettingError, at_least
from trainer.precision import DTYPES
from trainer.usage import shown

ON_NAN = ("stop", "skip")

TIMEOUTS = 1.0, 1e9
"""How long a rank may be told to wait for another, in seconds: what the clocks of torch.distributed can count."""

HARMLESS = ("trainer.data.", "trainer.local_losses.", "trainer.models.")
"""Where the classes are that the files of somebody else's run may name. Elsewhere in ``trainer`` are functions that
remove and overwrite files."""


@dataclass
class LogSettings:
    """How often a step is reported."""

    every_steps: int = 10


@dataclass
class EvalSettings:
    """How often the test set is evaluated; after the last epoch in any case."""

    every_epochs: int = 1


@dataclass
class UpdateSettings:
    """What an update does beyond the optimizer's step; see ``trainer.update.UpdateOptions``."""

    clip_norm: float | None = None
    accumulate: int = 1
    decay_norms_and_biases: bool = True
    average: float | None = None


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
    update: UpdateSettings = field(default_factory=UpdateSettings)
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


def build(
    group: str,
    node: Mapping[str, Any],
    leave: Collection[str] = (),
    offer: Mapping[str, Any] | None = None,
    trust: bool = True,
) -> Any:
    """Call the class or function that ``node["_target_"]`` names with the rest of the node as keyword arguments.

    Args:
        group: the setting's name, for errors.
        node: plain values; nested mappings with a ``_target_`` are built as well.
        leave: keys that are somebody else's, left out unless the target's signature has them.
        offer: further arguments, passed where the target's signature has them.
        trust: build any target, or only those in ``HARMLESS``.

    Raises:
        SettingError: the target can't be found or is not trusted, or a value has the wrong type.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        files = "" if "." in group else f"choose one of the files in conf/{group}/, or "
        raise SettingError(f"{group} has no _target_; {files}name a class as {group}._target_")
    target = locate(group, node["_target_"], trust)
    signature = inspect.signature(target)
    hints = _hints(target)
    arguments = {key: value for key, value in (offer or {}).items() if key in signature.parameters}
    for key, value in node.items():
        if key == "_target_" or (key in leave and key not in signature.parameters):
            continue
        check_type(f"{group}.{key}", value, hints.get(key))
        arguments[key] = _built(f"{group}.{key}", value, trust)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise SettingError(f"{group} does not fit {node['_target_']}: {error}") from error
    try:
        return target(**arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise SettingError(f"{group}: {node['_target_']} refuses these settings: {error}") from error


def locate(group: str, path: str, trust: bool = True) -> Any:
    """The class or function at a dotted path. Without ``trust`` it must be one of ``HARMLESS``, and defined there:
    what a module has imported for its own use can be reached by its name too."""
    import importlib

    untrusted = SettingError(
        f"{group}._target_={path} lies outside trainer's own models, data and local losses; add --trust to build it "
        f"all the same, if you trust this run's files"
    )
    if not trust and not path.startswith(HARMLESS):
        raise untrusted
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"{group}._target_={path} can't be imported: {error}") from error
    if not trust and not str(getattr(found, "__module__", "")).startswith(HARMLESS):
        raise untrusted
    return found


def _built(name: str, value: Any, trust: bool) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return build(name, value, trust=trust)
    if isinstance(value, list):
        return [_built(f"{name}[{index}]", item, trust) for index, item in enumerate(value)]
    return value


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    list: ((list,), "a list"),
    Sequence: ((list,), "a list"),
    tuple: ((list,), "a list"),
}


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise ``SettingError`` for a scalar or a list where the annotation ``hint`` wants another kind of these, and for
    what is not a number anywhere."""
    if isinstance(value, float) and math.isnan(value):
        raise SettingError(f"{name}={value} must be a number")
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = [typing.get_origin(option) or option for option in (typing.get_args(hint) if union else (hint,))]
    kinds = [option for option in options if option in _KINDS]
    if not kinds or not isinstance(value, bool | int | float | str | list | None):
        return
    if value is None and type(None) in options:
        return
    if isinstance(value, list) and not all(option in _KINDS or option is type(None) for option in options):
        return  # for a kind of sequence that has no name here
    for kind in kinds:
        if isinstance(value, _KINDS[kind][0]) and (kind is bool) == isinstance(value, bool):
            return
    wanted = [_KINDS[kind][1] for kind in kinds] + (["null"] if type(None) in options else [])
    raise SettingError(f"{name}={shown(value)} must be {' or '.join(wanted)}")
