"""deploy/kubernetes: what Kubernetes's own schemas take, by settings, ports and commands that there are."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from save_support import on_disks
from typer.testing import CliRunner
from yaml_support import read_all_yaml, read_yaml

from dashboards.rules import ARCHIVE_JOB, COLLECTOR_JOB, EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB
from flows.cli.commands import app
from flows.engine.foundation import lay_foundation
from flows.settings import load
from flows.settings.fields import PREFIX, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
KUSTOMIZATION: dict[str, Any] = read_yaml((FOLDER / "kustomization.yaml").read_text())
PLAIN = dict(
    line.split("=", 1)
    for line in (FOLDER / "settings.env").read_text().splitlines()
    if line and not line.startswith("#")
)
TOLD = (ROOT / "docs/kubernetes.md").read_text()
COMPONENT = "app.kubernetes.io/component"
VERSIONS = ("1.32", kubernetes_validate.latest_version())
"""Kubernetes 1.32, where the label of a pod's index became stable, and the newest."""
BESIDE = ("kustomization.yaml", "settings.env", "monitors.yaml", "deal.yaml")
"""Files that `kubectl apply -k` does not take as objects."""
OPTIONS = ("archive.yaml", "sources.yaml")
"""Files that may be named among the resources."""


def objects(name: str) -> list[dict[str, Any]]:
    return read_all_yaml((FOLDER / name).read_text())


OBJECTS = [one for name in (*KUSTOMIZATION["resources"], *OPTIONS) for one in objects(name)]
DEAL = objects("deal.yaml")
MONITORS = [one for one in objects("monitors.yaml") if one["kind"] == "PodMonitor"]
RUN = {
    one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] in ("StatefulSet", "Deployment")
}
PODS = {name: spec["template"] for name, spec in RUN.items()}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


def specs_of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in OBJECTS if one["kind"] == kind}


