from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.conftest import Authority
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.client import prepare_client
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info


def test_a_named_proxy_needs_nobody_serving_here(tmp_path: Path, authority: Authority) -> None:
    """A proxy on another host is taken at its word, with the CA that was named for it."""
    changes = prepare_client(
        {"NO_PROXY": "openai.com"}, tmp_path, proxy="http://hub.test:8080", ca=authority.file
    )

    assert changes.set["HTTPS_PROXY"] == "http://hub.test:8080"
    assert changes.set["NODE_EXTRA_CA_CERTS"] == str(authority.file)
    assert "openai.com" not in changes.set["NO_PROXY"].split(",")


def test_a_named_proxy_without_a_ca_is_refused(tmp_path: Path) -> None:
    """Without the CA every call would fail on TLS, so the start fails instead."""
    with pytest.raises(ConfigError, match="--ca FILE"):
        prepare_client({}, tmp_path, proxy="http://hub.test:8080")


def test_a_named_proxy_uses_the_ca_that_is_known_here(tmp_path: Path, authority: Authority) -> None:
    """A second name for the proxy that serves from this directory needs no `--ca`, running or not."""
    info = ServeInfo(1, "http://127.0.0.1:1", "", str(authority.file), ("llm.test",), 0.0)
    write_serve_info(tmp_path, info)

    changes = prepare_client({"NO_PROXY": "llm.test"}, tmp_path, proxy="http://hub.test:8080")

    assert changes.set["NODE_EXTRA_CA_CERTS"] == str(authority.file)
    assert "llm.test" not in changes.set["NO_PROXY"]
