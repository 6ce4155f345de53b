"""The composition root: every part is made here, given to those who need it, and closed in reverse order.

After `running` has entered, nothing is optional: what is switched off is a part that does nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

import aiohttp
from aiohttp import web

from tokenhub_core import sources, terms
from tokenhub_core.access.logins import Logins
from tokenhub_core.access.marks import Marks
from tokenhub_core.access.register import Register
from tokenhub_core.admission.doorkeeper import KEYLESS, Doorkeeper
from tokenhub_core.admission.foreign import KEPT, Foreign, parsed
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.throttle import Throttle, throttle
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.audit.journal import Audit
from tokenhub_core.budgets import Budgets
from tokenhub_core.capture import Capturing, Shelf
from tokenhub_core.catalog import Catalog
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.credentials import Credentials
from tokenhub_core.datadir import admin_token, close_to_others, salt
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Hedging, Means
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.http.access import AccessPages
from tokenhub_core.http.admin import Admin, Desk
from tokenhub_core.http.aliases import Aliases
from tokenhub_core.http.apikeys import ApiKeyPages
from tokenhub_core.http.audit import AuditPages, Watch
from tokenhub_core.http.budgets import BudgetPages
from tokenhub_core.http.ca import CaPages
from tokenhub_core.http.captures import Bodies
from tokenhub_core.http.consumer import Consumer, Door, HandedOff
from tokenhub_core.http.credentials import Keys, Safe
from tokenhub_core.http.decisions import Decisions
from tokenhub_core.http.description import Description
from tokenhub_core.http.directives import SigningPages
from tokenhub_core.http.passthrough import Passthrough
from tokenhub_core.http.prices import Prices
from tokenhub_core.http.proofs import ProofPages
from tokenhub_core.http.rehearse import Rehearsals
from tokenhub_core.http.resolver import GuardedResolver
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.shadow import Modal
from tokenhub_core.http.side import Probes, SideServer
from tokenhub_core.http.ui import Page
from tokenhub_core.http.vault import VaultPages
from tokenhub_core.http.workflows import WorkflowPages
from tokenhub_core.idempotency import Idempotent
from tokenhub_core.interception import Follower, Heard, Interception, unfollowed
from tokenhub_core.launch.notify import ALIVE, notifier
from tokenhub_core.learning import Learning
from tokenhub_core.lending import Lender
from tokenhub_core.lookout import Leaks, Watched, blocked, look
from tokenhub_core.modes import checked
from tokenhub_core.parkings import Parkings
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.ports import Clock, Engine, KeyBook, Overhearing, Recorder, Secret, deaf
from tokenhub_core.presence import present
from tokenhub_core.proof.prover import Prover, proving
from tokenhub_core.providers import catalogue
from tokenhub_core.providers.adapters import place
from tokenhub_core.providers.catalogue import Catalogue
from tokenhub_core.providers.simulated import RoutingTransport, SimulatedTransport
from tokenhub_core.providers.transport import HttpTransport, tls_context
from tokenhub_core.recognise import Current, Recogniser, extra_hosts
from tokenhub_core.routing.reward import Reward
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.audit import AuditLog, shown
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Sweeper
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.telemetry.refusals import Refusals
from tokenhub_core.types import Record
from tokenhub_core.underway import Underway
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.passwords import password_from
from tokenhub_core.vault.vault import Custody, Vault
from tokenhub_core.watchdog import Watchdog
from tokenhub_core.watching import Watcher
from tokenhub_core.workflows.joining import joined


@dataclass(frozen=True, slots=True)
class App:
    """The running engine, as the front doors see it."""

    settings: Settings
    engine: Engine
    recogniser: Recogniser
    catalog: Catalog
    vault: Vault
    requests: RequestLog
    recorder: Recorder
    """Where the records of what goes past the engine belong."""
    admin_token: Secret
    side: web.Application
    """The side server's application; whoever serves it chooses the socket."""
    watcher: Watcher
    """What is to be done with the calls to each host, and what watches those that pass."""
    handed_off: HandedOff
    """Serves the connections of the hand-off lane."""
    warnings: tuple[str, ...]
    """What the operator should know, one line each."""
    drain: Callable[[], None]
    """Makes `/readyz` say no, so that balancers stop sending."""
    login_ticket: Callable[[], str]
    """Makes what is behind the `#` of a login link."""
    keys: KeyBook
    """Where clients' keys are known."""
    underway: Underway = field(default_factory=Underway)
    """The calls that are under way; its `stop` ends what a drain has left."""
    keeper: Doorkeeper = KEYLESS
    """Says who comes in, at every front door."""
    foreign: Foreign = KEPT
    """Says what is done with credentials that clients bring for their hosts."""
    overheard: Overhearing = deaf
    """Learns from answers that go past the engine."""
    throttle: Throttle = field(default_factory=Throttle)
    """Limits those callers whose requests go past it."""
    prover: Prover | None = None
    """Hears what goes out at every front door, where that is to be proved."""
    refused: Callable[[Record], None] | None = None
    """Hears of those who are refused before there is an exchange; None: they are recorded like all others."""
    follow: Callable[[Heard], None] = unfollowed
    """Says who is to hear when hosts are added or the CA is another one."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What rests on disk, opened, and what everything shares."""

    settings: Settings
    clock: Clock
    prices: Catalogue
    database: Database
    writer: Writer
    audit: Audit
    vault: Vault
    credentials: Credentials
    holder: KeyHolder
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Admission:
    """Who may come in, and what they may use."""

    throttle: Throttle
    keys: ApiKeys


