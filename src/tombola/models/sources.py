"""The code that a user's own network runs: the files of its factory and layers, and what they import."""

import ast
import hashlib
import importlib.metadata
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from torch import nn

_VERSIONED: Final = ("torch", "tombola")
"""Their versions stand beside every run; a new one does not make another network of the same definition."""

_INSTALLED: Final = {"site-packages", "dist-packages"}
_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_DISTRIBUTION: Final = "distribution "


def sources(path: str, module: nn.Module | None = None) -> dict[str, str]:
    """Give the code that a network was made by and runs.

    It begins with the factory's module, the classes of the layers and the functions that they hold, and goes on with
    whatever the user's own files among them import, wherever in the file the import stands. A file is the user's own
    unless it belongs to Python, torch or tombola or lies in ``site-packages``. Neither paths nor what else is loaded in
    this process make a difference. A file that is loaded counts as it was when this function first saw it.

    Not seen are files, environment variables and modules that code asks for by a name computed while it runs.

    Args:
        path: ``package.module:factory``.
        module: the network; without it, only what can be reached from the factory's module.

    Returns:
        module name -> SHA-256 of its file for the user's own, or for a notebook of the functions and classes typed in
        and the plain values they mention; ``distribution NAME`` -> version for what is installed.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [path.partition(":")[0], *(_homes(module) if module is not None else ())]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        kind = _kind(name)
        if kind == "installed":
            found.update(_installed(name))
        elif kind == "own":
            read = _read(name)
            found[name] = read.digest
            waiting += read.imports
            # What a file imports by a computed name can be seen only in the module; a tool that loads modules, such as
            # pytest, leaves something of its own there.
            waiting += [other for other in _held_by(name) if _kind(other) == "own"]
        if kind is not None and "." in name:
            # A package's own file runs before what is in it.
            waiting.append(name.rpartition(".")[0])
    return found


def changed(expected: Mapping[str, str]) -> tuple[str, ...]:
    """Name what of these :func:`sources` is not the same now, in this process."""
    return tuple(name for name, value in expected.items() if _now(name) != value)


def _now(name: str) -> str | None:
    if name.startswith(_DISTRIBUTION):
        return _version(name.removeprefix(_DISTRIBUTION))
    kind = _kind(name)
    if kind == "own":
        return _read(name).digest
    return _installed(name).get(name) if kind == "installed" else None


@dataclass(frozen=True)
class _Read:
    loaded: object
    digest: str
    imports: frozenset[str]


_seen: dict[str, _Read] = {}


def _read(name: str) -> _Read:
    """Read a module's file, once for each time that the module was loaded.

    Python does not keep the text that it loaded, so this reads the file again. Between the two an edit is taken for
    what runs: in a search the time that importing the network takes; for a module that a notebook had imported before,
    the time until the first search.
    """
    module = sys.modules.get(name)
    loaded = getattr(module, "__spec__", None) or module
    known = _seen.get(name)
    if known is not None and loaded is not None and known.loaded is loaded:
        return known
    file = _file(name)
    if file is None:
        code = _described(vars(module), name) if module is not None else ""
        return _Read(loaded, hashlib.sha256(code.encode()).hexdigest(), frozenset())
    data = Path(file).read_bytes()
    imports = _imports(data, _package(name, file)) if file.endswith((".py", ".pyw")) else ()
    read = _Read(loaded, hashlib.sha256(data).hexdigest(), frozenset(imports))
    if loaded is not None:
        _seen[name] = read
    return read


def _kind(name: str) -> str | None:
    """Tell whose a module is: the user's ``own``, ``installed``, or ``None`` for what does not count."""
    if name.partition(".")[0] in _VERSIONED:
        return None
    file = _file(name)
    if file is None:
        # A notebook's __main__ has no file.
        return "own" if name == "__main__" and name in sys.modules else None
    if _INSTALLED & set(Path(file).parts):
        return "installed"
    return None if Path(file).resolve().is_relative_to(_python()) else "own"


