"""Turning a module that was not written as a sequence into one: ``torch.fx`` finds where a single tensor passes."""

import copy
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from trainer.errors import SettingError
from trainer.units import Units, nested


def cut_up(model: nn.Module, name: str) -> nn.Sequential:
    """The same network as an ``nn.Sequential`` whose units keep the names that their modules have in ``model``; with
    ``_`` for each dot where those names do not come in the order of a nested ``nn.Sequential``.

    A module is opened up where its forward is a chain of its children with tensors in between, and stays whole where
    its children are joined otherwise (residual blocks, dense blocks, attention).

    Args:
        model: any module with one tensor in and one out; its modules are taken over.
        name: how the user calls it, for errors.

    Raises:
        SettingError: ``torch.fx`` can't trace the model, or there is no place to cut it.
    """
    graph = _trace(model)
    if isinstance(graph, str):
        raise SettingError(f"{name} can't be cut into units, since torch.fx can't trace it: {graph}")
    pieces = _pieces(graph)
    if len(pieces) < 2 or _shared(model, pieces):
        raise SettingError(f"{name} can't be cut into units: nowhere between its modules does a single tensor pass")
    units: Units = {}
    for unit, module in _units(model, "", pieces):
        while unit in units:  # a module without parameters that is used several times
            unit, module = f"{unit}_", copy.deepcopy(module)
        units[unit] = module
    return nested(units) if _nest(list(units)) else _flat(units)


def _nest(names: Sequence[str]) -> bool:
    """Whether modules of these dotted names, nested by the dots, come in this order."""
    inside: set[str] = set()
    left: set[str] = set()
    for name in names:
        parts = name.split(".")
        now = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        left |= inside - now
        if left & now:
            return False
        inside = now
    return True


def _flat(units: Units) -> nn.Sequential:
    """The units side by side, their parameters under the names of before."""
    model = nn.Sequential()
    for name, unit in units.items():
        flat = name.replace(".", "_")
        while flat in model._modules:
            flat += "_"
        if not hasattr(unit, "parameter_prefix"):
            unit.parameter_prefix = name  # type: ignore[assignment]
        model.add_module(flat, unit)
    return model


class Slice(fx.GraphModule):
    """A run of operations that is no module of the model: its parameters go by their names in the module that they
    were cut out of, whose name is ``parameter_prefix``."""

    @property
    def parameter_prefix(self) -> str:
        """The name of the module that the operations were cut out of; empty for the whole model."""
        prefix: str = self.meta["parameter_prefix"]  # what a graph module keeps when it is copied
        return prefix


class _OneLevel(fx.Tracer):
    """Traces a module's own forward and none of its children's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Every child is one."""
        return True


@dataclass
class _Piece:
    """Operations between two places where a single tensor passes: ``entry`` comes in, the last of ``nodes`` leaves."""

    entry: fx.Node
    nodes: list[fx.Node]

    @property
    def children(self) -> list[str]:
        return [str(node.target) for node in self.nodes if node.op == "call_module"]

    @property
    def is_child(self) -> bool:
        """Whether it is one child of the module, called with what comes in and nothing else."""
        first, *others = self.nodes
        return not others and first.op == "call_module" and first.args == (self.entry,) and not first.kwargs


def _trace(module: nn.Module) -> fx.Graph | str:
    """The graph of a module's forward, or why there is none."""
    training = module.training
    try:
        graphs = [_OneLevel().trace(module.train(mode)) for mode in (True, False)]
    except Exception as error:  # a forward may fail in any way when its input is a proxy
        return (str(error).splitlines() or [type(error).__name__])[0]
    finally:
        module.train(training)
    if str(graphs[0]) != str(graphs[1]):
        return "its forward takes another way in training than in a test"
    return graphs[0]


