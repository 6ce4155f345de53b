"""Bringing a database to the newest schema. Apart from `database` because importing Alembic is slow."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from tokenhub_core.store import schema


def upgrade(connection: Connection) -> None:
    """Run every missing migration inside the transaction that `connection` is in: all of them, or none."""
    command.upgrade(configuration(connection), schema.HEAD)


def configuration(connection: Connection) -> Config:
    """Return Alembic's settings for the migrations beside this file; there is no file of settings."""
    config = Config()
    # The parser behind `Config` reads % as the start of a reference.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
