"""docker-compose.yml, the Dockerfile and what is provisioned: valid, pinned, healthy, on loopback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_support import promtool
from typer.testing import CliRunner

from dashboards.rules import ARCHIVE_JOB, EXPORT_JOB, EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB
from flows.cli.commands import app
from flows.settings import load
from flows.settings.fields import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TRIAL = tomllib.loads((ROOT / "deploy/trial-exporter.toml").read_text())
ONCE = {"topics"}
"""Services that end when they are done: they have no health."""


def composed(**environment: str) -> dict[str, dict[str, Any]]:
    """The services as docker-compose reads them, in an environment with these settings."""
    path = shutil.which("docker-compose")
    if path is None:
        pytest.skip("needs docker-compose: apt-get install --no-install-recommends docker-compose")
    done = subprocess.run(
        [path, "--project-directory", str(ROOT), "--profile", "load", "--profile", "archive", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    services: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return services


@pytest.mark.debian
def test_docker_compose_takes_it() -> None:
    assert set(composed()) == set(SERVICES)


@pytest.mark.debian
def test_settings_of_ones_own_come_as_they_are() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    told = [SERVICES[name]["environment"].items() for name in OURS]
    given = {name for one in told for name, value in one if value is None}
    names = given | set(re.findall(r"\$\{(AUDIOPIXEL_\w+)", text))
    assert {"AUDIOPIXEL_COLLECT_SIGNING_KEYS", "AUDIOPIXEL_READ_TOKENS", "AUDIOPIXEL_LISTENER_KEY"} <= names
    mine = {name: '{"mine":{"of":"' + name + '"}}' for name in names}
    services = composed(**mine)
    for name in OURS:
        told, asked = services[name].get("environment", {}), SERVICES[name]["environment"]
        open_ones = {one for one in mine if one in asked and str(asked[one] or "$").startswith("$")}
        assert {one: told[one] for one in open_ones} == {one: mine[one] for one in open_ones}


def test_no_default_contains_a_brace() -> None:
    assert re.findall(r"\$\{[^}]*\{.*", (ROOT / "docker-compose.yml").read_text()) == []


def test_collector_and_exporter_have_trial_keys_unless_others_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    for name in ("collector", "exporter"):
        assert f"./deploy/trial-{name}.toml:{workdir}/audiopixel.toml:ro" in SERVICES[name]["volumes"]
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIOPIXEL_CONFIG", str(ROOT / "deploy/trial-exporter.toml"))
    assert list(load().read_tokens) == ["trial", "prometheus"]
    monkeypatch.setenv("AUDIOPIXEL_CONFIG", str(ROOT / "deploy/trial-collector.toml"))
    assert list(load().collect_signing_keys) == ["trial"]
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_SIGNING_KEYS", '{"mine":"0123456789abcdef"}')
    assert list(load().collect_signing_keys) == ["mine"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_patch(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE - {"load"}))
def test_a_service_says_whether_it_is_healthy_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_services_wait_until_their_dependencies_are_healthy() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    for service in needs.values():
        for name, need in service.items():
            wanted = "service_completed_successfully" if name in ONCE else "service_healthy"
            assert need == {"condition": wanted}
    assert {"topics", "kafka", "valkey"} <= set(needs["flow"])
    assert "prometheus" in needs["grafana"]
    optional = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert optional == {"load": ["load"], "archive": ["archive"]}


def test_the_flow_can_begin_in_the_composed_archive() -> None:
    to = SERVICES["archive"]["command"][-1].removeprefix("${ARCHIVE_TO:-").removesuffix("}")
    assert f"archive:{to}" in SERVICES["archive"]["volumes"]
    assert f"archive:{to}:ro" in SERVICES["flow"]["volumes"]
    default = Settings.model_fields["kafka_start"].default
    assert (
        SERVICES["flow"]["environment"]["AUDIOPIXEL_KAFKA_START"] == f"${{AUDIOPIXEL_KAFKA_START:-{default}}}"
    )


def test_services_that_report_a_down_flow_do_not_wait_for_it() -> None:
    waited_for, waits = {"prometheus", "alertmanager"}, {"prometheus", "alertmanager"}
    while waited_for:
        waited_for = {name for one in waited_for for name in SERVICES[one].get("depends_on", {})}
        waits |= waited_for
    assert waits == {"prometheus", "alertmanager"}


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_each_alert_link_has_the_published_port(name: str) -> None:
    (url,) = (flag for flag in SERVICES[name]["command"] if flag.startswith("--web.external-url="))
    (port,) = SERVICES[name]["ports"]
    assert url.endswith("=http://" + port.rpartition(":")[0])


def test_the_collectors_doors_are_behind_the_proxy_alone() -> None:
    doors = str(Settings.model_fields["collect_port"].default)
    assert not [port for port in SERVICES["collector"]["ports"] if port.endswith(f":{doors}")]
    told = (ROOT / "Caddyfile").read_text()
    assert f"reverse_proxy collector:{doors}" in told
    address = SERVICES["collector"]["environment"]["AUDIOPIXEL_COLLECT_URL"].partition(":-")[2].rstrip("}")
    assert address.partition("://")[2] in told
    assert SERVICES["proxy"]["ports"] == [f"127.0.0.1:{address.rpartition(':')[2]}:8443"]


def test_valkey_is_healthy_only_when_it_says_pong() -> None:
    assert "-e" in SERVICES["valkey"]["healthcheck"]["test"], "else an error is as good an answer"


def test_alertmanager_and_prometheus_read_the_generated_files() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["alertmanager"]["volumes"])
    assert (
        f"--config.file={mounts['./dashboards/generated/alertmanager.yml']}"
        in (SERVICES["alertmanager"]["command"])
    )
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])
    config = Path(mounts["./dashboards/provisioning/prometheus.yml"])
    assert f"--config.file={config}" in SERVICES["prometheus"]["command"]
    (rules,) = yaml.safe_load((ROOT / "dashboards/provisioning/prometheus.yml").read_text())["rule_files"]
    assert os.path.normpath(config.parent / rules) == f"{mounts['./dashboards/generated']}/rules.yml"


def test_every_mounted_file_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, *_ = volume.split(":")
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                volume
            )


@pytest.mark.parametrize("name", OURS)
def test_a_command_of_ours_is_one(name: str) -> None:
    command = [str(part) for part in SERVICES[name]["command"]]
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0, done.output


def test_settings_are_known_and_topics_are_those_of_the_settings() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    used = {name for service in OURS for name in SERVICES[service]["environment"]}
    used |= set(re.findall(r"\b(AUDIOPIXEL_\w+)=", DOCKERFILE))
    assert used <= known
    made = set(re.findall(r"^make ([\w-]+)", SERVICES["topics"]["command"][0], re.MULTILINE))
    assert made == {
        field.default
        for name, field in Settings.model_fields.items()
        if re.fullmatch(r"kafka_(\w+_)?topic", name)
    }


def test_the_image_is_slim_staged_and_not_of_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", base) for base in bases)
    last = DOCKERFILE.rsplit("FROM", 1)[1]
    assert re.search(r"^USER audiopixel$", last, re.MULTILINE)
    assert "pip install" not in last
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in kept


@pytest.mark.debian
def test_prometheus_takes_its_configuration_and_scrapes_the_jobs_of_the_rules() -> None:
    path = ROOT / "dashboards" / "provisioning" / "prometheus.yml"
    done = promtool("check", "config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job["job_name"]: job for job in yaml.safe_load(path.read_text())["scrape_configs"]}
    assert set(jobs) == {FLOW_JOB, PLACEMENTS_JOB, EXPORTER_JOB, "audiopixel-collector"}
    for job in jobs.values():
        ((target,),) = (config["targets"] for config in job["static_configs"])
        service, port = target.split(":")
        assert any(mapped.endswith(f":{port}") for mapped in SERVICES[service]["ports"])


def test_a_job_in_comments_can_be_enabled() -> None:
    text = (ROOT / "dashboards" / "provisioning" / "prometheus.yml").read_text()
    taken_in = re.sub(r"^  # ( *(?:- )?\w+: )", r"  \1", text, flags=re.MULTILINE)
    jobs = [job["job_name"] for job in yaml.safe_load(taken_in)["scrape_configs"]]
    assert {EXPORT_JOB, ARCHIVE_JOB, "audiopixel-sources"} <= set(jobs)
    assert len(set(jobs)) == len(jobs)


def test_grafana_is_given_the_data_source_and_the_generated_dashboards() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    place = ROOT / "dashboards" / "provisioning"
    sources = yaml.safe_load((place / "datasources.yml").read_text())["datasources"]
    assert [source["type"] for source in sources if source.get("isDefault")] == ["prometheus"]
    (provider,) = yaml.safe_load((place / "dashboards.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounts["./dashboards/generated"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "dashboards" / "generated" / Path(home).name).exists()


def test_only_the_collector_has_the_signing_keys() -> None:
    assert [name for name, one in SERVICES.items() if "SIGNING_KEYS" in str(one.get("environment"))] == [
        "collector"
    ]
    assert not {name for name in TRIAL if name.startswith("collect")}
    asks = SERVICES["exporter"]["environment"]
    assert (
        asks["AUDIOPIXEL_COLLECT_URL"] == f"http://collector:{Settings.model_fields['collect_port'].default}"
    )
    name, _, secret = asks["AUDIOPIXEL_COLLECT_TOKEN"].partition(":-")[2].rstrip("}").partition(".")
    known = tomllib.loads((ROOT / "deploy/trial-collector.toml").read_text())["collect_tokens"][name]
    assert known == {"sha256": sha256(secret.encode()).hexdigest(), "rights": ["tag"]}


def test_prometheus_has_a_token_for_scrapes_alone() -> None:
    tokens = TRIAL["read_tokens"]
    jobs = yaml.safe_load((ROOT / "dashboards" / "provisioning" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    shown = {job["authorization"]["credentials"] for job in jobs if "exporter:9480" in str(job)}
    (said,) = shown
    name, _, secret = said.partition(".")
    digest = sha256(secret.encode()).hexdigest()
    assert tokens[name] == {"sha256": digest, "read_all": True, "rights": ["metrics"]}
