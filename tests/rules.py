"""The rules of the house, as functions from a module's syntax tree to what breaks them.

Nothing here knows the project: which modules are shells, which ranks there are and what is excepted is said
in `test_architecture.py`, where each rule is also tried on a source that it must catch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

MAX_FILE_LINES: Final = 600
MAX_FUNCTION_LINES: Final = 100
LONG_FUNCTION_LINES: Final = 60
MAX_LONG_SHARE: Final = 0.01
MAX_NESTING: Final = 5
MAX_PARAMETERS: Final = 7

_BAD_NAMES: Final = frozenset({"util", "utils", "helper", "helpers", "common", "misc", "manager"})

_DEVICES: Final = frozenset(
    [
        "aiohttp",
        "asyncio",
        "certifi",
        "click",
        "fcntl",
        "http.client",
        "logging",
        "mitmproxy",
        "multiprocessing",
        "platformdirs",
        "prometheus_client",
        "pysqlite3",
        "random",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "sqlalchemy",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
    ]
)
"""Modules whose import alone says that the world is touched."""

_OS_CONSTANTS: Final = frozenset({"sep", "pathsep", "linesep", "PathLike", "fspath"})

_PATH_METHODS: Final = frozenset(
    [
        "chmod",
        "expanduser",
        "is_dir",
        "is_file",
        "iterdir",
        "mkdir",
        "read_bytes",
        "read_text",
        "rename",
        "rmdir",
        "symlink_to",
        "touch",
        "unlink",
        "write_bytes",
        "write_text",
    ]
)

_CLOCKS: Final = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "urandom"})

_DYNAMIC: Final = frozenset({"import_module", "__import__", "exec", "eval"})

_FILLING: Final = frozenset(
    [
        "add",
        "append",
        "clear",
        "extend",
        "insert",
        "move_to_end",
        "pop",
        "popitem",
        "remove",
        "setdefault",
        "update",
        "discard",
    ]
)

_CONTAINERS: Final = frozenset(
    [
        "dict",
        "list",
        "set",
        "defaultdict",
        "deque",
        "OrderedDict",
        "Counter",
        "WeakKeyDictionary",
        "WeakValueDictionary",
        "bytearray",
    ]
)

type _Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Breach:
    """One breach: which rule, whose (a module, or `module:function`), and what."""

    rule: str
    subject: str
    detail: str = ""


@dataclass(frozen=True)
class Module:
    """One module: its dotted name and its source."""

    name: str
    source: str
    package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def functions(self) -> list[tuple[str, _Function]]:
        """Return every function with its qualified name, nested ones included."""
        return list(_functions(self.tree, ""))


def read(root: Path, *, prefix: str, without: Sequence[Path] = ()) -> Iterator[Module]:
    """Yield the modules below a package's directory; `prefix` is the package's name."""
    for path in sorted(root.rglob("*.py")):
        if any(path.is_relative_to(left_out) for left_out in without):
            continue
        parts = path.relative_to(root).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join([prefix, *(parts[:-1] if package else parts)])
        yield Module(name, path.read_text(encoding="utf-8"), package)


def _functions(node: ast.AST, inside: str) -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{inside}{child.name}", child
            yield from _functions(child, f"{inside}{child.name}.")
        else:
            deeper = f"{inside}{child.name}." if isinstance(child, ast.ClassDef) else inside
            yield from _functions(child, deeper)


# --- Imports ------------------------------------------------------------------------------------------------


def imports(module: Module, known: Iterable[str] = ()) -> set[str]:
    """Return the dotted names that a module imports. `from a import b` is `a.b` where that is a known module."""
    known = frozenset(known)
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            found |= {full if (full := f"{base}.{alias.name}") in known else base for alias in node.names}
    return found - {module.name}


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - node.level + module.package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def upward_imports(modules: Sequence[Module], ranks: Mapping[str, int]) -> Iterator[Breach]:
    """A module imports its own rank and lower ones. A module without a rank breaks the rule as well."""
    known = {module.name for module in modules}
    for module in modules:
        mine = rank(module.name, ranks)
        if mine is None:
            yield Breach("rank", module.name, "stands in no rank")
            continue
        for target in sorted(imports(module, known) & known):
            theirs = rank(target, ranks)
            if theirs is not None and theirs > mine:
                yield Breach("rank", module.name, f"imports {target}, which stands above it")


def rank(name: str, ranks: Mapping[str, int]) -> int | None:
    """Return the rank of the longest listed prefix.

    A package's rank is that of its modules, but a top package of which parts are listed speaks for itself only.
    """
    if name in ranks:
        return ranks[name]
    parent = name.rpartition(".")[0]
    parts_listed = "." not in parent and any(other.startswith(f"{parent}.") for other in ranks)
    return None if not parent or parts_listed else rank(parent, ranks)


def cycles(modules: Sequence[Module]) -> Iterator[Breach]:
    """No module imports itself by way of others. Each cycle is told once, by its members."""
    known = {module.name for module in modules}
    edges = {module.name: imports(module, known) & known for module in modules}
    reach = {name: _reachable(name, edges) for name in edges}
    told: set[str] = set()
    for name in sorted(edges):
        members = {other for other in reach[name] if name in reach[other]} if name in reach[name] else set()
        if members and not members & told:
            told |= members
            yield Breach("cycle", min(members), " ↔ ".join(sorted(members)))


def _reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    front = set(edges[start])
    while front:
        found |= front
        front = {target for name in front for target in edges[name]} - found
    return found


def hidden_imports(module: Module) -> Iterator[Breach]:
    """Imports stand at the top: none in a function, none by name at run time."""
    for name, function in module.functions:
        for node in ast.walk(function):
            match node:
                case ast.Import(lineno=line) | ast.ImportFrom(lineno=line):
                    yield Breach("hidden import", f"{module.name}:{name}", f"line {line}")
                case ast.Call(func=called, lineno=line) if _last(called) in _DYNAMIC:
                    yield Breach("hidden import", f"{module.name}:{name}", f"line {line}")


def forbidden_imports(module: Module, forbidden: Sequence[str]) -> Iterator[Breach]:
    """Nothing of the named packages is imported."""
    for target in sorted(imports(module)):
        if target.split(".")[0] in forbidden:
            yield Breach("forbidden import", module.name, target)


# --- Purity -------------------------------------------------------------------------------------------------


def impurities(module: Module) -> Iterator[Breach]:
    """No waiting, no clock, no chance, no environment, no input or output, no memory between calls."""

    def breach(detail: str, node: ast.AST) -> Breach:
        return Breach("pure", module.name, f"{detail} (line {getattr(node, 'lineno', 0)})")

    for target in sorted(imports(module)):
        if any(target == device or target.startswith(f"{device}.") for device in _DEVICES):
            yield Breach("pure", module.name, f"imports {target}")
    for node in ast.walk(module.tree):
        match node:
            case ast.AsyncFunctionDef() if not _is_signature(node):
                yield breach(f"async def {node.name}", node)
            case ast.Attribute(value=ast.Name("os"), attr=name) if name not in _OS_CONSTANTS:
                yield breach(f"os.{name}", node)
            case ast.Call(func=function) if _last(function) in _DYNAMIC:
                yield breach(f"{_last(function)}()", node)
            case ast.Call(func=ast.Name("open" | "input" | "print" as name)):
                yield breach(f"{name}()", node)
            case ast.Call(func=ast.Attribute(attr=name)) if name in _PATH_METHODS:
                yield breach(f".{name}()", node)
            case ast.Call(func=ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=name)) if (
                name in _CLOCKS and _last(owner) in {"datetime", "date", "uuid", "os", "dt"}
            ):
                yield breach(f"{_last(owner)}.{name}()", node)
            case ast.FunctionDef(decorator_list=marks) if {"cache", "lru_cache"} & set(map(_last, marks)):
                yield breach(f"{node.name} remembers its calls", node)
    for name, node in _containers(module.tree):
        yield breach(f"{name} can be changed", node)


def impure_imports(modules: Sequence[Module], shells: Iterable[str]) -> Iterator[Breach]:
    """A pure module imports pure modules."""
    shells = frozenset(shells)
    known = {module.name for module in modules}
    for module in modules:
        if module.name not in shells:
            for target in sorted(imports(module, known) & shells):
                yield Breach("pure", module.name, f"imports the shell {target}")


def _is_signature(function: _Function) -> bool:
    """Say whether a function has no body: a protocol's method is a promise and does nothing."""
    return all(
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        for statement in function.body
    )


