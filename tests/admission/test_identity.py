"""A key of ours is found wherever an SDK can put one, and is in nothing that goes on from there."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.keys import OTHER, SECRET
from tokenhub_core.admission.identity import Found, carries_credential, find, from_credentials, masked, pair
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.types import Headers

FIELD = ("accept", "application/json")
CHAT = "/v1/chat/completions"


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PLACES: dict[str, tuple[Headers, str, Headers, str]] = {
    "bearer": ((("authorization", f"Bearer {SECRET}"),), CHAT, (), CHAT),
    "any case": ((("authorization", f"  bEARER  {SECRET} "),), CHAT, (), CHAT),
    "url of the base": ((("authorization", basic("x", SECRET)),), CHAT, (), CHAT),
    "anthropic": ((("x-api-key", SECRET),), "/v1/messages", (), "/v1/messages"),
    "google": ((("x-goog-api-key", SECRET),), "/v1beta/models", (), "/v1beta/models"),
    "azure": ((("api-key", f" {SECRET}"),), CHAT, (), CHAT),
    "query alone": ((), f"/v1beta/m:x?key={SECRET}", (), "/v1beta/m:x"),
    "query among others": ((), f"/v1beta/m:x?alt=sse&key={SECRET}&a=%20", (), "/v1beta/m:x?alt=sse&a=%20"),
    "query encoded": ((), f"/v1beta/m:x?k%65y={quote(SECRET).replace('t', '%74')}", (), "/v1beta/m:x"),
    "subprotocol": (
        (("sec-websocket-protocol", f"realtime, openai-insecure-api-key.{SECRET},openai-beta.realtime-v1"),),
        "/v1/realtime",
        (("sec-websocket-protocol", "realtime, openai-beta.realtime-v1"),),
        "/v1/realtime",
    ),
    "subprotocol alone": (
        (("sec-websocket-protocol", f"openai-insecure-api-key.{SECRET}"),),
        "/v1/realtime",
        (),
        "/v1/realtime",
    ),
    "twice the same": ((("x-api-key", SECRET), ("authorization", f"Bearer {SECRET}")), CHAT, (), CHAT),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_key_is_found_wherever_an_sdk_puts_it_and_taken_out(place: str) -> None:
    """Every place, and what is left of the request: everything else, in its order."""
    headers, path, left, rest = PLACES[place]
    found = find((FIELD, *headers, FIELD), path, gemini=True)
    assert found == Found((FIELD, *left, FIELD), rest, SECRET)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "value",
    [basic("x", SECRET), basic(SECRET), basic(SECRET, "x"), f"bearer {SECRET}"],
)
def test_the_urls_of_proxies_hold_keys(value: str) -> None:
    """As the password, as the user name, or as a bearer token; it goes no further than this hop."""
    assert find((("proxy-authorization", value), FIELD), CHAT) == Found((FIELD,), CHAT, SECRET, SECRET)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic !!",
        "Basic /w==",
        basic("ann", "sesame"),
        "Bearer sk-proj-1",
        f"Digest {SECRET}",
        SECRET,
    ],
)
def test_other_credentials_are_none_of_ours(value: str) -> None:
    """They name nobody, break nothing, and those for the proxy end here all the same."""
    assert from_credentials(value) == ""
    assert find((("proxy-authorization", value), FIELD), CHAT) == Found((FIELD,), CHAT)


def test_the_key_of_the_request_comes_before_the_proxys() -> None:
    """An app with a key of its own is known by it, whatever proxy it uses; who that belongs to is told as well."""
    headers = (("authorization", f"Bearer {SECRET}"), ("proxy-authorization", basic("x", OTHER)))
    found = find(headers, CHAT)
    assert (found.secret, found.proxy, found.headers) == (SECRET, OTHER, ())


def test_the_key_of_the_connection_is_for_requests_without_one() -> None:
    """What a CONNECT has shown; a Proxy-Authorization of the request's own takes its place."""
    assert find((FIELD,), CHAT, proxy=OTHER) == Found((FIELD,), CHAT, OTHER, OTHER)
    own = (("proxy-authorization", f"Bearer {SECRET}"),)
    assert find(own, CHAT, proxy=OTHER).secret == SECRET
    assert find((("proxy-authorization", basic("a", "b")),), CHAT, proxy=OTHER).secret == OTHER


def test_a_providers_key_stays_where_it_is() -> None:
    """A client's own credential is for its host, beside a key of ours as well as without."""
    own: Headers = (("authorization", "Bearer sk-proj-1"), ("x-api-key", "sk-ant-1"))
    path = "/v1beta/m?key=AIza1"
    assert find(own, path, gemini=True) == Found(own, path)
    assert find((*own, ("api-key", SECRET)), path, gemini=True) == Found(own, path, SECRET)


def refused(headers: Headers, path: str = CHAT, *, gemini: bool = False) -> str:
    with pytest.raises(TokenHubError) as caught:
        find(headers, path, gemini=gemini)
    fault = caught.value.fault
    assert (fault.kind, fault.http_status) == (Kind.AUTH, 401)
    assert SECRET not in fault.message
    return fault.cause


