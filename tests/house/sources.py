"""The sources of the house as syntax trees: modules, what they import, which dotted names they use."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FLOORS = ("protocols", "storage", "node")
"""Import packages, the lowest first."""


@dataclass(frozen=True)
class Use:
    """A dotted name of something imported (``time.time``, ``trio.to_thread.run_sync``) and the line that uses it."""

    name: str
    line: int


@dataclass(frozen=True)
class Module:
    """One source file. name: dotted, of a package without ``__init__``; path: relative to the project's root, with slashes."""

    name: str
    path: str
    is_package: bool
    text: str
    tree: ast.Module

    @cached_property
    def imports(self) -> tuple[Use, ...]:
        """Every imported thing as written, relative ones made absolute: ``from a import b`` gives ``a.b``. Type-checking ones too."""
        found: list[Use] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [Use(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                found += [Use(f"{base}.{alias.name}" if alias.name != "*" else base, node.lineno) for alias in node.names]
        return tuple(found)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        up = node.level - (1 if self.is_package else 0)
        parts = parts[: len(parts) - up] if up else parts
        return ".".join([*parts, node.module] if node.module else parts)

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Imports, and every attribute chain that starts at an imported name, resolved through its alias."""
        bound: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    bound[alias.asname or alias.name] = f"{self._base(node)}.{alias.name}"
        found = list(self.imports)
        for node in ast.walk(self.tree):
            chain = _chain(node)
            if chain and chain[0] in bound:
                found.append(Use(".".join([bound[chain[0]], *chain[1:]]), node.lineno))  # type: ignore[attr-defined]
        return tuple(found)


def _chain(node: ast.AST) -> list[str] | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return [node.id, *reversed(parts)]
    return None


@dataclass(frozen=True)
class House:
    """All modules of the three floors, and the texts that stand around them."""

    root: Path
    modules: Mapping[str, Module]

    @classmethod
    def read(cls, root: Path) -> House:
        """Reads protocols/, storage/ and node/ under ``root``; a missing floor is empty."""
        modules = {module.name: module for floor in FLOORS for module in read_modules(root, floor)}
        return cls(root=root, modules=modules)

    def targets(self, module: Module) -> Iterator[tuple[str, int]]:
        """Modules of the house that ``module`` imports, with the line. ``from package import name`` is the module or the package."""
        for use in module.imports:
            name = use.name
            while name:
                if name in self.modules:
                    if name != module.name:
                        yield name, use.line
                    break
                name = name.rpartition(".")[0]

    @cached_property
    def sources_around(self) -> tuple[Module, ...]:
        """tests/, examples/ and benchmarks/: they stand outside and may look anywhere, but keep the manners of text."""
        return tuple(module for folder in ("tests", "examples", "benchmarks") for module in read_modules(self.root, folder))


def read_modules(root: Path, folder: str) -> Iterator[Module]:
    """Every Python file under ``root``/``folder``, sorted by path."""
    for file in sorted((root / folder).rglob("*.py")):
        relative = file.relative_to(root)
        parts = list(relative.with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        text = file.read_text(encoding="utf-8")
        yield Module(
            name=".".join(parts[:-1] if is_package else parts),
            path=relative.as_posix(),
            is_package=is_package,
            text=text,
            tree=ast.parse(text, filename=str(relative)),
        )
