"""The plan of the house, and whether the house still stands by it.

Three tables say what the plan is: which modules touch the world (every other one is pure), who may import
whom, and what is excepted. An entry that is not needed any more fails: the tables only shrink.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from tests import rules
from tests.rules import Breach, Module

ROOT: Final = Path(__file__).parents[1]

_FOREIGN: Final = (
    # Preload shims: they run in other people's programs, in whatever Python those use.
    ROOT / "tokenhub_core" / "launch" / "shims",
    # Alembic runs these by path; they are a history, and nothing imports them.
    ROOT / "tokenhub_core" / "store" / "migrations",
)

SHELLS: Final = {
    "tokenhub_core.access.logins": "waits for the store, and for passwords to be tried",
    "tokenhub_core.access.register": "waits for the store",
    "tokenhub_core.admission.drawing": "waits for the pool",
    "tokenhub_core.admission.vetting": "waits for what all know",
    "tokenhub_core.apikeys": "waits for the store",
    "tokenhub_core.app": "makes every part, holds the clock and the dice",
    "tokenhub_core.audit.journal": "waits for the store",
    "tokenhub_core.budgets": "waits for the store",
    "tokenhub_core.ca": "keeps the CA's files",
    "tokenhub_core.capture": "waits for what it hears, and seals it in a thread",
    "tokenhub_core.catalog": "waits for the store and swaps the fleet",
    "tokenhub_core.changes": "waits for the store",
    "tokenhub_core.chronicle": "waits for the store",
    "tokenhub_core.clock": "is the clock",
    "tokenhub_core.composing": "waits for the executor",
    "tokenhub_core.datadir": "keeps files",
    "tokenhub_core.dispatch.attempt": "waits for providers",
    "tokenhub_core.dispatch.checking": "waits for attempts",
    "tokenhub_core.dispatch.executor": "waits for attempts",
    "tokenhub_core.dispatch.guarding": "waits for providers",
    "tokenhub_core.dispatch.leftovers": "waits for what is left of attempts",
    "tokenhub_core.dispatch.resuming": "waits for attempts",
    "tokenhub_core.dispatch.streaming": "waits for providers",
    "tokenhub_core.http.access": "serves HTTP",
    "tokenhub_core.http.admin": "serves HTTP",
    "tokenhub_core.http.aliases": "serves HTTP",
    "tokenhub_core.http.apikeys": "serves HTTP",
    "tokenhub_core.http.audit": "serves HTTP",
    "tokenhub_core.http.blueprint": "takes the types of bodies from those who serve HTTP",
    "tokenhub_core.http.budgets": "serves HTTP",
    "tokenhub_core.http.ca": "serves HTTP",
    "tokenhub_core.http.captures": "serves HTTP",
    "tokenhub_core.http.config": "serves HTTP",
    "tokenhub_core.http.consumer": "serves HTTP",
    "tokenhub_core.http.credentials": "serves HTTP",
    "tokenhub_core.http.decisions": "serves HTTP",
    "tokenhub_core.http.description": "serves HTTP",
    "tokenhub_core.http.directives": "serves HTTP",
    "tokenhub_core.http.log": "serves HTTP",
    "tokenhub_core.http.operations": "takes the types of bodies from those who serve HTTP",
    "tokenhub_core.http.health": "serves HTTP",
    "tokenhub_core.http.ongoing": "serves HTTP",
    "tokenhub_core.http.outgoing": "speaks HTTP with receivers of webhooks",
    "tokenhub_core.http.passthrough": "serves HTTP",
    "tokenhub_core.http.prices": "serves HTTP",
    "tokenhub_core.http.proofs": "serves HTTP",
    "tokenhub_core.http.rehearse": "serves HTTP",
    "tokenhub_core.http.reload": "serves HTTP",
    "tokenhub_core.http.resolver": "resolves names",
    "tokenhub_core.http.sessions": "serves HTTP",
    "tokenhub_core.http.shadow": "serves HTTP",
    "tokenhub_core.http.shapes": "serves HTTP",
    "tokenhub_core.http.side": "serves HTTP",
    "tokenhub_core.http.files": "reads files that were built",
    "tokenhub_core.http.manual": "reads files that were built",
    "tokenhub_core.http.standing": "serves HTTP",
    "tokenhub_core.http.ui": "reads the page's files",
    "tokenhub_core.http.tsdb": "serves HTTP",
    "tokenhub_core.http.vault": "serves HTTP",
    "tokenhub_core.http.webhooks": "serves HTTP",
    "tokenhub_core.http.workflows": "serves HTTP",
    "tokenhub_core.http.websockets": "waits for both ends of a conversation",
    "tokenhub_core.gauges": "watches by the clock",
    "tokenhub_core.envfile": "reads a file",
    "tokenhub_core.fellowship": "waits for other processes",
    "tokenhub_core.following": "waits for the next look",
    "tokenhub_core.hearsay": "waits for other processes",
    "tokenhub_core.hostlist": "keeps a file",
    "tokenhub_core.idempotency": "waits for the engine and the store",
    "tokenhub_core.interception": "looks at files",
    "tokenhub_core.launch.bundle": "keeps trust bundles",
    "tokenhub_core.launch.client": "finds who is serving",
    "tokenhub_core.launch.files": "writes files",
    "tokenhub_core.launch.hardening": "asks the kernel",
    "tokenhub_core.launch.paths": "asks the platform for directories",
    "tokenhub_core.launch.serveinfo": "asks whether a process and a port are alive",
    "tokenhub_core.launch.notify": "tells the service manager",
    "tokenhub_core.learning": "waits for the store",
    "tokenhub_core.leading": "waits for the store",
    "tokenhub_core.lookout": "watches by the clock",
    "tokenhub_core.orchestration.runner": "waits for steps",
    "tokenhub_core.marking": "waits for what is to be told",
    "tokenhub_core.opening": "opens the database",
    "tokenhub_core.otel.joining": "imports an extra where it is asked for",
    "tokenhub_core.otel.outbox": "waits for what is to be sent",
    "tokenhub_core.otel.sending": "speaks with a collector",
    "tokenhub_core.otel.tracing": "waits for the engine",
    "tokenhub_core.parkings": "waits for the store",
    "tokenhub_core.passing": "makes what speaks HTTP",
    "tokenhub_core.pipeline": "waits for the executor and the recorder",
    "tokenhub_core.pooling": "imports an extra where it is asked for",
    "tokenhub_core.preparing": "takes prices from the price list",
    "tokenhub_core.proof.alarms": "tells whoever listens",
    "tokenhub_core.proof.prover": "waits for the store, and hears what it waits for",
    "tokenhub_core.presence": "keeps files that say who is alive",
    "tokenhub_core.providers.catalogue": "reads the price list from its package",
    "tokenhub_core.providers.pool": "holds connections to providers",
    "tokenhub_core.providers.simulated": "waits as long as a provider would",
    "tokenhub_core.providers.simulator": "takes its prices from the price list",
    "tokenhub_core.providers.transport": "speaks HTTP with providers",
    "tokenhub_core.reloading": "reads files, waits for other workers",
    "tokenhub_core.relay": "waits for other processes",
    "tokenhub_core.rolling": "waits for the store",
    "tokenhub_core.sources": "reads credentials files",
    "tokenhub_core.redispool": "speaks with Redis",
    "tokenhub_core.sharing": "waits for other workers",
    "tokenhub_core.siblings": "waits for other workers",
    "tokenhub_core.store.access": "speaks SQL",
    "tokenhub_core.store.anchor": "keeps a file",
    "tokenhub_core.store.apikeys": "speaks SQL",
    "tokenhub_core.store.audit": "speaks SQL",
    "tokenhub_core.store.backup": "copies files",
    "tokenhub_core.store.budgets": "speaks SQL",
    "tokenhub_core.store.captures": "speaks SQL",
    "tokenhub_core.store.catalog": "speaks SQL",
    "tokenhub_core.store.checkup": "speaks SQL",
    "tokenhub_core.store.chronicle": "speaks SQL",
    "tokenhub_core.store.creation": "works in the store",
    "tokenhub_core.store.database": "opens the database",
    "tokenhub_core.store.driver": "loads whichever SQLite is fit",
    "tokenhub_core.store.durable": "speaks SQL",
    "tokenhub_core.store.faults": "reads the driver's errors",
    "tokenhub_core.store.generations": "speaks SQL",
    "tokenhub_core.store.idempotency": "speaks SQL",
    "tokenhub_core.store.learned": "speaks SQL",
    "tokenhub_core.store.leading": "speaks SQL",
    "tokenhub_core.store.leases": "speaks SQL",
    "tokenhub_core.store.log": "speaks SQL",
    "tokenhub_core.store.parkings": "speaks SQL",
    "tokenhub_core.store.postgresql": "opens the database",
    "tokenhub_core.store.proofs": "speaks SQL",
    "tokenhub_core.store.retention": "speaks SQL",
    "tokenhub_core.store.schema": "speaks SQL",
    "tokenhub_core.store.search": "speaks SQL",
    "tokenhub_core.store.series": "speaks SQL",
    "tokenhub_core.store.silence": "looks at the writer by the clock",
    "tokenhub_core.store.tables": "speaks SQL",
    "tokenhub_core.store.trends": "speaks SQL",
    "tokenhub_core.store.upgrade": "speaks SQL",
    "tokenhub_core.store.upsert": "speaks SQL",
    "tokenhub_core.store.vault": "speaks SQL",
    "tokenhub_core.store.webhooks": "speaks SQL",
    "tokenhub_core.store.inserts": "adds rows",
    "tokenhub_core.store.writer": "owns the writing thread",
    "tokenhub_core.sweeper": "waits for the store",
    "tokenhub_core.telemetry.events": "wakes those who listen",
    "tokenhub_core.telemetry.logs": "writes the log",
    "tokenhub_core.telemetry.metrics": "counts",
    "tokenhub_core.telemetry.recorder": "waits for the store",
    "tokenhub_core.terms": "hands over what waits for the store",
    "tokenhub_core.tidings": "waits for other processes",
    "tokenhub_core.underway": "waits for places",
    "tokenhub_core.vault.gate": "keeps a count in the store",
    "tokenhub_core.vault.passwords": "reads files",
    "tokenhub_core.vault.storing": "works in the store",
    "tokenhub_core.vault.turn": "runs what is slow in a thread",
    "tokenhub_core.vault.vault": "keeps the vault in the store",
    "tokenhub_core.webhooks.outbox": "waits for the store and for receivers",
    "tokenhub_core.watchdog": "looks after the loop by the clock",
    "tokenhub_core.workflows.activities": "waits for attempts and the store",
    "tokenhub_core.workflows.client": "speaks with Temporal",
    "tokenhub_core.workflows.codec": "is asked by Temporal's loop",
    "tokenhub_core.workflows.definitions": "waits in workflows, whose clock and dice are their own",
    "tokenhub_core.workflows.following": "speaks with Temporal",
    "tokenhub_core.workflows.overtaking": "waits for attempts and the store",
    "tokenhub_core.workflows.resuming": "waits for the store",
    "tokenhub_core.workflows.stepping": "waits for the store",
    "tokenhub_core.workflows.joining": "imports an extra where it is asked for",
    "tokenhub_core.cli": "reads the command line and prints",
    "tokenhub_addon": "lives in mitmproxy",
}
"""The modules that touch the world, and how; a package stands for all in it. Every other module is pure."""

_RANKS: Final = (
    "tokenhub_core types",
    "errors later numeric",
    "ports",
    """addresses admission certificates config dialects directives dispatch encoding health hops ids leave metering
    modes native orchestration policy providers.decoding providers.endpoints providers.vendors quirks recognise
    redaction renewals routing shaping signing supervision telemetry.kinds transcript
    webhooks.values""",
    "providers",
    "lending underway watchdog watching",
    """access audit ca clock credentials datadir envfile following hostlist launch proof providers.simulated
    providers.transport siblings store telemetry vault""",
    """apikeys budgets capture catalog changes chronicle dispatch.attempt dispatch.checking dispatch.executor
    dispatch.guarding dispatch.job dispatch.leftovers dispatch.mending dispatch.quiet dispatch.resuming
    dispatch.streaming interception leading learning
    marking parkings pooling presence progress redispool relay rolling sharing sources sweeper tidings webhooks""",
    """composing gauges hearsay idempotency lookout orchestration.runner orchestration.steps orchestration.telling otel
    pipeline preparing
    workflows""",
    "http",
    "fellowship opening passing reloading terms",
    "app",
    "cli tokenhub_addon",
)
"""Who stands above whom, from the bottom: a module imports its own rank and those before it."""

RANKS: Final = {
    name if name.startswith("tokenhub_") else f"tokenhub_core.{name}": number
    for number, names in enumerate(_RANKS)
    for name in names.split()
}

EXCEPTIONS: Final = {
    ("hidden import", "tokenhub_addon.loop:_uvloop"): "it exists for POSIX systems only",
    ("hidden import", "tokenhub_core.cli:load"): "a command's module is imported when the command is used",
    ("hidden import", "tokenhub_core.later:Later.__getattr__"): "what that file is for",
    ("pure", "tokenhub_core.later"): "what a function loads is code, and the same each time",
    ("hidden import", "tokenhub_core.pooling:_redis"): "Redis is an extra",
    ("hidden import", "tokenhub_core.workflows.joining:joined"): "Temporal is an extra",
    ("hidden import", "tokenhub_core.otel.joining:joined"): "OpenTelemetry is an extra",
    ("hidden import", "tokenhub_core.store.driver:choose"): "of several SQLite builds one is there",
    (
        "hidden import",
        "tokenhub_core.store.database:_open_server",
    ): "PostgreSQL's driver is there for those who have one",
    (
        "hidden import",
        "tokenhub_core.store.database:_upgrade",
    ): "Alembic costs too much where nothing is to do",
}
"""What breaks a rule and may: (rule, module or function) → why."""


def _house() -> list[Module]:
    return [
        *rules.read(ROOT / "tokenhub_core", prefix="tokenhub_core", without=_FOREIGN),
        *rules.read(ROOT / "addon" / "tokenhub_addon", prefix="tokenhub_addon"),
    ]


HOUSE: Final = tuple(_house())
_SHELLS: Final = frozenset(
    module.name for module in HOUSE if any(f"{module.name}.".startswith(f"{name}.") for name in SHELLS)
)

_EACH: Final[dict[str, Callable[[Module], Iterator[Breach]]]] = {
    "hidden import": rules.hidden_imports,
    "global": rules.globals_,
    "name": rules.bad_names,
    "file lines": rules.long_file,
    "function lines": rules.long_functions,
    "nesting": rules.deep_nesting,
    "parameters": rules.many_parameters,
    "docstring": rules.silent,
}


def _beyond(found: set[Breach], rule: str) -> tuple[list[Breach], list[str]]:
    """Return what is broken without an exception, and which exceptions are not needed."""
    excepted = {subject for name, subject in EXCEPTIONS if name == rule}
    broken = sorted(breach for breach in found if breach.subject not in excepted)
    return broken, sorted(excepted - {breach.subject for breach in found})


@pytest.mark.parametrize("rule", _EACH)
def test_the_house_keeps_its_rules(rule: str) -> None:
    """Every module keeps every rule; an exception that is not needed any more has to go."""
    found = set(chain.from_iterable(_EACH[rule](module) for module in HOUSE))

    assert _beyond(found, rule) == ([], [])


def test_a_file_of_tests_or_scripts_is_no_longer_than_one_of_the_house() -> None:
    """Who reads a test reads its file: the limit of lines holds there too."""
    beside = chain.from_iterable(rules.read(ROOT / name, prefix=name) for name in ("tests", "scripts"))

    assert sorted(chain.from_iterable(map(rules.long_file, beside))) == []


def test_what_is_not_a_shell_is_pure() -> None:
    """A module that is not named as a shell waits for nothing, asks nobody, remembers nothing."""
    pure = [module for module in HOUSE if module.name not in _SHELLS]
    found = {*chain.from_iterable(map(rules.impurities, pure)), *rules.impure_imports(HOUSE, _SHELLS)}

    assert _beyond(found, "pure") == ([], [])


def test_a_shell_that_has_become_pure_is_no_shell() -> None:
    """The table of shells names modules that exist and that need to be in it."""
    known = {module.name for module in HOUSE}
    needed = {
        module.name
        for module in HOUSE
        if next(rules.impurities(module), None) or rules.imports(module, known) & _SHELLS
    }

    assert [name for name in SHELLS if not any(f"{other}.".startswith(f"{name}.") for other in needed)] == []


def test_imports_go_down() -> None:
    """Every module has a rank and imports nothing that stands above it."""
    assert sorted(rules.upward_imports(HOUSE, RANKS)) == []


def test_a_rank_without_modules_is_taken_out() -> None:
    """The table of ranks names what exists."""
    names = {module.name for module in HOUSE}

    assert [name for name in RANKS if not any(f"{other}.".startswith(f"{name}.") for other in names)] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There are no import cycles."""
    assert list(rules.cycles(HOUSE)) == []