def ports(name: str) -> dict[str, int]:
    return {one["name"]: one["containerPort"] for one in CONTAINERS[name]["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", [*OBJECTS, *DEAL], ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_its_schema_takes_it(one: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(one, version, strict=True)


def test_the_validation_finds_an_unknown_field() -> None:
    flow = copy.deepcopy(next(one for one in OBJECTS if one["kind"] == "StatefulSet"))
    flow["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(flow, VERSIONS[-1], strict=True)


def test_every_file_is_applied_except_optional_ones() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files - set(BESIDE) - set(OPTIONS) == set(KUSTOMIZATION["resources"])
    assert set(PODS) == {"flow", "collector", "exporter", *(name.removesuffix(".yaml") for name in OPTIONS)}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_unprivileged_on_a_read_only_root(name: str) -> None:
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
        "COLLECT_TOKENS": "{}",
        "COLLECT_TOKEN": "desk.x",
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
    assert load().collect_host == "0.0.0.0"
    assert "AUDIOPIXEL_METRICS_HOST=0.0.0.0" in (ROOT / "Dockerfile").read_text()


def test_secrets_are_named_in_the_document_without_values() -> None:
    sources = [one for container in CONTAINERS.values() for one in container["envFrom"]]
    named = {one["secretRef"]["name"] for one in sources if "secretRef" in one}
    assert named == {"audiopixel", "audiopixel-tags", "audiopixel-readers"}
    signs = {"secretRef": {"name": "audiopixel-tags"}}
    signers = {name for name, one in CONTAINERS.items() if signs in one["envFrom"]}
    assert signers == {"collector"}
    made = set(re.findall(r"create secret generic (\S+)", TOLD))
    assert made == named | {"audiopixel-scrape"}
    assert not specs_of_kind("Secret")
    assert not [
        name for name in PLAIN if "SECRET" in name or name.endswith(("KEY", "KEYS", "TOKENS", "REDIS_URL"))
    ]


def test_members_and_their_addresses_ports_and_monitors_are_as_many() -> None:
    flow = RUN["flow"]
    env = {one["name"]: one.get("value") for one in CONTAINERS["flow"]["env"]}
    members = range(flow["replicas"])
    domain = f"{flow['serviceName']}.{KUSTOMIZATION['namespace']}.svc.cluster.local"
    assert env["FLOW_ADDRESSES"] == ";".join(f"flow-{n}.{domain}:2101" for n in members)
    first = Settings.model_fields["metrics_port"].default
    assert ports("flow") == {"members": 2101} | {f"metrics-{n}": first + n for n in members}
    scraped = next(
        one["spec"]["podMetricsEndpoints"] for one in MONITORS if FLOW_JOB in one["metadata"]["name"]
    )
    assert [(one["port"], one["relabelings"][0]["regex"]) for one in scraped] == [
        (f"metrics-{n}", str(n)) for n in members
    ]
    policy = specs_of_kind("NetworkPolicy")["members"]["ingress"][1]["ports"]
    assert policy == [{"protocol": "TCP", "port": first, "endPort": first + len(members) - 1}]
    assert flow["podManagementPolicy"] == "Parallel", "a member waits until all are there"
    assert specs_of_kind("Service")["flow"]["publishNotReadyAddresses"]


def test_ports_are_those_of_the_settings() -> None:
    usual = {name: Settings.model_fields[name].default for name in ("collect_port", "collect_health_port")}
    assert ports("collector") == {"door": usual["collect_port"], "metrics": usual["collect_health_port"]}
    assert ports("sources") == {"metrics": Settings.model_fields["sources_port"].default}
    assert ports("archive") == {"metrics": Settings.model_fields["archive_port"].default}
    assert CONTAINERS["exporter"]["args"][-2:] == ["--port", str(ports("exporter")["http"])]
    assert specs_of_kind("Service")["collectors"]["ports"][0]["port"] == usual["collect_health_port"]


def component(selector: dict[str, Any]) -> str:
    assert set(selector) == {COMPONENT}
    return str(selector[COMPONENT])


def test_every_object_is_about_the_pods_that_its_name_says() -> None:
    for name, spec in RUN.items():
        assert component(spec["selector"]["matchLabels"]) == name
        assert spec["template"]["metadata"]["labels"] == {COMPONENT: name}
    for name, spec in specs_of_kind("PodDisruptionBudget").items():
        assert component(spec["selector"]["matchLabels"]) == name
    about = {name: component(spec["selector"]) for name, spec in specs_of_kind("Service").items()}
    assert about == {name: name for name in PODS} | {"collectors": "collector"}
    for one in MONITORS:
        assert one["metadata"]["name"] == f"audiopixel-{component(one['spec']['selector']['matchLabels'])}"


def test_ports_that_are_named_are_those_of_the_pod() -> None:
    for spec in specs_of_kind("Service").values():
        mine = ports(component(spec["selector"]))
        for one in spec["ports"]:
            assert one["targetPort"] in mine if "targetPort" in one else one["port"] in mine.values()
    for name, container in CONTAINERS.items():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert name == "flow" or container[probe]["httpGet"]["port"] in ports(name)
    for one in MONITORS:
        scraped = {endpoint["port"] for endpoint in one["spec"]["podMetricsEndpoints"]}
        assert scraped <= set(ports(component(one["spec"]["selector"]["matchLabels"])))


def test_network_policies_allow_named_sources_to_existing_ports() -> None:
    policies = specs_of_kind("NetworkPolicy")
    rest = policies.pop("stores")
    assert rest["podSelector"] == {}, "of all pods"
    assert rest["policyTypes"] == ["Ingress", "Egress"], "and lets nobody in"
    assert "ingress" not in rest
    assert all(rule["to"] and rule["ports"] for rule in rest["egress"])
    assert {component(spec["podSelector"]["matchLabels"]) for spec in policies.values()} == set(PODS)
    for spec in policies.values():
        mine = ports(component(spec["podSelector"]["matchLabels"])).values()
        assert all(rule["from"] for rule in spec["ingress"])
        let = {one["port"] for rule in spec["ingress"] for one in rule["ports"]}
        let |= {one["endPort"] for rule in spec["ingress"] for one in rule["ports"] if "endPort" in one}
        assert let == set(mine)


def test_the_dealing_job_runs_an_existing_command_on_flow_claims() -> None:
    *claims, job = DEAL
    pod = job["spec"]["template"]["spec"]
    asked = sorted(
        one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if one["name"] != "tmp"
    )
    assert asked == [f"disk-flow-{n}" for n in range(4)]
    (template,) = RUN["flow"]["volumeClaimTemplates"]
    assert [one["metadata"]["name"] for one in claims] == asked[RUN["flow"]["replicas"] :]
    assert all(one["spec"] == template["spec"] for one in claims)
    (container,) = pod["containers"]
    assert container["securityContext"] == CONTAINERS["flow"]["securityContext"]
    assert pod["securityContext"] == PODS["flow"]["spec"]["securityContext"]
    assert (
        container["image"] == f"{KUSTOMIZATION['images'][0]['name']}:{KUSTOMIZATION['images'][0]['newTag']}"
    )


def test_the_job_lays_shards_out_as_its_script_says(tmp_path: Path) -> None:
    """Its script, by disks below a folder: what is dealt lies in each place of `recovery`."""
    (container,) = DEAL[-1]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/disk-", f"{tmp_path}/disk-")
    for member in range(4):
        (tmp_path / f"disk-{member}").mkdir()
    for member in range(2):
        lay_foundation(Settings(recovery_dir=tmp_path / f"made/disk-{member}"), b"")
    for member, store in enumerate(on_disks(tmp_path / "made", [[1], [1]])):
        store.root.rename(tmp_path / f"disk-{member}/recovery")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    there = [sorted(one.name for one in (tmp_path / f"disk-{member}").iterdir()) for member in range(4)]
    assert there == [["recovery", "recovery-of-two"]] * 2 + [["recovery"]] * 2
    for member in range(4):
        (manifest,) = (tmp_path / f"disk-{member}/recovery/saves").glob("*/manifest*")
        assert manifest.name.endswith(str(member))
        assert (tmp_path / f"disk-{member}/recovery").stat().st_mode & 0o777 == 0o700


def test_monitors_name_the_jobs_of_the_rules() -> None:
    jobs = [
        relabeling["replacement"]
        for one in MONITORS
        for endpoint in one["spec"]["podMetricsEndpoints"]
        for relabeling in endpoint["relabelings"]
        if relabeling.get("targetLabel") == "job"
    ]
    assert sorted(set(jobs)) == sorted(
        (FLOW_JOB, PLACEMENTS_JOB, EXPORTER_JOB, COLLECTOR_JOB, ARCHIVE_JOB, "audiopixel-sources")
    )


def test_a_missing_collector_raises_an_alert_of_the_runbook() -> None:
    (rule,) = (one for one in objects("monitors.yaml") if one["kind"] == "PrometheusRule")
    (alert,) = rule["spec"]["groups"][0]["rules"]
    assert alert["expr"] == f'absent(up{{job="{COLLECTOR_JOB}"}})'
    generated = read_yaml((ROOT / "dashboards/generated/rules.yml").read_text())
    rules = [one for group in generated["groups"] for one in group["rules"]]
    (down,) = (one for one in rules if one.get("alert") == "AudiopixelCollectorDown")
    assert alert["annotations"].keys() == down["annotations"].keys()
    assert f"### {alert['alert']}\n" in (ROOT / "docs/runbook.md").read_text()
    assert alert["labels"] == down["labels"]


def test_the_operators_rules_are_those_of_prometheus() -> None:
    generated = ROOT / "dashboards/generated"
    rule = read_yaml((generated / "prometheus-rule.yml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == read_yaml((generated / "rules.yml").read_text())


def test_the_image_is_the_one_of_this_version() -> None:
    compose = read_yaml((ROOT / "docker-compose.yml").read_text())
    (image,) = KUSTOMIZATION["images"]
    assert f"{image['name']}:{image['newTag']}" == compose["services"]["flow"]["image"]
    assert {one["image"] for one in CONTAINERS.values()} == {image["name"]}


def test_a_spool_fits_its_disk() -> None:
    (claim,) = RUN["collector"]["volumeClaimTemplates"]
    size = re.fullmatch(r"(\d+)Gi", claim["spec"]["resources"]["requests"]["storage"])
    assert size is not None
    assert int(size[1]) << 30 > Settings.model_fields["collect_spool_bytes"].default
