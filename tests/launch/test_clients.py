"""Real programs, started by `tokenhub run`: their calls come to the proxy, and they trust it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pip
import pytest

from tests.launch.conftest import Proxy, Tokenhub

_OPENAI = """
import openai
client = openai.OpenAI(api_key="k", max_retries=0)
reply = client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "ping"}])
print(reply.choices[0].message.content)
"""
_OPENAI_ASYNC = """
import asyncio, openai
async def main():
    async with openai.AsyncOpenAI(api_key="k", max_retries=0) as client:
        reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "ping"}])
        print(reply.choices[0].message.content)
asyncio.run(main())
"""
_ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(api_key="k", max_retries=0)
reply = client.messages.create(model="claude", max_tokens=9, messages=[{"role": "user", "content": "ping"}])
print(reply.content[0].text)
"""


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        (_OPENAI, ["CONNECT api.openai.com:443", "POST /v1/chat/completions"]),
        (_OPENAI_ASYNC, ["CONNECT api.openai.com:443", "POST /v1/chat/completions"]),
        (_ANTHROPIC, ["CONNECT api.anthropic.com:443", "POST /v1/messages"]),
    ],
    ids=["openai", "openai-async", "anthropic"],
)
def test_an_official_sdk_comes_through_at_its_default_base_url(
    tokenhub: Tokenhub, proxy: Proxy, program: str, seen: list[str]
) -> None:
    """An unmodified SDK connects to the proxy for its own host, trusts what it finds and reads the answer."""
    result = tokenhub("run", "--", sys.executable, "-c", program)

    assert (result.stdout, result.stderr) == ("pong\n", "")
    assert proxy.seen == seen


def test_the_user_s_proxy_settings_cannot_lead_around_us(tokenhub: Tokenhub, proxy: Proxy) -> None:
    """A shell full of other proxies and exemptions changes nothing."""
    result = tokenhub(
        "run",
        "--",
        sys.executable,
        "-c",
        _OPENAI,
        environ={
            "ALL_PROXY": "socks5://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "NO_PROXY": "*,openai.com,[::1],fd00::/8,10.0.0.0/8",
        },
    )

    assert (result.stdout, result.stderr) == ("pong\n", "")
    assert proxy.seen[0] == "CONNECT api.openai.com:443"


_AIOHTTP = """
import asyncio, aiohttp, inspect
async def main():
    async with aiohttp.ClientSession(trust_env=False) as session:
        async with session.get("https://llm.test/x") as reply:
            print(reply.status, "base_url" in inspect.signature(aiohttp.ClientSession).parameters)
asyncio.run(main())
"""


def test_aiohttp_reads_the_proxy_variables_whatever_its_session_says(
    tokenhub: Tokenhub, proxy: Proxy
) -> None:
    """aiohttp ignores proxy variables by default; under `run` it does not, and its signature stays whole."""
    result = tokenhub("run", "--", sys.executable, "-W", "error", "-c", _AIOHTTP)

    assert (result.stdout, result.stderr) == ("200 True\n", "")
    assert proxy.seen == ["CONNECT llm.test:443", "GET /x"]


_URLLIB3 = """
import urllib3
pool = urllib3.PoolManager()
print(pool.request("GET", "https://llm.test/x").status)
print(pool.request("GET", "http://llm.test/plain").status)
print(pool.connection_from_url("https://llm.test").request("GET", "/y").status)
print(len(pool.pools))
"""


@pytest.fixture
def urllib3(tmp_path: Path) -> Path:
    """Return a directory with a real urllib3 in it: the one that pip carries."""
    shutil.copytree(Path(pip.__file__).parent / "_vendor" / "urllib3", tmp_path / "lib" / "urllib3")
    return tmp_path / "lib"


def test_a_bare_urllib3_pool_goes_through_the_proxy(tokenhub: Tokenhub, proxy: Proxy, urllib3: Path) -> None:
    """urllib3's PoolManager never reads the environment; under `run` https is tunnelled and http proxied."""
    result = tokenhub("run", "--", sys.executable, "-c", _URLLIB3, environ={"PYTHONPATH": str(urllib3)})

    assert (result.stdout, result.stderr) == ("200\n200\n200\n0\n", "")
    assert proxy.seen == [
        "CONNECT llm.test:443",
        "GET /x",
        "GET http://llm.test/plain",
        "GET /y",
    ]


def test_urllib3_sends_the_credentials_of_the_proxy_s_url(
    tokenhub: Tokenhub, proxy: Proxy, urllib3: Path, authority_file: Path
) -> None:
    """A proxy URL with user and password is sent with both."""
    program = "import urllib3; print(urllib3.PoolManager().request('GET', 'https://llm.test/').status)"
    url = proxy.url.replace("//", "//me:p%40ss@")

    result = tokenhub(
        "run", "--proxy", url, "--", sys.executable, "-c", program, environ={"PYTHONPATH": str(urllib3)}
    )

    assert (result.stdout, result.stderr) == ("200\n", "")
    assert proxy.authorization == ["Basic bWU6cEBzcw=="]


def test_the_sitecustomize_that_ours_hides_still_runs(tokenhub: Tokenhub, tmp_path: Path) -> None:
    """A sitecustomize that was there before runs, once, and is what the program finds under that name."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nvalue = 1\nif 'TOKENHUB_ACTIVE' in os.environ: print('theirs')\n"
    )
    program = "import sitecustomize, sys; print(sitecustomize.value, [p for p in sys.path if 'shims' in p])"

    result = tokenhub("run", "--", sys.executable, "-c", program, environ={"PYTHONPATH": str(tmp_path)})

    assert (result.stdout, result.stderr) == ("theirs\n1 []\n", "")


def test_a_broken_sitecustomize_is_reported_as_python_reports_it(tokenhub: Tokenhub, tmp_path: Path) -> None:
    """What a hidden sitecustomize fails with is neither swallowed nor blamed on a missing file."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif 'TOKENHUB_ACTIVE' in os.environ: import a_module_that_is_not_there\n"
    )

    result = tokenhub("run", "--", sys.executable, "-c", "print(1)", environ={"PYTHONPATH": str(tmp_path)})

    assert result.stdout == "1\n"
    assert "a_module_that_is_not_there" in result.stderr


def test_our_python_hook_imports_nothing_that_a_bare_start_does_not(tokenhub: Tokenhub) -> None:
    """Every Python under `run` pays for the hook, so it brings in no module but its own."""
    program = "import sys; print(sorted(sys.modules))"
    bare = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    hooked = tokenhub("run", "--", sys.executable, "-c", program)

    extra = set(hooked.stdout.strip("[]\n").split(", ")) - set(bare.stdout.strip("[]\n").split(", "))
    assert extra <= {"'tokenhub_preload'", "'sitecustomize'", "'__future__'"}