def test_the_engine_knows_nothing_of_mitmproxy() -> None:
    """tokenhub_core runs without mitmproxy and without the addon."""
    core = [module for module in HOUSE if module.name.startswith("tokenhub_core")]
    found = (rules.forbidden_imports(module, ("mitmproxy", "tokenhub_addon")) for module in core)

    assert list(chain.from_iterable(found)) == []


def test_few_functions_are_longer_than_a_page() -> None:
    """At most one in a hundred functions is longer than 60 lines."""
    assert list(rules.too_many_long_functions(HOUSE)) == []


# --- The rules themselves -----------------------------------------------------------------------------------

_DEEP = "def f():\n" + "".join(f"{'    ' * n}if a:\n" for n in range(1, 7)) + "    " * 7 + "pass\n"
_CHAIN = "def f():\n    if a:\n        pass\n" + "    elif a:\n        pass\n" * 8
_WORDS = '"""M."""\nclass C:\n    """C."""\n    def f(self):\n        {}\n'


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        ("hidden import", "def f():\n    import os", "import os"),
        ("hidden import", "def f():\n    from a import b", "from a import b"),
        ("hidden import", "def f():\n    importlib.import_module('a')", "import importlib"),
        ("global", "def f():\n    global a", "def f():\n    a = 1"),
        ("file lines", "a = 1\n" * 601, "a = 1\n" * 600),
        ("function lines", "def f():\n" + "    a = 1\n" * 100, "def f():\n" + "    a = 1\n" * 99),
        ("nesting", _DEEP, _CHAIN),
        ("nesting", _DEEP.replace("if a", "for a in b"), _DEEP.replace("    " * 6 + "if a:\n", "")),
        (
            "nesting",
            _DEEP.replace("if a:", "try:", 1).replace("pass\n", "pass\n    finally:\n        pass\n"),
            "",
        ),
        ("parameters", "def f(a, b, c, d, *, e, f, g, h): pass", "def f(a, b, c, d, *, e, f, g): pass"),
        ("parameters", "def f(a, b, c, d, /, e, f, g, h): pass", "def f(self, a, b, c, d, e, f, g): pass"),
        ("docstring", "a = 1", '"""M."""'),
        ("docstring", _WORDS.format("pass"), _WORDS.format('"""F."""')),
        ("docstring", '"""M."""\ndef f(): pass', '"""M."""\ndef _f(): pass'),
        ("docstring", '"""M."""\nclass C: pass', '"""M."""\n@override\ndef f(): pass'),
    ],
)
def test_a_rule_catches_what_it_is_for(rule: str, bad: str, good: str) -> None:
    """Each rule sees a small source that breaks it, and lets one pass that does not."""
    check = _EACH[rule]

    assert {breach.rule for breach in check(Module("tokenhub_core.x", bad))} == {rule}
    assert [*check(Module("tokenhub_core.x", good))] == []


