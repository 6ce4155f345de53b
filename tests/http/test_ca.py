"""What is intercepted, by the admin API: shown, changed and audited."""

from __future__ import annotations

import time

import pytest

from tests.fakes.house import House
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.recognise import HOSTS


async def test_it_is_shown_and_changed(it: House) -> None:
    """A host is there and gone again, the root is another one; and the audit log has who."""
    CertificateAuthority.open(it.app.settings.data_dir / "ca", HOSTS, now=time.time)
    before = await it.done("GET", "/ca")
    assert (before["hosts"], before["added"], before["alarms"]) == (list(HOSTS), [], [])
    told = await it.done("POST", "/ca/hosts", {"host": "llm.example", "dialect": "gemini"})
    assert told["added"] == ["llm.example=gemini"]
    assert (
        {"llm.example"}
        == set(told["hosts"]) - set(HOSTS)
        == set(told["permitted"]) - set(before["permitted"])
    )
    assert (await it.done("DELETE", "/ca/hosts/llm.example"))["added"] == []
    assert (await it.done("POST", "/ca/rotate"))["sha256"] != before["sha256"]
    entries = [one for one in (await it.done("GET", "/audit"))["entries"] if one["action"].startswith("ca.")]
    assert [one["action"] for one in entries] == ["ca.rotate", "ca.host.remove", "ca.host.add"]
    assert {one["actor"] for one in entries} == {"admin-token"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/ca", None, 404),
        ("DELETE", "/ca/hosts/llm.example", None, 404),
        ("POST", "/ca/hosts", {"host": "a b", "dialect": "gemini"}, 400),
        ("POST", "/ca/hosts", {"host": "llm.example", "dialect": "telnet"}, 400),
        ("POST", "/ca/hosts", {"host": "llm.example"}, 400),
    ],
)
async def test_what_cannot_be_done_is_said(
    it: House, method: str, path: str, body: object, status: int
) -> None:
    """Without a CA there is nothing to show."""
    assert (await it.admin(method, path, body)).status == status
