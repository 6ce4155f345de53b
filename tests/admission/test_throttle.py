"""Who is limited by what, what a refusal says, and what is told of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core import config
from tokenhub_core.admission import headers as told
from tokenhub_core.admission.addresses import Addresses, networks
from tokenhub_core.admission.quotas import MINUTE, SECOND
from tokenhub_core.admission.throttle import Stay, Throttle, throttle, without_limits
from tokenhub_core.errors import Fault, Kind, TokenHubError
from tokenhub_core.types import ApiKey, Caller, Dialect, Headers, KeyLimits

CHAT: Final = Dialect.OPENAI_CHAT
ANN: Final = Caller(peer="203.0.113.9", key=ApiKey(id="ann"))


def keyed(name: str = "ann", /, **limits: int) -> Caller:
    return Caller(peer="203.0.113.9", key=ApiKey(id=name, limits=KeyLimits(**limits)))


def anonymous(peer: str = "203.0.113.9") -> Caller:
    return Caller(peer=peer)


def visited(limits: Throttle, caller: Caller, now: int = 0, headers: Headers = ()) -> Stay:
    stay = limits.visit(caller, headers, now)
    assert stay is not None
    return stay


def entered(limits: Throttle, caller: Caller, now: int = 0, headers: Headers = ()) -> Stay:
    stay = visited(limits, caller, now, headers)
    stay.enter(now)
    return stay


def refused(limits: Throttle, caller: Caller, now: int = 0, headers: Headers = ()) -> Fault:
    stay = visited(limits, caller, now, headers)
    foreseen = stay.refusal(now)
    with pytest.raises(TokenHubError) as raised:
        stay.enter(now)
    assert raised.value.fault == foreseen
    stay.leave(0, now)  # who was not let in has nothing to give back
    return raised.value.fault


# --- who ----------------------------------------------------------------------------------------------------


def test_where_nothing_is_limited_nothing_is_counted() -> None:
    """Neither a key nor an address has an account then."""
    limits = Throttle()
    assert limits.visit(ANN, (), 0) is None
    assert limits.visit(anonymous(), (), 0) is None
    assert Throttle(KeyLimits(concurrency=1)).visit(anonymous(), (), 0) is None
    assert Throttle(addresses=KeyLimits(concurrency=1)).visit(ANN, (), 0) is None


def test_a_keys_own_limit_stands_above_the_default() -> None:
    """Each of the four by itself."""
    default = KeyLimits(1, 2, 3, 4)
    for name in ("requests_per_minute", "tokens_per_minute", "concurrency", "max_output_tokens"):
        stay = visited(Throttle(default), keyed(**{name: 9}))
        expected = {**{key: getattr(default, key) for key in default.__struct_fields__}, name: 9}
        assert stay._account.limits == KeyLimits(**expected)
    assert visited(Throttle(default), ANN)._account.limits == default


def test_keys_are_counted_apart_and_wherever_they_call_from() -> None:
    """One key at two addresses is one; two keys at one address are two."""
    limits = Throttle(KeyLimits(requests_per_minute=1))
    entered(limits, keyed("ann"))
    entered(limits, keyed("bob"))
    moved = Caller(peer="198.51.100.7", key=ApiKey(id="ann"))
    assert refused(limits, moved).cause == "key_requests"


def test_an_address_is_what_a_trusted_proxy_says() -> None:
    """Behind it each client has a limit of its own, and none can get a second one by a field."""
    limits = Throttle(addresses=KeyLimits(requests_per_minute=1), finder=Addresses(networks(["10.0.0.0/8"])))
    proxy = anonymous("10.0.0.1")
    entered(limits, proxy, headers=(("x-forwarded-for", "198.51.100.1"),))
    entered(limits, proxy, headers=(("x-forwarded-for", "198.51.100.2"),))
    spoofed = (("x-forwarded-for", "8.8.8.8, 198.51.100.1"),)
    assert refused(limits, proxy, headers=spoofed).cause == "address_requests"
    entered(limits, anonymous(), headers=(("x-forwarded-for", "1.1.1.1"),))
    assert refused(limits, anonymous(), headers=(("x-forwarded-for", "2.2.2.2"),)).cause == "address_requests"


# --- requests and calls at once -----------------------------------------------------------------------------


def test_too_many_requests_are_told_when_to_come_back() -> None:
    """429 with the wait, to the moment from which it will do."""
    limits = Throttle(KeyLimits(requests_per_minute=2))
    entered(limits, ANN)
    entered(limits, ANN)
    fault = refused(limits, ANN)
    assert (fault.http_status, fault.cause, fault.retry_after) == (429, "key_requests", 30.0)
    assert fault.message == "this key may make 2 requests a minute"
    entered(limits, ANN, 30 * SECOND)


def test_a_refused_request_costs_nothing() -> None:
    """Who keeps trying does not keep himself out."""
    limits = Throttle(KeyLimits(requests_per_minute=1, concurrency=1))
    stay = entered(limits, ANN)
    for _ in range(5):
        assert refused(limits, ANN).cause == "key_concurrency"
    stay.leave(0, 0)
    for _ in range(5):
        assert refused(limits, ANN).cause == "key_requests"
    entered(limits, ANN, MINUTE)


def test_calls_at_once_are_those_that_have_not_ended() -> None:
    """A place is free when a call leaves, and once only."""
    limits = Throttle(KeyLimits(concurrency=2))
    first, second = entered(limits, ANN), entered(limits, ANN)
    fault = refused(limits, ANN)
    assert (fault.http_status, fault.retry_after) == (429, 1.0)
    assert fault.message == "this key may have 2 calls under way at once"
    first.leave(0, 0)
    first.leave(0, 0)
    entered(limits, ANN)
    assert refused(limits, ANN).cause == "key_concurrency"
    second.leave(0, 0)


def test_a_limit_of_nothing_lets_nothing_in_and_promises_nothing() -> None:
    """There is no time after which it would be otherwise."""
    assert refused(Throttle(), keyed(requests_per_minute=0)).retry_after is None
    assert refused(Throttle(), keyed(concurrency=0)).retry_after is None


@given(
    most=st.integers(1, 4),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 500)), max_size=40),
)
def test_whatever_comes_and_goes_the_places_add_up(most: int, steps: list[tuple[bool, int, int]]) -> None:
    """There are never more calls than places, and when all have left the account is as at first."""
    limits = Throttle(KeyLimits(concurrency=most, tokens_per_minute=1000))
    inside: list[Stay] = []
    for comes, which, tokens in steps:
        if comes:
            stay = visited(limits, ANN)
            try:
                stay.enter(0)
                inside.append(stay)
                stay.reserve(tokens, 0)
            except TokenHubError:
                pass
        elif inside:
            inside.pop(which % len(inside)).leave(0, 0)
        assert visited(limits, ANN)._account.calls == len(inside) <= most
    for stay in inside:
        stay.leave(0, 0)
    assert visited(limits, ANN)._account.rests(0)


# --- tokens -------------------------------------------------------------------------------------------------


def test_tokens_are_reserved_and_corrected() -> None:
    """What a call may need is gone while it lasts; what it did not use is there again."""
    limits = Throttle(KeyLimits(tokens_per_minute=100))
    stay = entered(limits, ANN)
    stay.reserve(80, 0)
    other = entered(limits, ANN)
    with pytest.raises(TokenHubError) as raised:
        other.reserve(30, 0)
    fault = raised.value.fault
    assert (fault.http_status, fault.cause, fault.retry_after) == (429, "key_tokens", 6.0)
    assert fault.message == "this key may use 100 tokens a minute, and the call may need 30"
    other.leave(0, 0)
    stay.leave(20, 0)
    entered(limits, ANN).reserve(80, 0)


def test_a_call_that_never_fits_is_not_told_to_wait() -> None:
    """413: to try again would not help."""
    limits = Throttle(KeyLimits(tokens_per_minute=100))
    with pytest.raises(TokenHubError) as raised:
        entered(limits, ANN).reserve(101, 0)
    fault = raised.value.fault
    assert (fault.kind, fault.http_status, fault.cause) == (Kind.TOO_LARGE, 413, "key_tokens_too_many")
    assert fault.retry_after is None
    entered(limits, ANN).reserve(100, 0)


def test_without_a_limit_of_tokens_none_are_counted() -> None:
    """Any number will do."""
    limits = Throttle(KeyLimits(concurrency=1))
    stay = entered(limits, ANN)
    stay.reserve(10**12, 0)
    stay.leave(10**12, 0)
    entered(limits, ANN)


def test_a_reservation_that_has_drained_is_not_given_back() -> None:
    """It counts from when the call came, not from when it ends."""
    limits = Throttle(KeyLimits(tokens_per_minute=100))
    first = entered(limits, ANN)
    first.reserve(100, 0)
    second = entered(limits, ANN, MINUTE)
    second.reserve(100, MINUTE)
    first.leave(0, MINUTE)
    with pytest.raises(TokenHubError):
        entered(limits, ANN, MINUTE).reserve(1, MINUTE)


# --- the length of an answer --------------------------------------------------------------------------------


def test_more_output_than_allowed_is_refused() -> None:
    """400, which names both numbers; as much as allowed is fine."""
    stay = entered(Throttle(), keyed(max_output_tokens=100))
    assert stay.most_output == 100
    stay.check_output(100)
    with pytest.raises(TokenHubError) as raised:
        stay.check_output(101)
    fault = raised.value.fault
    assert (fault.http_status, fault.cause) == (400, "key_output")
    assert fault.message == "this key may ask for 100 output tokens, and not for 101"
    entered(Throttle(), keyed(concurrency=1)).check_output(10**9)


# --- what is told -------------------------------------------------------------------------------------------


def test_openai_callers_are_told_as_openai_tells() -> None:
    """Limit, what is left and when it is all there again; of what is limited only."""
    limits = Throttle(KeyLimits(requests_per_minute=60, tokens_per_minute=1000))
    stay = entered(limits, ANN)
    stay.reserve(990, 0)
    assert dict(stay.headers(CHAT, now=0, at=0.0)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "59.4s",
    }
    only = entered(Throttle(KeyLimits(concurrency=5)), ANN)
    assert only.headers(CHAT, now=0, at=0.0) == ()


@pytest.mark.parametrize(
    ("tokens", "reset"),
    [(0, "0ms"), (1, "60ms"), (16, "960ms"), (17, "1.02s"), (999, "59.94s"), (1000, "1m0s"), (1300, "1m18s")],
)
def test_a_time_is_written_as_openai_writes_it(tokens: int, reset: str) -> None:
    """Milliseconds below a second, minutes above one."""
    limits = Throttle(KeyLimits(tokens_per_minute=1000))
    stay = entered(limits, ANN)
    stay.leave(tokens, 0)
    assert dict(stay.headers(CHAT, now=0, at=0.0))["x-ratelimit-reset-tokens"] == reset


@pytest.mark.parametrize("dialect", [Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS])
def test_anthropic_callers_are_told_as_anthropic_tells(dialect: Dialect) -> None:
    """With the moment of the reset, never a second too early."""
    limits = Throttle(KeyLimits(requests_per_minute=7, tokens_per_minute=1000))
    stay = entered(limits, ANN)
    stay.reserve(500, 0)
    assert dict(stay.headers(dialect, now=0, at=1_767_225_600.2)) == {
        "anthropic-ratelimit-requests-limit": "7",
        "anthropic-ratelimit-requests-remaining": "6",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:09Z",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "500",
        "anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:31Z",
    }


@pytest.mark.parametrize(("vendor", "dialect"), [("openai", CHAT), ("anthropic", Dialect.ANTHROPIC_MESSAGES)])
def test_our_own_reader_reads_what_we_tell(vendor: str, dialect: Dialect) -> None:
    """A TokenHub behind a TokenHub learns the limits of the other one."""
    limits = Throttle(KeyLimits(requests_per_minute=60, tokens_per_minute=1000))
    stay = entered(limits, ANN)
    stay.reserve(250, 0)
    seen = told.read(told.table(vendor, dialect), stay.headers(dialect, now=0, at=1e9), at=1e9)
    assert {(str(one.metric), one.limit, one.remaining, one.resets) for one in seen} == {
        ("requests", 60.0, 59.0, 1.0),
        ("tokens", 1000.0, 750.0, 15.0),
    }


def test_a_providers_own_limits_can_be_left_out() -> None:
    """Both families go, everything else stays in order."""
    headers = (
        ("x-ratelimit-remaining-requests", "1"),
        ("content-type", "text/plain"),
        ("anthropic-ratelimit-unified-status", "allowed"),
        ("retry-after", "1"),
    )
    assert without_limits(headers) == (("content-type", "text/plain"), ("retry-after", "1"))


# --- admin, metrics, settings -------------------------------------------------------------------------------


def test_the_admin_api_is_limited_by_address_and_loopback_too() -> None:
    """Apart from calls; without a number it is not limited."""
    limits = Throttle(admin=2)
    limits.admin("127.0.0.1", (), 0)
    limits.admin("127.0.0.1", (), 0)
    with pytest.raises(TokenHubError) as raised:
        limits.admin("127.0.0.1", (), 0)
    assert (raised.value.fault.cause, raised.value.fault.retry_after) == ("admin_requests", 30.0)
    limits.admin("127.0.0.2", (), 0)
    limits.admin("127.0.0.1", (), 30 * SECOND)
    assert limits._by_admin.of("127.0.0.1", KeyLimits(requests_per_minute=2), 9 * MINUTE).rests(9 * MINUTE)
    for _ in range(10):
        Throttle().admin("127.0.0.1", (), 0)


def test_each_refusal_is_heard_of_by_one_of_few_names() -> None:
    """Whose limit, and which."""
    heard: list[str] = []
    limits = Throttle(admin=0, refused=heard.append)
    refused(limits, keyed(requests_per_minute=0))
    refused(limits, keyed(concurrency=0))
    stay = entered(limits, keyed("bob", tokens_per_minute=9))
    stay.reserve(5, 0)
    for tokens in (5, 50):
        with pytest.raises(TokenHubError):
            stay.reserve(tokens, 0)
    with pytest.raises(TokenHubError):
        visited(limits, keyed(max_output_tokens=1)).check_output(2)
    with pytest.raises(TokenHubError):
        limits.admin("", (), 0)
    assert heard == [
        "key_requests",
        "key_concurrency",
        "key_tokens",
        "key_tokens_too_many",
        "key_output",
        "admin_requests",
    ]


def test_the_settings_make_the_limits(tmp_path: Path) -> None:
    """Every one of them arrives where it belongs."""
    environ = {
        "TOKENHUB_KEY_REQUESTS_PER_MINUTE": "1",
        "TOKENHUB_KEY_TOKENS_PER_MINUTE": "2",
        "TOKENHUB_KEY_CONCURRENCY": "3",
        "TOKENHUB_KEY_MAX_OUTPUT_TOKENS": "4",
        "TOKENHUB_ADDRESS_REQUESTS_PER_MINUTE": "5",
        "TOKENHUB_ADDRESS_TOKENS_PER_MINUTE": "6",
        "TOKENHUB_ADDRESS_CONCURRENCY": "7",
        "TOKENHUB_ADDRESS_MAX_OUTPUT_TOKENS": "8",
        "TOKENHUB_ADMIN_REQUESTS_PER_MINUTE": "1",
        "TOKENHUB_TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8",
    }
    heard: list[str] = []
    limits = throttle(config.parse(environ, data_dir=tmp_path), heard.append)
    assert visited(limits, ANN)._account.limits == KeyLimits(1, 2, 3, 4)
    assert visited(limits, anonymous())._account.limits == KeyLimits(5, 6, 7, 8)
    assert limits.address("10.0.0.1", (("x-forwarded-for", "198.51.100.1"),)) == "198.51.100.1"
    limits.admin("::1", (), 0)
    with pytest.raises(TokenHubError):
        limits.admin("::1", (), 0)
    assert heard == ["admin_requests"]


def test_other_limits_hold_at_once_and_what_was_counted_stays_counted() -> None:
    """For keys, addresses, the admin API, and who counts as whom."""
    one = KeyLimits(requests_per_minute=1)
    limits = Throttle(addresses=one)
    entered(limits, anonymous())
    proxied = anonymous("10.0.0.1")
    limits.renew(Throttle(one, KeyLimits(concurrency=7), admin=0, finder=Addresses(networks(["10.0.0.0/8"]))))
    assert visited(limits, anonymous())._account.calls == 1
    assert visited(limits, anonymous())._account.limits == KeyLimits(concurrency=7)
    assert visited(limits, ANN)._account.limits == one
    assert limits.address(proxied.peer, (("x-forwarded-for", "198.51.100.1"),)) == "198.51.100.1"
    with pytest.raises(TokenHubError):
        limits.admin("::1", (), 0)


def test_by_default_only_the_admin_api_is_limited(tmp_path: Path) -> None:
    """And generously."""
    limits = throttle(config.parse({}, data_dir=tmp_path), lambda _: None)
    assert limits.visit(ANN, (), 0) is limits.visit(anonymous(), (), 0) is None
    for _ in range(1200):
        limits.admin("127.0.0.1", (), 0)
    with pytest.raises(TokenHubError):
        limits.admin("127.0.0.1", (), 0)
