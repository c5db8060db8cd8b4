"""What a check of the doctor can find, read from its source: the texts are those of the code, and are written once.

A value that is known only when the check runs is a word in capitals, as in the commands that the doctor prints.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from feast_embeddings.doctor.patient import Patient
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.repo import Repo

__all__ = ["Kind", "findings_of", "said"]

_PATIENT = Patient(Repo(Path("REPO")), None, timedelta())
_MOST = 12  # alternatives of one text


@dataclass(frozen=True)
class Kind:
    """A finding that is not ok: its levels, and what its message and its fix can be."""

    levels: tuple[str, ...]
    messages: tuple[str, ...]
    fixes: tuple[str, ...]


def findings_of(check: Callable[..., object]) -> list[Kind]:
    """Return what a check, and the functions of its module that it calls, report as a warning or a problem."""
    waiting, seen, kinds = [check], set[str](), list[Kind]()
    while waiting:
        source = _Source(waiting.pop(0), {})
        for call in _calls(source.function):
            name = ast.unparse(call.func)
            if name == "Finding":
                given = [source.texts(argument) for argument in call.args[1:]]
                if levels := tuple(level for level in given[0] if level != "ok"):
                    kinds.append(Kind(levels, tuple(given[1]), tuple(given[2])))
            elif (called := source.named(name)) and called.__module__ == check.__module__ and name not in seen:
                waiting.append(called)
            seen.add(name)
    return kinds


def said(value: object) -> str:
    """Return the docstring on one line, up to its sections."""
    return " ".join((inspect.getdoc(value) or "").partition("\n\nArgs:")[0].split())


def _calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """Yield calls of names, in the order of the source."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return iter(sorted(found, key=lambda call: (call.lineno, call.col_offset)))