@pytest.mark.parametrize("name", ["tokenhub_core.utils", "tokenhub_core.http.common", "tokenhub_core.misc.x"])
def test_a_module_is_named_for_what_it_is(name: str) -> None:
    """Names that fit anything are caught wherever they stand."""
    assert [breach.subject for breach in rules.bad_names(Module(name, ""))] == [name]
    assert [*rules.bad_names(Module("tokenhub_core.commons", ""))] == []


@pytest.mark.parametrize(
    "bad",
    [
        "async def f():\n    return 1",
        "import time",
        "import random",
        "from secrets import token_hex",
        "import urllib.request",
        "import sqlalchemy.exc",
        "import logging",
        "import os\nx = os.environ['A']",
        "import os\nx = os.getenv('A')",
        "open('f')",
        "def f(p):\n    return p.read_text()",
        "from datetime import datetime\ndef f():\n    return datetime.now()",
        "import datetime as dt\ndef f():\n    return dt.datetime.now()",
        "import uuid\ndef f():\n    return uuid.uuid4()",
        "@lru_cache(maxsize=None)\ndef f(): pass",
        "@functools.cache\ndef f(): pass",
        "x = []",
        "x = {'a': 1}",
        "x: Final = {}",
        "x: Final[dict[str, int]] = dict()",
        "x: Final = defaultdict(list)\nx['a'].append(1)",
        "x: Final = {'a': 1}\ndef f():\n    x['b'] = 2",
        "x: Final = ['a']\ndef f():\n    x.append('b')",
        "x: Final = {'a'}\ndef f():\n    x.discard('a')",
        "x: Final = {'a': 1}\ndef f():\n    del x['a']",
        "import importlib\nx = importlib.import_module('a')",
    ],
)
def test_what_touches_the_world_is_not_pure(bad: str) -> None:
    """Waiting, clocks, chance, the environment, files, sockets and memory are seen."""
    assert list(rules.impurities(Module("tokenhub_core.x", bad))) != []


