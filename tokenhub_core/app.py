"""The composition root: every part is made here, given to those who need it, and closed in reverse order.

After `running` has entered, nothing is optional: what is switched off is a part that does nothing.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from aiohttp import web

from tokenhub_core import gauges, opening, passing, sources, terms
from tokenhub_core.access.logins import Logins
from tokenhub_core.access.marks import Marks
from tokenhub_core.access.register import Register
from tokenhub_core.admission.doorkeeper import KEYLESS, Doorkeeper
from tokenhub_core.admission.foreign import KEPT, Foreign, parsed
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.throttle import Throttle, throttle
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.budgets import Budgets
from tokenhub_core.capture import Capturing, Shelf
from tokenhub_core.catalog import Catalog
from tokenhub_core.chronicle import Chronicle
from tokenhub_core.config import Settings
from tokenhub_core.datadir import admin_token, close_to_others, salt
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Hedging, Means
from tokenhub_core.envfile import Given
from tokenhub_core.fellowship import fellowship
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.http.access import AccessPages
from tokenhub_core.http.admin import Admin, Desk
from tokenhub_core.http.aliases import Aliases
from tokenhub_core.http.apikeys import ApiKeyPages
from tokenhub_core.http.audit import AuditPages, Watch
from tokenhub_core.http.budgets import BudgetPages
from tokenhub_core.http.ca import CaPages
from tokenhub_core.http.captures import Bodies
from tokenhub_core.http.config import ConfigPages
from tokenhub_core.http.consumer import Consumer, Door, HandedOff
from tokenhub_core.http.credentials import Keys, Safe
from tokenhub_core.http.decisions import Decisions
from tokenhub_core.http.description import Description
from tokenhub_core.http.directives import SigningPages
from tokenhub_core.http.health import HealthPages
from tokenhub_core.http.log import LogPages
from tokenhub_core.http.manual import Manual
from tokenhub_core.http.ongoing import OngoingPages
from tokenhub_core.http.passthrough import Passthrough
from tokenhub_core.http.prices import Prices
from tokenhub_core.http.proofs import ProofPages
from tokenhub_core.http.rehearse import Rehearsals
from tokenhub_core.http.reload import ReloadPages
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.shadow import Modal
from tokenhub_core.http.side import Entrance, Probes, SideServer
from tokenhub_core.http.standing import Standing
from tokenhub_core.http.tsdb import TsdbPages
from tokenhub_core.http.ui import Page
from tokenhub_core.http.vault import VaultPages
from tokenhub_core.http.webhooks import Hooked, hooked
from tokenhub_core.http.workflows import WorkflowPages
from tokenhub_core.idempotency import Idempotent
from tokenhub_core.interception import Follower, Heard, Interception, unfollowed
from tokenhub_core.launch.notify import ALIVE, notifier
from tokenhub_core.learning import Learning
from tokenhub_core.lookout import Leaks, Watched, blocked, look
from tokenhub_core.opening import Kept, cancelled
from tokenhub_core.otel import joining as otel
from tokenhub_core.parkings import Parkings
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.pooling import common, pooled
from tokenhub_core.ports import Engine, KeyBook, Overhearing, Recorder, Secret, deaf
from tokenhub_core.presence import present
from tokenhub_core.proof.prover import Prover, proving
from tokenhub_core.providers.adapters import place
from tokenhub_core.providers.simulated import RoutingTransport, SimulatedTransport
from tokenhub_core.providers.transport import Authorities, HttpTransport
from tokenhub_core.recognise import Current, Recogniser, extra_hosts
from tokenhub_core.reloading import Reloader, unheard
from tokenhub_core.routing.reward import Reward
from tokenhub_core.siblings import Siblings
from tokenhub_core.signing import Signatures
from tokenhub_core.store.audit import AuditLog, shown
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.store.rows import MICROS
from tokenhub_core.sweeper import Sweeper
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.logs import Threshold
from tokenhub_core.telemetry.metrics import METRICS, Metrics
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.telemetry.refusals import Refusals
from tokenhub_core.types import Record
from tokenhub_core.underway import Underway
from tokenhub_core.vault.vault import Vault
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
    reload: Callable[[], None] = unheard
    """Reads the settings anew and goes on with them, where that can be done, as a hang-up asks for."""
    follow: Callable[[Heard], None] = unfollowed
    """Says who is to hear when hosts are added or the CA is another one."""


@dataclass(frozen=True, slots=True)
class _Admission:
    """Who may come in, and what they may use."""

    throttle: Throttle
    keys: ApiKeys
    signatures: Signatures


@asynccontextmanager
async def running(
    settings: Settings,
    environ: Mapping[str, str],
    siblings: Siblings | None = None,
    given: Given | None = None,
) -> AsyncIterator[App]:
    """Build, start and, on the way out, close the engine. Raises `ConfigError` where it cannot start.

    `given` is where the settings come from, and where a reload reads them; without it they win over any file.
    """
    mended = close_to_others(settings.data_dir)
    async with AsyncExitStack() as stack:
        kept = await opening.opened(stack, settings, environ, siblings or Siblings())
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
        kept.renewals.follow(partial(terms.catalogued, kept), lambda made: catalog.renew(*made))
        kept.renewals.follow(lambda fresh: fresh.environ, kept.credentials.renew)
        kept.renewals.add(lambda new: new.log_level, Threshold(settings.log_level).renew)
        told = await sources.seed(settings, catalog, kept.credentials, kept.vault)
        watched = await _watch(stack, kept)
        alive = partial(notifier(environ), ALIVE)
        stack.enter_context(Watchdog(partial(blocked, watched.bus, watched.metrics), alive=alive))
        reloader = Reloader(
            given or Given(settings.data_dir, environ, fixed=settings), kept, catalog, watched.bus
        )
        stack.push_async_callback(reloader.close)
        admission = _Admission(
            throttle(settings, watched.metrics.refused),
            await _keys(stack, kept, watched),
            Signatures(kept.vault.directive_secret),
        )
        kept.renewals.add(partial(throttle, refused=watched.metrics.refused), admission.throttle.renew)
        pipeline = await _engine(stack, kept, watched, catalog, admission)
        warnings = (*mended, *kept.warnings, *seeds.warnings, *told, *await admission.keys.load())
        opened = await _doors(stack, kept, watched, catalog, pipeline, admission=admission, warnings=warnings)
        opened.side.add_routes(ReloadPages(reloader.told).routes())
        yield replace(opened, reload=reloader.hang_up)


async def _watch(stack: AsyncExitStack, kept: Kept) -> Watched:
    bus, metrics, health = (
        Bus(round(kept.clock.now() * MICROS)),
        Metrics(),
        HealthTracker(terms.health(kept.settings), random=random.random),
    )
    kept.renewals.add(terms.health, health.renew)
    kept.siblings.answering(METRICS, metrics.figures)
    salted = await asyncio.to_thread(salt, kept.settings)
    learning = Learning(kept.database, kept.writer, kept.clock, Reward(), salt=salted)
    await learning.load()
    stack.push_async_callback(learning.close)
    saver = asyncio.create_task(learning.keep(), name="learning saver")
    stack.push_async_callback(cancelled, saver)
    process = secrets.token_hex(8)
    died = stack.enter_context(present(kept.settings.data_dir / "present", process))
    budgets = Budgets(
        kept.writer,
        kept.audit,
        bus,
        kept.clock,
        process=process,
        entropy=opening.entropy(5),
        zone=kept.settings.budget_zone,
    )
    await budgets.load(died)
    stack.push_async_callback(budgets.close)
    for name, work in {"budget teller": budgets.keep, "budget follower": budgets.follow}.items():
        stack.push_async_callback(cancelled, asyncio.create_task(work(), name=name))
    proofs = proving(kept.settings, kept.audit, kept.writer, bus, metrics, secret=salted, holder=kept.holder)
    prover = await stack.enter_async_context(proofs)
    tracing = otel.joined(stack, kept.settings, metrics, kept.clock)
    recorder = StoreRecorder(
        kept.database,
        kept.writer,
        [metrics, bus.tell, learning, *filter(None, [tracing])],
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
    kept.audit.listen(lambda entry: bus.audited(entry.action, shown(entry)))
    sweeper = Sweeper(
        kept.writer,
        kept.clock,
        terms.retention(kept.settings),
        audit=kept.audit,
        tell=bus.publish,
        turn=kept.lead.turn,
    )
    kept.renewals.add(terms.retention, sweeper.renew)
    sweeping = asyncio.create_task(sweeper.keep(), name="retention sweeper")
    stack.push_async_callback(cancelled, sweeping)
    leaks = Leaks(bus, metrics)
    watched = Watched(
        bus,
        metrics,
        health,
        learning,
        recorder,
        keyring,
        parkings,
        leaks,
        budgets,
        Chronicle(kept.database, kept.writer),
        prover,
        tracing,
    )
    watched.circuits.add("database", kept.database.breaker)
    watcher = asyncio.create_task(look(kept.clock, kept.audit, watched), name="health watcher")
    stack.push_async_callback(cancelled, watcher)
    return watched


async def _keys(stack: AsyncExitStack, kept: Kept, watched: Watched) -> ApiKeys:
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
    stack.push_async_callback(cancelled, keeper)
    return keys


async def _engine(
    stack: AsyncExitStack, kept: Kept, watched: Watched, catalog: Catalog, admission: _Admission
) -> Pipeline:
    settings = kept.settings
    network = await stack.enter_async_context(
        HttpTransport(
            ca_file=terms.path(settings.ca_file),
            context=kept.tls,
            guard=terms.guard(settings),
            max_connections=terms.connections(settings),
        )
    )
    watched.metrics.ask(
        gauges.readings(
            kept.writer, network, watched.budgets.ledger, watched.bus, vault=kept.vault, clock=kept.clock
        )
    )
    beat = asyncio.create_task(gauges.beat(kept.clock, watched.metrics), name="heartbeat")
    stack.push_async_callback(cancelled, beat)
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
        learned=watched.learning.deadlines.learned,
        silences=watched.learning.deadlines.silence,
        ear=watched.prover,
        hedging=Hedging(watched.learning.spreads.after, RetryBudget(ratio=0.1, per_second=0.1)),
        more=watched.budgets.more,
    )
    executor = Executor(means, terms.patience(settings))
    kept.renewals.add(terms.patience, partial(setattr, executor, "patience"))
    kept.renewals.add(terms.connections, network.resize)
    kept.renewals.add(lambda new: network.trusting(terms.path(new.ca_file)), network.trust)
    stack.push_async_callback(executor.close)
    rules = partial(
        terms.rules,
        catalog=catalog,
        vault=kept.vault,
        writer=kept.writer,
        limits=admission.throttle,
        signatures=admission.signatures,
    )
    pipeline = Pipeline(
        executor=executor,
        recorder=watched.recorder,
        catalogue=kept.prices,
        fleet=lambda: catalog.fleet,
        defaults=catalog.defaults,
        rules=rules(settings),
        insight=terms.insight(watched.learning, catalog),
    )
    kept.renewals.add(rules, pipeline.renew)
    pipeline.underway = Underway(settings.max_calls, settings.queue_ms / 1000)
    kept.renewals.add(
        lambda new: (new.max_calls, new.queue_ms / 1000), lambda made: pipeline.underway.resize(*made)
    )
    pipeline.durable = joined(
        stack,
        settings,
        watched.recorder,
        kept.holder,
        engine=(executor, pipeline.framed),
        store=(kept.database, kept.writer),
        metrics=watched.metrics,
    )
    if pipeline.durable is not None:
        watched.circuits.add("temporal", pipeline.durable.breaker)
    return pipeline


async def _doors(
    stack: AsyncExitStack,
    kept: Kept,
    watched: Watched,
    catalog: Catalog,
    pipeline: Pipeline,
    *,
    admission: _Admission,
    warnings: tuple[str, ...],
) -> App:
    settings = kept.settings
    clock, recorder = kept.clock, watched.recorder
    door = await _door(stack, kept, watched, pipeline, admission)
    consumer = Consumer(door)
    recogniser = Current(extra_hosts(settings.extra_hosts))
    follower = Follower(settings, recogniser, watched.bus, watched.metrics, clock.now)
    following = asyncio.create_task(follower.keep(), name="interception follower")
    stack.push_async_callback(cancelled, following)
    if catalog.modes.rules and not terms.origin(settings):
        warnings += ("hosts have modes and may not be reached: calls that are left alone are refused",)
    watcher = passing.watcher(kept, watched, catalog, pipeline, recogniser)
    tls = kept.tls
    authorities = Authorities(tls, terms.path(settings.ca_file))
    kept.renewals.add(lambda new: authorities.made(terms.path(new.ca_file)), authorities.put)
    session = await stack.enter_async_context(passing.session(settings, tls))
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
            figures=lambda: kept.siblings.ask(METRICS),
            credentialed=lambda one: any(
                key.enabled and kept.credentials.available(one.id, key.store, key.name) for key in one.keys
            ),
        ),
        origin=terms.origin(settings),
        entrance=Entrance(settings.allowed_hosts, settings.metrics_access),
    )
    kept.renewals.add(lambda new: Entrance(new.allowed_hosts, new.metrics_access), side.renew)
    pages = _pages(kept, watched, catalog, pipeline, sessions=sessions, recogniser=recogniser)
    hooks = Hooked(kept.writer, kept.audit, kept.vault, watched.bus, clock)
    pages += await stack.enter_async_context(
        hooked(hooks, terms.guard(settings), tls, allow_http=settings.allow_http)
    )
    pages += ApiKeyPages(admission.keys, clock).routes()
    interception = Interception(settings.data_dir, follower.configured, kept.audit, clock.now)
    kept.renewals.add(lambda new: follower.checked(new.extra_hosts), follower.renew)
    kept.renewals.add(lambda new: new.extra_hosts, partial(setattr, interception, "configured"))
    pages += CaPages(interception).routes()
    pages += AccessPages(register, logins, sessions, kept.audit, clock).routes()
    served = side.application(pages)
    watch = Watch(kept.audit, sessions, clock, door.entropy)
    served.middlewares[:0] = [kept.changes.middleware, watch.middleware]
    kept.changes.follows(catalog.load, kept.vault.refresh, register.load, admission.keys.refresh)
    stack.push_async_callback(cancelled, asyncio.create_task(kept.changes.keep(), name="changes"))
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


async def _door(
    stack: AsyncExitStack, kept: Kept, watched: Watched, pipeline: Pipeline, admission: _Admission
) -> Door:
    """Return what every front door needs."""
    shelf = Shelf(kept.writer, kept.holder, kept.settings, clock=kept.clock, entropy=secrets.token_bytes)
    stack.push_async_callback(shelf.close)
    capturing = Capturing(pipeline, kept.settings, kept.holder, shelf)
    kept.renewals.add(lambda new: new, capturing.renew)
    engine = Idempotent(
        capturing,
        terms.keeping(kept.settings, kept.writer),
        recorder=watched.recorder,
        dialects=DIALECTS,
        clock=kept.clock,
        throttle=admission.throttle,
        durable=pipeline.durable,
    )
    stack.push_async_callback(engine.close)
    shared = await common(stack, kept.settings, kept.siblings, secrets.token_hex(8))
    together = await pooled(
        stack,
        kept.settings,
        shared,
        (admission.throttle, admission.signatures),
        clock=kept.clock,
        changes=kept.changes,
        told=(watched.bus, watched.metrics),
    )
    fellowship(stack, shared, watched, kept.clock)
    foreign = Foreign(parsed(kept.settings.client_credentials), tell=watched.leaks.tell)
    kept.renewals.add(lambda new: parsed(new.client_credentials), foreign.renew)
    keeper = Doorkeeper(admission.keys, anonymous=kept.settings.anonymous)
    admission.keys.watched(keeper.tenures.look)
    return Door(
        refused=Refusals(watched.recorder, kept.clock, watched.metrics.unrecorded),
        engine=together(engine if watched.tracing is None else watched.tracing.around(engine)),
        dialects=DIALECTS,
        clock=kept.clock,
        entropy=opening.entropy(10),
        max_body_bytes=kept.settings.max_body_bytes,
        overheard=watched.keyring.overheard,
        throttle=admission.throttle,
        keeper=keeper,
        foreign=foreign,
        prover=watched.prover,
    )


async def _access(kept: Kept, token: Secret) -> tuple[Register, Logins]:
    """Return who may do admin work, and how they get in."""
    marks = Marks(await asyncio.to_thread(salt, kept.settings))
    clock, entropy = kept.clock, secrets.token_bytes
    register = Register(kept.audit, kept.writer, clock=clock, marks=marks, token=token, entropy=entropy)
    await register.load()
    return register, Logins(
        register, kept.audit, clock=clock, marks=marks, entropy=entropy, siblings=kept.siblings
    )


def _pages(
    kept: Kept,
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
            health=watched.health,
            bus=watched.bus,
            sessions=sessions,
            clock=clock,
            settings=kept.settings,
        )
    )
    modal = Modal(catalog, requests, recogniser)
    standing = Standing(kept.settings, kept.environ, lambda: watched.learning.bandit, clock)
    kept.renewals.follow(lambda fresh: fresh, standing.renew)
    return [
        *admin.routes(),
        *ConfigPages(
            admin, catalog, watched.budgets, kept.database, clock=clock, mode=modal.checked
        ).routes(),
        *LogPages(requests, kept.audit, sessions).routes(),
        *VaultPages(kept.vault, kept.audit).routes(),
        *Keys(catalog, safe, watched.parkings, admin.in_turn).routes(),
        *SigningPages(kept.vault, kept.audit).routes(),
        *Bodies(kept.audit, kept.holder, clock).routes(),
        *ProofPages(ProofLog(kept.database), kept.holder, requests, partial(salt, kept.settings)).routes(),
        *AuditPages(kept.audit, AuditLog(kept.database), kept.holder).routes(),
        *Aliases(catalog, requests).routes(),
        *BudgetPages(watched.budgets, clock).routes(),
        *Decisions(requests, pipeline).routes(),
        *modal.routes(),
        *Prices(catalog).routes(),
        *TsdbPages(kept.roller).routes(),
        *WorkflowPages(pipeline.durable, kept.audit).routes(),
        *Rehearsals(requests, catalog, pipeline.ground, learning=watched.learning, clock=clock).routes(),
        *standing.routes(),
        *HealthPages(watched.chronicle, clock).routes(),
        *OngoingPages(pipeline.underway, kept.siblings, clock).routes(),
        *Page().routes(),
        *Manual().routes(),
        *Description().routes(),
    ]
