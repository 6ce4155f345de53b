"""Settings: one table of names, defaults and checks; the environment first, flags over it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from tokenhub_core.admission.addresses import networks
from tokenhub_core.errors import ConfigError
from tokenhub_core.leave import STEPS
from tokenhub_core.ports import Secret
from tokenhub_core.types import Form, Mode

PREFIX: Final = "TOKENHUB_"

_ELSEWHERE: Final = frozenset(
    {
        "TOKENHUB_ACTIVE",
        "TOKENHUB_RESTORE",
        "TOKENHUB_PYTHON",
        "TOKENHUB_DATA_DIR",
        "TOKENHUB_URL",
        "TOKENHUB_KEY",
    }
)
"""Variables with our prefix that other parts read."""


_MOST: Final = 1_000_000_000
"""Of anything that a limit counts."""
_NO_SECRET: Final = Secret("")


def _text(raw: str) -> str:
    return raw


def _flag(raw: str) -> bool:
    if raw.lower() in {"1", "true", "yes", "on"}:
        return True
    if raw.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(raw: str) -> float:
        value = float(raw)
        if not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        value = int(raw)
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return read


def _optional[T](read: Callable[[str], T], word: str = "none") -> Callable[[str], T | None]:
    return lambda raw: None if raw.lower() == word else read(raw)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return raw

    return read


def _zone(raw: str) -> str:
    try:
        return ZoneInfo(raw).key
    except (OSError, ValueError, KeyError):
        raise ValueError("must be a time zone that this machine knows, such as Europe/Berlin") from None


def _words(raw: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in raw.split(",") if word.strip())


def _some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    def read(raw: str) -> tuple[str, ...]:
        found = _words(raw)
        if not set(found) <= set(words):
            raise ValueError(f"must be some of {', '.join(words)}")
        return found

    return read


def _networks(raw: str) -> tuple[str, ...]:
    found = _words(raw)
    try:
        networks(found)
    except ValueError as error:
        raise ValueError(f"must be networks such as 10.0.0.0/8: {error}") from None
    return found


def _setting(
    default: Any,
    read: Callable[[str], Any],
    help: str,  # noqa: A002 - the field's own word
    nothing: str = "none",
) -> Any:
    return field(default=default, metadata={"read": read, "help": help, "nothing": nothing})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. The variable of a field is `TOKENHUB_` and its name in capitals."""

    data_dir: Path = field(default=Path(), metadata={})
    host: str = _setting("127.0.0.1", _text, "Address that both servers bind")
    port: int = _setting(8080, _whole(0, 65535), "Port of the proxy; 0 picks a free one")
    admin_port: int = _setting(8090, _whole(0, 65535), "Port of the side server; 0 picks a free one")
    workers: int = _setting(1, _whole(1, 64), "Processes that serve the two ports together")
    worker_hang_secs: float | None = _setting(
        60.0,
        _optional(_number(5, 86_400)),
        "After which a worker that shows no sign of life is killed and started again; none for never",
    )
    modes: tuple[str, ...] = _setting(("regular",), _words, "mitmproxy mode specs, comma separated")
    anonymous: bool = _setting(
        True, _flag, "Serve callers on this machine that show no key; others always need one"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), _words, "Names that the side server is called by, beside addresses and localhost"
    )
    client_credentials: tuple[str, ...] = _setting(
        (),
        _words,
        "What is done with the credential that a client brings for a host, as host=rule: use, replace or refuse",
    )
    lane: str = _setting("auto", _one_of("auto", "handoff", "inspect"), "Who reads intercepted HTTP")
    simulate: bool = _setting(False, _flag, "Answer from the built-in simulator")
    origin: bool = _setting(True, _flag, "Let the host that a call was meant for serve it")
    redis_url: Secret = _setting(
        _NO_SECRET,
        Secret,
        "Redis that several machines share for limits, health and events, as redis://…; empty for none",
    )
    db_dsn: Secret = _setting(
        _NO_SECRET,
        Secret,
        "Database: a path, or postgresql://…; empty means tokenhub.sqlite in the data directory",
    )
    db_password_file: str = _setting("", _text, "File that holds PostgreSQL's password")
    db_timeout_secs: float = _setting(
        5.0, _number(0.1, 300), "To wait for the database: for its lock, for one change"
    )
    db_synchronous: str = _setting(
        "FULL",
        _one_of("FULL", "NORMAL"),
        "With NORMAL a power failure may take the last records along, the end of a process none",
    )
    metrics_access: str = _setting(
        "local",
        _one_of("local", "token", "open"),
        "Who may read /metrics without a viewer's token: local, programs on this machine; token, nobody; open, all",
    )
    env_file: str = _setting(
        "",
        _text,
        "File of NAME=value lines, 0600, below the environment and flags; a reload reads it anew",
    )
    log_level: str = _setting("info", _one_of("debug", "info", "warn", "error"), "Least severe level logged")
    admin_token: Secret = _setting(_NO_SECRET, Secret, "Token of the admin API; made on first start if empty")
    credentials_file: str = _setting(
        "~/.tokenhub/credentials", _text, "JSON file of providers and keys, 0600"
    )
    vault_enabled: bool = _setting(True, _flag, "Keep credentials in the vault")
    vault_password: Secret = _setting(_NO_SECRET, Secret, "Unlocks the vault at start")
    vault_password_file: str = _setting("", _text, "File that holds the vault password")
    vault_password_fd: int | None = _setting(
        None, _optional(_whole(0, 1 << 20)), "Open file descriptor that the vault password comes from"
    )
    vault_auto_lock_secs: float = _setting(
        0.0, _number(0, 31_536_000), "Lock the vault after so long without use; 0 for never"
    )
    default_mode: Mode = _setting(Mode.NORMAL, Mode, "Routing mode where nothing else is said")
    default_max_budget_usd: float | None = _setting(
        None, _optional(_number(0, 100)), "Most that one call may cost, in dollars; none for no limit"
    )
    budget_zone: str = _setting(
        "UTC", _zone, "IANA time zone whose midnights bound the periods of budgets that name none"
    )
    default_max_latency_ms: int | None = _setting(
        None, _optional(_whole(1, 3_600_000)), "Most time for one call, in milliseconds; none for no limit"
    )
    fallback: bool = _setting(True, _flag, "Let other models stand in when the named one fails")
    explore: str = _setting(
        "off",
        _one_of("off", "thompson"),
        "How candidates are tried out where no model is named: thompson orders them by sampled rewards",
    )
    hedge: float | None = _setting(
        None,
        _optional(_number(0.5, 0.99), "off"),
        "Share of a model's streams that begin in time, such as 0.95: beside the others a second attempt is sent;"
        " off for never",
        "off",
    )
    affinity: str = _setting(
        "on",
        _one_of("on", "off"),
        "Know conversations again: one goes on where it must, and what a cache saves is counted",
    )
    lossy: bool = _setting(
        True,
        _flag,
        "Let providers serve whose dialect cannot carry all of a call; they are the second choice",
    )
    output_format: Form | None = _setting(
        None,
        _optional(Form),
        "Form of answers' text where nothing else is said: json, markdown, text or xml; none leaves it as it is",
    )
    strip_think: bool = _setting(False, _flag, "Take thoughts between tags out of answers' text")
    validate_output: bool = _setting(
        False, _flag, "Hold answers to the schema that a call brings in its own dialect's form"
    )
    buffer_checked: bool = _setting(
        False, _flag, "Hold streams that are checked until they have passed; they are repaired then, too"
    )
    guarded: bool = _setting(
        False, _flag, "Hold the beginning of streams, so that another provider can make a break in it good"
    )
    guard_secs: float = _setting(5.0, _number(0.05, 120), "Longest that it is held")
    guard_bytes: int = _setting(32 << 10, _whole(256, 16 << 20), "Most of it that is held")
    resume: bool = _setting(
        False, _flag, "Go on with streams that break at models with the quirk prefill, from what was said"
    )
    directives: str = _setting(
        "reject",
        _one_of("reject", "ignore", "off"),
        "What a malformed directive does; off leaves every directive in place",
    )
    directive_roles: tuple[str, ...] = _setting(
        ("user",),
        _some_of("user", "system", "developer"),
        "Roles whose directives are honoured where a key says nothing else",
    )
    directive_hosts: tuple[str, ...] = _setting(
        (),
        _words,
        "What directives may do in calls to a host, as host=off or host=mode+budget:0.05; * for any, direct for calls"
        " to TokenHub itself",
    )
    directive_steps: int = _setting(
        STEPS,
        _whole(1, 21),
        "The most calls that a directive may make of one, by mode=vote and such; 1 for none",
    )
    extra_hosts: tuple[str, ...] = _setting((), _words, "More hosts to intercept, as host=dialect")
    host_modes: tuple[str, ...] = _setting(
        (), _words, "What is done with calls to a host, as host=mode: route, shadow, observe or off"
    )
    key_requests_per_minute: int | None = _setting(
        None, _optional(_whole(1, _MOST)), "Requests a minute with one key that has no limit of its own"
    )
    key_tokens_per_minute: int | None = _setting(
        None,
        _optional(_whole(1, _MOST)),
        "Tokens a minute, input and output together, with one key that has no limit of its own",
    )
    key_concurrency: int | None = _setting(
        None, _optional(_whole(1, _MOST)), "Calls under way at once with one key that has no limit of its own"
    )
    key_max_output_tokens: int | None = _setting(
        None,
        _optional(_whole(1, _MOST)),
        "Output tokens that one call may ask for with one key that has no limit of its own",
    )
    address_requests_per_minute: int | None = _setting(
        None, _optional(_whole(1, _MOST)), "Requests a minute from one address without a key"
    )
    address_tokens_per_minute: int | None = _setting(
        None,
        _optional(_whole(1, _MOST)),
        "Tokens a minute, input and output together, from one address without a key",
    )
    address_concurrency: int | None = _setting(
        None, _optional(_whole(1, _MOST)), "Calls under way at once from one address without a key"
    )
    address_max_output_tokens: int | None = _setting(
        None,
        _optional(_whole(1, _MOST)),
        "Output tokens that one call may ask for from one address without a key",
    )
    admin_requests_per_minute: int | None = _setting(
        1200, _optional(_whole(1, _MOST)), "Requests a minute to the admin API from one address"
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), _networks, "Networks of proxies whose X-Forwarded-For or Forwarded is believed"
    )
    idempotency_ttl_secs: float = _setting(
        86_400.0, _number(1, 31_536_000), "How long an Idempotency-Key stands for its first call"
    )
    idempotency_cache_bytes: int = _setting(
        64 << 20, _whole(0, 1 << 34), "Memory for answers that can be given again"
    )
    idempotency_store: bool = _setting(
        False, _flag, "Keep those answers in the database as well, in the clear"
    )
    allow_private: tuple[str, ...] = _setting(
        (), _words, "Names, addresses and networks that are not public and may be reached all the same"
    )
    allow_http: bool = _setting(False, _flag, "Let providers be reached over plain http anywhere")
    max_calls: int | None = _setting(
        1000, _optional(_whole(1, 100_000)), "Calls under way at once, streams among them; none for no limit"
    )
    queue_ms: float = _setting(
        50.0, _number(0, 60_000), "For a call above that number to wait for a place, before it is refused"
    )
    max_body_bytes: int = _setting(32 << 20, _whole(1024, 1 << 30), "Largest request body")
    max_attempts: int = _setting(5, _whole(1, 20), "Most attempts for one call")
    eject_rate: float | None = _setting(
        0.5,
        _optional(_number(0.1, 1), "off"),
        "Share of a provider's attempts in a minute, at least 20, whose failure ejects it like five in a row; off for"
        " none",
        "off",
    )
    connect_timeout_secs: float = _setting(5.0, _number(0.05, 120), "To connect to a provider")
    ttft_timeout_secs: float = _setting(120.0, _number(0.05, 3600), "To the first content of a stream")
    ttft_floor_secs: float | None = _setting(
        10.0,
        _optional(_number(0.05, 3600), "off"),
        "The least of that for a model that is known to begin sooner, while another provider is left to be asked; off"
        " for always all of it",
        "off",
    )
    stall_timeout_secs: float = _setting(90.0, _number(0.05, 3600), "Between two pieces of a stream")
    stall_floor_secs: float | None = _setting(
        30.0,
        _optional(_number(0.05, 3600), "off"),
        "The least of that for a model whose streams are known to go on sooner, once one has begun; off for always all"
        " of it",
        "off",
    )
    model_timeouts: tuple[str, ...] = _setting(
        (),
        _words,
        "Other limits for single models' streams, as model=ttft:SECONDS+stall:SECONDS; patterns and provider/model,"
        " too",
    )
    provider_timeout_secs: float = _setting(
        600.0, _number(0.05, 3600), "For a whole answer that is not streamed"
    )
    total_timeout_secs: float = _setting(
        900.0, _number(0.05, 7200), "For all attempts of a call together, a stream's up to its first content"
    )
    stream_gather_ms: float = _setting(
        10.0,
        _number(0, 1000),
        "What a stream brings within this time of the last piece is written with the next",
    )
    keep_alive_secs: float = _setting(
        15.0, _number(0.05, 3600), "After so much silence in a stream the caller gets a sign of life"
    )
    drain_secs: float = _setting(
        30.0,
        _number(0.05, 3600),
        "To read on after a caller has left, where the provider's policy for that is drain",
    )
    drain_bytes: int = _setting(4 << 20, _whole(1024, 1 << 30), "Most that is read on of one answer then")
    drains: int = _setting(64, _whole(0, 100_000), "Most answers that are read on at once")
    shutdown_drain_secs: float = _setting(30.0, _number(0, 3600), "To let calls end when asked to stop")
    capture: str = _setting(
        "none",
        _one_of("none", "redacted", "full"),
        "What is kept of the text of calls, sealed by the vault, where their key says nothing else",
    )
    capture_days: int = _setting(7, _whole(1, 3650), "Days after which kept text is deleted")
    capture_max_bytes: int = _setting(
        65_536, _whole(256, 16 << 20), "Most of a request, and of an answer, that is kept"
    )
    log_retention_days: int | None = _setting(
        None, _optional(_whole(1, 3650)), "Days after which records of calls are deleted; none for never"
    )
    decision_retention_days: int | None = _setting(
        None,
        _optional(_whole(1, 3650)),
        "Days after which records of calls lose their decision; none for never",
    )
    spend_retention_days: int | None = _setting(
        None,
        _optional(_whole(1, 3650)),
        "Days after which what budgets came to in past periods is deleted; none for never",
    )
    audit_retention_days: int | None = _setting(
        None,
        _optional(_whole(30, 3650)),
        "Days after which the beginning of the audit log is cut off, and an entry says so; none for never",
    )
    proof_retention_days: int | None = _setting(
        None, _optional(_whole(1, 3650)), "The same of the proofs; none for never"
    )
    webhook_retention_days: int | None = _setting(
        30,
        _optional(_whole(1, 3650)),
        "Days after which events that a webhook was not told of are deleted; none for never",
    )
    series_10s_days: int = _setting(
        2, _whole(2, 3650), "Days for which time series are kept in stretches of ten seconds"
    )
    series_1m_days: int = _setting(14, _whole(2, 3650), "The same in minutes")
    series_1h_days: int | None = _setting(400, _optional(_whole(2, 3650)), "The same in hours; none for ever")
    series_1d_days: int | None = _setting(
        None, _optional(_whole(2, 3650)), "The same in days of UTC; none for ever"
    )
    series_max: int = _setting(
        2000, _whole(1, 100_000), "Time series of one day; calls of more are counted together, as other"
    )
    proof: str = _setting(
        "off",
        _one_of("off", "tools", "all"),
        "What is proved of answers: that tool calls, or with all their words too, are what the provider sent",
    )
    parking_retention_days: int | None = _setting(
        None,
        _optional(_whole(1, 3650)),
        "Days after which the history of parkings is deleted; none for never",
    )
    temporal_enabled: bool = _setting(False, _flag, "Let calls be durable, as workflows of Temporal")
    temporal_host: str = _setting("localhost:7233", _text, "Address of Temporal's front end, as host:port")
    temporal_namespace: str = _setting("tokenhub", _text, "Namespace of the workflows")
    temporal_task_queue: str = _setting("tokenhub-tasks", _text, "Task queue that workers take them from")
    temporal_calls: str = _setting(
        "asked", _one_of("asked", "all"), "Which calls are durable: those whose directive says so, or all"
    )
    temporal_begin_secs: float = _setting(
        5.0, _number(0.05, 600), "For a worker to begin a durable call, before it is made directly"
    )
    temporal_worker: bool = _setting(True, _flag, "Run a worker in the server itself")
    temporal_tls: bool = _setting(False, _flag, "Speak TLS with Temporal")
    temporal_tls_ca_file: str = _setting("", _text, "Certificate authorities for Temporal's TLS, in PEM")
    temporal_tls_cert_file: str = _setting("", _text, "Our certificate for Temporal, in PEM")
    temporal_tls_key_file: str = _setting("", _text, "The private key of that certificate, in PEM")
    temporal_api_key: Secret = _setting(_NO_SECRET, Secret, "API key for Temporal, where it asks for one")
    otel_endpoint: str = _setting(
        "",
        _text,
        "Collector that is told of calls over OTLP/HTTP, such as https://collector:4318; empty for off",
    )
    otel_signals: tuple[str, ...] = _setting(
        ("traces",), _some_of("traces", "metrics", "logs"), "What it is told: traces, metrics, logs"
    )
    otel_headers: Secret = _setting(
        _NO_SECRET, Secret, "Fields for the collector, as name=value, comma separated"
    )
    otel_sample: float = _setting(
        1.0, _number(0, 1), "Share of traces that is kept; those of calls that fail always are"
    )
    otel_parents: str = _setting(
        "parent",
        _one_of("parent", "link", "ignore"),
        "What a caller's traceparent is: parent of our span, link from a trace of ours, or ignored",
    )
    otel_propagate: bool = _setting(
        False, _flag, "Tell registered providers of our span in the place of the caller's"
    )
    otel_ca_file: str = _setting("", _text, "Certificate authorities for the collector's TLS, in PEM")
    otel_cert_file: str = _setting("", _text, "Our certificate for the collector, in PEM")
    otel_key_file: str = _setting("", _text, "The private key of that certificate, in PEM")
    ca_file: str = _setting("", _text, "More certificate authorities for providers' TLS")