@pytest.mark.parametrize(
    "good",
    [
        "import os\nx = os.pathsep",
        "class P(Protocol):\n    async def f(self):\n        '''Promise.'''\n        ...",
        "x: Final = {'a': 1}\ndef f(now):\n    return x['a'] + now",
        "x: Final[Mapping[str, int]] = {'a': 1}",
        "x = ('a', 'b')\ny = frozenset({'a'})",
        "def f(clock):\n    return clock.now()",
        "def f():\n    x = {}\n    x['a'] = 1\n    return x",
        "__all__ = ['f']",
        "from datetime import UTC, datetime\ndef f(t):\n    return datetime.fromtimestamp(t, UTC)",
    ],
)
def test_what_only_computes_is_pure(good: str) -> None:
    """Constants, signatures, arguments and local values are no breach."""
    assert list(rules.impurities(Module("tokenhub_core.x", good))) == []


def test_a_pure_module_does_not_hide_behind_a_shell() -> None:
    """Importing a shell makes a module one."""
    house = [
        Module("tokenhub_core.x", "from tokenhub_core import y"),
        Module("tokenhub_core.y", "import time"),
    ]

    assert [b.subject for b in rules.impure_imports(house, {"tokenhub_core.y"})] == ["tokenhub_core.x"]
    assert [*rules.impure_imports(house, {"tokenhub_core.x", "tokenhub_core.y"})] == []