def _containers(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the module's containers that are not constants: not `Final`, made empty, or changed somewhere."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                final = name == "__all__"
            case ast.AnnAssign(target=ast.Name(name), annotation=annotation, value=ast.expr() as value):
                final = "Final" in {_last(node) for node in ast.walk(annotation)}
            case _:
                continue
        if _is_container(value) and not (final and _is_filled(value) and name not in _changed(tree)):
            yield name, statement


def _is_container(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return _last(value.func) in _CONTAINERS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def _is_filled(value: ast.expr) -> bool:
    match value:
        case ast.Dict(keys=content) | ast.List(elts=content) | ast.Set(elts=content):
            return bool(content)
        case ast.Call(func=ast.Name("dict" | "list" | "set"), args=args, keywords=keywords):
            return bool(args or keywords)
        case ast.Call():
            return False  # whoever asks for one of the others means to change it
        case _:
            return True


def _changed(tree: ast.Module) -> set[str]:
    """Return the names whose value is changed in place anywhere in the module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=ast.Name(name), ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.AugAssign(target=ast.Name(name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(name), attr=method)) if method in _FILLING:
                found.add(name)
    return found


def globals_(module: Module) -> Iterator[Breach]:
    """No `global`, in shells either."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield Breach("global", module.name, f"line {node.lineno}")


# --- Names, sizes, shapes, words ----------------------------------------------------------------------------


def bad_names(module: Module) -> Iterator[Breach]:
    """No module is named for what it is not."""
    if _BAD_NAMES & set(module.name.split(".")):
        yield Breach("name", module.name)


def long_file(module: Module) -> Iterator[Breach]:
    """A file can be read in one sitting."""
    lines = module.source.count("\n")
    if lines > MAX_FILE_LINES:
        yield Breach("file lines", module.name, str(lines))


def long_functions(module: Module) -> Iterator[Breach]:
    """A function can be seen at once."""
    for name, function in module.functions:
        if length(function) > MAX_FUNCTION_LINES:
            yield Breach("function lines", f"{module.name}:{name}", str(length(function)))


def too_many_long_functions(modules: Sequence[Module]) -> Iterator[Breach]:
    """Few functions are longer than a page, the house over."""
    every = [(module.name, name, length(f)) for module in modules for name, f in module.functions]
    long = [f"{module}:{name} {lines}" for module, name, lines in every if lines > LONG_FUNCTION_LINES]
    if len(long) > max(1, MAX_LONG_SHARE * len(every)):
        yield Breach("long functions", "", f"{len(long)} of {len(every)}: {', '.join(long)}")


def length(function: _Function) -> int:
    """Return the lines of a function, its signature included and its decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def deep_nesting(module: Module) -> Iterator[Breach]:
    """Blocks do not stand in blocks without end. An `elif` is as deep as its `if`."""
    for name, function in module.functions:
        deepest = _depth(function.body)
        if deepest > MAX_NESTING:
            yield Breach("nesting", f"{module.name}:{name}", str(deepest))


def _depth(body: Sequence[ast.AST]) -> int:
    return max((_depth_of(node) for node in body), default=0)


def _depth_of(node: ast.AST) -> int:
    match node:
        case ast.If(body=body, orelse=[ast.If() as chained]):
            return max(1 + _depth(body), _depth_of(chained))
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return 0
        case ast.Match(cases=branches):
            return 1 + max(_depth(case.body) for case in branches)
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
            blocks = [body, orelse, final, *(handler.body for handler in handlers)]
            return 1 + max(map(_depth, blocks))
        case ast.If() | ast.For() | ast.AsyncFor() | ast.While() | ast.With() | ast.AsyncWith():
            orelse = [] if isinstance(node, ast.With | ast.AsyncWith) else node.orelse
            return 1 + max(_depth(node.body), _depth(orelse))
        case _:
            return 0


def many_parameters(module: Module) -> Iterator[Breach]:
    """More than seven parameters are a value that has no name yet. `self` and `cls` do not count."""
    for name, function in module.functions:
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        if count > MAX_PARAMETERS:
            yield Breach("parameters", f"{module.name}:{name}", str(count))


def silent(module: Module) -> Iterator[Breach]:
    """Every module, public class and public function says what it promises."""
    if not ast.get_docstring(module.tree):
        yield Breach("docstring", module.name)
    for name, node in _public(module.tree, ""):
        overrides = "override" in map(_last, node.decorator_list)  # the overridden method says it
        if not overrides and not ast.get_docstring(node):
            yield Breach("docstring", f"{module.name}:{name}")


def _public(node: ast.AST, inside: str) -> Iterator[tuple[str, _Function | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_"):
                continue
            yield f"{inside}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{inside}{child.name}.")


def _last(node: ast.AST) -> str:
    """Return the last word of a dotted expression, of a call's function, or of a decorator."""
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=function):
            return _last(function)
        case _:
            return ""
