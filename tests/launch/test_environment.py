from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.environment import (
    BUNDLE_VARIABLES,
    CHANGED,
    RESTORE,
    Changes,
    Trust,
    client_environment,
    keyed,
    original_environment,
)
from tokenhub_core.ports import Secret

PROXY = "http://127.0.0.1:8080"
TRUST = Trust(
    ca_file=Path("/data/ca.pem"),
    bundle_file=Path("/data/run/ca-bundle.pem"),
    trust_store=Path("/data/run/ca-bundle.p12"),
    wgetrc=Path("/data/run/wgetrc"),
)


def changes(
    base: Mapping[str, str] | None = None,
    *,
    proxy_url: str = PROXY,
    shim_dir: str = "/shims",
    include_localhost: bool = False,
) -> Changes:
    return client_environment(
        base or {},
        proxy_url=proxy_url,
        trust=TRUST,
        shim_dir=Path(shim_dir),
        llm_hosts=("api.openai.com",),
        include_localhost=include_localhost,
    )


def test_every_client_finds_its_proxy_and_its_roots() -> None:
    """An empty environment gets every row of the table."""
    found = dict(changes().set)
    del found[RESTORE]
    bundle = "/data/run/ca-bundle.pem"

    assert found == {
        "HTTP_PROXY": PROXY,
        "HTTPS_PROXY": PROXY,
        "http_proxy": PROXY,
        "https_proxy": PROXY,
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
        "NODE_USE_ENV_PROXY": "1",
        "NODE_OPTIONS": "--require=/shims/node.cjs",
        "NODE_EXTRA_CA_CERTS": "/data/ca.pem",
        "DENO_CERT": "/data/ca.pem",
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "AWS_CA_BUNDLE": bundle,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
        "CODEX_CA_CERTIFICATE": bundle,
        "GIT_SSL_CAINFO": bundle,
        "PIP_CERT": bundle,
        "CARGO_HTTP_CAINFO": bundle,
        "HTTPLIB2_CA_CERTS": bundle,
        "NIX_SSL_CERT_FILE": bundle,
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": bundle,
        "PERL_LWP_SSL_CA_FILE": bundle,
        "npm_config_cafile": bundle,
        "PYTHONPATH": "/shims/python",
        "JAVA_TOOL_OPTIONS": "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080 -Dhttp.proxyHost=127.0.0.1"
        " -Dhttp.proxyPort=8080 -Dhttp.nonProxyHosts=localhost|*.localhost|127.0.0.1|[::1]"
        " -Djavax.net.ssl.trustStore=/data/run/ca-bundle.p12"
        " -Djavax.net.ssl.trustStorePassword=tokenhub",
        "WGETRC": "/data/run/wgetrc",
        "TOKENHUB_ACTIVE": PROXY,
    }


def test_a_socks_proxy_of_the_user_is_removed() -> None:
    """ALL_PROXY in both cases goes (httpx raises on a socks URL), and so do gRPC's own variables."""
    base = {"ALL_PROXY": "socks5://x", "all_proxy": "socks5://x", "grpc_proxy": "http://x", "KEPT": "1"}

    after = changes(base).apply(base)

    assert not {"ALL_PROXY", "all_proxy", "grpc_proxy", "no_grpc_proxy"} & set(after)
    assert after["KEPT"] == "1"


def test_both_cases_of_no_proxy_are_read_and_cleaned() -> None:
    """The user's entries of either variable stay, less those that would lead around us."""
    found = changes({"NO_PROXY": "corp.test,openai.com", "no_proxy": "*,lower.test"}).set

    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1,lower.test,corp.test"


def test_include_localhost_leaves_no_exemption_behind() -> None:
    """With nothing exempt the variable is removed, and Java's default for loopback is overridden."""
    after = changes({"NO_PROXY": "localhost"}, include_localhost=True)

    assert {"NO_PROXY", "no_proxy"} <= set(after.unset)
    assert "-Dhttp.nonProxyHosts= " in after.set["JAVA_TOOL_OPTIONS"]


def test_what_the_user_gave_node_python_and_java_stays() -> None:
    """Options and search paths are added to, never replaced."""
    found = changes(
        {
            "NODE_OPTIONS": "--max-old-space-size=99",
            "PYTHONPATH": "/mine:/yours",
            "JAVA_TOOL_OPTIONS": "-Xmx1g",
        }
    ).set

    assert found["NODE_OPTIONS"] == "--max-old-space-size=99 --require=/shims/node.cjs"
    assert found["PYTHONPATH"] == "/shims/python:/mine:/yours"
    assert found["JAVA_TOOL_OPTIONS"].startswith("-Xmx1g -Dhttps.proxyHost=127.0.0.1 ")


