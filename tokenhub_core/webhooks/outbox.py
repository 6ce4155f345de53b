"""Tells webhooks of events: queued in the store, sent one after another for each, tried again for about a day.

An event is heard on the bus and waits in memory for the moment that it takes to store it; from then on it is told at
least once, whatever ends. Each webhook has a sender of its own, so one that is slow or down holds up nobody else, and
calls not at all. They are sent in the order in which they became due: what is tried again comes behind what is new.

Its secret is in the vault. While the vault is locked everything waits, and no try is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from msgspec import structs

from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import webhooks as rows
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus, Event
from tokenhub_core.vault.vault import Vault
from tokenhub_core.webhooks import values
from tokenhub_core.webhooks.values import Delivery, Reply, Webhook

TICK: Final = 5.0
"""Seconds between two looks at what other processes have changed, and at the vault."""
LEASE: Final = 60.0
"""Seconds that nobody else sends what one is sending."""
_FRESH: Final = 2000
"""Events that wait to be stored."""
_log: Final = logging.getLogger(__name__)


class Post(Protocol):
    """The way to receivers. Raises nothing but cancellation."""

    async def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Send one event and return what came of it, soon."""
        ...


class Outbox:
    """Belongs to one event loop."""

    def __init__(
        self,
        writer: Writer,
        audit: Audit,
        vault: Vault,
        bus: Bus,
        *,
        clock: Clock,
        post: Post,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._writer = writer
        self._audit = audit
        self._vault = vault
        self._bus = bus
        self._clock = clock
        self._post = post
        self._entropy = entropy
        self._run = entropy(6).hex()
        self._fresh: deque[tuple[str, str, str, str]] = deque()
        self._dropped: dict[str, int] = {}
        self._awake = asyncio.Event()
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._by_kind: dict[str, tuple[str, ...]] = {}
        self.hooks: dict[str, Webhook] = {}
        """By id, in the order in which they were made."""

    async def load(self) -> None:
        """Read who is to be told."""
        found = await asyncio.to_thread(self._read)
        self.hooks = {hook.id: hook for hook in found}
        by_kind: dict[str, list[str]] = {}
        for hook in found:
            for kind in hook.kinds if hook.enabled else ():
                by_kind.setdefault(kind, []).append(hook.id)
        self._by_kind = {kind: tuple(ids) for kind, ids in by_kind.items()}

    def hear(self, event: Event) -> None:
        """Let an event wait for those who are to be told of it. Never waits, and costs nothing where nobody is."""
        ids = self._by_kind.get(event.type)
        if ids is None:
            return
        body = values.payload(event.type, event.data, self._clock.now())
        for hook in ids:
            if len(self._fresh) >= _FRESH:
                self._dropped[hook] = self._dropped.get(hook, 0) + 1
            else:
                self._fresh.append((hook, f"evt_{self._run}_{event.id}", event.type, body))
        self._awake.set()

    async def keep(self) -> None:
        """Send for as long as the service runs."""
        while True:
            self._awake.clear()
            try:
                await self.store()
                await self.load()
                due = await self._start()
            except TokenHubError as error:
                _log.warning("webhooks wait: %s", error)
                due = None
            wait = TICK if due is None else max(0.05, min(TICK, due - self._clock.now()))
            try:
                async with asyncio.timeout(wait):
                    await self._awake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Store what was heard, and let go of what is being sent: it is sent again."""
        for sender in list(self._senders.values()):
            sender.cancel()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)
        try:
            await self.store()
        except TokenHubError as error:
            _log.error("%d events for webhooks were lost: %s", len(self._fresh), error)

    async def store(self) -> None:
        """Let what was heard wait in the store. Raises `TokenHubError`; it is not forgotten then."""
        taken = list(self._fresh)
        dropped, self._dropped = self._dropped, {}
        if taken:
            lost = await self._writer.commit(partial(rows.enqueue, found=taken, now=self._clock.now()))
            for _ in taken:
                self._fresh.popleft()
            for hook, count in lost.items():
                dropped[hook] = dropped.get(hook, 0) + count
        for hook, count in dropped.items():
            _log.error("webhook %s: %d events were left out, too many wait", hook, count)
            self._bus.publish("webhook_lost", {"webhook_id": hook, "count": count})

    # --- sending

    async def _start(self) -> float | None:
        """Let a sender work for each webhook for which something is due; return when the next one is."""
        idle = [hook for hook in self.hooks.values() if hook.enabled and hook.id not in self._senders]
        if not idle or not self._vault.open:
            return None
        due = await asyncio.to_thread(self._due, [hook.id for hook in idle])
        now = self._clock.now()
        for hook_id, at in due.items():
            if at <= now:
                sender = asyncio.create_task(self._send_all(hook_id), name=f"webhook {hook_id}")
                self._senders[hook_id] = sender
        later = [at for at in due.values() if at > now]
        return min(later, default=None)

    async def _send_all(self, hook_id: str) -> None:
        """Send what is due to one webhook, one after another."""
        try:
            while (hook := self.hooks.get(hook_id)) is not None and hook.enabled and self._vault.open:
                now = self._clock.now()
                claim = partial(rows.claim, hook_id=hook_id, now=now, until=now + LEASE)
                delivery = await self._writer.commit(claim)
                if delivery is None:
                    return
                await self._send(hook, delivery)
        except TokenHubError as error:
            _log.warning("webhook %s waits: %s", hook_id, error)
        finally:
            self._senders.pop(hook_id, None)
            self._awake.set()

    async def _send(self, hook: Webhook, delivery: Delivery) -> None:
        now = self._clock.now()
        secret = self._vault.get(values.vault_name(hook.id))
        if secret is None:
            reply = Reply(cause="no_secret")
        else:
            headers = values.headers(secret.reveal(), delivery.event_id, delivery.body, now)
            reply = await self._post(hook.url, headers, delivery.body.encode())
        if reply.told:
            await self._writer.commit(partial(rows.told, seq=delivery.seq))
            return
        attempts = delivery.attempts + 1
        pause = None if reply.gone else values.pause(attempts, self._entropy(1)[0] / 255, reply.retry_after)
        cause = reply.cause or f"http_{reply.status}"
        due = None if pause is None else self._clock.now() + pause
        await self._writer.commit(partial(rows.failed, seq=delivery.seq, cause=cause, due_at=due))
        if reply.gone:
            await self.change(hook.id, enabled=False)
        if due is None:
            told = {
                "webhook_id": hook.id,
                "event_id": delivery.event_id,
                "kind": delivery.kind,
                "cause": cause,
            }
            _log.error("webhook %s: event %s was given up: %s", hook.id, delivery.event_id, cause)
            self._bus.publish("webhook_dead", told)

    # --- what an operator does

    async def hook(self, hook_id: str) -> Webhook:
        """Return a webhook, also one that was made elsewhere a moment ago; raises `TokenHubError` (`NOT_FOUND`)."""
        if hook_id not in self.hooks:
            await self.load()
        found = self.hooks.get(hook_id)
        if found is None:
            raise client_fault(f"there is no webhook {hook_id!r}", kind=Kind.NOT_FOUND, param="id")
        return found

    async def add(self, url: str, kinds: Sequence[str]) -> tuple[Webhook, str]:
        """Make a webhook; return it and its secret, which nobody is shown again. Raises where the vault is locked."""
        if len(self.hooks) >= values.MOST_HOOKS:
            raise client_fault(f"there are {values.MOST_HOOKS} webhooks already")
        now = self._moment()
        hook = Webhook(f"hook_{self._entropy(6).hex()}", url, values.chosen(kinds), True, now, now)
        secret = await self._secret(hook.id)
        await self._audit.commit(partial(rows.save, hook=hook))
        await self.load()
        return hook, secret

    async def change(
        self,
        hook_id: str,
        *,
        url: str | None = None,
        kinds: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change what is given; what waits is not touched."""
        known = await self.hook(hook_id)
        changed = structs.replace(
            known,
            url=known.url if url is None else url,
            kinds=known.kinds if kinds is None else values.chosen(kinds),
            enabled=known.enabled if enabled is None else enabled,
            updated_at=self._moment(),
        )
        await self._audit.commit(partial(rows.save, hook=changed))
        await self.load()
        self._awake.set()
        return changed

    async def renew(self, hook_id: str) -> str:
        """Give a webhook another secret and return it: it signs everything from then on."""
        return await self._secret((await self.hook(hook_id)).id)

    async def remove(self, hook_id: str) -> None:
        """Remove a webhook, what waits for it and its secret."""
        name = values.vault_name((await self.hook(hook_id)).id)
        await self._audit.commit(partial(rows.remove, hook_id=hook_id))
        if name in self._vault.names():
            await self._vault.delete(name)
        await self.load()

    async def probe(self, hook_id: str) -> Reply:
        """Send an event of no kind now, past the queue, and return what came of it."""
        hook = await self.hook(hook_id)
        secret = self._vault.get(values.vault_name(hook.id))
        if secret is None:
            return Reply(cause="no_secret")
        now = self._clock.now()
        body = values.payload("test", {"webhook_id": hook.id}, now)
        headers = values.headers(secret.reveal(), f"evt_test_{self._entropy(6).hex()}", body, now)
        return await self._post(hook.url, headers, body.encode())

    async def deliveries(self, hook_id: str, *, dead: bool, before: int | None) -> list[Delivery]:
        """Return what waits for a webhook, or was given up; the newest first."""
        await self.hook(hook_id)

        def read() -> list[Delivery]:
            with self._audit.database.reading() as connection:
                return rows.listed(connection, hook_id, dead=dead, before=before)

        return await asyncio.to_thread(read)

    async def retry(self, hook_id: str) -> int:
        """Try anew what was given up; return how many events that are."""
        await self.hook(hook_id)
        count = await self._writer.commit(partial(rows.revive, hook_id=hook_id, now=self._clock.now()))
        self._awake.set()
        return count

    async def _secret(self, hook_id: str) -> str:
        secret = values.secret_of(self._entropy(values.SECRET_BYTES))
        await self._vault.put(values.vault_name(hook_id), Secret(secret))
        return secret

    def _moment(self) -> float:
        """Return now as it is stored, in whole microseconds."""
        return round(self._clock.now(), 6)

    def _read(self) -> list[Webhook]:
        with self._audit.database.reading() as connection:
            return rows.load(connection)

    def _due(self, ids: Sequence[str]) -> dict[str, float]:
        with self._audit.database.reading() as connection:
            found = {one: rows.next_due(connection, [one]) for one in ids}
        return {one: at for one, at in found.items() if at is not None}
