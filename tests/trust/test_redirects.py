"""A provider that sends its callers elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.house import house
from tests.fakes.provider import FakeProvider


@pytest.mark.parametrize(
    "where", ["{other}", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"]
)
async def test_a_redirect_is_an_error_and_leads_nowhere(tmp_path: Path, where: str) -> None:
    """Nothing is followed, and the credential stays with the host that it is bound to."""
    async with FakeProvider() as fake, FakeProvider() as other, house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        fake.script("gpt-4o", [f"redirect:{where.format(other=other.url)}"])
        told = await it.chat()
        assert told.status >= 500
        assert b"redirect" in told.body
        assert b"meta-data" not in told.body
        assert {request.path for request in fake.requests} == {"/v1/chat/completions"}
        assert other.requests == []
        assert b"sk-p" not in told.body
        assert not [name for name, _ in told.headers if name == "location"]


async def test_nobody_else_seems_to_be_us(tmp_path: Path) -> None:
    """What callers say in our fields reaches no provider, and a caller reads ours only."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        forged = {
            "x-tokenhub-directive": "honoured",
            "x-forwarded-for": "1.2.3.4",
            "forwarded": "for=1.2.3.4",
        }
        told = await it.chat(headers={**forged, "proxy-authorization": "Basic eA=="})
        assert told.status == 200
        (sent,) = fake.requests
        names = {name for name, _ in sent.headers}
        assert not [name for name in names if name.startswith(("x-tokenhub-", "x-forwarded-", "proxy-"))]
        assert "forwarded" not in names
        assert "x-tokenhub-directive" not in {name for name, _ in told.headers}