@pytest.mark.parametrize(
    "headers",
    [
        (("x-api-key", SECRET), ("authorization", f"Bearer {OTHER}")),
        (("authorization", f"Bearer {SECRET}"), ("authorization", f"Bearer {OTHER}")),
        (("authorization", basic(SECRET, OTHER)),),
        (("proxy-authorization", basic(OTHER, SECRET)),),
        (("sec-websocket-protocol", f"openai-insecure-api-key.{SECRET}, openai-insecure-api-key.{OTHER}"),),
    ],
)
def test_two_keys_are_refused(headers: Headers) -> None:
    """Whoever shows two wants to be two: nobody chooses for it."""
    assert refused(headers) == "key_ambiguous"


def test_two_keys_in_header_and_query_are_refused() -> None:
    """Also where one of them stands in a query that may hold one."""
    assert refused((("x-goog-api-key", SECRET),), f"/v1beta/m?key={OTHER}", gemini=True) == "key_ambiguous"


@pytest.mark.parametrize(
    ("path", "gemini"),
    [
        (f"{CHAT}?key={SECRET}", False),
        (f"{CHAT}?api_key={SECRET}", False),
        (f"/v1beta/m?alt=sse&token={SECRET}", True),
        (f"/v1beta/m?{SECRET}", True),
        (f"{CHAT}?key=tokenhub%5F{SECRET.removeprefix('tokenhub_')}", False),
    ],
)
def test_a_key_in_an_address_is_refused(path: str, gemini: bool) -> None:
    """Addresses end up in logs and histories; only Gemini's SDKs know no other way."""
    assert refused((), path, gemini=gemini) == "key_in_query"
    assert SECRET.removeprefix("tokenhub_") not in masked(path)


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ((("cookie", f"session={SECRET}"),), CHAT),
        ((("authorization", f"Token {SECRET}"),), CHAT),
        ((("x-api-key", f"Bearer {SECRET}"),), CHAT),
        ((("referer", f"https://a.example/?k={SECRET}"),), CHAT),
        ((("sec-websocket-protocol", f"realtime, x-{SECRET}"),), CHAT),
        ((), f"/v1/{SECRET}/chat"),
        ((), f"/v1beta/{SECRET}?key={SECRET}"),
    ],
)
def test_a_key_where_none_belongs_is_refused_and_not_passed_on(headers: Headers, path: str) -> None:
    """What looks like a key of ours leaves for nobody, even in a place that nobody reads."""
    assert refused(headers, path, gemini=True) == "key_misplaced"


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ((("user-agent", "tokenhub_addon/1.0"), ("x-title", "my tokenhub_ notes")), CHAT),
        ((), "/v1/models/tokenhub_demo?after=tokenhub_1"),
        ((), "/v1/files/a%20b?x=%20"),
        ((), "/v1/files?"),
    ],
)
def test_what_only_sounds_like_a_key_passes(headers: Headers, path: str) -> None:
    """The prefix alone is no key: what begins with it and is short, or goes on in words, is left alone."""
    assert find(headers, path) == Found(headers, path)
    assert masked(path) == path


def test_a_socks_client_shows_its_key_as_password_or_as_name() -> None:
    """RFC 1929 has two fields and both are used."""
    assert pair("x", SECRET) == pair(SECRET, "") == pair(SECRET, SECRET) == SECRET
    assert pair("ann", "sesame") == ""
    with pytest.raises(TokenHubError):
        pair(OTHER, SECRET)


@pytest.mark.parametrize(
    ("headers", "path", "carries"),
    [
        ((), CHAT, False),
        ((("authorization", ""),), CHAT, False),
        ((("accept", "x"), ("authorization", "Bearer x")), CHAT, True),
        ((("x-goog-api-key", "x"),), CHAT, True),
        ((("sec-websocket-protocol", "realtime"),), CHAT, False),
        ((("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1"),), CHAT, True),
        ((), "/v1beta/m?alt=sse", False),
        ((), "/v1beta/m?alt=sse&key=AIza1", True),
    ],
)
def test_a_credential_of_the_callers_own_is_seen(headers: Headers, path: str, carries: bool) -> None:
    """By it, a host can be reached whose key we do not have."""
    assert carries_credential(headers, path) is carries


texts = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20)
spelled = st.sampled_from(
    [SECRET, f"Bearer {SECRET}", basic("x", SECRET), f"a, openai-insecure-api-key.{SECRET}"]
)
fields = st.tuples(
    st.sampled_from(
        [
            "authorization",
            "x-api-key",
            "api-key",
            "cookie",
            "proxy-authorization",
            "sec-websocket-protocol",
            "accept",
        ]
    ),
    texts | spelled | st.tuples(texts, spelled, texts).map("".join),
)
paths = st.lists(
    st.sampled_from(["/v1", "?", "key=", "&", SECRET, quote(SECRET, safe=""), "a=b", "%5F"])
).map("".join)


@given(st.lists(fields, max_size=5), paths, st.booleans())
def test_whatever_comes_in_no_key_goes_on(headers: list[tuple[str, str]], path: str, gemini: bool) -> None:
    """Over any request: it is refused, or nothing of the key is left in it, not even in base64 for the next hop."""
    found = Found((), "")
    with suppress(TokenHubError):
        found = find(tuple(headers), path, gemini=gemini)
    left = [value for _, value in found.headers]
    assert not any(SECRET in value for value in [*left, found.path])
    assert not any(from_credentials(value) for name, value in found.headers if name == "authorization")
    assert all(name != "proxy-authorization" for name, _ in found.headers)
