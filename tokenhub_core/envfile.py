"""The environment file: variables that a server reads at its start, and again when it is told to.

A process's own environment cannot be changed from outside, so what is to be changed while it runs stands in a file of
`NAME=value` lines: empty lines and lines that begin with `#` say nothing, `export ` before a name is let stand, a value
may be in single or double quotes. Nothing is expanded. The process's own environment wins over the file, and flags over
both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tokenhub_core import config
from tokenhub_core.config import PREFIX, Settings
from tokenhub_core.errors import ConfigError

VARIABLE: Final = f"{PREFIX}ENV_FILE"
_OUTSIDE: Final = frozenset({VARIABLE, f"{PREFIX}DATA_DIR"})
"""What says where things are cannot stand in a file that is found by it."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIMIT: Final = 1 << 20
"""Bytes."""


def parsed(text: str, name: str) -> dict[str, str]:
    """Return the variables of a file's text; raises `ConfigError` that tells the line, not what it holds."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        variable, sign, value = bare.removeprefix("export ").partition("=")
        variable, value = variable.strip(), value.strip()
        if not sign or not _NAME.fullmatch(variable):
            raise ConfigError(f"{name}, line {number}: must be NAME=value")
        if value[:1] in ("'", '"'):
            if len(value) < 2 or value[-1] != value[0]:
                raise ConfigError(f"{name}, line {number}: a quote is not closed")
            value = value[1:-1]
        if variable in _OUTSIDE:
            raise ConfigError(f"{name}, line {number}: {variable} cannot be set in this file")
        found[variable] = value
    return found


def read(path: Path) -> dict[str, str]:
    """Return the variables of a file; raises `ConfigError` where it cannot be read, or others can read it."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
            text = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"environment file {path}: {(error.strerror or 'unreadable').lower()}") from None
    if len(text) > _LIMIT:
        raise ConfigError(f"environment file {path}: larger than {_LIMIT >> 20} MiB")
    try:
        return parsed(text.decode(), f"environment file {path}")
    except UnicodeDecodeError:
        raise ConfigError(f"environment file {path}: not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Given:
    """Where the settings of a process come from, besides the file: its environment, and flags over it."""

    data_dir: Path
    environ: Mapping[str, str] = MappingProxyType({})
    flags: Mapping[str, Any] = MappingProxyType({})
    """By the names of `Settings`; None stands for a flag that was not given."""
    fixed: Settings | None = None
    """Settings that somebody made: where they are no default they win over everything."""
    without: frozenset[str] = frozenset()
    """Variables of the file that are not for this process."""

    @property
    def file(self) -> Path | None:
        """Return the environment file, None where none is named; raises `ConfigError`."""
        fixed = self.fixed.env_file if self.fixed is not None else ""
        name = self.flags.get("env_file") or fixed or self.environ.get(VARIABLE, "").strip()
        try:
            return Path(name).expanduser() if name else None
        except RuntimeError as error:
            raise ConfigError(f"environment file {name}: {error}") from None

    def read(self) -> dict[str, str]:
        """Return the file's variables, none where no file is named; raises `ConfigError`."""
        return {} if (file := self.file) is None else read(file)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that holds with these variables of the file."""
        kept = {name: value for name, value in variables.items() if name not in self.without}
        return {**kept, **self.environ}

    def settings(self, variables: Mapping[str, str]) -> Settings:
        """Return the settings that hold with these variables of the file; raises `ConfigError`."""
        found = config.parse(self.environment(variables), data_dir=self.data_dir, overrides=self.flags)
        return replace(found, **self._firm())

    def warnings(self, variables: Mapping[str, str]) -> list[str]:
        """Return what to tell of the file's variables that nothing reads, or that something else wins over."""
        firm = {name for name, value in self.flags.items() if value is not None} | set(self._firm())
        said = {PREFIX + name.upper() for name in firm} - self.without
        over = [name for name in sorted(variables) if name in said or name in self.environ]
        return [
            *config.unknown(variables),
            *(
                f"{name} of the environment file does not hold: the process or a flag says it"
                for name in over
            ),
        ]

    def _firm(self) -> dict[str, Any]:
        """Return the fixed settings that are no defaults."""
        if (fixed := self.fixed) is None:
            return {}
        usual, said = Settings(), {name: getattr(fixed, name) for name in config.names()}
        return {name: value for name, value in said.items() if value != getattr(usual, name)}


def settings(environ: Mapping[str, str], data_dir: Path, flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of an environment and of the file that it names; raises `ConfigError`."""
    given = Given(data_dir, environ, flags or {})
    return given.settings(given.read())