def test_an_import_upwards_is_seen_in_every_form() -> None:
    """By name, from a package, and relative; a module without a rank is told as well."""
    ranks = {"tokenhub_core.low": 0, "tokenhub_core.high": 1}
    high = Module("tokenhub_core.high.a", "import tokenhub_core.low.b")

    def found(source: str) -> list[str]:
        low = Module("tokenhub_core.low.b", source)
        return [breach.subject for breach in rules.upward_imports([low, high], ranks)]

    assert found("") == []
    assert found("import tokenhub_core.high.a") == ["tokenhub_core.low.b"]
    assert found("from tokenhub_core.high import a") == ["tokenhub_core.low.b"]
    assert found("from ..high.a import x") == ["tokenhub_core.low.b"]
    assert found("if TYPE_CHECKING:\n    from tokenhub_core.high.a import x") == ["tokenhub_core.low.b"]
    assert [b.detail for b in rules.upward_imports([Module("tokenhub_core.new", "")], ranks)] == [
        "stands in no rank"
    ]


def test_a_cycle_is_seen_and_told_once() -> None:
    """Three modules in a ring are one breach; a package that re-exports its modules is none."""
    ring = [
        Module("a.x", "import a.y"),
        Module("a.y", "from a import z"),
        Module("a.z", "from a.x import thing"),
        Module("a.out", "import a.x"),
    ]
    package = [
        Module("a", "from a.x import thing", package=True),
        Module("a.x", "from a import y"),
        Module("a.y", ""),
    ]

    assert [breach.detail for breach in rules.cycles(ring)] == ["a.x ↔ a.y ↔ a.z"]
    assert list(rules.cycles(package)) == []


