"""What is intercepted: changed by whoever may, audited each time, and followed by a server that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.conftest import Hands
from tokenhub_core import hostlist
from tokenhub_core.audit.journal import Audit
from tokenhub_core.ca import CertificateAuthority, facts
from tokenhub_core.cli.place import alone
from tokenhub_core.config import Settings
from tokenhub_core.errors import TokenHubError
from tokenhub_core.interception import Follower, Interception
from tokenhub_core.recognise import HOSTS, Current
from tokenhub_core.store.audit import AuditLog, shown
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Dialect, Json

DAY = 86_400


@pytest.fixture
def clock() -> Hands:
    return Hands()


class Running:
    """A follower with everything that hears of what it sees."""

    def __init__(self, directory: Path, clock: Hands, *configured: str) -> None:
        self.hosts, self.bus, self.metrics = Current(), Bus(), Metrics()
        self.heard: list[tuple[str, ...]] = []
        settings = Settings(data_dir=directory, extra_hosts=configured)
        self.follower = Follower(settings, self.hosts, self.bus, self.metrics, clock.now)
        self.follower.listen(self.heard.append)

    def events(self) -> list[str]:
        return [event.type for event in self.bus._recent]


def made(directory: Path, clock: Hands) -> CertificateAuthority:
    return CertificateAuthority.open(directory / "ca", HOSTS, now=clock.now)


def changed(directory: Path, clock: Hands) -> list[Json]:
    """Add a host, add it again for another dialect, remove it, make a new root; return the audit log's entries."""

    async def work(audit: Audit) -> list[Json]:
        it = Interception(directory, (), audit, clock.now)
        first = (await it.add("LLM.example", Dialect.OPENAI_CHAT)).facts
        await it.add("llm.example.", Dialect.GEMINI)
        assert "llm.example" in first.permitted
        assert (await it.remove("llm.example")).added == ()
        second = await it.rotate()
        assert second.facts.sha256 != first.sha256
        for attempt in (it.add("a b", Dialect.GEMINI), it.remove("llm.example")):
            with pytest.raises(TokenHubError):
                await attempt
        return [shown(entry) for entry in AuditLog(audit.database).entries()]

    return alone(directory, work)


def test_every_change_is_audited_and_what_is_refused_changes_nothing(tmp_path: Path, clock: Hands) -> None:
    """Who, what, before and after; without a server, on the database that one would open."""
    before = facts_of(made(tmp_path, clock))
    entries = changed(tmp_path, clock)
    assert [(one["action"], one["subject"], one["before"], one["after"]) for one in entries[:3]] == [
        ("ca.host.add", "llm.example", None, {"dialect": "openai_chat"}),
        ("ca.host.add", "llm.example", {"dialect": "openai_chat"}, {"dialect": "gemini"}),
        ("ca.host.remove", "llm.example", {"dialect": "gemini"}, None),
    ]
    assert len(entries) == 4
    now = facts(tmp_path / "ca")
    assert (entries[3]["action"], entries[3]["after"]) == (
        "ca.rotate",
        {"sha256": now.sha256, "not_after": now.expires_at},
    )
    assert entries[3]["before"]["sha256"] not in {now.sha256, before}
    assert all(one["actor"].startswith("cli:") for one in entries)


def facts_of(authority: CertificateAuthority) -> str:
    return facts(authority.certificate_file.parent).sha256


def test_a_server_follows_the_list_and_the_root(tmp_path: Path, clock: Hands) -> None:
    """What it holds sees each change, whoever made it; where nothing has changed nobody is told."""
    made(tmp_path, clock)
    it = Running(tmp_path, clock, "x.example=gemini")
    it.follower.look()
    assert it.heard == []
    hostlist.write(tmp_path, ("llm.example=openai_chat",))
    it.follower.look()
    assert it.heard == [("llm.example=openai_chat", "x.example=gemini")]
    assert it.hosts.is_llm_host("llm.example")
    hostlist.write(tmp_path, ())
    it.follower.look()
    assert not it.hosts.is_llm_host("llm.example")
    assert it.hosts.is_llm_host("x.example")
    CertificateAuthority.rotate(tmp_path / "ca", HOSTS, now=clock.now)
    it.follower.look()
    it.follower.look()
    assert len(it.heard) == 3


def test_nothing_is_followed_while_somebody_changes_it(tmp_path: Path, clock: Hands) -> None:
    """Half a change, the root without the list, would be undone by whoever follows it."""
    made(tmp_path, clock)
    it = Running(tmp_path, clock)
    with hostlist.held(tmp_path):
        hostlist.write(tmp_path, ("llm.example=gemini",))
        it.follower.look()
        assert it.heard == []
    it.follower.look()
    assert it.heard == [("llm.example=gemini",)]


def test_what_cannot_be_followed_is_told_once_and_tried_again(
    tmp_path: Path, clock: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    """What was goes on meanwhile."""
    made(tmp_path, clock)
    it = Running(tmp_path, clock)
    hostlist.write(tmp_path, ("llm.example=telnet",))
    for _ in range(3):
        it.follower.look()
    assert caplog.text.count("not followed") == 1
    assert it.heard == []
    hostlist.write(tmp_path, ("llm.example=gemini",))
    it.follower.look()
    assert it.hosts.is_llm_host("llm.example")


def test_an_authority_that_follows_vouches_for_what_is_new_and_keeps_no_leaf(
    tmp_path: Path, clock: Hands
) -> None:
    """With the root as it is on disk; before, it had refused the host."""
    authority = made(tmp_path, clock)
    old = authority.server_context("api.openai.com")
    with pytest.raises(ValueError, match="outside"):
        authority.server_context("llm.example")
    CertificateAuthority.rotate(tmp_path / "ca", (*HOSTS, "llm.example"), now=clock.now)
    authority.follow((*HOSTS, "llm.example"))
    authority.server_context("llm.example")
    assert authority.server_context("api.openai.com") is not old
    assert "llm.example" in facts(tmp_path / "ca").permitted


@pytest.mark.parametrize(("days", "warned"), [(59, False), (61, True)])
def test_a_root_that_ends_soon_is_told_every_day(
    tmp_path: Path, clock: Hands, caplog: pytest.LogCaptureFixture, days: int, warned: bool
) -> None:
    """By metric, event and a line of the log; of 90 days one was used up before the root was made."""
    ends = made(tmp_path, clock).expires_at
    clock.at += days * DAY
    it = Running(tmp_path, clock)
    for _ in range(5):
        it.follower.look()
        clock.at += 1
    assert it.events() == ["ca_expiring"] * warned
    assert ("was not renewed" in caplog.text) is warned
    assert f"\ntokenhub_ca_expires_timestamp_seconds {float(ends)}\n" in it.metrics.render().decode()
    clock.at += 2 * DAY
    it.follower.look()
    assert len(it.events()) == 2 * warned + (not warned)


def test_what_a_setting_names_is_no_part_of_the_list(tmp_path: Path) -> None:
    """So that a host that is removed from the list is not kept by the settings of the start."""
    hostlist.write(tmp_path, ("a.example=gemini",))
    settings = Settings(data_dir=tmp_path, extra_hosts=("b.example=gemini",))
    assert hostlist.configured(hostlist.merged(settings)) == ("b.example=gemini",)
    assert hostlist.configured(settings) == ("b.example=gemini",)
