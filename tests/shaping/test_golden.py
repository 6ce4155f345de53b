"""What a program of each dialect reads of a stream that does not fit.

`UPDATE_GOLDEN=1 pytest tests/shaping/test_golden.py` writes the files anew; read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.dialects.pairs import CHATS, HOME
from tests.shaping.speaking import BAD, SCHEMA, Heard, Speaking, ask, bench
from tokenhub_core.types import Dialect, Form

_TIMES = re.compile(rb'("created(?:_at)?":"?|_duration":)[^",}]+')


def golden(name: str, heard: Heard) -> None:
    """Compare with the file of this name, moments of time left out."""
    seen = _TIMES.sub(rb"\1*", heard.raw)
    path = Path(HOME) / "output" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seen)
    assert seen.decode() == path.read_bytes().decode()


@pytest.mark.parametrize("client", CHATS)
async def test_a_stream_that_does_not_fit(client: Dialect) -> None:
    """Its words, and an error where its end would be."""
    provider = Dialect.ANTHROPIC_MESSAGES if client is Dialect.OPENAI_CHAT else Dialect.OPENAI_CHAT
    one = bench(Speaking(provider, [BAD]), defaults={"output_schema": SCHEMA})
    golden(f"invalid-{client}.txt", await ask(one, client, stream=True))


@pytest.mark.parametrize("client", CHATS)
async def test_an_answer_that_was_shaped(client: Dialect) -> None:
    """The text alone is another."""
    provider = Dialect.ANTHROPIC_MESSAGES if client is Dialect.OPENAI_CHAT else Dialect.OPENAI_CHAT
    wishes = {"output_format": Form.TEXT, "strip_think": True, "output_max_tokens": 4}
    one = bench(Speaking(provider, ["<think>Hm.</think># Yes\n\n**Of course** it is."]), defaults=wishes)
    golden(f"shaped-{client}.txt", await ask(one, client, stream=False))
