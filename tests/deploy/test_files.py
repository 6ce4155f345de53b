"""What deploy/ says of TokenHub is so: its settings, ports, paths and files; and it runs as nobody in particular."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode
from ruamel.yaml import YAML

from tokenhub_core import config
from tokenhub_core.config import Settings
from tokenhub_core.http.operations import document
from tokenhub_core.vault.passwords import CREDENTIAL

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
DOCKERFILE: Final = DEPLOY / "Dockerfile"
UNIT: Final = DEPLOY / "systemd" / "tokenhub.service"
DEFAULTS: Final = Settings()
FILES: Final = sorted(one for one in DEPLOY.rglob("*") if one.is_file() and one.suffix != ".json")


def load(name: str) -> list[Any]:
    return [*YAML(typ="safe", pure=True).load_all((DEPLOY / name).read_text())]


def instructions(word: str) -> list[str]:
    """Return what follows a word in the Dockerfile, lines that are continued joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.removeprefix(word).strip() for line in text.splitlines() if line.startswith(f"{word} ")]


def image() -> dict[str, str]:
    """Return the environment of the image."""
    return dict(pair.split("=", 1) for line in instructions("ENV") for pair in shlex.split(line))


def objects(kind: str) -> Iterator[Any]:
    for name in ("namespace", "tokenhub", "network", "servicemonitor", "sidecar"):
        yield from (one for one in load(f"kubernetes/{name}.yaml") if one["kind"] == kind)


def settings(*environments: dict[str, str]) -> Settings:
    """Return what TokenHub makes of these together; fails where it would warn of a name."""
    told = {name: value for some in environments for name, value in some.items()}
    assert config.unknown(told) == []
    return config.parse(told, data_dir=Path(told.get("TOKENHUB_DATA_DIR", "/x")))


def stateful() -> Any:
    (found,) = objects("StatefulSet")
    return found["spec"]["template"]["spec"]


def configured(name: str) -> dict[str, str]:
    found: dict[str, str] = next(
        one["data"] for one in objects("ConfigMap") if one["metadata"]["name"] == name
    )
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    """In files that are read, and in the words beside them."""
    named = {name.rstrip("_") for name in re.findall(r"TOKENHUB_[A-Z_]+", path.read_text())}
    assert config.unknown(dict.fromkeys(named, "x")) == []


def test_the_image_serves_others_and_nobody_without_a_key() -> None:
    """It binds every address, and so it cannot be anonymous; its data are where its volume is."""
    here = settings(image())
    assert (here.host, here.anonymous) == ("0.0.0.0", False)
    assert instructions("VOLUME") == [image()["TOKENHUB_DATA_DIR"]]
    assert instructions("EXPOSE") == [f"{here.port} {here.admin_port}"]
    assert instructions("USER") == ["10001:10001"]
    (check,) = instructions("HEALTHCHECK")
    assert f"http://127.0.0.1:{here.admin_port}/healthz" in check


def test_what_the_image_is_made_of_is_there_and_reaches_the_builder() -> None:
    """Every source of a COPY exists, and .dockerignore lets it through; nothing else goes."""
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert sources == let
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "hatchling==" in (ROOT / "requirements-all.lock").read_text()


