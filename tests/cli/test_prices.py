"""`tokenhub prices` against a TokenHub that is serving."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.cli.running import Running, Shell
from tests.fakes.certificates import authority, server_context
from tests.fakes.listener import listener
from tests.http.test_prices import LIST
from tokenhub_core.cli import prices as module
from tokenhub_core.cli.prices import prices
from tokenhub_core.errors import ConfigError
from tokenhub_core.providers import pricelist
from tokenhub_core.types import Json


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "mine"))
    served.admin("POST", "/models", {"id": "gpt", "provider_id": "p"})
    return Shell(prices, served.it.data / "data")


@pytest.fixture
def place(tmp_path: Path) -> str:
    path = tmp_path / "list.json"
    path.write_bytes(LIST)
    return str(path)


def sources(served: Running) -> dict[str, str]:
    items: list[Json] = served.admin("GET", "/models")["items"]
    return {item["id"]: item["pricing_source"] for item in items}


def test_a_difference_is_a_table_and_changes_nothing(run: Shell, served: Running, place: str) -> None:
    """Each price that differs, was and now; the digest to pin; who is left alone."""
    told = run("refresh", "--from", place)
    assert pricelist.digest(LIST) in told
    rows = [line.split() for line in told.splitlines()]
    assert ["gpt", "@", "p", "in", "-", "1"] in rows
    assert ["thoughts", "-", "6"] in rows
    assert ["in", ">", "1,000", "-", "2"] in rows
    assert "1 model would change, 0 the same, 1 set by hand, 0 not in the list" in told
    assert "nothing was changed; --apply takes these prices" in told
    assert sources(served) == {"gpt": "unknown", "mine": "manual"}


def test_a_list_is_applied_and_the_next_difference_has_percents(
    run: Shell, served: Running, place: str
) -> None:
    """What was set by hand stays as it is."""
    assert "1 model changed, 0 the same, 1 set by hand" in run("refresh", "--from", place, "--apply")
    assert sources(served) == {"gpt": f"sha256:{pricelist.digest(LIST)[:12]}", "mine": "manual"}
    Path(place).write_bytes(LIST.replace(b'"output":4', b'"output":5'))
    assert ["gpt", "@", "p", "out", "4", "5", "+25%"] in [
        line.split() for line in run("refresh", "--from", place).splitlines()
    ]


def test_the_installed_list_is_the_default(run: Shell) -> None:
    """Nothing is read from anywhere; a model that it does not know keeps its price."""
    told = run.json("refresh")
    assert (told["source"], told["changes"], told["unlisted"]) == ("models-dev", [], 1)


def test_a_list_must_be_the_one_that_was_pinned(run: Shell, place: str) -> None:
    """A file too, where a digest is given."""
    assert "not the one given" in run.refusal("refresh", "--from", place, "--sha256", "0" * 64)
    pinned = run.json("refresh", "--from", place, "--sha256", pricelist.digest(LIST).upper())
    assert len(pinned["changes"]) == 1


def test_a_url_is_applied_with_its_digest_only(run: Shell) -> None:
    """What was looked at is what is taken; and it travels encrypted."""
    assert "--sha256" in run.refusal("refresh", "--from", "https://127.0.0.1:1/x", "--apply")
    assert "by https" in run.refusal("refresh", "--from", "http://127.0.0.1:1/x")
    assert "127.0.0.1:1" in run.refusal("refresh", "--from", "https://127.0.0.1:1/x")


def test_a_file_that_cannot_be_used_is_refused(
    run: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, empty, too large, no list."""
    path = tmp_path / "other.json"
    assert "No such file" in run.refusal("refresh", "--from", str(path))
    path.write_bytes(b"")
    assert "is empty" in run.refusal("refresh", "--from", str(path))
    path.write_bytes(b"{")
    assert "models.dev" in run.refusal("refresh", "--from", str(path))
    monkeypatch.setattr(module, "MAX_BYTES", 0)
    assert "is larger than" in run.refusal("refresh", "--from", str(path))


async def test_a_list_is_fetched_encrypted_within_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a certificate that is right; a redirect leads nowhere, a larger body is cut off and refused."""
    ca = authority(tmp_path)
    trust = ssl.create_default_context(cafile=ca[2])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/moved" in head:
            writer.write(
                b"HTTP/1.1 302 Found\r\nlocation: /list\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        else:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(LIST), LIST)
            )
        await writer.drain()
        writer.close()

    async with listener(serve, tls=server_context(tmp_path, ca)) as port:
        url = f"https://127.0.0.1:{port}"
        assert await asyncio.to_thread(module._fetched, f"{url}/list", trust) == LIST
        with pytest.raises(ConfigError, match="Found"):
            await asyncio.to_thread(module._fetched, f"{url}/moved", trust)
        with pytest.raises(ConfigError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(module._fetched, f"{url}/list")
        monkeypatch.setattr(module, "MAX_BYTES", 10)
        with pytest.raises(ConfigError, match="larger"):
            await asyncio.to_thread(module._fetched, f"{url}/list", trust)


def test_what_a_model_costs_is_shown(run: Shell, place: str) -> None:
    """Where it is registered and by the installed list, with tiers."""
    run("refresh", "--from", place, "--apply")
    told = run("show", "gpt")
    assert "1 in, 4 out, 0.5 cached, 6 thoughts" in told
    assert "above 1,000 tokens: 2 in, 8 out" in told
    assert "listed: openai" in run("show", "gpt-4o")
    assert run.json("show", "gpt-4o")["registered"] == []
    assert "nothing is known of the price of 'nobody'" in run.refusal("show", "nobody")