@asynccontextmanager
async def running(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[App]:
    """Build, start and, on the way out, close the engine. Raises `ConfigError` where it cannot start."""
    mended = close_to_others(settings.data_dir)
    async with AsyncExitStack() as stack:
        kept = await _open(stack, settings, environ)
        seeds = sources.transient(settings, environ, kept.prices)
        catalog = Catalog(
            kept.database,
            kept.audit,
            prices=kept.prices,
            settings=settings,
            clock=kept.clock,
            transient=seeds.stock,
        )
        await catalog.load()
        told = await sources.seed(settings, catalog, kept.credentials, kept.vault)
        watched = await _watch(stack, kept)
        alive = partial(notifier(environ), ALIVE)
        stack.enter_context(Watchdog(partial(blocked, watched.bus, watched.metrics), alive=alive))
        admission = _Admission(throttle(settings, watched.metrics.refused), await _keys(stack, kept, watched))
        pipeline = await _engine(stack, kept, watched, catalog, admission)
        warnings = (*mended, *kept.warnings, *seeds.warnings, *told, *await admission.keys.load())
        yield await _doors(stack, kept, watched, catalog, pipeline, admission=admission, warnings=warnings)


async def _open(stack: AsyncExitStack, settings: Settings, environ: Mapping[str, str]) -> _Kept:
    clock = SystemClock()
    prices, database = await asyncio.gather(
        asyncio.to_thread(catalogue.load), asyncio.to_thread(_database, settings)
    )
    stack.callback(database.close)
    writer = Writer(database)
    writer.start()
    stack.push_async_callback(writer.close)
    holder = KeyHolder()
    home = settings.data_dir
    audit = Audit(
        database, writer, clock=clock, signer=holder.signer, anchor=beside(database.where, "audit", home)
    )
    warnings = await audit.load()
    stack.push_async_callback(audit.close)
    gatherer = asyncio.create_task(audit.keep(), name="audit gatherer")
    stack.push_async_callback(_cancelled, gatherer)
    custody = Custody(holder, beside(database.where, "vault", home), settings.vault_auto_lock_secs)
    vault = Vault(database, audit, clock=clock, entropy=secrets.token_bytes, custody=custody)
    stack.callback(vault.lock)
    await _unlock(vault, settings, environ)
    locker = asyncio.create_task(vault.keep(), name="vault locker")
    stack.push_async_callback(_cancelled, locker)
    sweeper = Sweeper(writer, clock, settings.log_retention_days, parkings=settings.parking_retention_days)
    sweeping = asyncio.create_task(sweeper.keep(), name="retention sweeper")
    stack.push_async_callback(_cancelled, sweeping)
    if settings.capture != "none" and not vault.open:
        warnings += ("TOKENHUB_CAPTURE keeps nothing until the vault is open",)
    credentials = Credentials(vault, environ)
    return _Kept(settings, clock, prices, database, writer, audit, vault, credentials, holder, warnings)


async def _watch(stack: AsyncExitStack, kept: _Kept) -> Watched:
    bus, metrics, health = Bus(), Metrics(), HealthTracker(random=random.random)
    salted = await asyncio.to_thread(salt, kept.settings)
    learning = Learning(kept.database, kept.writer, kept.clock, Reward(), salt=salted)
    await learning.load()
    stack.push_async_callback(learning.close)
    saver = asyncio.create_task(learning.keep(), name="learning saver")
    stack.push_async_callback(_cancelled, saver)
    process = secrets.token_hex(8)
    died = stack.enter_context(present(kept.settings.data_dir / "present", process))
    budgets = Budgets(
        kept.writer,
        kept.audit,
        bus,
        kept.clock,
        process=process,
        entropy=_entropy(5),
        zone=kept.settings.budget_zone,
    )
    await budgets.load(died)
    stack.push_async_callback(budgets.close)
    for name, work in {"budget teller": budgets.keep, "budget follower": budgets.follow}.items():
        stack.push_async_callback(_cancelled, asyncio.create_task(work(), name=name))
    proofs = proving(kept.settings, kept.audit, kept.writer, bus, metrics, secret=salted, holder=kept.holder)
    prover = await stack.enter_async_context(proofs)
    recorder = StoreRecorder(
        kept.database,
        kept.writer,
        [metrics, bus.tell, learning],
        books=budgets.ledger,
        beside=prover.beside if prover is not None else None,
    )
    parkings = Parkings(kept.database, kept.writer, bus, metrics)
    credentials = kept.credentials
    keyring = Keyring(
        secrets.token_bytes(32),
        tell=parkings.tell,
        available=lambda provider, key: credentials.available(provider, key.store, key.name),
    )
    keyring.restore(await parkings.load())
    kept.audit.listen(lambda entry: bus.publish("audit", shown(entry)))
    leaks = Leaks(bus, metrics)
    watched = Watched(bus, metrics, health, learning, recorder, keyring, parkings, leaks, budgets, prover)
    watcher = asyncio.create_task(look(kept.clock, kept.audit, watched), name="health watcher")
    stack.push_async_callback(_cancelled, watcher)
    return watched


async def _keys(stack: AsyncExitStack, kept: _Kept, watched: Watched) -> ApiKeys:
    """Return clients' keys, not loaded yet."""
    keys = ApiKeys(
        kept.audit,
        kept.writer,
        watched.bus,
        kept.clock,
        salt=await asyncio.to_thread(salt, kept.settings),
        entropy=secrets.token_bytes,
    )
    stack.push_async_callback(keys.close)
    keeper = asyncio.create_task(keys.keep(), name="api key keeper")
    stack.push_async_callback(_cancelled, keeper)
    return keys


async def _engine(
    stack: AsyncExitStack, kept: _Kept, watched: Watched, catalog: Catalog, admission: _Admission
) -> Pipeline:
    settings = kept.settings
    network = await stack.enter_async_context(
        HttpTransport(
            ca_file=terms.path(settings.ca_file),
            guard=terms.guard(settings),
            max_connections=terms.connections(settings),
        )
    )
    means = Means(
        transport=RoutingTransport(network, SimulatedTransport()) if settings.simulate else network,
        secrets=kept.credentials,
        ledger=watched.budgets.ledger,
        health=watched.health,
        retries=RetryBudget(),
        clock=kept.clock,
        random=random.random,
        dialects=DIALECTS,
        keyring=watched.keyring,
        # Of a few models at a few providers, over and over; in some dialects callers choose the model's name in it.
        places=lru_cache(maxsize=1024)(place),
        ear=watched.prover,
        hedging=Hedging(watched.learning.spreads.after, RetryBudget(ratio=0.1, per_second=0.1)),
        more=watched.budgets.more,
    )
    executor = Executor(means, terms.patience(settings))
    stack.push_async_callback(executor.close)
    pipeline = Pipeline(
        executor=executor,
        recorder=watched.recorder,
        catalogue=kept.prices,
        fleet=lambda: catalog.fleet,
        defaults=catalog.defaults,
        rules=terms.rules(settings, catalog, kept.vault, kept.writer, admission.throttle),
        insight=terms.insight(watched.learning, catalog),
    )
    pipeline.underway = Underway(settings.max_calls, settings.queue_ms / 1000)
    pipeline.durable = joined(
        stack,
        settings,
        executor,
        watched.recorder,
        kept.holder,
        store=(kept.database, kept.writer),
        metrics=watched.metrics,
    )
    return pipeline


async def _doors(
    stack: AsyncExitStack,
    kept: _Kept,
    watched: Watched,
    catalog: Catalog,
    pipeline: Pipeline,
    *,
    admission: _Admission,
    warnings: tuple[str, ...],
) -> App:
    settings = kept.settings
    clock, recorder = kept.clock, watched.recorder
    door = _door(stack, kept, watched, pipeline, admission)
    consumer = Consumer(door)
    recogniser = Current(extra_hosts(settings.extra_hosts))
    follower = Follower(settings, recogniser, watched.bus, watched.metrics, clock.now)
    following = asyncio.create_task(follower.keep(), name="interception follower")
    stack.push_async_callback(_cancelled, following)
    if catalog.modes.rules and not terms.origin(settings):
        warnings += ("hosts have modes and may not be reached: calls that are left alone are refused",)
    watcher = _watcher(kept, watched, catalog, pipeline, recogniser)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            # Without a limit of its own: what passes through waits for nobody.
            connector=aiohttp.TCPConnector(
                ssl=tls_context(terms.path(settings.ca_file)),
                limit=0,
                resolver=GuardedResolver(terms.guard(settings)),
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
    )
    passthrough = Passthrough(
        door,
        recorder,
        session,
        allowed=terms.origin(settings),
        recogniser=recogniser,
        watcher=watcher,
    )
    token = admin_token(settings)
    register, logins = await _access(kept, token)
    sessions = Sessions(register)
    leaving = asyncio.Event()
    side = SideServer(
        consumer=consumer,
        sessions=sessions,
        metrics=watched.metrics,
        fleet=lambda: catalog.fleet,
        probes=Probes(
            store=recorder.ready,
            draining=leaving.is_set,
            vault=lambda: kept.vault.state.value,
            credentialed=lambda one: any(
                key.enabled and kept.credentials.available(one.id, key.store, key.name) for key in one.keys
            ),
        ),
        origin=terms.origin(settings),
        hosts=settings.allowed_hosts,
    )
    pages = _pages(kept, watched, catalog, pipeline, sessions=sessions, recogniser=recogniser)
    pages += ApiKeyPages(admission.keys, clock).routes()
    pages += CaPages(Interception(settings.data_dir, follower.configured, kept.audit, clock.now)).routes()
    pages += AccessPages(register, logins, sessions, kept.audit, clock).routes()
    served = side.application(pages)
    watch = Watch(kept.audit, sessions, clock, door.entropy)
    served.middlewares.insert(0, watch.middleware)
    return App(
        settings=settings,
        engine=door.engine,
        recogniser=recogniser,
        catalog=catalog,
        vault=kept.vault,
        requests=RequestLog(kept.database),
        recorder=recorder,
        overheard=watched.keyring.overheard,
        throttle=admission.throttle,
        keeper=door.keeper,
        foreign=door.foreign,
        prover=watched.prover,
        refused=door.refused,
        admin_token=token,
        side=served,
        watcher=watcher,
        handed_off=HandedOff(consumer, recogniser, passthrough, watcher),
        warnings=warnings,
        drain=leaving.set,
        keys=admission.keys,
        underway=pipeline.underway,
        follow=follower.listen,
        login_ticket=lambda: logins.ticket(register.bootstrap),
    )


def _door(
    stack: AsyncExitStack, kept: _Kept, watched: Watched, pipeline: Pipeline, admission: _Admission
) -> Door:
    """Return what every front door needs."""
    shelf = Shelf(kept.writer, kept.holder, kept.settings, clock=kept.clock, entropy=secrets.token_bytes)
    stack.push_async_callback(shelf.close)
    engine = Idempotent(
        Capturing(pipeline, kept.settings, kept.holder, shelf),
        terms.keeping(kept.settings, kept.writer),
        recorder=watched.recorder,
        dialects=DIALECTS,
        clock=kept.clock,
        throttle=admission.throttle,
    )
    stack.push_async_callback(engine.close)
    keeper = Doorkeeper(admission.keys, anonymous=kept.settings.anonymous)
    admission.keys.watched(keeper.tenures.look)
    return Door(
        refused=Refusals(watched.recorder, kept.clock, watched.metrics.unrecorded),
        engine=engine,
        dialects=DIALECTS,
        clock=kept.clock,
        entropy=_entropy(10),
        max_body_bytes=kept.settings.max_body_bytes,
        overheard=watched.keyring.overheard,
        throttle=admission.throttle,
        keeper=keeper,
        foreign=Foreign(parsed(kept.settings.client_credentials), tell=watched.leaks.tell),
        prover=watched.prover,
    )


async def _access(kept: _Kept, token: Secret) -> tuple[Register, Logins]:
    """Return who may do admin work, and how they get in."""
    marks = Marks(await asyncio.to_thread(salt, kept.settings))
    clock, entropy = kept.clock, secrets.token_bytes
    register = Register(kept.audit, kept.writer, clock=clock, marks=marks, token=token, entropy=entropy)
    await register.load()
    return register, Logins(register, kept.audit, clock=clock, marks=marks, entropy=entropy)


def _watcher(
    kept: _Kept, watched: Watched, catalog: Catalog, pipeline: Pipeline, recogniser: Recogniser
) -> Watcher:
    """Return what watches calls that pass; raises `ConfigError` where a setting names a host that is not listed."""
    for rule in catalog.modes.rules:
        if not catalog.is_stored(rule):
            checked(rule, recogniser)
    return Watcher(
        engine=pipeline,
        modes=lambda: catalog.modes,
        prices=kept.prices.price_at,
        price_list=catalogue.SOURCE,
        dialects=DIALECTS,
        estimates=watched.learning.learner,
        clock=kept.clock,
        max_body_bytes=kept.settings.max_body_bytes,
        tunnelled=watched.metrics.tunnelled,
        admit=watched.budgets.ledger.admit,
        lender=Lender(lambda: catalog.fleet, kept.credentials, watched.keyring, kept.clock),
    )


def _pages(
    kept: _Kept,
    watched: Watched,
    catalog: Catalog,
    pipeline: Pipeline,
    *,
    sessions: Sessions,
    recogniser: Recogniser,
) -> list[web.RouteDef]:
    """Return the routes of the admin API and the admin pages."""
    clock, requests = kept.clock, RequestLog(kept.database)
    safe = Safe(kept.vault, kept.credentials, watched.keyring, clock)
    admin = Admin(
        Desk(
            catalog=catalog,
            vault=kept.vault,
            safe=safe,
            requests=requests,
            health=watched.health,
            bus=watched.bus,
            sessions=sessions,
            clock=clock,
            settings=kept.settings,
        )
    )
    return [
        *admin.routes(),
        *VaultPages(kept.vault, kept.audit).routes(),
        *Keys(catalog, safe, watched.parkings, admin.in_turn).routes(),
        *SigningPages(kept.vault, kept.audit).routes(),
        *Bodies(kept.audit, kept.holder, clock).routes(),
        *ProofPages(ProofLog(kept.database), kept.holder, requests, partial(salt, kept.settings)).routes(),
        *AuditPages(kept.audit, AuditLog(kept.database), kept.holder).routes(),
        *Aliases(catalog, requests).routes(),
        *BudgetPages(watched.budgets, clock).routes(),
        *Decisions(requests, pipeline).routes(),
        *Modal(catalog, requests, recogniser).routes(),
        *Prices(catalog).routes(),
        *WorkflowPages(pipeline.durable, kept.audit).routes(),
        *Rehearsals(requests, catalog, pipeline.ground, learning=watched.learning, clock=clock).routes(),
        *Page().routes(),
        *Description().routes(),
    ]


def _entropy(size: int) -> Callable[[], bytes]:
    """Return what gives `size` random bytes at a time: the kernel is asked for a thousand such at once."""
    pool = bytearray()

    def drawn() -> bytes:
        if not pool:
            pool.extend(secrets.token_bytes(1000 * size))
        piece = bytes(pool[-size:])
        del pool[-size:]
        return piece

    return drawn


def _database(settings: Settings) -> Database:
    return open_database(
        settings.db_dsn.reveal() or os.fspath(settings.data_dir / "tokenhub.sqlite"),
        synchronous=settings.db_synchronous,
        busy_ms=round(settings.db_timeout_secs * 1000),
        password_file=settings.db_password_file,
    )


async def _unlock(vault: Vault, settings: Settings, environ: Mapping[str, str]) -> None:
    """Read the vault and, where the settings hold its password, open it, making it on first use."""
    await vault.load()
    if not settings.vault_enabled:
        return
    password = password_from(
        settings.vault_password, settings.vault_password_file, settings.vault_password_fd, environ
    )
    if password is None:
        return
    try:
        # Whoever can start the server has the database too, and need not ask us which password is right.
        await (vault.unlock(password, throttled=False) if vault.initialised else vault.init(password))
    except TokenHubError as error:
        raise ConfigError(f"the vault's password: {error.fault.message}") from None


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
