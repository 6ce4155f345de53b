"""Mutants of a module: its source with one small fault in it.

A mutant is an edit of the text, so that a diff shows the fault and nothing else. What a type checker sees without
a test is left alone: annotations, decorators, and the options of classes.
"""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_COMPARED: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_COUNTED: Final[dict[type[ast.operator], str]] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
    ast.LShift: ">>",
    ast.RShift: "<<",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: bytes `begin` to `end` of the source become `text`. Lines count from 1."""

    kind: str
    lines: tuple[int, ...]
    """Where it takes effect: its own line, then that on which its statement begins."""
    begin: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """Return the source with the fault in it."""
        raw = source.encode()
        return (raw[: self.begin] + self.text.encode() + raw[self.end :]).decode()

    def diff(self, source: str) -> str:
        """Return the lines that change, before and after."""
        pair = source.splitlines(), self.applied(source).splitlines()
        changed = difflib.unified_diff(*pair, lineterm="", n=0)
        return "\n".join(line for line in changed if not line.startswith(("---", "+++", "@@")))


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its source."""
    tree = ast.parse(source)
    found = [*_Finder(source).below(tree, ())]
    return sorted(found, key=lambda one: (one.begin, one.end, one.text))


@dataclass(frozen=True, slots=True)
class Function:
    """A function that stands in no other: its qualified name, where it begins, and the bytes of its body."""

    name: str
    line: int
    begin: int
    end: int


def functions(source: str) -> list[Function]:
    """Return the outermost functions and methods of a module, as its code objects name them."""
    finder = _Finder(source)
    return [*finder.functions(ast.parse(source), "")]


def sampled(several: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return so many of them by lot, in the order of the source; the same seed draws the same ones."""
    if len(several) <= size:
        return [*several]
    drawn = random.Random(seed).sample(range(len(several)), size)  # noqa: S311 - no secret
    return [several[number] for number in sorted(drawn)]


class _Finder:
    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        self._starts = [0]
        for line in self._raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def below(self, node: ast.AST, lines: tuple[int, ...]) -> Iterator[Mutant]:
        """Yield the mutants of a node and of all below it; `lines` is where the statement around it begins."""
        if isinstance(node, ast.stmt):
            lines = (node.lineno,)
        yield from self._of(node, lines)
        for child in _children(node):
            yield from self.below(child, lines)

    def functions(self, node: ast.AST, inside: str) -> Iterator[Function]:
        """Yield the outermost functions below a node."""
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    line = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                    begin, end = self._span(child.body[0])[0], self._span(child)[1]
                    yield Function(f"{inside}{child.name}", line, begin, end)
                case ast.ClassDef():
                    yield from self.functions(child, f"{inside}{child.name}.")
                case ast.If() | ast.Try():
                    yield from self.functions(child, inside)

    def _of(self, node: ast.AST, lines: tuple[int, ...]) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                yield from self._comparisons(node, lines)
            case ast.BoolOp(op=op, values=values):
                word = "or" if isinstance(op, ast.And) else "and"
                for left, right in pairwise(values):
                    yield self._between("boolean", left, right, word, lines)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._instead("boolean", node, self._text(operand), lines)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _COUNTED:
                yield self._between("arithmetic", left, right, _COUNTED[type(op)], lines)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if _plain(test):
                yield self._instead("boolean", test, f"(not ({self._text(test)}))", lines)
            case ast.Constant(value=value) if (other := _other(value)) is not None:
                yield self._instead("constant", node, other, lines)
            case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
                yield self._instead("return", value, "None", lines)
            case _ if isinstance(node, ast.stmt) and _removable(node):
                yield self._instead("removed statement", node, "pass", lines)
            case ast.Call(args=args):
                yield from self._swapped(args, lines)

    def _comparisons(self, node: ast.Compare, lines: tuple[int, ...]) -> Iterator[Mutant]:
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            yield self._between("comparison", left, right, _COMPARED[type(op)], lines)

    def _swapped(self, args: Sequence[ast.expr], lines: tuple[int, ...]) -> Iterator[Mutant]:
        for one, two in pairwise(args):
            first, second = self._text(one), self._text(two)
            if first != second and not isinstance(two, ast.Starred) and not isinstance(one, ast.Starred):
                begin, end = self._span(one)[0], self._span(two)[1]
                gap = self._raw[self._span(one)[1] : self._span(two)[0]].decode()
                swapped = f"{second}{gap}{first}"
                yield Mutant("swapped argument", _unique(one.lineno, *lines), begin, end, swapped)

    def _instead(self, kind: str, node: ast.expr | ast.stmt, text: str, lines: tuple[int, ...]) -> Mutant:
        return Mutant(kind, _unique(node.lineno, *lines), *self._span(node), text)

    def _between(
        self, kind: str, left: ast.expr, right: ast.expr, text: str, lines: tuple[int, ...]
    ) -> Mutant:
        """Another operator: what stands between two operands, their parentheses kept."""
        begin, end = self._span(left)[1], self._span(right)[0]
        gap = self._raw[begin:end].decode()
        before, after = gap[: len(gap) - len(gap.lstrip(" \n)"))], gap[len(gap.rstrip(" \n(")) :]
        return Mutant(kind, _unique(left.lineno, *lines), begin, end, f"{before}{text}{after}")

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self._starts[node.lineno - 1] + node.col_offset
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        begin, end = self._span(node)
        return self._raw[begin:end].decode()


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may be mutated below a node."""
    left_out: list[ast.AST | None] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            left_out = [*node.decorator_list, node.returns, *node.type_params]
        case ast.ClassDef():
            left_out = [*node.decorator_list, *node.keywords, *node.bases, *node.type_params]
        case ast.arg() | ast.AnnAssign():
            left_out = [node.annotation]
        case ast.JoinedStr() | ast.TypeAlias() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Call(func=ast.Name(id="cast" | "TypeVar"), args=[kind, *_]):
            left_out = [kind]
    yield from (child for child in ast.iter_child_nodes(node) if not any(child is one for one in left_out))


def _other(value: object) -> str | None:
    match value:
        case bool():
            return str(not value)
        case int() | float():
            return repr(value + 1)
        case str():
            return repr(value + "~")
        case bytes():
            return repr(value + b"~")
    return None


def _plain(test: ast.expr) -> bool:
    """Say whether a condition has no mutant of its own, and holds when programs run."""
    if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
        return False
    return isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Await | ast.NamedExpr | ast.Subscript)


def _removable(node: ast.stmt) -> bool:
    """Say whether the code goes on without a statement; a name that is then unknown would prove nothing."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Break() | ast.Continue():
            return True
    return False


def _unique(*lines: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(lines))
