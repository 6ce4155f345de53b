"""Whoever is refused before a call is read leaves a row: who it was, what was asked, and why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.house import House, house
from tests.fakes.keys import SECRET, WRONG, Book, limited
from tests.patience import PATIENCE
from tokenhub_core.telemetry.refusals import EACH_SECOND
from tokenhub_core.types import Json, Scope

CHAT = "/v1/chat/completions"
SHUT = {"ANONYMOUS": "off", "MAX_BODY_BYTES": "1024"}


async def rows(it: House, count: int = 1) -> list[Json]:
    """Return what the request log has, once there is so much."""
    async with asyncio.timeout(PATIENCE):
        while len(logs := (await it.done("GET", "/logs"))["logs"]) < count:  # noqa: ASYNC110 - as for a client
            await asyncio.sleep(0.01)
    return list(logs)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "fault", "key"),
    [
        (CHAT, {}, b"{}", 401, "key_required", None),
        (CHAT, {"x-api-key": WRONG}, b"{}", 401, "key_unknown", None),
        (f"{CHAT}?a={SECRET}", {}, b"{}", 401, "key_in_query", None),
        (CHAT, {"user-agent": SECRET}, b"{}", 401, "key_misplaced", None),
        ("/v1/embeddings", {"x-api-key": SECRET}, b"{}", 403, "insufficient_scope", "k-ann"),
        (CHAT, {"x-api-key": SECRET}, b" " * 1025, 413, "body_too_large", "k-ann"),
        (CHAT, {"x-api-key": SECRET, "host": "evil.example"}, b"{}", 403, "bad_host", None),
    ],
)
async def test_a_refusal_is_a_row(
    tmp_path: Path, path: str, headers: dict[str, str], body: bytes, status: int, fault: str, key: str | None
) -> None:
    """With the id that the caller was told, its address, and its key where it has shown a right one; never a secret."""
    book = Book(**{SECRET: limited(scopes=frozenset({Scope.CHAT}))})
    async with house(tmp_path, settings=SHUT, book=book) as it:
        told = await it.ask("POST", path, body, headers)
        assert told.status == status
        (row,) = await rows(it)
        whole = await it.done("GET", f"/logs/{row['id']}")
        assert (row["id"], row["status"], row["outcome"]) == (told.header("x-request-id"), status, "error")
        assert fault in str(whole)
        assert row["key_id"] == key
        assert "127.0.0.1" in str(whole)
        assert not [secret for secret in (SECRET, WRONG) if secret in str(whole)]


async def test_a_flood_is_bounded_and_all_of_it_is_counted(tmp_path: Path) -> None:
    """Rows of a second or two, and the rest in the metric."""
    async with house(tmp_path, settings=SHUT, book=Book()) as it:
        many = 4 * EACH_SECOND
        for _ in range(many):
            await it.ask("POST", CHAT, b"{}")
        told = (await it.ask("GET", "/metrics")).body.decode()
        name = 'tokenhub_refusals_unrecorded_total{fault="key_required"} '
        counted = sum(
            int(float(line.removeprefix(name))) for line in told.splitlines() if line.startswith(name)
        )
        recorded = sum(
            int(float(line.rpartition(" ")[2]))
            for line in told.splitlines()
            if line.startswith('tokenhub_request_errors_total{fault="key_required",')
        )
        assert recorded >= EACH_SECOND
        assert recorded + counted == many