def test_java_gets_the_exemptions_in_its_own_notation() -> None:
    """Java matches subdomains only by a star and knows neither networks nor ports."""
    flags = changes({"NO_PROXY": ".corp.test,10.0.0.0/8,a.test:80,fd00::1"}).set["JAVA_TOOL_OPTIONS"]

    assert "nonProxyHosts=localhost|*.localhost|127.0.0.1|[::1]|corp.test|*.corp.test|[fd00::1] " in flags


def test_paths_with_spaces_are_quoted_for_node_and_java() -> None:
    """Both split their options at spaces, and both read double quotes."""
    found = client_environment(
        {},
        proxy_url=PROXY,
        trust=Trust(Path("/c"), Path("/b"), Path("/a b/store.p12"), Path("/w")),
        shim_dir=Path('/a "b"'),
        llm_hosts=(),
    ).set

    assert found["NODE_OPTIONS"] == '"--require=/a \\"b\\"/node.cjs"'
    assert '"-Djavax.net.ssl.trustStore=/a b/store.p12"' in found["JAVA_TOOL_OPTIONS"]


def test_node_keeps_the_user_s_own_extra_certificates() -> None:
    """Where the one variable is taken, the bundle that holds the user's and ours takes its place."""
    assert changes({"NODE_EXTRA_CA_CERTS": "/corp.pem"}).set["NODE_EXTRA_CA_CERTS"] == str(TRUST.bundle_file)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "socks5://127.0.0.1:1", "http://", "http://h:99999"])
def test_a_proxy_url_that_cannot_be_used_is_named(url: str) -> None:
    """The error is one line and shows what was given."""
    with pytest.raises(ConfigError, match="proxy URL"):
        changes(proxy_url=url)


_values = st.text(alphabet="ab:/, *.-=", max_size=12)
_environments = st.dictionaries(st.sampled_from([*CHANGED, "OTHER"]), _values, max_size=8)


@settings(max_examples=100)
@given(_environments, st.booleans())
def test_a_nested_run_changes_nothing(base: dict[str, str], localhost: bool) -> None:
    """Applying the environment to itself is the same environment."""
    once = changes(base, include_localhost=localhost).apply(base)

    assert changes(once, include_localhost=localhost).apply(once) == once


@settings(max_examples=100)
@given(_environments)
def test_unset_brings_back_exactly_what_was_there(base: dict[str, str]) -> None:
    """Taking the changes back, after any nesting, restores the environment, empty values included."""
    once = changes(base).apply(base)
    twice = changes(once).apply(once)

    assert original_environment(twice).apply(twice) == base


def test_unset_outside_does_nothing() -> None:
    """An environment that is not ours is left alone."""
    assert original_environment({"HTTPS_PROXY": "http://mine"}) == Changes({})


@pytest.mark.parametrize("damaged", ["{", "[]", "3"])
def test_a_damaged_memory_is_an_error_and_no_guess(damaged: str) -> None:
    """Nothing is unset on the word of a variable that cannot be read."""
    with pytest.raises(ConfigError, match=RESTORE):
        original_environment({RESTORE: damaged})


def test_every_variable_that_is_set_can_be_taken_back() -> None:
    """The list of changed variables is complete."""
    assert set(changes().set) | set(changes().unset) == {*CHANGED, RESTORE}
    assert set(BUNDLE_VARIABLES) <= set(CHANGED)


def test_a_key_is_escaped_as_a_url_wants_it() -> None:
    """Whatever stands in it, host and port stay what they are."""
    url = keyed("http://127.0.0.1:8080", Secret("tokenhub_a/b@c:d#e?f%"))
    assert url == "http://x:tokenhub_a%2Fb%40c%3Ad%23e%3Ff%25@127.0.0.1:8080"
    assert urlsplit(url).hostname == "127.0.0.1"
    assert keyed("http://[::1]:8080", Secret("tokenhub_a")) == "http://x:tokenhub_a@[::1]:8080"
    assert keyed("http://h:1", Secret("")) == "http://h:1"
    with pytest.raises(ConfigError, match="already"):
        keyed("http://u:p@h:1", Secret("tokenhub_a"))