def test_a_forbidden_package_is_seen_in_every_form() -> None:
    """Whole, in part, and by a name from it."""
    for source in ("import mitmproxy", "import mitmproxy.http", "from mitmproxy.http import HTTPFlow"):
        assert list(rules.forbidden_imports(Module("tokenhub_core.x", source), ("mitmproxy",))) != []
    assert list(rules.forbidden_imports(Module("tokenhub_core.x", "import mitm"), ("mitmproxy",))) == []


def test_long_functions_are_counted_over_the_whole_house() -> None:
    """One in a hundred may be longer than a page."""
    short, long = "def f(): pass\n", "def f():\n" + "    a = 1\n" * 60

    assert list(rules.too_many_long_functions([Module("x", short * 99 + long)])) == []
    assert list(rules.too_many_long_functions([Module("x", short * 98 + long * 2)])) != []


def test_an_exception_that_is_not_needed_is_told() -> None:
    """The list of exceptions shrinks when the house gets better."""
    rule, subject = next(iter(EXCEPTIONS))
    others = {Breach(name, other) for name, other in EXCEPTIONS if name == rule and other != subject}

    assert _beyond(others, rule) == ([], [subject])
    assert _beyond({*others, Breach(rule, subject), Breach(rule, "new")}, rule) == ([Breach(rule, "new")], [])


