"""Settings that are read anew while the server runs: what holds at once, what later, and what changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.fakes import trust
from tests.fakes.certificates import authority, server_context
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import config, reloading
from tokenhub_core.config import PREFIX, Settings
from tokenhub_core.renewals import LIVE, Fresh, Renewals, changes, effective
from tokenhub_core.siblings import Siblings
from tokenhub_core.types import Json, header


class Files:
    """The files that a server reads."""

    def __init__(self, folder: Path) -> None:
        self.env = folder / "env"
        self.credentials = folder / "credentials"
        self.say()

    def say(self, **variables: str) -> None:
        """Let the environment file say this, and nothing else; names without the prefix, or whole ones."""
        lines = (
            f"{name if '_API_' in name else PREFIX + name}={value}\n" for name, value in variables.items()
        )
        self.env.write_text("".join(lines))
        self.env.chmod(0o600)

    def register(self, *providers: Json, models: Sequence[Json] = ()) -> None:
        self.credentials.write_bytes(orjson.dumps({"providers": providers, "models": models}))
        self.credentials.chmod(0o600)


@asynccontextmanager
async def opened(folder: Path, **settings: str) -> AsyncIterator[tuple[House, Files]]:
    files = Files(folder)
    async with house(folder, settings={"ENV_FILE": str(files.env), **settings}) as it:
        yield it, files


async def test_what_the_file_says_now_holds_from_the_next_call_on(tmp_path: Path) -> None:
    """The answer tells each change with the old and the new value, and which file it came from."""
    async with opened(tmp_path) as (it, files):
        files.say(DEFAULT_MODE="cheap", MAX_ATTEMPTS="2")
        told = await it.done("POST", "/reload")

        assert told["changes"] == [
            {"variable": "TOKENHUB_DEFAULT_MODE", "old": "normal", "new": "cheap", "applied": True},
            {"variable": "TOKENHUB_MAX_ATTEMPTS", "old": "5", "new": "2", "applied": True},
        ]
        assert {one["name"]: one["state"] for one in told["sources"]} == {
            "environment file": "changed",
            "credentials file": "absent",
            "CA file": "absent",
            "list of hosts": "absent",
        }
        effective = (await it.done("GET", "/routing-config"))["effective"]
        assert effective["default_mode"] == "cheap"
        shown = {row["variable"]: row for row in (await it.done("GET", "/settings"))["items"]}
        assert (shown["TOKENHUB_MAX_ATTEMPTS"]["value"], shown["TOKENHUB_MAX_ATTEMPTS"]["source"]) == (
            "2",
            "environment",
        )

        assert (await it.done("POST", "/reload"))["changes"] == []
        files.say()
        told = await it.done("POST", "/reload")
        assert [one["new"] for one in told["changes"]] == ["normal", "5"]


async def test_what_needs_a_restart_is_told_each_time_and_not_done(tmp_path: Path) -> None:
    """A port stays what it is, and so does the next reload's word of it."""
    async with opened(tmp_path) as (it, files):
        files.say(PORT="1", OTEL_HEADERS="authorization=sk-secret")
        for _ in range(2):
            told = await it.done("POST", "/reload")

            assert told["changes"] == [
                {"variable": "TOKENHUB_PORT", "old": "8080", "new": "1", "applied": False},
                {"variable": "TOKENHUB_OTEL_HEADERS", "old": "", "new": "(redacted)", "applied": False},
            ]
        assert not any(b"sk-secret" in one for one in it.seen)


