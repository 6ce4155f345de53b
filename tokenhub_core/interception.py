"""What is intercepted, and the CA that vouches for it: changed by command and by admin API, audited, followed live.

The files are the truth: `hosts` and `ca/` of the data directory. Whoever changes them writes an entry of the audit
log, with a server or without one. A server looks at the files every second and goes on with what it finds: the hosts
that are opened, the root, and no leaf of before.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tokenhub_core import hostlist
from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.ca import CertificateAuthority, Facts, facts
from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError, Kind, client_fault
from tokenhub_core.recognise import Current, Recogniser, bare_host, extra_hosts
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Dialect, Json

POLL: Final = 1.0
"""Seconds between two looks at the files."""
WARN_DAYS: Final = 30
"""A root that ends so soon should have been renewed by now; that is told every day."""
ALARM_DAYS: Final = 14
"""And this is what `tokenhub ca show` fails for."""

_DAY: Final = 86_400.0
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_log: Final = logging.getLogger(__name__)

type Heard = Callable[[tuple[str, ...]], None]
"""Hears the `host=dialect` items of all hosts that are listed beside the public ones."""


def unfollowed(heard: Heard) -> None:
    """Tell nobody, ever: where no files are looked at."""


class Shown(msgspec.Struct, frozen=True):
    """What there is to know. Times in seconds since the epoch."""

    facts: Facts
    days: float
    """Until the root ends."""
    hosts: tuple[str, ...]
    added: tuple[str, ...]
    alarms: tuple[str, ...]

    def told(self) -> Json:
        """Return it as JSON tells it."""
        found = self.facts
        return {
            "subject": found.subject,
            "sha256": found.sha256,
            "not_before": found.begins_at,
            "not_after": found.expires_at,
            "permitted": list(found.permitted),
            "hosts": list(self.hosts),
            "added": list(self.added),
            "file": str(found.file),
            "modes": dict(found.modes),
            "alarms": list(self.alarms),
        }


class Interception:
    """Shows and changes it. `configured` are the items that a setting names, beside those of the list."""

    def __init__(
        self, directory: Path, configured: Sequence[str], audit: Audit, now: Callable[[], float]
    ) -> None:
        self._directory = directory
        self.configured = tuple(configured)
        self._audit = audit
        self._now = now

    async def show(self) -> Shown:
        """Return what there is to know; raises `ConfigError` where there is no CA."""
        return await asyncio.to_thread(shown, self._directory, self.configured, self._now())

    async def rotate(self) -> Shown:
        """Make a new root with a new key. Programs that trust the old one do not trust it. Raises `ConfigError`."""
        before = await asyncio.to_thread(self._rotate)
        made = await self.show()
        after = {"sha256": made.facts.sha256, "not_after": made.facts.expires_at}
        await self._audit.try_note(Action.CA_ROTATE, before={"sha256": before}, after=after)
        return made

    async def add(self, host: str, dialect: Dialect) -> Shown:
        """Intercept a host; `*.` stands for one label. Raises `TokenHubError`; `ConfigError` where the CA fails."""
        name = bare_host(host)
        if not _HOST.fullmatch(name):
            message = f"{host!r} is not a host name (write one in other letters as xn--…)"
            raise client_fault(message, param="host")
        was = await asyncio.to_thread(self._edit, name, f"{name}={dialect.value}")
        before = {"dialect": was} if was else None
        await self._audit.try_note(Action.CA_HOST_ADD, name, before=before, after={"dialect": dialect.value})
        return await self.show()

    async def remove(self, host: str) -> Shown:
        """Leave a host alone that was added; raises `TokenHubError` (`NOT_FOUND`) where it was not."""
        name = bare_host(host)
        was = await asyncio.to_thread(self._edit, name, "")
        if not was:
            message = f"{host} was not added here; `tokenhub mode set {host} off` leaves a listed host alone"
            raise client_fault(message, kind=Kind.NOT_FOUND, param="host")
        await self._audit.try_note(Action.CA_HOST_REMOVE, name, before={"dialect": was})
        return await self.show()

    def _edit(self, name: str, item: str) -> str:
        """Put an item in the place of what the list has of a host, and return what that was.

        The root is re-issued first: nothing is kept where it cannot be.
        """
        with hostlist.held(self._directory):
            kept = hostlist.read(self._directory)
            was = next((one.partition("=")[2].strip() for one in kept if _name(one) == name), "")
            if not item and not was:
                return ""
            items = (*(one for one in kept if _name(one) != name), *((item,) if item else ()))
            CertificateAuthority.open(self._directory / "ca", self._hosts(items), now=self._now)
            hostlist.write(self._directory, items)
            return was

    def _hosts(self, items: Sequence[str]) -> tuple[str, ...]:
        return Recogniser(extra_hosts((*items, *self.configured))).hosts

    def _rotate(self) -> str:
        """Return the fingerprint of the root before, empty where there was none."""
        authority = self._directory / "ca"
        with hostlist.held(self._directory):
            hosts = self._hosts(hostlist.read(self._directory))
            try:
                before = facts(authority).sha256
            except ConfigError:
                before = ""
            CertificateAuthority.rotate(authority, hosts, now=self._now)
        return before


class Follower:
    """Lets a running server go on with what the files say."""

    def __init__(
        self, settings: Settings, hosts: Current, bus: Bus, metrics: Metrics, now: Callable[[], float]
    ) -> None:
        self._directory = settings.data_dir
        self.configured = hostlist.configured(settings)
        """The items that the settings name, beside those of the list."""
        self._hosts = hosts
        self._bus = bus
        self._metrics = metrics
        self._now = now
        self._heard: list[Heard] = []
        self._seen = self._marks()
        self._failed = ""
        self._warn_at = 0.0

    def listen(self, heard: Heard) -> None:
        """Call `heard` after each change of the list or of the root, in order."""
        self._heard.append(heard)

    def checked(self, items: Sequence[str]) -> tuple[str, ...]:
        """Return the items that the settings are to name, once the CA's root vouches for them; raises `ConfigError`."""
        given, authority = tuple(items), self._directory / "ca"
        if given != self.configured:
            with hostlist.held(self._directory):
                hosts = Recogniser(extra_hosts((*hostlist.read(self._directory), *given))).hosts
                if authority.is_dir():
                    CertificateAuthority.open(authority, hosts, now=self._now)
        return given

    def renew(self, configured: tuple[str, ...]) -> None:
        """Go on with these items of the settings, and look at the files at once."""
        if configured != self.configured:
            self.configured = configured
            self._seen = ()
        self.look()

    def look(self) -> None:
        """Take over what has changed. Where that cannot be done, what was goes on, and the next look tries again."""
        if self._marks() != self._seen:
            try:
                with hostlist.held(self._directory, wait=False):
                    self._follow()
                    # Whoever heard may have re-issued the root.
                    self._seen = self._marks()
            except BlockingIOError:
                return  # somebody is about to change more
            except (ConfigError, OSError, ValueError) as error:
                if str(error) != self._failed:
                    _log.error("what is intercepted is not followed: %s", error)
                self._failed = str(error)
                return
            self._failed, self._warn_at = "", 0.0
        if self._now() >= self._warn_at:
            self._warn_at = self._now() + _DAY
            self._check()

    async def keep(self) -> None:
        """Look, for ever."""
        while True:
            self.look()
            await asyncio.sleep(POLL)

    def _follow(self) -> None:
        items = (*hostlist.read(self._directory), *self.configured)
        self._hosts.become(extra_hosts(items))
        for heard in self._heard:
            heard(items)
        _log.info("what is intercepted has changed: %d hosts", len(self._hosts.hosts))

    def _check(self) -> None:
        """Show when the root ends, and warn where that is soon."""
        try:
            ends = facts(self._directory / "ca").expires_at
        except ConfigError:
            return  # there is none, or none that anybody uses
        self._metrics.ca(ends)
        days = (ends - self._now()) / _DAY
        if days < WARN_DAYS:
            _log.warning("the CA's root ends in %.0f days and was not renewed: see `tokenhub ca show`", days)
            self._bus.publish(
                "ca_expiring", {"timestamp": self._now(), "expires_at": ends, "days": round(days, 1)}
            )

    def _marks(self) -> tuple[tuple[int, int], ...]:
        ca = self._directory / "ca"
        return tuple(map(_mark, (self._directory / hostlist.NAME, ca / "ca-key.pem", ca / "ca.pem")))


def shown(directory: Path, configured: Sequence[str], now: float) -> Shown:
    """Return what there is to know of a data directory; raises `ConfigError` where it has no CA."""
    found = facts(directory / "ca")
    added = hostlist.read(directory)
    days = (found.expires_at - now) / _DAY
    alarms = list(found.loose)
    if days < ALARM_DAYS:
        alarms.append(f"the root ends in {days:.0f} days: start `tokenhub serve`, which renews it")
    hosts = Recogniser(extra_hosts((*added, *configured))).hosts
    return Shown(found, days, hosts, added, tuple(alarms))


def _name(item: str) -> str:
    return bare_host(item.partition("=")[0])


def _mark(path: Path) -> tuple[int, int]:
    """Return what tells one file from the next at its place; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