def test_compose_runs_it_with_what_it_needs_and_no_more() -> None:
    """Its settings are good, its files are there, its ports are this machine's alone."""
    (told,) = load("compose.yaml")
    service = told["services"]["tokenhub"]
    environment = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in service["environment"].items()
    }
    here = settings(
        image(), {name: value for name, value in environment.items() if name.startswith("TOKENHUB")}
    )
    assert here.db_password_file.rpartition("/")[2] in service["secrets"]
    assert {CREDENTIAL} <= {*service["secrets"]} <= {*told["secrets"]}
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].removesuffix("s")) > DEFAULTS.shutdown_drain_secs
    assert {"postgres", "redis", "temporal", "prometheus", "grafana"} <= {*told["services"]}
    for name, one in told["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ())), name
        assert ":" in one["image"], name
        assert not one["image"].endswith(":latest"), name
        for volume in one.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in told["volumes"], name


def test_prometheus_finds_it_where_compose_has_it() -> None:
    """By a name that the side server is called by, at its port, in the job that the alerts are about."""
    (told,) = load("prometheus/prometheus.yml")
    (job,) = told["scrape_configs"]
    (composed,) = load("compose.yaml")
    allowed = composed["services"]["tokenhub"]["environment"]["TOKENHUB_ALLOWED_HOSTS"]
    assert job["static_configs"] == [{"targets": [f"{allowed}:{DEFAULTS.admin_port}"]}]
    (monitor,) = objects("ServiceMonitor")
    assert (
        job["job_name"]
        == "tokenhub"
        == monitor["spec"]["selector"]["matchLabels"][monitor["spec"]["jobLabel"]]
    )


def test_kubernetes_asks_the_right_path_for_each_question() -> None:
    """Alive and ready are two things: a database that is away is no reason for a restart."""
    (container,) = stateful()["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    here = settings(image(), configured("tokenhub"))
    assert ports == {"proxy": here.port, "api": here.admin_port}
    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert {probe: one["path"] for probe, one in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {one["port"] for one in asked.values()} == {"api"}
    served = document()["paths"]
    assert {one["path"] for one in asked.values()} <= {*served}
    (service,) = objects("Service")
    assert {one["targetPort"]: one["port"] for one in service["spec"]["ports"]} == ports


def test_kubernetes_lets_calls_end_and_runs_it_as_nobody_in_particular() -> None:
    """Longer than it drains; the root is read-only, and what it writes to is mounted."""
    pod = stateful()
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > DEFAULTS.shutdown_drain_secs + 5
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    here = configured("tokenhub")
    assert str(Path(here["TOKENHUB_DATA_DIR"]).parent) in mounts
    assert str(Path(here["TOKENHUB_DB_PASSWORD_FILE"]).parent) in mounts
    assert {one["value"] for one in container["env"]} <= mounts


def test_modes_of_the_recipes_are_modes() -> None:
    """The sidecar's settings are good, and its rules turn traffic around to the port where it listens."""
    here = settings(image(), configured("tokenhub-sidecar"))
    modes = [ProxyMode.parse(mode) for mode in here.modes]
    assert [mode.type_name for mode in modes] == ["regular", "transparent"]
    for name in ("gateway", "sidecar"):
        rules = (DEPLOY / "transparent" / f"{name}.nft").read_text()
        assert f"define into = {modes[1].listen_port()}\n" in rules
        (told,) = re.findall(r"TOKENHUB_MODES=(\S+)", rules)
        assert settings({"TOKENHUB_MODES": told}).modes == here.modes


def test_the_unit_gives_the_vaults_password_by_the_name_that_is_looked_for() -> None:
    """And lets calls end."""
    told = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w*=", line))
    assert told["LoadCredential"].partition(":")[0] == CREDENTIAL
    assert int(told["TimeoutStopSec"]) > DEFAULTS.shutdown_drain_secs
    assert (told["Type"], told["DynamicUser"], told["NoNewPrivileges"]) == ("exec", "yes", "yes")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Every line of it, with a program that is there in the place of ours."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/tokenhub/bin/tokenhub", sys.executable))
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    mentions = [line for line in told.stderr.splitlines() if UNIT.name in line]
    assert (told.returncode, mentions) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_little_left_open_in_the_unit() -> None:
    """At most 2.5 of 10, by its own count, that no service may do."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(UNIT)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_the_manifests_together() -> None:
    """All of them in one namespace, with the image that is named."""
    told = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    made = [*YAML(typ="safe", pure=True).load_all(told.stdout)]
    assert {one["metadata"].get("namespace", "tokenhub") for one in made} == {"tokenhub"}
    assert "image: registry.example/tokenhub:0.1.0" in told.stdout


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize("name", ["gateway", "sidecar"])
def test_nftables_understands_the_recipes(name: str) -> None:
    """Syntax and types; whether a kernel takes them only one that lets us ask can tell."""
    told = subprocess.run(
        ["nft", "--check", "--file", DEPLOY / "transparent" / f"{name}.nft"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in told.stderr:
        pytest.skip("the kernel lets nobody here ask about rules")
    assert told.returncode == 0, told.stderr
