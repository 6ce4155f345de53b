"""Signed directives: who signed, for which text, until when, and how often."""

from __future__ import annotations

import hmac
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.engine import Bench, chat
from tokenhub_core import signing
from tokenhub_core.directives import read
from tokenhub_core.leave import Leave
from tokenhub_core.preparing import Rules
from tokenhub_core.signing import MAX_NONCES, MAX_SECONDS, Signatures, secret_of, sign, signature
from tokenhub_core.types import ApiKey, Caller, Mode, TextSlot, Trust, header

NOW: Final = 1_800_000_000
SECRET: Final = secret_of(b"r" * 32, "k1")
KEY: Final = ApiKey(id="k1")
NONCE: Final = "n" * 16
TEXT: Final = "mode=cheap budget=0.01"


def signatures() -> Signatures:
    return Signatures(lambda key_id: secret_of(b"r" * 32, key_id))


def tag(text: str = TEXT, **other: Any) -> str:
    return sign(SECRET, text, **{"key_id": "k1", "nonce": NONCE, "expires": NOW + 60, **other})


def refusal(
    one: str, text: str = TEXT, *, within: str = "", at: float = NOW, key: ApiKey | None = KEY
) -> str:
    return signatures().refusal(signature(one, text), key, within, at)


def test_what_the_key_signed_is_good() -> None:
    """And white space around the text does not count."""
    assert refusal(tag()) == ""
    assert refusal(tag(), f"  {TEXT}\r\n") == ""
    assert len(SECRET) == signing.SECRET_BYTES


@pytest.mark.parametrize(
    ("one", "text", "at", "key", "why"),
    [
        (tag(), TEXT + " tags=x", NOW, KEY, "signature-bad"),
        (tag(), TEXT.replace(" ", "  "), NOW, KEY, "signature-bad"),
        (tag().replace("n" * 16, "m" * 16), TEXT, NOW, KEY, "signature-bad"),
        (tag().replace(str(NOW + 60), str(NOW + 61)), TEXT, NOW, KEY, "signature-bad"),
        (tag()[:-1] + ("A" if tag()[-1] != "A" else "E"), TEXT, NOW, KEY, "signature-bad"),
        (tag(), TEXT, NOW, None, "signature-key"),
        (tag(), TEXT, NOW, ApiKey(id="k2"), "signature-key"),
        (tag(key_id="k2"), TEXT, NOW, KEY, "signature-key"),
        (tag(), TEXT, NOW + 59.9, KEY, ""),
        (tag(), TEXT, NOW + 60, KEY, "signature-expired"),
        (tag(expires=NOW + MAX_SECONDS), TEXT, NOW, KEY, ""),
        (tag(expires=NOW + MAX_SECONDS + 1), TEXT, NOW, KEY, "signature-too-long"),
    ],
)
def test_anything_else_is_refused_with_a_reason(
    one: str, text: str, at: float, key: ApiKey | None, why: str
) -> None:
    """Another text, nonce, expiry or key; too late, or for too long."""
    assert refusal(one, text, at=at, key=key) == why


def test_each_key_has_a_secret_of_its_own() -> None:
    """What one key signed is no other's; clients keep theirs, so that it is made in one way for ever."""
    assert secret_of(b"r" * 32, "k1") != secret_of(b"r" * 32, "k2") != secret_of(b"s" * 32, "k2")
    assert secret_of(b"r" * 32, "k1") == hmac.new(b"r" * 32, b"k1", "sha256").digest()


def test_a_locked_vault_honours_nothing_signed() -> None:
    """There is no secret to check with."""
    assert Signatures().refusal(signature(tag(), TEXT), KEY, "", NOW) == "signature-locked"


def test_a_nonce_is_good_for_one_text_until_it_expires() -> None:
    """A program that sends its message again is heard again; who copies the directive is not."""
    known = signatures()
    one = signature(tag(), TEXT)
    assert known.refusal(one, KEY, "first", NOW) == ""
    assert known.refusal(one, KEY, "first", NOW + 59) == ""
    assert known.refusal(one, KEY, "other", NOW + 59) == "signature-replayed"
    other = signature(tag(nonce="m" * 16), TEXT)
    assert known.refusal(other, KEY, "other", NOW + 59) == ""


