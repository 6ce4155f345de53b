"""What two databases spell differently, and nothing else: how a transaction begins, how a value is marked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PURPOSE: Final = "tokenhub_purpose"
"""The execution option that says what a connection's transactions are for."""


class Purpose(StrEnum):
    """What a transaction is for."""

    READ = "read"
    """Reads one consistent view."""
    WRITE = "write"
    """Changes anything, and keeps everybody else who does so out from its first moment on."""
    UPGRADE = "upgrade"
    """Changes the tables themselves; waits longer."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one of them is spoken to by the driver alone, past SQLAlchemy."""

    begin: str
    """Begins a transaction that adds rows and changes none but its own."""
    mark: str
    """Stands for a value."""
    shared: bool = False
    """Whether several such transactions may run at once, so that they must lock rows in the same order."""

    def told(self, statement: str) -> str:
        """Return driver SQL whose values are marked by `?` as this driver takes it; no text in it holds a `?`."""
        return statement if self.mark == "?" else statement.replace("?", self.mark)


SQLITE: Final = Spelling("BEGIN IMMEDIATE", "?")
POSTGRESQL: Final = Spelling("BEGIN", "%s", shared=True)


def spelling_of(dialect: str) -> Spelling:
    """Return how a database is spoken to, by the name of its dialect."""
    return POSTGRESQL if dialect == "postgresql" else SQLITE