@cache
def _python() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _file(name: str) -> str | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None and (spec := _spec(name)) is not None and spec.has_location:
        file = spec.origin
    return file if isinstance(file, str) and os.path.isfile(file) else None


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without running anything, which ``importlib.util.find_spec`` does for the packages above it."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    above, _, _ = name.rpartition(".")
    folders = None
    if above:
        package = _spec(above)
        if package is None or package.submodule_search_locations is None:
            return None
        try:
            folders = list(package.submodule_search_locations)
        except KeyError:  # A folder without __init__.py in another one that is not imported yet.
            return None
    found = (finder.find_spec(name, folders) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in found if spec is not None), None)


def _package(name: str, file: str) -> str:
    module = sys.modules.get(name)
    given: str | None = getattr(module, "__package__", None)
    if given is not None:
        return given
    return name if Path(file).stem == "__init__" else name.rpartition(".")[0]


def _imports(data: bytes, package: str) -> Iterator[str]:
    """Name every module that a file may import; some of the names may be no modules."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _homes(module: nn.Module) -> Iterator[str]:
    for part in module.modules():
        yield from (kind.__module__ for kind in type(part).__mro__)
        for value in vars(part).values():
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            yield from _home(value)
            for one in inner:
                yield from _home(one)


def _held_by(name: str) -> Iterator[str]:
    module = sys.modules.get(name)
    for key, value in list(vars(module).items()) if module is not None else ():
        # A package gets its modules as attributes whoever imports them.
        if not (isinstance(value, ModuleType) and value.__name__ == f"{name}.{key}"):
            yield from _home(value)


def _home(value: object) -> Iterator[str]:
    """Name the module that a value's code is in."""
    if isinstance(value, ModuleType):
        yield value.__name__
        return
    if isinstance(value, partial):
        yield from _home(value.func)
    of = value if isinstance(value, type) or hasattr(type(value), "__get__") else type(value)
    home = getattr(of, "__module__", None)
    if isinstance(home, str):
        yield home


def _installed(name: str) -> dict[str, str]:
    names = _distributions().get(name.partition(".")[0], ())
    if not names:
        return {name: _read(name).digest}
    return {f"{_DISTRIBUTION}{one}": _version(one) or "" for one in names}


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _described(namespace: Mapping[str, Any], home: str) -> str:
    """Put in words the functions and classes that were typed in, and the plain values that they mention."""
    codes = {key: list(_codes(value, home)) for key, value in namespace.items()}
    mentioned = {name for some in codes.values() for code in some for name in _names(code)}
    lines = [f"{key} {_word(code)}" for key, some in codes.items() for code in some]
    lines += [f"{key} = {value!r}" for key, value in namespace.items() if key in mentioned and _is_plain(value)]
    return "\n".join(sorted(lines))


def _codes(value: object, home: str) -> Iterator[CodeType]:
    if getattr(value, "__module__", None) != home:
        return
    if isinstance(value, FunctionType):
        yield value.__code__
    elif isinstance(value, type):
        for inner in vars(value).values():
            function = getattr(inner, "__func__", getattr(inner, "fget", inner))
            if isinstance(function, FunctionType):
                yield function.__code__


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _word(value: object) -> str:
    if isinstance(value, CodeType):
        return f"{value.co_name} {value.co_varnames} {value.co_names} {value.co_code.hex()} {_all(value.co_consts)}"
    if isinstance(value, frozenset):
        return f"{{{_all(sorted(value, key=repr))}}}"
    return f"({_all(value)})" if isinstance(value, tuple) else repr(value)


def _all(values: Iterable[object]) -> str:
    return ", ".join(_word(value) for value in values)


def _is_plain(value: object) -> bool:
    return all(_is_plain(one) for one in value) if isinstance(value, tuple) else isinstance(value, _PLAIN)