def test_a_nonce_is_forgotten_when_it_expires() -> None:
    """What has expired is refused for that, and need not be remembered."""
    known = signatures()
    assert known.refusal(signature(tag(), TEXT), KEY, "first", NOW) == ""
    assert known.refusal(signature(tag(), TEXT), KEY, "other", NOW + 60) == "signature-expired"
    again = signature(tag(expires=NOW + 120), TEXT)
    assert known.refusal(again, KEY, "other", NOW + 60) == ""


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that signs more than fits is refused until some of it has expired; other keys are not."""
    assert MAX_NONCES == 10_000
    monkeypatch.setattr(signing, "MAX_NONCES", 3)
    known = signatures()
    for number in range(3):
        one = signature(tag(nonce=f"{number:016}", expires=NOW + 10 + number), TEXT)
        assert known.refusal(one, KEY, "", NOW) == ""
    late = signature(tag(nonce="x" * 16), TEXT)
    assert known.refusal(late, KEY, "", NOW) == "signature-full"
    other = signature(
        sign(secret_of(b"r" * 32, "k2"), TEXT, key_id="k2", nonce=NONCE, expires=NOW + 60), TEXT
    )
    assert known.refusal(other, ApiKey(id="k2"), "", NOW) == ""
    assert known.refusal(late, KEY, "", NOW + 10) == ""


def vetted(*nonces: str, until: float = NOW + 5) -> Signatures:
    """Return signatures that other processes share, with nonces that nobody else has met."""
    known = signatures()
    known.share(lambda *told: None)
    for nonce in nonces:
        known.vetted("k1", nonce, until)
    return known


def test_a_nonce_is_vetted_once_and_for_a_while() -> None:
    """Where processes share theirs one that nobody has vetted is not honoured, nor one whose vetting is over."""
    one = signature(tag(), TEXT)
    assert vetted().refusal(one, KEY, "", NOW) == "signature-unsure"
    known = vetted(NONCE)
    assert known.refusal(one, KEY, "", NOW + 4.9) == ""
    assert known.refusal(one, KEY, "other", NOW + 4.9) == "signature-replayed"
    assert vetted(NONCE).refusal(one, KEY, "", NOW + 5) == "signature-unsure"


def test_what_is_vetted_and_not_met_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that never come to the reading of their directives leave their nonces behind: the oldest ones go."""
    monkeypatch.setattr(signing, "MAX_NONCES", 2)
    nonces = [f"{number:016}" for number in range(3)]
    known = vetted(*nonces)
    told = [known.refusal(signature(tag(nonce=nonce), TEXT), KEY, "", NOW) for nonce in nonces]
    assert told == ["signature-unsure", "", ""]


@pytest.mark.parametrize(
    ("expires", "at", "why"),
    [
        (NOW + 60, NOW, "signature-replayed"),
        (NOW + MAX_SECONDS, NOW, "signature-replayed"),
        (NOW + MAX_SECONDS + 1, NOW, ""),
        (NOW, NOW, ""),
    ],
)
def test_a_nonce_that_was_met_elsewhere_is_remembered_for_as_long_as_one_of_ours(
    expires: int, at: float, why: str
) -> None:
    """What somebody claims to have met for longer, or until now, is not kept: it would be for ever, or for nothing."""
    known = signatures()
    known.learn("k1", NONCE, b"another text's digest", expires, at)
    assert known.knows("k1", NONCE) is bool(why)
    assert known.refusal(signature(tag(), TEXT), KEY, "", NOW) == why
    assert known.knows("k1", NONCE)


def test_what_was_met_here_is_not_learned_anew() -> None:
    """Another digest does not take the place of the text that the nonce stood in."""
    known = signatures()
    one = signature(tag(), TEXT)
    assert known.refusal(one, KEY, "first", NOW) == ""
    known.learn("k1", NONCE, b"another text's digest", NOW + 60, NOW)
    assert known.refusal(one, KEY, "first", NOW) == ""
    assert [(key, nonce, expires) for key, nonce, _, expires in known.met(NOW + 59.9)] == [
        ("k1", NONCE, NOW + 60)
    ]
    assert known.met(NOW + 60) == []


@pytest.mark.parametrize(
    "text",
    ["", "a:b:c:d", "k1:short:1:" + "a" * 43, f"k1:{NONCE}:x:" + "a" * 43, f"k1:{NONCE}:1:" + "a" * 42],
)
def test_what_is_no_signature_is_malformed(text: str) -> None:
    """A bracket holds a signature or the directive is invalid."""
    reading = read([TextSlot("user", ("x", 0), f"@@tokenhub[{text}] mode=cheap")])
    assert (reading.outcome, "a signature is" in reading.fault) == ("invalid", True)


def test_a_text_with_half_a_character_is_one() -> None:
    """JSON can write one; it is a text like any other."""
    assert refusal(tag(), within="\ud800") == ""
    assert MAX_SECONDS == 3600


