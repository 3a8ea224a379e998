"""deploy/kubernetes: what Kubernetes's own schemas take, by settings, ports and commands that there are."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from dashboards.rules import COLLECTOR_JOB, EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB
from flows.cli.commands import app
from flows.settings import load
from flows.settings.fields import PREFIX, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
PLAIN = dict(
    line.split("=", 1)
    for line in (FOLDER / "settings.env").read_text().splitlines()
    if line and not line.startswith("#")
)
TOLD = (ROOT / "docs/kubernetes.md").read_text()
COMPONENT = "app.kubernetes.io/component"
VERSIONS = ("1.32", kubernetes_validate.latest_version())
"""The first that tells a pod its index by a label for good, and the last."""


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in objects(name)]
MONITORS = objects("monitors.yaml")
RUN = {
    one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] in ("StatefulSet", "Deployment")
}
PODS = {name: spec["template"] for name, spec in RUN.items()}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] == kind}


def ports(name: str) -> dict[str, int]:
    return {one["name"]: one["containerPort"] for one in CONTAINERS[name]["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_its_schema_takes_it(one: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(one, version, strict=True)


def test_a_word_that_there_is_not_is_found() -> None:
    flow = copy.deepcopy(next(one for one in OBJECTS if one["kind"] == "StatefulSet"))
    flow["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(flow, VERSIONS[-1], strict=True)


def test_all_files_are_applied_but_what_needs_the_operator() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files - {"kustomization.yaml", "settings.env", "monitors.yaml"} == set(KUSTOMIZATION["resources"])
    assert set(PODS) == {"flow", "collector", "exporter"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_as_nobody_on_a_root_that_it_cannot_write(name: str) -> None:
    pod, container = PODS[name]["spec"], CONTAINERS[name]
    user = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert {"requests", "limits"} <= set(container["resources"])


@pytest.mark.parametrize("name", PODS)
def test_its_command_is_one_and_writes_on_volumes_alone(name: str) -> None:
    container = CONTAINERS[name]
    done = CliRunner().invoke(app, [*container["args"], "--help"])
    assert done.exit_code == 0, done.output
    mounts = [one["mountPath"] for one in container["volumeMounts"]]
    paths = [one["value"] for one in container["env"] if str(one.get("value")).startswith("/")]
    assert paths
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in paths)
    asked = {one["name"] for one in PODS[name]["spec"]["volumes"]}
    asked |= {one["metadata"]["name"] for one in RUN[name].get("volumeClaimTemplates", [])}
    assert asked == {one["name"] for one in container["volumeMounts"]}


def test_settings_are_known_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "COLLECT_KEY": "x" * 16,
        "COLLECT_SIGNING_KEYS": '{"a": "' + "x" * 16 + '"}',
        "READ_TOKENS": "{}",
    }
    told = dict(PLAIN)
    told |= {f"{PREFIX}{name}".upper(): value for name, value in secrets.items()}
    told |= {"AUDIOPIXEL_REDIS_URL": "redis://redis:6379/0", "AUDIOPIXEL_LISTENER_KEY": "x" * 16}
    for container in CONTAINERS.values():
        told |= {
            one["name"]: one["value"] for one in container["env"] if one["name"].startswith(PREFIX.upper())
        }
    assert set(told) <= {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert str(load().recovery_dir) == "/disk/recovery"
    assert str(load().collect_spool) == "/disk/spool"


def test_secrets_are_named_in_the_document_and_nowhere_given() -> None:
    sources = [one for container in CONTAINERS.values() for one in container["envFrom"]]
    named = {one["secretRef"]["name"] for one in sources if "secretRef" in one}
    assert named == {"audiopixel", "audiopixel-tags", "audiopixel-readers"}
    made = set(re.findall(r"create secret generic (\S+)", TOLD))
    assert made == named | {"audiopixel-scrape"}
    assert not of_kind("Secret")
    assert not [
        name for name in PLAIN if "SECRET" in name or name.endswith(("KEY", "KEYS", "TOKENS", "REDIS_URL"))
    ]


def test_members_and_their_addresses_ports_and_monitors_are_as_many() -> None:
    flow = RUN["flow"]
    env = {one["name"]: one.get("value") for one in CONTAINERS["flow"]["env"]}
    members = range(flow["replicas"])
    assert env["FLOW_ADDRESSES"] == ";".join(f"flow-{n}.{flow['serviceName']}:2101" for n in members)
    first = Settings.model_fields["metrics_port"].default
    assert ports("flow") == {"members": 2101} | {f"metrics-{n}": first + n for n in members}
    scraped = next(
        one["spec"]["podMetricsEndpoints"] for one in MONITORS if FLOW_JOB in one["metadata"]["name"]
    )
    assert [(one["port"], one["relabelings"][0]["regex"]) for one in scraped] == [
        (f"metrics-{n}", str(n)) for n in members
    ]
    policy = of_kind("NetworkPolicy")["members"]["ingress"][1]["ports"]
    assert policy == [{"protocol": "TCP", "port": first, "endPort": first + len(members) - 1}]
    assert flow["podManagementPolicy"] == "Parallel", "a member waits until all are there"
    assert of_kind("Service")["flow"]["publishNotReadyAddresses"]


def test_ports_are_those_of_the_settings() -> None:
    usual = {name: Settings.model_fields[name].default for name in ("collect_port", "collect_health_port")}
    assert ports("collector") == {"door": usual["collect_port"], "metrics": usual["collect_health_port"]}
    assert CONTAINERS["exporter"]["args"][-2:] == ["--port", str(ports("exporter")["http"])]
    assert of_kind("Service")["collectors"]["ports"][0]["port"] == usual["collect_health_port"]


def test_every_selector_finds_pods_and_every_policy_says_whom_it_lets_in() -> None:
    selectors = [spec["selector"] for spec in of_kind("Service").values()]
    selectors += [spec["selector"]["matchLabels"] for spec in of_kind("PodDisruptionBudget").values()]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in MONITORS]
    policies = of_kind("NetworkPolicy")
    assert policies.pop("stores")["podSelector"] == {}, "of all pods, and lets nobody in"
    selectors += [spec["podSelector"]["matchLabels"] for spec in policies.values()]
    assert {one[COMPONENT] for one in selectors} == set(PODS)
    for spec in policies.values():
        for rule in spec["ingress"]:
            assert rule["from"]
            assert rule["ports"]
    named = {port for name in PODS for port in ports(name)}
    assert {one["port"] for each in MONITORS for one in each["spec"]["podMetricsEndpoints"]} <= named


def test_monitors_name_the_jobs_of_the_rules() -> None:
    jobs = [
        relabeling["replacement"]
        for one in MONITORS
        for endpoint in one["spec"]["podMetricsEndpoints"]
        for relabeling in endpoint["relabelings"]
        if relabeling.get("targetLabel") == "job"
    ]
    assert sorted(set(jobs)) == sorted((FLOW_JOB, PLACEMENTS_JOB, EXPORTER_JOB, COLLECTOR_JOB))


def test_the_operators_rules_are_those_of_prometheus() -> None:
    generated = ROOT / "dashboards/generated"
    rule = yaml.safe_load((generated / "prometheus-rule.yml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((generated / "rules.yml").read_text())


def test_the_image_is_the_one_of_this_version() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    (image,) = KUSTOMIZATION["images"]
    assert f"{image['name']}:{image['newTag']}" == compose["services"]["flow"]["image"]
    assert {one["image"] for one in CONTAINERS.values()} == {image["name"]}


def test_a_spool_fits_its_disk() -> None:
    (claim,) = RUN["collector"]["volumeClaimTemplates"]
    size = re.fullmatch(r"(\d+)Gi", claim["spec"]["resources"]["requests"]["storage"])
    assert size is not None
    assert int(size[1]) << 30 > Settings.model_fields["collect_spool_bytes"].default