class _Source:
    """A function whose expressions are texts; ``bound`` has those of its parameters."""

    def __init__(self, function: Callable[..., object], bound: dict[str, list[str]]) -> None:
        self._module, self._bound = importlib.import_module(function.__module__), bound
        (self.function,) = (
            node for node in ast.parse(inspect.getsource(function)).body if isinstance(node, ast.FunctionDef)
        )
        self._parents = {child: node for node in ast.walk(self.function) for child in ast.iter_child_nodes(node)}

    def named(self, name: str) -> Callable[..., object] | None:
        """Return a function of ours that the module knows by this name."""
        value = getattr(self._module, name, None)
        return value if inspect.isfunction(value) and value.__module__.startswith("feast_embeddings") else None

    def texts(self, node: ast.expr) -> list[str]:
        """Return all that an expression can be; what is not known before the check runs is a word in capitals."""
        match node:
            case ast.Constant():
                found = [str(node.value)]
            case ast.JoinedStr():
                apart = [
                    value for pair in zip(node.values, [None, *node.values], strict=False) for value in _apart(*pair)
                ]
                found = self._joined(apart, "")
            case ast.FormattedValue():
                found = self.texts(node.value)
            case ast.BinOp(op=ast.Add(), right=right) if not isinstance(right, ast.Constant) or _is_text(right):
                found = self._joined([node.left, node.right], "")
            case ast.IfExp():
                found = [*self.texts(node.body), *self.texts(node.orelse)]
            case ast.NamedExpr():
                found = self.texts(node.value)
            case ast.List() | ast.Tuple():
                found = self._joined(node.elts, " ")
            case ast.Starred():
                found = self.texts(node.value)
            case ast.Name():
                found = self._name(node)
            case ast.Call():
                found = self._call(node) or [_word(node)]
            case _:
                found = [_word(node)]
        some = [text for text in dict.fromkeys(found) if text]
        return some[:_MOST] or [""]

    def _joined(self, nodes: Iterable[ast.expr], between: str) -> list[str]:
        every = itertools.product(*map(self.texts, nodes))
        return [between.join(filter(None, some)) for some in every]

    def _name(self, node: ast.Name) -> list[str]:
        if node.id in self._bound:
            return self._bound[node.id]
        if values := self._assigned(node):
            return [text for value in values for text in (self._given(value) or [_word(node)])]
        constant = getattr(self._module, node.id, None)
        if isinstance(constant, tuple):
            return [" ".join(map(str, constant))]
        return [_word(node) if constant is None else str(constant)]

    def _given(self, value: ast.expr) -> list[str]:
        """Return the texts of a value that is a text; none of others."""
        if isinstance(value, ast.Call):
            return self._call(value)
        return self.texts(value) if _is_text(value) else []

    def _call(self, node: ast.Call) -> list[str]:
        match node.func:
            case ast.Name(id="str" | "sorted" | "first_line") if node.args:
                return self.texts(node.args[0])
            case ast.Name(id=name) if (function := self.named(name)) and function.__annotations__["return"] == "str":
                parameters = inspect.signature(function).parameters
                inner = _Source(function, dict(zip(parameters, map(self.texts, node.args), strict=False)))
                returned = [end.value for end in ast.walk(inner.function) if isinstance(end, ast.Return) and end.value]
                return [text for value in returned for text in inner.texts(value)]
            case ast.Name(id=name) if isinstance(error := getattr(self._module, name, None), type):
                if issubclass(error, EmbeddingsError):
                    return [str(error(*(self.texts(argument)[0] for argument in node.args)))]
            case ast.Attribute(value=ast.Name(id="shlex"), attr="join" | "quote") if node.args:
                return self.texts(node.args[0])
            case ast.Attribute(value=ast.Name(id="patient"), attr="command" | "feast" as kind):
                make = _PATIENT.command if kind == "command" else _PATIENT.feast
                return [make(*shlex.split(words)) for words in self._joined(node.args, " ")]
            case ast.Attribute(value=ast.Name(id="patient"), attr=method) if hasattr(Patient, method):
                return [said(getattr(Patient, method)).partition(". ")[0].removeprefix("Return ").rstrip(".")]
        return []

    def _assigned(self, name: ast.Name) -> list[ast.expr]:
        """Return the values that a name can have where it is used."""
        found: list[ast.expr] = []
        node: ast.AST = name
        while node is not self.function:
            parent = self._parents[node]
            if isinstance(parent, ast.If) and node in parent.body and (values := _values(parent.test, name.id)):
                return values
            for block in (getattr(parent, field, []) for field in ("body", "orelse", "finalbody")):
                if isinstance(block, list) and node in block:
                    for earlier in reversed(block[: block.index(node)]):
                        found += _values(earlier, name.id)
                        if found and not isinstance(earlier, ast.If):
                            return found
            node = parent
        return found


def _values(node: ast.AST, name: str) -> list[ast.expr]:
    """Return what is assigned to a name within a node."""
    found = []
    for inner in ast.walk(node):
        match inner:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                found.append(value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                found += [value for target, value in zip(targets, values, strict=True) if ast.unparse(target) == name]
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                found.append(value)
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                found.append(value)
    return found


def _apart(value: ast.expr, before: ast.expr | None) -> list[ast.expr]:
    """Return a value of an f-string, after a space if it follows another without one."""
    both = isinstance(value, ast.FormattedValue) and isinstance(before, ast.FormattedValue)
    return [ast.Constant(" "), value] if both else [value]


def _is_text(node: ast.expr) -> bool:
    """Whether the source says what the text is, in part at least."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.JoinedStr | ast.Tuple | ast.List | ast.IfExp)


def _word(node: ast.expr) -> str:
    """Return a word in capitals for a value."""
    match node:
        case ast.Attribute(value=ast.Name(id="sys"), attr="executable"):
            return "python"
        case ast.BinOp(left=value) | ast.BoolOp(values=[value, *_]):
            return _word(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").upper()
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name.upper()
        case ast.Subscript(value=value):
            return _word(value)
        case ast.Call(func=ast.Name(id="len")):
            return "N"
        case ast.Call(func=ast.Attribute(attr="join"), args=[value, *_]) | ast.Call(args=[value, *_]):
            return _word(value)
    return "…"
