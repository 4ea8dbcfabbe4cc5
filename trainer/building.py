"""Building the classes that the settings name."""

import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainer.errors import SettingError
from trainer.usage import shown

HARMLESS = ("trainer.data.", "trainer.local_losses.", "trainer.models.")
"""Where the classes are that the files of somebody else's run may name. Elsewhere in ``trainer`` are functions that
remove and overwrite files."""


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
    require_target(group, node)
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
    except SettingError as error:
        root = group.partition(".")[0]
        if root == group:
            raise
        # A class names its settings as if it were the group's own.
        raise SettingError(str(error).replace(f"{root}.", f"{group}.")) from error
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise SettingError(f"{group}: {node['_target_']} refuses these settings: {error}") from error


def require_target(group: str, node: Any) -> None:
    """Raise ``SettingError`` where a group, or what stands in its place, names no class."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        files = "" if "." in group else f"choose one of the files in conf/{group}/, or "
        raise SettingError(f"{group} has no _target_; {files}name a class as {group}._target_")


def locate(group: str, path: str, trust: bool = True) -> Any:
    """The class or function at a dotted path. Without ``trust`` it must be one of ``HARMLESS``, and defined there:
    what a module has imported for its own use can be reached by its name too."""
    import importlib

    untrusted = SettingError(
        f"{group}._target_={path} lies outside trainer's own models, data and local losses; add --trust (in Python "
        f"trust=True) to build it all the same, if you trust this run's files"
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
    dict: ((dict,), "names with values"),
}


def _item(annotation: Any) -> Any:
    """The annotation of what a list of such an annotation holds, where it is the same for all."""
    arguments = {argument for argument in typing.get_args(annotation) if argument is not ...}
    return arguments.pop() if typing.get_origin(annotation) in _KINDS and len(arguments) == 1 else None


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise ``SettingError`` where a value, or an item of a list, does not have the annotated type ``hint``, or is
    NaN."""
    if isinstance(value, float) and math.isnan(value):
        raise SettingError(f"{name}={value} must be a number")
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_type(f"{name}.{key}", item, None)
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    annotations = typing.get_args(hint) if union else (hint,)
    options = [typing.get_origin(annotation) or annotation for annotation in annotations]
    if isinstance(value, list):
        of_items = [_item(annotation) for annotation in annotations if annotation is not type(None)]
        for index, item in enumerate(value):
            check_type(f"{name}[{index}]", item, of_items[0] if len(of_items) == 1 else None)
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