_FIELDS: Final = {f.name: f for f in fields(Settings) if f.metadata}


def parse(
    environ: Mapping[str, str], *, data_dir: Path, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings of this environment; `overrides` (typed, by field name) win, None meaning unset.

    An empty variable means the default. Raises ConfigError that names the variable and what it must be.
    """
    values: dict[str, Any] = {"data_dir": data_dir}
    for name, spec in _FIELDS.items():
        raw = environ.get(PREFIX + name.upper(), "").strip()
        if not raw:
            continue
        try:
            values[name] = spec.metadata["read"](raw)
        except ValueError as error:
            raise ConfigError(f"{PREFIX}{name.upper()}={raw!r}: {_reason(error, name)}") from None
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    return replace(Settings(**values), **given)


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable with our prefix that nothing reads, with the likely right name."""
    known = [name.upper() for name in _FIELDS]
    warnings = []
    for name in sorted(environ):
        bare = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and bare not in known and name not in _ELSEWHERE:
            # Without the prefix: it would make any two names alike.
            close = difflib.get_close_matches(bare, known, 1)
            meant = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            warnings.append(f"{name} is not a setting{meant}")
    return warnings


def table() -> list[tuple[str, str, str]]:
    """Return (variable, default, help) of every setting, for documents and `--help`."""
    return [
        (PREFIX + name.upper(), shown(name, spec.default), spec.metadata["help"])
        for name, spec in _FIELDS.items()
    ]


def names() -> tuple[str, ...]:
    """Return the settings' names, in their order."""
    return tuple(_FIELDS)


def shown(name: str, value: Any) -> str:
    """Return the value of a setting as its variable would say it; of a secret only that there is one."""
    if isinstance(value, Secret):
        return "(redacted)" if value else ""
    if value is None:
        return str(_FIELDS[name].metadata["nothing"])
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class Standing(NamedTuple):
    """One setting as it is. `source` is `default`, `environment`, or `started with`: a flag, or a file of ours."""

    variable: str
    value: str
    default: str
    source: str
    text: str
    secret: bool
    """Its value is never shown, only whether there is one."""


def standing(settings: Settings, environ: Mapping[str, str]) -> list[Standing]:
    """Return every setting as it is; `environ` is what the settings were read from."""
    rows = []
    for name, spec in _FIELDS.items():
        variable, value = PREFIX + name.upper(), getattr(settings, name)
        raw = environ.get(variable, "").strip()
        if raw and plain(spec.metadata["read"](raw)) == plain(value):
            source = "environment"
        else:
            source = "default" if plain(value) == plain(spec.default) else "started with"
        default, text = shown(name, spec.default), spec.metadata["help"]
        rows.append(Standing(variable, shown(name, value), default, source, text, isinstance(value, Secret)))
    return rows


def plain(value: Any) -> Any:
    """Return the value of a setting to compare, a secret's too."""
    return value.reveal() if isinstance(value, Secret) else value


def _reason(error: ValueError, name: str) -> str:
    if name == "default_mode":
        return f"must be one of {', '.join(Mode)}"
    text = str(error)
    return text if text.startswith("must ") else "must be a number"
