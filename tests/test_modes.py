"""Modes of hosts: which rule decides, and which rules can never hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.errors import ConfigError
from tokenhub_core.modes import HostMode, Match, Modes, Rule, checked, parsed
from tokenhub_core.recognise import Recogniser

HOST = "a.b.example"


def test_without_rules_every_call_is_routed() -> None:
    """And it does not take a call's name to know."""
    modes = Modes()
    assert modes.of(HOST, "ann", "fast") is HostMode.ROUTE
    assert not modes.by_alias
    assert modes.closed(HOST) == ""


def test_the_most_specific_rule_decides() -> None:
    """Alias before caller before host, and an exact host before a pattern before all."""
    matches = [
        Match(),
        Match("*.b.example"),
        Match(HOST),
        Match(user="ann"),
        Match(HOST, user="ann"),
        Match(alias="fast"),
        Match(user="ann", alias="fast"),
        Match(HOST, "ann", "fast"),
    ]
    for last in range(len(matches)):
        rules = [Rule(match, HostMode.OBSERVE) for match in matches[:last]]
        modes = Modes([Rule(matches[last], HostMode.SHADOW), *rules])
        assert modes.of(HOST, "ann", "fast") is HostMode.SHADOW, matches[last]


_NAMES = st.sampled_from(["", "ann", "bob"])
_HOSTS = st.sampled_from(["*", "*.b.example", HOST, "c.b.example", "other.example"])
_MATCHES = st.builds(Match, _HOSTS, _NAMES, _NAMES)


@given(
    st.lists(st.builds(Rule, _MATCHES, st.sampled_from(HostMode)), unique_by=lambda r: r.match),
    _NAMES,
    _NAMES,
)
def test_the_order_of_rules_means_nothing(rules: list[Rule], user: str, alias: str) -> None:
    """Whatever they are, and the rule that decides is one that matches."""
    found = Modes(rules).rule(HOST, user, alias)
    assert found == Modes(rules[::-1]).rule(HOST, user, alias)
    meeting = [rule for rule in rules if rule.match.meets(HOST, user, alias)]
    assert (found in meeting) if meeting else (found is None)


def test_of_two_rules_for_the_same_calls_the_later_one_counts() -> None:
    """So what is stored wins over a setting."""
    rules = [Rule(Match(HOST), HostMode.SHADOW), Rule(Match(HOST), HostMode.OBSERVE)]
    assert Modes(rules).of(HOST) is HostMode.OBSERVE


def test_a_pattern_stands_for_one_label() -> None:
    """As in the list of hosts; case, port and the root's dot do not matter."""
    modes = Modes([Rule(Match("*.b.example"), HostMode.OFF)])
    assert modes.of("A.b.example.:443") is HostMode.OFF
    assert modes.closed("a.b.example") == "*.b.example"
    for host in ("b.example", "x.a.b.example", "ab.example"):
        assert modes.of(host) is HostMode.ROUTE, host


def test_a_more_exact_host_opens_what_a_wider_one_closes() -> None:
    """Whoever its callers are: a rule for one of them opens nothing."""
    off, ann = Rule(Match(), HostMode.OFF), Rule(Match(user="ann"), HostMode.ROUTE)
    assert Modes([off, ann]).closed(HOST) == "*"
    assert Modes([off, Rule(Match(HOST), HostMode.SHADOW)]).closed(HOST) == ""


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Match(user="ann"), HostMode.OFF),
        Rule(Match(alias="fast"), HostMode.OFF),
        Rule(Match(alias="*"), HostMode.SHADOW),
        Rule(Match("not.listed.example"), HostMode.SHADOW),
    ],
)
def test_a_rule_that_can_never_hold_is_refused(rule: Rule) -> None:
    """Off for a caller or an alias, a mode for calls that name no model, a host that nobody intercepts."""
    with pytest.raises(ConfigError):
        checked(rule, Recogniser())


@pytest.mark.parametrize("host", ["*", "api.openai.com", "API.openai.com:443", "*.openai.azure.com"])
def test_a_listed_host_or_pattern_can_have_a_mode(host: str) -> None:
    """In whatever spelling."""
    assert checked(Rule(Match(host), HostMode.OFF), Recogniser()).match.host == host.lower().partition(":")[0]


def test_settings_are_host_and_mode() -> None:
    """What is neither is told with the item."""
    assert parsed(["api.openai.com=shadow", " * = observe "]) == (
        Rule(Match("api.openai.com"), HostMode.SHADOW),
        Rule(Match("*"), HostMode.OBSERVE),
    )
    for item in ("api.openai.com", "=shadow", "api.openai.com=loud"):
        with pytest.raises(ConfigError, match="host=mode"):
            parsed([item])