@given(st.text(max_size=60), st.binary(min_size=1, max_size=40))
def test_whatever_is_signed_can_be_checked(text: str, root: bytes) -> None:
    """Any text, any secret."""
    secret = secret_of(root, "k1")
    one = signature(sign(secret, text, key_id="k1", nonce=NONCE, expires=NOW + 1), text)
    assert Signatures(lambda key_id: secret).refusal(one, KEY, text, NOW) == ""


@pytest.mark.parametrize("bad", [{"key_id": "a:b"}, {"nonce": "short"}, {"expires": -1}, {"key_id": ""}])
def test_what_could_not_be_read_again_is_not_signed(bad: dict[str, Any]) -> None:
    """ValueError, and no tag."""
    with pytest.raises(ValueError, match="signature"):
        tag(**bad)


# --- through the pipeline ----------------------------------------------------------------------------------

_SIGNED: Final = ApiKey(id="k1", models=("*",), providers=("*",), trust=Trust(signed=True))


async def asked(
    text: str, *, key: ApiKey | None = _SIGNED, malformed: str = "reject"
) -> tuple[int, str, Bench]:
    bench = Bench(rules=Rules(directives=lambda: malformed, signatures=signatures()))
    bench.clock.now = lambda: float(NOW)  # type: ignore[method-assign] # a scene's own time
    snapshot = bench.snapshot(chat(text))
    reply = await bench.engine.exchange(msgspec.structs.replace(snapshot, caller=Caller(key=key)))
    return reply.status, header(reply.headers, "x-tokenhub-directive"), bench


async def test_a_key_that_signs_is_heard_when_it_does_and_only_then() -> None:
    """Signed: honoured. Unsigned: denied, the text stays. Forged: invalid, a 400 that says why."""
    status, told, bench = await asked(f"@@tokenhub[{tag()}] {TEXT}\nHello")
    assert (status, told) == (200, "honoured")
    assert bench.recorder.one.plan is not None
    assert bench.recorder.one.plan.policy.mode is Mode.CHEAP
    status, told, bench = await asked(f"@@tokenhub {TEXT}\nHello")
    assert (status, told, bench.recorder.one.directive) == (200, "denied; unsigned", "denied")
    status, told, bench = await asked(f"@@tokenhub[{tag()}] {TEXT} tags=x\nHello")
    assert (status, told, bench.recorder.one.directive) == (400, "invalid; signature-bad", "invalid")
    assert "signature-bad" in bench.recorder.one.message
    status, told, _ = await asked(f"@@tokenhub[{tag()}] {TEXT} tags=x\nHello", malformed="ignore")
    assert (status, told) == (200, "invalid; signature-bad")


async def test_a_key_need_not_sign_where_nobody_asks_it_to() -> None:
    """Then both are heard; a signature is checked all the same."""
    key = ApiKey(id="k1", models=("*",), providers=("*",))
    assert (await asked(f"@@tokenhub {TEXT}\nHello", key=key))[1] == "honoured"
    assert (await asked(f"@@tokenhub[{tag()}] {TEXT}\nHello", key=key))[1] == "honoured"
    assert (await asked(f"@@tokenhub[{tag()}] {TEXT}\nHello", key=None))[1] == "invalid; signature-key"


def test_a_block_is_signed_whole() -> None:
    """Its text ends before `@@end`."""
    body = "\nmode=cheap\ntags=a\n"
    text = f"@@tokenhub[{tag(body)}]{body}@@end\nHello"
    known = signatures()
    reading = read(
        [TextSlot("user", ("messages", 0, "content"), text)],
        Leave(signed=True),
        refusal=lambda one, within: known.refusal(one, KEY, within, NOW),
    )
    assert (reading.outcome, reading.values) == ("honoured", {"mode": Mode.CHEAP, "tags": ("a",)})
    assert reading.stripped == ((("messages", 0, "content"), "Hello"),)


def test_without_somebody_who_checks_nothing_signed_is_good() -> None:
    """The reader takes no signature on trust."""
    reading = read([TextSlot("user", ("messages", 0, "content"), f"@@tokenhub[{tag()}] {TEXT}")])
    assert (reading.outcome, reading.why) == ("invalid", "signature-key")


@pytest.mark.parametrize(
    ("text", "good"),
    [("k1", True), ("K-1_2.3", True), ("", False), ("a:b", False), ("a" * 65, False), ("ü", False)],
)
def test_an_id_can_stand_in_a_bracket_or_it_is_none(text: str, good: bool) -> None:
    """What parts a signature cannot be in it."""
    assert signing.is_key_id(text) is good