# --- What an import costs -----------------------------------------------------------------------------------

_PROBE = """
import json, sys
seen = []
def audit(event, args):
    if event == "open":
        path = str(args[0])
        if isinstance(args[0], int) or path.endswith((".py", ".pyc", ".so", ".pth")):
            return  # the import system itself
        seen.append(f"open {path}")
    elif event.startswith(("socket.", "subprocess.", "sqlite3.", "shutil.", "tempfile.", "os.system", "os.mkdir",
                           "os.remove", "os.rename", "os.putenv", "os.exec", "os.fork", "os.posix_spawn")):
        seen.append(event)
before = set(sys.modules)
sys.addaudithook(audit)
for name in json.loads(sys.argv[1]):
    __import__(name)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([sorted(new - sys.stdlib_module_names - {"tokenhub_core"}), seen]))
"""


def _imported(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Import modules in a fresh interpreter; return others' packages that came along, and what was touched."""
    result = subprocess.run(
        # Without bytecode: where there is none yet, writing it would be touching something.
        [sys.executable, "-B", "-c", _PROBE, json.dumps([*names])],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    packages, touched = json.loads(result.stdout)
    return packages, touched


_CONTRACTS: Final = ("tokenhub_core", "tokenhub_core.types", "tokenhub_core.errors", "tokenhub_core.ports")
_PURE: Final = tuple(
    module.name for module in HOUSE if module.name.startswith("tokenhub_core") and module.name not in _SHELLS
)
_FOR_PURE: Final = {"argon2", "brotli", "cryptography", "msgspec", "orjson", "zstandard"}
"""Others' packages that the pure part needs before it is used."""
_THEIRS: Final = {"bcrypt", "typing_extensions"}
"""What those load in their turn."""


@pytest.mark.parametrize(
    ("names", "worth"), [(_CONTRACTS, {"msgspec"}), (_PURE, _FOR_PURE)], ids=["contracts", "pure"]
)
def test_importing_the_engine_brings_little_and_touches_nothing(
    names: tuple[str, ...], worth: set[str]
) -> None:
    """The package with its contracts, and the whole pure part, open nothing and load no package beyond these.

    That is what keeps the import quick; how quick it is, `scripts/bench --imports` measures.
    """
    packages, touched = _imported(names)

    assert touched == []
    assert {name for name in packages if not name.startswith("_")} - _THEIRS == worth


def test_what_an_import_touches_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that opens a file or a socket while it is imported would be caught."""
    (tmp_path / "guilty.py").write_text("import socket\nopen('/dev/null').close()\nsocket.socket().close()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    touched = _imported(("guilty",))[1]

    assert "open /dev/null" in touched
    assert "socket.__new__" in touched
