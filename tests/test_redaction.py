"""What is taken out of text, what is left, and that nobody can make it slow."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.redaction import SECRETS, USUAL, Sort, redacted, without, without_echo

B64 = "AbCd0123_EfGh-4567IjKl8901MnOp"
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{B64}"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{B64}\n{B64}\n-----END RSA PRIVATE KEY-----"
KEYS = [
    f"sk-{B64}", f"sk-ant-api03-{B64}", f"sk-proj-{B64}", f"sk-or-v1-{B64}", f"tokenhub_{B64}", f"AIza{B64}",
    f"gsk_{B64}", f"xai-{B64}", f"hf_{B64}", f"ghp_{B64}", f"github_pat_{B64}", f"glpat-{B64}", "AKIAIOSFODNN7EXAMPLE",
    f"ya29.{B64}", f"xoxb-{B64}", f"r8_{B64}", f"nvapi-{B64}", f"pplx-{B64}",
]  # fmt: skip
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "5500-0055-5555-5559",
    "3782 822463 10005",
    "6011000990139424",
]
MAILS = ["bob@example.org", "first.last+tag@mail.example.co.uk", "x_y%z@a-b.io"]
AROUND = ["{}", "key: {}.", '"{}"', "a={}&b", "({})", "\n{}\n", "Bearer {}", "'{}',", "日本{}語"]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("secret", [*KEYS, JWT, PEM])
def test_credentials_are_masked_wherever_they_stand(secret: str, around: str) -> None:
    """Every known shape, between whatever may stand around it; what stands around it stays."""
    sort = Sort.JWT if secret is JWT else Sort.PRIVATE_KEY if secret is PEM else Sort.KEY

    assert redacted(around.format(secret), SECRETS) == around.format(f"[{sort}]")


@pytest.mark.parametrize("secret", [*KEYS, JWT, *MAILS])
def test_json_stays_json(secret: str) -> None:
    """Text is redacted as it was written; an escape right before a secret is not torn apart."""
    written = json.dumps({"text": f"first\n{secret}\t{secret}\r\n", secret: [secret]})

    read = json.loads(redacted(written))

    assert secret not in json.dumps(read)
    assert read["text"].startswith("first\n[")


@pytest.mark.parametrize("card", CARDS)
def test_cards_are_known_by_their_check_digit(card: str) -> None:
    """A number whose last digit is off by one is no card."""
    assert redacted(f"pay {card} now") == "pay [card] now"
    other = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert redacted(f"pay {other} now") == f"pay {other} now"


@pytest.mark.parametrize("mail", MAILS)
def test_addresses_are_masked(mail: str) -> None:
    """The dot that ends a sentence stays."""
    assert redacted(f"write to {mail}.") == "write to [email]."


@pytest.mark.parametrize("number", ["+49 170 123 4567", "030 1234 5678", "(212) 555 0123 99"])
def test_telephone_numbers_are_masked_on_request_only(number: str) -> None:
    """Too many numbers look like one."""
    assert redacted(f"call {number} today") == f"call {number} today"
    assert redacted(f"call {number} today", {*USUAL, Sort.PHONE}) == "call [phone] today"


@pytest.mark.parametrize(
    "text",
    [
        "risk-assessment-framework-document", "task-oriented-dialogue-systems-2024", "sk-short", "a@b", "@user",
        "sk-learn-style-estimators-are-nice", "0000 0000 0000 0000", "1234567890123", "eyJhbGciOiJIUzI1NiJ9.x.y",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "version 1.2.3.4", "2026-01-01T00:00:00",
        "", "tokenhub_core.dispatch",
    ],
)  # fmt: skip
def test_what_is_none_stays(text: str) -> None:
    """Ordinary words and numbers that look a little like secrets."""
    assert redacted(text) == text


def test_a_block_without_an_end_is_masked_to_the_end() -> None:
    """It may have been cut off."""
    assert redacted(f"a -----BEGIN PRIVATE KEY-----\n{B64}") == "a [private-key]"


@given(
    st.text(alphabet=string.printable + "é\u2028", max_size=60),
    st.text(max_size=60),
    st.sampled_from([*KEYS, JWT]),
)
def test_no_planted_secret_stays(before: str, after: str, secret: str) -> None:
    """Where it stands apart from what is before and after it."""
    assert secret not in redacted(f"{before} {secret} {after}", SECRETS)


@given(st.text(max_size=300) | st.from_regex(r"([a-z]{1,9}[@.\- =]|sk-|eyJ|\d{4} ){1,40}", fullmatch=True))
def test_once_is_enough(text: str) -> None:
    """What was redacted is not changed again."""
    once = redacted(text, frozenset(Sort))
    assert redacted(once, frozenset(Sort)) == once


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "eyJa.eyJ", "eyJa.", "sk-", "a@", "@", "a.", "1 ", "1-", "1234 ", "-----BEGIN ", "1", "+1 ", "(12) ",
     "-----BEGIN PRIVATE KEY-----", "\\n", "a@a.", "a@" + "a." * 9, "12 34 56 "],
)  # fmt: skip
def test_nobody_can_make_it_slow(piece: str) -> None:
    """The beginnings of everything, over and over: eight times the text takes about eight times as long."""

    def make(size: int) -> Work:
        text = piece * (size // len(piece))
        return lambda: redacted(text, frozenset(Sort))

    in_proportion(make, 32_000)


# --- what is known already ---------------------------------------------------------------------------------


def test_known_secrets_are_masked_whatever_their_shape() -> None:
    """A key of nobody's make, quoted by its provider."""
    assert without("bad key hunter2-pw, sorry", ["hunter2-pw", "", "key"]) == "bad key [key], sorry"


def test_what_a_provider_repeats_of_a_call_is_left_out() -> None:
    """Words that overlap the repetition go whole; the provider's own words stay."""
    body = b'{"messages":[{"role":"user","content":"my diagnosis is a rare kind of anaemia"}]}'
    message = "Invalid content: 'my diagnosis is a rare kind of anaemia' is not allowed"

    assert without_echo(message, body) == "Invalid content: […] is not allowed"
    assert without_echo("The server had an error", body) == "The server had an error"
    assert without_echo("", body) == ""
    assert without_echo(message, b"") == message


@given(st.text(min_size=24, max_size=80).filter(lambda text: text.isprintable()), st.text(max_size=50))
def test_no_repetition_of_24_characters_stays(echo: str, said: str) -> None:
    """Wherever in the message it begins."""
    body = b"before " + echo.encode("utf-8", "replace") + b" after"

    assert echo not in without_echo(f"{said}{echo}", body)


def test_only_the_ends_of_a_very_large_body_are_searched() -> None:
    """That is said in its documentation; the beginning and the end are found."""
    echo = "0123456789abcdefghijklmnop"
    filler = b"x" * (1 << 20)

    assert echo not in without_echo(echo, echo.encode() + filler)
    assert echo not in without_echo(echo, filler + echo.encode())