async def test_what_something_else_wins_over_is_told(tmp_path: Path) -> None:
    """Else whoever has edited the file would look for what is wrong with it."""
    async with opened(tmp_path, MAX_ATTEMPTS="3") as (it, files):
        files.say(MAX_ATTEMPTS="2")
        told = await it.done("POST", "/reload")

        assert told["changes"] == []
        assert "TOKENHUB_MAX_ATTEMPTS of the environment file does not hold" in told["notes"][0]


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        (
            {"DEFAULT_MODE": "cheap", "MAX_ATTEMPTS": "0"},
            "TOKENHUB_MAX_ATTEMPTS='0': must be between 1 and 20",
        ),
        ({"DEFAULT_MODE": "cheap", "HOST_MODES": "nobody.example=off"}, "nobody.example is no host"),
        ({"DEFAULT_MODE": "cheap", "CLIENT_CREDENTIALS": "x=y"}, "client credentials 'x=y'"),
        ({"DEFAULT_MODE": "cheap", "CA_FILE": "/nowhere.pem"}, "CA file /nowhere.pem"),
        ({"DEFAULT_MODE": "cheap", "EXTRA_HOSTS": "a.example=gibberish"}, "gibberish"),
    ],
    ids=["bounds", "mode", "credentials", "ca", "host"],
)
async def test_what_cannot_be_used_changes_nothing(
    tmp_path: Path, variables: dict[str, str], wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even what could: 400 says what it is, an event and the log do, and all is as it was."""
    async with opened(tmp_path) as (it, files):
        heard: list[tuple[str, object]] = []
        it.bus.follow(lambda event: heard.append((event.type, event.told)))
        files.say(**variables)
        caplog.set_level(logging.ERROR, reloading.__name__)

        told = await it.admin("POST", "/reload")

        assert (told.status, told.fault["code"]) == (400, "settings_unusable"), told.body
        assert wrong in told.fault["message"]
        assert any("settings are as they were" in one.message for one in caplog.records)
        assert any(kind == "reload_refused" for kind, _ in heard)
        effective = (await it.done("GET", "/routing-config"))["effective"]
        assert effective["default_mode"] == "normal"


async def test_a_file_that_is_gone_or_open_to_others_changes_nothing(tmp_path: Path) -> None:
    """A file that was named and is not there is no empty file."""
    async with opened(tmp_path) as (it, files):
        files.say(DEFAULT_MODE="cheap")
        files.env.chmod(0o644)
        assert (await it.admin("POST", "/reload")).status == 400
        files.env.unlink()
        assert (await it.admin("POST", "/reload")).status == 400
        assert (await it.done("GET", "/routing-config"))["effective"]["default_mode"] == "normal"


async def test_the_credentials_file_is_read_again(tmp_path: Path) -> None:
    """A provider and its model that were added there serve; one that cannot be registered changes nothing."""
    async with (
        FakeProvider() as fake,
        opened(tmp_path, ALLOW_PRIVATE="127.0.0.1", ALLOW_HTTP="true") as (
            it,
            files,
        ),
    ):
        good = {"id": "p", "type": "openai", "base_url": fake.url, "api_key": "sk-file"}
        model = {"id": "m", "provider_id": "p", "input_per_1k": 0.1, "output_per_1k": 0.1}
        files.register(good, {"id": "bad", "type": "openai", "base_url": "ftp://x"}, models=[model])
        refused = await it.admin("POST", "/reload")
        assert refused.status == 400
        assert "provider 'bad'" in refused.fault["message"]
        assert (await it.done("GET", "/providers"))["items"] == []

        files.register(good, models=[model])
        told = await it.done("POST", "/reload")

        assert told["added"] == ["p"]
        assert (await it.chat("m")).status == 200
        assert header(fake.requests[-1].headers, "authorization") == "Bearer sk-file"


async def test_a_key_in_the_environment_file_is_used_from_the_next_call_on(tmp_path: Path) -> None:
    """It is a provider of its own there; without the key the provider is gone."""
    async with opened(tmp_path) as (it, files):
        files.say(OPENAI_API_KEY="sk-first")
        assert (await it.done("POST", "/reload"))["added"] == ["openai"]
        assert (await it.done("GET", "/providers"))["items"][0]["id"] == "openai"
        files.say()
        assert (await it.done("POST", "/reload"))["removed"] == ["openai"]
        assert not any(b"sk-first" in one for one in it.seen)


async def test_a_provider_is_held_to_the_authorities_that_the_file_names_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority that was added is trusted by the next connection, one that was taken out by none."""
    # Contexts are changed here: none is to be another scene's.
    monkeypatch.setattr(trust, "_once", trust._once.__wrapped__)
    ca = authority(tmp_path)
    async with (
        FakeProvider(tls=server_context(tmp_path, ca)) as fake,
        opened(tmp_path, ALLOW_PRIVATE="127.0.0.1") as (it, files),
    ):
        await it.provider(fake, "p", "m")
        assert (await it.chat("m")).status == 502
        files.say(CA_FILE=str(ca[2]))
        await it.done("POST", "/reload")
        assert (await it.chat("m")).status == 200
        files.say()
        await it.done("POST", "/reload")
        assert (await it.chat("m")).status == 502


async def test_a_call_that_is_under_way_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    """A stream whose place is taken away by a reload comes to its end, and its deadline is the one that it had."""
    async with (
        FakeProvider() as fake,
        opened(tmp_path, ALLOW_PRIVATE="127.0.0.1", ALLOW_HTTP="true") as (
            it,
            files,
        ),
    ):
        await it.provider(fake, "p", "m")
        fake.profile = fake.profile.__class__(tokens_per_second=40.0)
        call = asyncio.create_task(it.chat("m", stream=True))
        await fake.until(requests=1)
        files.say(MAX_CALLS="1", QUEUE_MS="0", STALL_TIMEOUT_SECS="0.05", MAX_ATTEMPTS="1")
        await it.done("POST", "/reload")
        refused = await it.chat("m")
        told = await call

        assert refused.status == 503
        assert told.status == 200
        assert b"[DONE]" in told.body


async def test_a_reload_is_audited_with_what_it_changed(tmp_path: Path) -> None:
    """Who did it, and the old and the new value."""
    async with opened(tmp_path) as (it, files):
        files.say(DEFAULT_MODE="cheap")
        await it.done("POST", "/reload")
        entries = (await it.done("GET", "/audit"))["entries"]
        (entry,) = [one for one in entries if one["action"] == "settings.reload"]

        assert entry["actor"] == "admin-token"
        assert entry["after"]["changes"][0]["new"] == "cheap"


async def test_a_hang_up_reloads_and_what_comes_of_it_is_an_event(tmp_path: Path) -> None:
    """Nobody waits for the answer to a signal."""
    async with opened(tmp_path) as (it, files):
        heard = asyncio.Queue[str]()
        it.bus.follow(lambda event: heard.put_nowait(event.type))
        files.say(DEFAULT_MODE="cheap")
        it.app.reload()
        while await heard.get() != "reloaded":
            pass
        files.say(DEFAULT_MODE="dear")
        it.app.reload()
        while await heard.get() != "reload_refused":
            pass

        assert (await it.done("GET", "/routing-config"))["effective"]["default_mode"] == "cheap"


# --- several workers ----------------------------------------------------------------------------------------


class Others:
    """Stands in for the other workers: what they answer to a question, and what they were asked."""

    def __init__(self, it: House, monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
        self.siblings: Siblings = it.app.reload.__self__._kept.siblings  # type: ignore[attr-defined]
        self.asked: list[tuple[str, bytes]] = []
        self.answers = answers
        self.turn = b""
        monkeypatch.setattr(Siblings, "joined", True)
        monkeypatch.setattr(self.siblings, "everybody", self.everybody)
        monkeypatch.setattr(self.siblings, "nonce", self.nonce)

    async def everybody(self, topic: str, body: bytes = b"", *, within: float = 1.0) -> tuple[bytes, ...]:
        del within
        if not topic.startswith("reload"):
            return ()
        self.asked.append((topic, body))
        return self.answers

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes:
        del name, seconds
        self.turn = value if replace or not self.turn else self.turn
        return self.turn

    async def told(self, topic: str, body: bytes) -> bytes:
        """Ask this worker, as another one that reloads for all does."""
        return await self.siblings._answers[topic](body)


async def test_all_workers_go_on_or_none_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one cannot, or does not say that it can, nobody is told to; where all can, all are, in this turn."""
    async with opened(tmp_path) as (it, files):
        others = Others(it, monkeypatch, b"good", b"CA file x: no")
        files.say(DEFAULT_MODE="cheap")
        refused = await it.admin("POST", "/reload")
        others.answers = (b"good", b"")
        silent = await it.admin("POST", "/reload")

        assert (refused.status, refused.fault["message"]) == (400, "CA file x: no")
        assert (silent.status, silent.fault["message"]) == (400, "a worker does not answer: none has changed")
        assert it.app.catalog.defaults().values["mode"] == "normal"
        assert {topic for topic, _ in others.asked} == {"reload.check"}

        others.answers = (b"good", b"good")
        told = await it.done("POST", "/reload")
        (_, checked), (_, taken) = others.asked[2:4]

        assert told["workers"] == 3
        assert msgspec.msgpack.decode(checked) == [taken, {"TOKENHUB_DEFAULT_MODE": "cheap"}]
        assert it.app.catalog.defaults().values["mode"] == "cheap"


async def test_while_one_worker_reloads_no_other_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else some would go on with what the one has read, and some with the other's."""
    async with opened(tmp_path) as (it, _):
        others = Others(it, monkeypatch)
        others.turn = b"another's"
        told = await it.admin("POST", "/reload")

        assert (told.status, told.fault["code"]) == (409, "reloading")
        assert others.asked == []


async def test_a_worker_makes_its_parts_when_asked_and_goes_on_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was not told to take, and what it cannot use, changes nothing."""
    async with opened(tmp_path) as (it, _):
        others = Others(it, monkeypatch)

        def mode() -> object:
            return it.app.catalog.defaults().values["mode"]

        async def check(turn: bytes, **variables: str) -> bytes:
            named = {PREFIX + name: value for name, value in variables.items()}
            return await others.told("reload.check", msgspec.msgpack.encode((turn, named)))

        assert b"must be" in await check(b"1", MAX_ATTEMPTS="0")
        assert await others.told("reload.take", b"1") == b""
        assert await check(b"2", DEFAULT_MODE="cheap") == b"good"
        assert mode() == "normal"
        assert await check(b"3", DEFAULT_MODE="high_confidence") == b"good"
        assert await others.told("reload.take", b"2") == b""
        assert mode() == "normal"
        assert await others.told("reload.take", b"3") == b"good"
        assert mode() == "high_confidence"


# --- the parts ----------------------------------------------------------------------------------------------

OTHER: dict[str, str] = {
    "log_level": "error",
    "allowed_hosts": "llm.example",
    "metrics_access": "token",
    "client_credentials": "api.openai.com=refuse",
    "extra_hosts": "llm.example=openai_chat",
    "host_modes": "api.openai.com=observe",
    "credentials_file": "/elsewhere",
    "ca_file": "",
    "default_mode": "cheap",
    "default_max_budget_usd": "0.5",
    "default_max_latency_ms": "77",
    "fallback": "false",
    "explore": "thompson",
    "hedge": "0.9",
    "affinity": "off",
    "lossy": "false",
    "output_format": "markdown",
    "strip_think": "true",
    "validate_output": "true",
    "buffer_checked": "true",
    "guarded": "true",
    "guard_secs": "0.5",
    "guard_bytes": "1024",
    "resume": "true",
    "directives": "ignore",
    "directive_roles": "system",
    "directive_hosts": "*=off",
    "directive_steps": "2",
    "key_requests_per_minute": "11",
    "key_tokens_per_minute": "12",
    "key_concurrency": "13",
    "key_max_output_tokens": "14",
    "address_requests_per_minute": "15",
    "address_tokens_per_minute": "16",
    "address_concurrency": "17",
    "address_max_output_tokens": "18",
    "admin_requests_per_minute": "19",
    "trusted_proxies": "10.0.0.0/8",
    "max_calls": "21",
    "queue_ms": "22",
    "max_attempts": "3",
    "eject_rate": "0.75",
    "connect_timeout_secs": "24",
    "ttft_timeout_secs": "25",
    "ttft_floor_secs": "25.5",
    "stall_timeout_secs": "26",
    "stall_floor_secs": "25.8",
    "model_timeouts": "gpt-5*=stall:26.5",
    "provider_timeout_secs": "27",
    "total_timeout_secs": "28",
    "stream_gather_ms": "29",
    "keep_alive_secs": "30",
    "drain_secs": "30.5",
    "drain_bytes": "2048",
    "drains": "3",
    "capture": "full",
    "capture_days": "31",
    "capture_max_bytes": "512",
    "log_retention_days": "32",
    "decision_retention_days": "33",
    "spend_retention_days": "34",
    "audit_retention_days": "35",
    "proof_retention_days": "36",
    "webhook_retention_days": "37",
    "parking_retention_days": "38",
}
"""Another value for each setting that holds at once."""


def inside(it: House) -> dict[str, Any]:
    """Return what the parts of a running server go by."""
    engine: Any = it.app.engine
    capturing = engine._engine
    pipeline = capturing._engine
    executor, rules = pipeline._executor, pipeline._ready._rules
    throttle, protect = it.app.throttle, it.app.side.middlewares[-1]
    side: Any = getattr(protect, "__self__", None)
    return {
        "defaults": it.app.catalog.defaults(),
        "explore": (it.app.catalog.explore, it.app.catalog.affinity),
        "modes": it.app.catalog.modes.rules,
        "patience": executor.patience,
        "health": executor.means.health._rules,
        "connections": executor.means.transport._max,
        "rules": (rules.max_attempts, rules.total_seconds, rules.directives(), rules.foreign._rules),
        "leaves": (rules.leaves.of("api.openai.com", None), rules.leaves.of("", None)),
        "throttle": (throttle._keys, throttle._addresses, throttle._admin, throttle._finder._trusted),
        "places": (it.app.underway._most, it.app.underway._patience, it.app.underway._queue),
        "foreign": it.app.foreign._rules,
        "hosts": it.app.recogniser.hosts,
        "entrance": (side._hosts, side._scrapes),
        "capture": (capturing._usual, capturing._limit, capturing._shelf._limit, capturing._shelf._most_days),
        "level": logging.getLogger().level,
    }


@pytest.fixture
def level() -> Iterator[None]:
    """The log's level is everybody's: it is as it was in the end."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("level")
async def test_a_reload_makes_what_a_start_would_have_made(tmp_path: Path) -> None:
    """Every setting that holds at once: each part of a server that was told goes by what a new server's part would."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    variables = {name.upper(): value for name, value in OTHER.items() if name != "credentials_file"}
    async with opened(tmp_path / "one") as (it, files):
        before = inside(it)
        files.say(**variables)
        told = await it.done("POST", "/reload")
        after = inside(it)
    async with house(tmp_path / "two", settings=variables) as it:
        started = inside(it)

    assert set(OTHER) == LIVE
    assert {one["variable"] for one in told["changes"]} == {
        PREFIX + name.upper() for name in LIVE - {"credentials_file", "ca_file"}
    }
    assert started.pop("level") is not None
    assert after.pop("level") == logging.ERROR
    assert after == started
    assert not [name for name, value in after.items() if value == before[name]]


def test_all_parts_are_made_before_any_is_put() -> None:
    """One that refuses keeps every other one as it is."""
    done: list[str] = []
    parts = Renewals()
    parts.add(lambda new: new.port, lambda port: done.append(f"first {port}"))
    parts.add(lambda new: 1 // new.port, lambda _: done.append("second"))
    with pytest.raises(ZeroDivisionError):
        parts.made(Fresh(Settings(port=0), {}))
    assert done == []

    put = parts.made(Fresh(Settings(port=1), {}))
    assert done == []
    put()
    assert done == ["first 1", "second"]


def test_of_a_change_that_needs_a_restart_nothing_is_effective() -> None:
    """What runs is the old one, with what can be changed at once."""
    old, new = Settings(port=1, max_attempts=2), Settings(port=3, max_attempts=4)

    now = effective(old, new)

    assert (now.port, now.max_attempts) == (1, 4)
    assert [(one.variable, one.applied) for one in changes(old, new)] == [
        ("TOKENHUB_PORT", False),
        ("TOKENHUB_MAX_ATTEMPTS", True),
    ]
    assert set(LIVE) <= set(config.names())