def _pieces(graph: fx.Graph) -> list[_Piece]:
    """Cut a graph wherever exactly one value passes. Parameters don't count: they are fetched where they are used."""
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    output = next(node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        return []
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    place = {node: index for index, node in enumerate(nodes)} | {inputs[0]: -1, output: len(nodes)}
    last_use = {
        node: max((place[user] for user in node.users if user in place), default=-1) for node in (*inputs, *nodes)
    }
    pieces: list[_Piece] = []
    entry, start = inputs[0], 0
    for index, node in enumerate(nodes):
        alive = [other for other in (*inputs, *nodes[: index + 1]) if last_use[other] > index]
        if alive == [node] and not _is_tuple(node):
            piece = _Piece(entry, nodes[start : index + 1])
            if pieces and not piece.children and not pieces[-1].is_child:
                pieces[-1].nodes += piece.nodes  # operations between modules are no places to cut
            else:
                pieces.append(piece)
            entry, start = node, index + 1
    return pieces if entry is result else []


def _is_tuple(node: fx.Node) -> bool:
    """Whether a value is only ever taken apart by number."""
    return all(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)


def _units(module: nn.Module, prefix: str, pieces: Sequence[_Piece]) -> Iterator[tuple[str, nn.Module]]:
    """The units of a module that was cut into pieces; children that can be are cut up in turn."""
    for piece in pieces:
        if not piece.is_child:
            own = piece.children[-1] if piece.children else piece.nodes[-1].name
            yield f"{prefix}{own}", _slice(module, prefix, piece)
            continue
        name = piece.children[0]
        child = module.get_submodule(name)
        inner = _opened(child)
        if inner:
            yield from _units(child, f"{prefix}{name}.", inner)
        else:
            yield f"{prefix}{name}", child


def _opened(module: nn.Module) -> list[_Piece]:
    """The pieces of a module that is a chain of its children; none where it is better left whole."""
    if fx.Tracer().is_leaf_module(module, "") or not any(True for _ in module.children()):
        return []
    graph = _trace(module)
    if isinstance(graph, str):
        return []
    pieces = _pieces(graph)
    chain = len(pieces) > 1 or (len(pieces) == 1 and pieces[0].is_child)
    joined = any(piece.children and not piece.is_child for piece in pieces)
    if not chain or joined or _shared(module, pieces):
        return []
    return pieces


def _shared(module: nn.Module, pieces: Sequence[_Piece]) -> bool:
    """Whether two pieces use the same parameters, which then could not lie in different blocks."""
    seen: set[int] = set()
    for piece in pieces:
        names = piece.children + [str(node.target) for node in _fetched(piece.nodes)]
        used = {id(tensor) for name in names for tensor in _tensors(module, name)}
        if used & seen:
            return True
        seen |= used
    return False


def _tensors(module: nn.Module, name: str) -> list[torch.Tensor]:
    """The parameters and buffers after a name in a module."""
    *path, last = name.split(".")
    value = getattr(module.get_submodule(".".join(path)), last)
    return [*value.parameters(), *value.buffers()] if isinstance(value, nn.Module) else [value]


def _fetched(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """The parameters that operations read."""
    return list(dict.fromkeys(arg for node in nodes for arg in node.all_input_nodes if arg.op == "get_attr"))


def _slice(module: nn.Module, prefix: str, piece: _Piece) -> Slice:
    """The operations of a piece as a module."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {piece.entry: graph.placeholder("x")}
    for node in (*_fetched(piece.nodes), *piece.nodes):
        copies[node] = graph.node_copy(node, lambda arg: copies[arg])
        _not_in_place(copies[node])
    graph.output(copies[piece.nodes[-1]])
    made = Slice(module, graph)
    made.meta["parameter_prefix"] = prefix.removesuffix(".")
    return made


def _not_in_place(node: fx.Node) -> None:
    """Let an operation leave its input alone."""
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
    if node.op == "call_method":
        node.target = _plain(str(node.target), torch.Tensor) or node.target
    elif node.op == "call_function":
        plain = _plain(getattr(node.target, "__name__", ""), torch)
        node.target = getattr(torch, plain) if plain else node.target


def _plain(name: str, owner: Any) -> str | None:
    """The name of what does out of place what ``name`` does in place, where ``owner`` has such a thing."""
    plain = name.removesuffix("_")
    return plain if plain != name and not name.endswith("__") and hasattr(owner, plain) else None
