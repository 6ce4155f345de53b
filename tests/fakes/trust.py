"""Contexts for connections to providers, made once: reading every public authority takes longer than most tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from tokenhub_core import opening
from tokenhub_core.providers import transport

_once = functools.cache(transport.tls_context)


@contextmanager
def trust_is_read_once() -> Iterator[None]:
    """Let everything that is made within the block share a context for each CA file."""
    with (
        mock.patch.object(transport, "tls_context", _once),
        mock.patch.object(opening, "tls_context", _once),
    ):
        yield
