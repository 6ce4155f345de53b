"""What is said of a program by what was seen of it at the proxy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tokenhub_core.launch.bypass import exempts
from tokenhub_core.launch.diagnosis import Saw, Sighting, State, lane, of_probe, of_program, of_variables

HOST = "api.openai.com"
SIDE = "http://127.0.0.1:8090/v1"
CONNECTED = Sighting(Saw.CONNECTION)
TUNNEL = Sighting(Saw.TUNNEL, HOST, listed=True)
HELLO = Sighting(Saw.HELLO, HOST, listed=True, alpn=("h2", "http/1.1"))
REQUEST = Sighting(Saw.REQUEST, HOST, listed=True, http="HTTP/1.1", encodings=("gzip", "zstd"))
REFUSED = Sighting(Saw.REFUSED, HOST, listed=True, words="the client does not trust the certificate")
ELSEWHERE = Sighting(Saw.TUNNEL, "files.example")


@pytest.mark.parametrize(
    ("seen", "check", "state", "words", "fix"),
    [
        ([], "proxy", State.PROBLEM, "never came to the proxy", "--mode local:agent"),
        ([], "proxy", State.PROBLEM, "reads no proxy variables", f"base URL to {SIDE}"),
        ([CONNECTED], "calls", State.WARNING, "asked for nothing", "run it for longer"),
        (
            [CONNECTED, TUNNEL, HELLO, REFUSED],
            HOST,
            State.PROBLEM,
            "does not trust the CA",
            f"base URL to {SIDE}",
        ),
        ([CONNECTED, TUNNEL, HELLO], HOST, State.WARNING, "made no request", "run it for longer"),
        (
            [CONNECTED, ELSEWHERE],
            "other hosts",
            State.WARNING,
            "tunnelled, unread: files.example",
            "ca add-host",
        ),
        ([TUNNEL, HELLO, REQUEST, ELSEWHERE], "other hosts", State.OK, "files.example", ""),
        (
            [TUNNEL, HELLO, REQUEST, REQUEST],
            HOST,
            State.OK,
            "captured: 2 requests over HTTP/1.1, takes gzip zstd; hand-off lane: its TLS offers h2 and http/1.1",
            "",
        ),
        ([TUNNEL, HELLO, REFUSED, REQUEST], HOST, State.WARNING, "another of its connections", f"to {SIDE}"),
        (
            [Sighting(Saw.REQUEST, HOST, listed=True, http="HTTP/1.1", websocket=True)],
            HOST,
            State.WARNING,
            "WebSockets",
            "use its HTTP transport",
        ),
        ([CONNECTED, Sighting(Saw.LOOP, "127.0.0.1")], "loop", State.PROBLEM, "round in a ring", "no proxy"),
    ],
)
def test_what_a_program_did_is_told_with_its_remedy(
    seen: Sequence[Sighting], check: str, state: State, words: str, fix: str
) -> None:
    """Each way to be captured, or not to be, has its own words and one line that says what to do."""
    found = of_program(seen, name="agent", side=SIDE)
    matching = [one for one in found if (one.check, one.state) == (check, state) and words in one.words]
    assert len(matching) == 1, found
    assert fix in matching[0].fix
    assert bool(fix) == bool(matching[0].fix)
    assert "\n" not in matching[0].words + matching[0].fix


def test_many_other_hosts_are_counted() -> None:
    """Five are named."""
    seen = [TUNNEL, HELLO, REQUEST, *(Sighting(Saw.TUNNEL, f"h{n}.example") for n in range(9))]
    (other,) = [one for one in of_program(seen, name="x", side=SIDE) if one.check == "other hosts"]
    assert other.words.endswith("h4.example and 4 more")


@pytest.mark.parametrize(
    ("alpn", "plain", "wanted"),
    [
        (("h2", "http/1.1"), False, "hand-off lane: its TLS offers h2"),
        (("http/1.1",), False, "hand-off lane: its TLS speaks"),
        ((), False, "hand-off lane: its TLS speaks"),
        (("h2",), False, "inspect lane: its TLS offers h2 and no http/1.1"),
        ((), True, "inspect lane: it speaks plain http"),
    ],
)
def test_the_lane_is_told_with_its_reason(alpn: tuple[str, ...], plain: bool, wanted: str) -> None:
    """By what the client's TLS offers, as the two lanes decide it."""
    hello = Sighting(Saw.HELLO, HOST, listed=True, alpn=alpn)
    request = Sighting(Saw.REQUEST, HOST, listed=True, http="HTTP/1.1", plain=plain)
    assert lane([hello, request]).startswith(wanted)


@pytest.mark.parametrize(
    ("seen", "code", "want", "state", "words"),
    [
        ([REQUEST], 0, "HTTP/1.1", State.OK, "captured over HTTP/1.1"),
        ([REQUEST], 0, "HTTP/2.0", State.WARNING, "captured, but over HTTP/1.1"),
        ([REQUEST], 1, "", State.PROBLEM, "ended with 1: what it said"),
        ([REQUEST], None, "", State.PROBLEM, "did not end in time"),
        ([CONNECTED, REFUSED], 1, "", State.PROBLEM, "refused our certificate"),
        ([], 1, "", State.PROBLEM, "never came to the proxy"),
        ([CONNECTED], 0, "", State.PROBLEM, "ended with 0"),
    ],
)
def test_a_client_of_ours_is_judged_by_what_came(
    seen: Sequence[Sighting], code: int | None, want: str, state: State, words: str
) -> None:
    """That it ended well is not enough: its request has to have been seen, over the version that it should speak."""
    found = of_probe("curl", seen, code=code, said="first\nwhat it said\n", want=want)
    assert (found.state, words in found.words) == (state, True), found
    assert bool(found.fix) == (state is State.PROBLEM)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("*", True),
        ("openai.com", True),
        (".openai.com,localhost", True),
        ("api.openai.com:443", True),
        ("localhost, 127.0.0.1", False),
        ("notopenai.com", False),
        ("", False),
    ],
)
def test_a_variable_that_takes_hosts_out_is_seen(value: str, wanted: bool) -> None:
    """Programs that nobody starts with `tokenhub run` would go past the proxy."""
    assert exempts(value, HOST) is wanted
    found = of_variables({"NO_PROXY": value}, [], [HOST])
    assert [one.state for one in found] == [State.WARNING if wanted else State.OK]


def test_a_variable_that_names_no_file_is_seen() -> None:
    """With the variable in the remedy."""
    (found,) = of_variables({"SSL_CERT_FILE": "/gone.pem"}, ["SSL_CERT_FILE"], [HOST])
    assert (found.state, found.fix) == (State.WARNING, "unset SSL_CERT_FILE, or make the file")
    assert "/gone.pem" in found.words
