"""Every setting: its variable, its bounds, and what is said of a bad one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tokenhub_core import config
from tokenhub_core.config import PREFIX, Settings, parse, table, unknown
from tokenhub_core.errors import ConfigError
from tokenhub_core.ports import Secret
from tokenhub_core.types import Form, Mode

HERE = Path("/data")

GOOD: dict[str, tuple[str, Any]] = {
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "admin_port": ("65535", 65535),
    "workers": ("4", 4),
    "worker_hang_secs": ("none", None),
    "modes": ("regular, socks5@1080,", ("regular", "socks5@1080")),
    "anonymous": ("off", False),
    "allowed_hosts": ("llm.example, b.example", ("llm.example", "b.example")),
    "client_credentials": ("api.openai.com=replace,*=use", ("api.openai.com=replace", "*=use")),
    "lane": ("inspect", "inspect"),
    "simulate": ("YES", True),
    "origin": ("off", False),
    "db_password_file": ("/run/secrets/db", "/run/secrets/db"),
    "db_timeout_secs": ("2.5", 2.5),
    "parking_retention_days": ("30", 30),
    "db_synchronous": ("NORMAL", "NORMAL"),
    "log_level": ("debug", "debug"),
    "guarded": ("on", True),
    "resume": ("1", True),
    "guard_secs": ("1", 1.0),
    "guard_bytes": ("256", 256),
    "drain_secs": ("12", 12.0),
    "drain_bytes": ("2048", 2048),
    "drains": ("0", 0),
    "env_file": ("/etc/tokenhub/env", "/etc/tokenhub/env"),
    "credentials_file": ("~/keys", "~/keys"),
    "vault_enabled": ("0", False),
    "vault_password_file": ("/x", "/x"),
    "vault_password_fd": ("3", 3),
    "vault_auto_lock_secs": ("900", 900.0),
    "default_mode": ("cheap", Mode.CHEAP),
    "default_max_budget_usd": ("0", 0.0),
    "budget_zone": ("Europe/Berlin", "Europe/Berlin"),
    "default_max_latency_ms": ("none", None),
    "fallback": ("false", False),
    "directives": ("ignore", "ignore"),
    "directive_roles": ("user,system", ("user", "system")),
    "directive_steps": ("3", 3),
    "directive_hosts": ("api.openai.com=off,*=mode+tags", ("api.openai.com=off", "*=mode+tags")),
    "extra_hosts": ("llm.example=openai_chat", ("llm.example=openai_chat",)),
    "host_modes": ("api.openai.com=shadow", ("api.openai.com=shadow",)),
    "key_requests_per_minute": ("60", 60),
    "key_tokens_per_minute": ("100000", 100_000),
    "key_concurrency": ("1", 1),
    "key_max_output_tokens": ("4096", 4096),
    "address_requests_per_minute": ("60", 60),
    "address_tokens_per_minute": ("1000000000", 10**9),
    "address_concurrency": ("8", 8),
    "address_max_output_tokens": ("1", 1),
    "admin_requests_per_minute": ("none", None),
    "trusted_proxies": ("10.0.0.0/8, fd00::/8,192.0.2.1", ("10.0.0.0/8", "fd00::/8", "192.0.2.1")),
    "idempotency_ttl_secs": ("60", 60.0),
    "idempotency_cache_bytes": ("0", 0),
    "idempotency_store": ("on", True),
    "allow_private": ("10.0.0.7", ("10.0.0.7",)),
    "allow_http": ("1", True),
    "max_calls": ("200", 200),
    "queue_ms": ("20", 20.0),
    "max_body_bytes": ("1024", 1024),
    "max_attempts": ("20", 20),
    "eject_rate": ("0.3", 0.3),
    "connect_timeout_secs": ("0.05", 0.05),
    "ttft_timeout_secs": ("3600", 3600.0),
    "ttft_floor_secs": ("off", None),
    "stall_timeout_secs": ("1e2", 100.0),
    "stall_floor_secs": ("off", None),
    "model_timeouts": ("gpt-5*=ttft:300+stall:60", ("gpt-5*=ttft:300+stall:60",)),
    "provider_timeout_secs": ("1", 1.0),
    "total_timeout_secs": ("2", 2.0),
    "lossy": ("no", False),
    "explore": ("thompson", "thompson"),
    "hedge": ("0.95", 0.95),
    "output_format": ("json", Form.JSON),
    "strip_think": ("true", True),
    "validate_output": ("true", True),
    "buffer_checked": ("true", True),
    "affinity": ("off", "off"),
    "stream_gather_ms": ("0", 0.0),
    "keep_alive_secs": ("30", 30.0),
    "shutdown_drain_secs": ("0", 0.0),
    "capture": ("redacted", "redacted"),
    "capture_days": ("30", 30),
    "capture_max_bytes": ("1024", 1024),
    "log_retention_days": ("90", 90),
    "decision_retention_days": ("7", 7),
    "spend_retention_days": ("800", 800),
    "audit_retention_days": ("400", 400),
    "proof_retention_days": ("60", 60),
    "webhook_retention_days": ("14", 14),
    "series_10s_days": ("3", 3),
    "series_1m_days": ("30", 30),
    "series_1h_days": ("none", None),
    "series_1d_days": ("800", 800),
    "series_max": ("500", 500),
    "proof": ("tools", "tools"),
    "temporal_enabled": ("true", True),
    "temporal_host": ("temporal.example:7233", "temporal.example:7233"),
    "temporal_namespace": ("llm", "llm"),
    "temporal_task_queue": ("calls", "calls"),
    "temporal_calls": ("all", "all"),
    "temporal_begin_secs": ("60", 60.0),
    "temporal_worker": ("no", False),
    "temporal_tls": ("on", True),
    "temporal_tls_ca_file": ("/temporal-ca.pem", "/temporal-ca.pem"),
    "temporal_tls_cert_file": ("/us.pem", "/us.pem"),
    "temporal_tls_key_file": ("/us.key", "/us.key"),
    "metrics_access": ("token", "token"),
    "otel_endpoint": ("https://collector:4318", "https://collector:4318"),
    "otel_signals": ("traces,logs", ("traces", "logs")),
    "otel_sample": ("0.1", 0.1),
    "otel_parents": ("link", "link"),
    "otel_propagate": ("on", True),
    "otel_ca_file": ("/otel-ca.pem", "/otel-ca.pem"),
    "otel_cert_file": ("/otel.pem", "/otel.pem"),
    "otel_key_file": ("/otel.key", "/otel.key"),
    "ca_file": ("/ca.pem", "/ca.pem"),
}
SECRET = ("admin_token", "redis_url", "db_dsn", "vault_password", "temporal_api_key", "otel_headers")

BAD: list[tuple[str, str, str]] = [
    ("port", "65536", "between 0 and 65535"),
    ("port", "-1", "between 0 and 65535"),
    ("port", "http", "a number"),
    ("port", "80.5", "a number"),
    ("lane", "Handoff", "one of auto, handoff, inspect"),
    ("simulate", "maybe", "true or false"),
    ("db_synchronous", "OFF", "one of FULL, NORMAL"),
    ("db_timeout_secs", "0", "between 0.1 and 300"),
    ("log_level", "loud", "one of debug"),
    ("default_mode", "fast", "one of cheap, normal"),
    ("default_max_budget_usd", "-1", "between 0 and 100"),
    ("default_max_budget_usd", "nan", "between 0 and 100"),
    ("default_max_budget_usd", "inf", "between 0 and 100"),
    ("default_max_latency_ms", "0", "between 1 and 3600000"),
    ("budget_zone", "Berlin", "time zone that this machine knows"),
    ("budget_zone", "/etc/localtime", "time zone that this machine knows"),
    ("directives", "yes", "one of reject, ignore, off"),
    ("directive_steps", "0", "between 1 and 21"),
    ("directive_roles", "user,everybody", "some of user, system"),
    ("max_calls", "0", "between 1 and"),
    ("queue_ms", "-1", "between 0 and"),
    ("max_body_bytes", "1023", "between 1024"),
    ("max_attempts", "0", "between 1 and 20"),
    ("eject_rate", "0", "between 0.1 and 1"),
    ("key_concurrency", "0", "between 1 and"),
    ("address_tokens_per_minute", "many", "a number"),
    ("trusted_proxies", "10.0.0.0/8,proxy", "networks such as 10.0.0.0/8"),
    ("idempotency_ttl_secs", "0", "between 1 and"),
    ("hedge", "1", "between 0.5 and 0.99"),
    ("hedge", "yes", "a number"),
    ("temporal_calls", "some", "one of asked, all"),
    ("connect_timeout_secs", "0", "between 0.05 and 120"),
    ("shutdown_drain_secs", "soon", "a number"),
    ("ttft_floor_secs", "0", "between 0.05 and 3600"),
    ("stall_floor_secs", "soon", "a number"),
]


def test_the_table_of_this_test_is_whole() -> None:
    """Every setting is tried below."""
    assert {*GOOD, *SECRET, "data_dir"} == {field.name for field in fields(Settings)}


@pytest.mark.parametrize("name", GOOD)
def test_each_variable_sets_its_field(name: str) -> None:
    """And no other; spaces around a value do not count."""
    raw, value = GOOD[name]
    given = parse({PREFIX + name.upper(): f" {raw} "}, data_dir=HERE)
    plain = parse({}, data_dir=HERE)
    assert getattr(given, name) == value
    others = [field.name for field in fields(Settings) if field.name not in {name, *SECRET}]
    assert [getattr(given, other) for other in others] == [getattr(plain, other) for other in others]


@pytest.mark.parametrize("name", SECRET)
def test_secrets_are_secrets(name: str) -> None:
    """They are read, and shown neither by the settings nor by the table for documents."""
    given = parse({PREFIX + name.upper(): "hunter2"}, data_dir=HERE)
    secret = getattr(given, name)
    assert isinstance(secret, Secret)
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in repr(given)
    assert not getattr(parse({}, data_dir=HERE), name)


@pytest.mark.parametrize(("name", "raw", "why"), BAD)
def test_a_bad_value_names_itself(name: str, raw: str, why: str) -> None:
    """One line: the variable, what stands there, what must."""
    with pytest.raises(ConfigError) as refused:
        parse({PREFIX + name.upper(): raw}, data_dir=HERE)
    message = str(refused.value)
    assert PREFIX + name.upper() in message
    assert raw in message
    assert why in message
    assert "\n" not in message


def test_an_empty_variable_means_the_default() -> None:
    """As compose files and shells write it."""
    empty = {PREFIX + name.upper(): "  " for name in GOOD}
    plain = parse({}, data_dir=HERE)
    assert [getattr(parse(empty, data_dir=HERE), n) for n in GOOD] == [getattr(plain, n) for n in GOOD]


def test_flags_win_over_variables_and_none_is_no_flag() -> None:
    """An option that was not given leaves what the environment says."""
    environ = {"TOKENHUB_PORT": "1", "TOKENHUB_ADMIN_PORT": "2"}
    given = parse(environ, data_dir=HERE, overrides={"port": 3, "admin_port": None, "simulate": False})
    assert (given.port, given.admin_port, given.data_dir) == (3, 2, HERE)


def test_a_variable_that_nothing_reads_is_told_with_its_likely_name() -> None:
    """Misspelt ones with a suggestion; other people's variables and those of our launcher are left alone."""
    environ = {
        "TOKENHUB_PRT": "1",
        "TOKENHUB_XYZZY": "1",
        "TOKENHUB_PORT": "1",
        "TOKENHUB_DATA_DIR": "/d",
        "TOKENHUB_ACTIVE": "1",
        "OPENAI_API_KEY": "sk",
    }
    assert unknown(environ) == [
        "TOKENHUB_PRT is not a setting; did you mean TOKENHUB_PORT?",
        "TOKENHUB_XYZZY is not a setting",
    ]


def test_every_setting_is_in_the_table_for_documents() -> None:
    """With its variable, its default as one would write it, and a sentence."""
    rows = {variable: (default, sentence) for variable, default, sentence in table()}
    assert {*rows} == {PREFIX + name.upper() for name in (*GOOD, *SECRET)}
    assert rows["TOKENHUB_MODES"][0] == "regular"
    assert rows["TOKENHUB_SIMULATE"][0] == "false"
    assert rows["TOKENHUB_DEFAULT_MAX_BUDGET_USD"][0] == "none"
    assert rows["TOKENHUB_ADMIN_TOKEN"][0] == ""
    assert rows["TOKENHUB_HEDGE"][0] == "off"
    assert all(sentence for _, sentence in rows.values())


def test_what_the_table_says_is_what_one_may_write() -> None:
    """Each default of the table, put into its variable, changes nothing."""
    written = {variable: default for variable, default, _ in config.table() if default}
    plain = parse({}, data_dir=HERE)
    again = parse(written, data_dir=HERE)
    assert [getattr(again, name) for name in GOOD] == [getattr(plain, name) for name in GOOD]
