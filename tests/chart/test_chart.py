"""The Helm chart without a cluster: Kubernetes' own schemas, and what each object must say."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from constitution_client.ceremony import make_trust
from deploy.embedded.prometheus import programs
from deploy.embedded.stack_directory import CHECKOUT
from tests.chart.rendered import CHART, TEMPLATE, VALUES, Manifests, run, template
from tests.chart.tools import tool

pytestmark = pytest.mark.chart

SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
KUBERNETES = ("1.29", "1.37")
OPERATORS = {"monitoring.coreos.com/v1", "temporal.io/v1alpha1"}  # their schemas are not Kubernetes' own


def test_there_are_six_value_sets_or_more() -> None:
    assert len(SETS) >= 6


@pytest.mark.parametrize("values", SETS)
def test_helm_finds_nothing_to_say(values: str) -> None:
    assert "0 chart(s) failed" in run("lint", "--strict", str(CHART), "--values", str(VALUES / f"{values}.yaml"))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", SETS)
def test_every_object_fits_kubernetes_own_schema(values: str, version: str, tmp_path: Path) -> None:
    documents = [found for found in Manifests(values).objects if found["apiVersion"] not in OPERATORS]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    done = subprocess.run(  # noqa: S603
        [tool("kubernetes-validate"), "--strict", "-k", version, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(documents) > 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rolls.worker.replicas=2", "rolls"),
        ("roles.worker.replicas=0", "replicas"),
        ("settings.KAFKA_PASSWORD=x", "KAFKA_PASSWORD"),
        ("roles.worker.settings.REDIS_URL=x", "REDIS_URL"),
        ("image.digest=latest", "digest"),
        ("image.repository=", "repository"),
    ],
)
def test_a_value_that_nothing_reads_or_a_secret_in_the_open_is_refused(given: str, said: str) -> None:
    refused = run(*TEMPLATE, "--values", str(VALUES / "smallest.yaml"), "--set", given, code=1)
    assert said in refused


@pytest.mark.parametrize("values", SETS)
def test_no_pod_may_more_than_it_needs(values: str) -> None:
    pods = Manifests(values).pods()
    assert pods
    for name, pod in pods.items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name  # Kubernetes' own variables would look like settings of ours
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name
        secrets = {"PASSWORD", "TOKEN", "DATABASE_URL", "REDIS_URL"}
        assert not any(
            entry["name"].endswith(tuple(secrets)) and "value" in entry for entry in container.get("env", ())
        )


def test_each_role_runs_with_the_settings_that_it_needs() -> None:
    pods = Manifests("by-digest").pods()
    role = (CHECKOUT / "deploy" / "image" / "role").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+)\) exec", role, flags=re.MULTILINE))
    for name, pod in pods.items():
        (container,) = pod["containers"]
        assert container["args"][0] in known, name
        assert container["image"].endswith("@sha256:" + "0123456789abcdef" * 4)
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert given["SSL_CERT_FILE"] == "/authority/ca.crt"
        if container["args"] != ["migrate"]:
            assert given["KAFKA_SASL_MECHANISM"] == "SCRAM-SHA-512"
    engine = pods["prod-policy-engine"]["containers"][0]["env"]
    assert {"name": "TARGET_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in engine


def test_the_ceremonys_files_are_where_the_environment_looks(tmp_path: Path) -> None:
    make_trust(tmp_path, "production")
    written = {file.relative_to(tmp_path) for file in (tmp_path / "trust").rglob("*") if file.is_file()}
    for name, pod in Manifests("smallest").pods().items():
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        if "migrate" not in name:
            for file in written:  # itself, or the folder that it is in
                assert {f"/etc/constitution/{place}" for place in (file, file.parent)} & mounts, (name, file)


def test_a_signed_version_of_the_trust_policy_reaches_every_process_without_a_restart() -> None:
    for name, pod in Manifests("smallest").pods().items():
        if "migrate" in name:
            continue
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "versions"]
        assert mount["mountPath"] == "/etc/constitution/trust/versions", name
        assert "subPath" not in mount, "such a mount never changes"
        (volume,) = [v for v in pod["volumes"] if v["name"] == "versions"]
        assert volume["configMap"]["optional"] is True, "the first policy has none"


def test_every_edge_is_named_and_nothing_else_is_open() -> None:
    policies = Manifests("network").of("NetworkPolicy")
    denied = policies["prod-default-deny"]["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in denied
    assert "egress" not in denied
    chosen = denied["podSelector"]["matchLabels"]
    for name, pod in Manifests("network").of("StatefulSet").items():
        labels = pod["spec"]["template"]["metadata"]["labels"]
        assert chosen.items() <= labels.items(), name
    postgres = policies["prod-reaches-postgres"]["spec"]
    assert postgres["egress"] == [{"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 5432}]}]
    allowed = postgres["podSelector"]["matchExpressions"][0]["values"]
    assert "policy-engine" not in allowed
    asked = policies["prod-to-constitution-service"]["spec"]["ingress"][0]["from"]
    assert {"namespaceSelector": {"matchLabels": {"team": "agents"}}} in asked


def test_the_worker_is_the_controllers_where_that_is_chosen() -> None:
    alone, controlled = Manifests("monitored"), Manifests("worker-controller")
    assert "prod-worker" in alone.of("Deployment")
    assert "prod-worker" not in controlled.of("Deployment")
    worker = controlled.of("WorkerDeployment")["prod-worker"]["spec"]
    assert worker["workerOptions"] == {"connectionRef": {"name": "temporal"}, "temporalNamespace": "default"}
    assert worker["rollout"]["steps"] == [{"rampPercentage": 10, "pauseDuration": "10m"}]
    names = {entry["name"] for entry in worker["template"]["spec"]["containers"][0]["env"]}
    assert not names & {"TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"}  # the controller's to set
    assert controlled.of("WorkerResourceTemplate")
    assert not controlled.of("HorizontalPodAutoscaler")
    assert "replicas" not in alone.of("Deployment")["prod-worker"]["spec"]  # its scaler's to set


def test_migrations_run_before_anything_else() -> None:
    (job,) = Manifests("smallest").of("Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert Manifests("smallest", "--set", "migrate.enabled=false").of("Job") == {}


def test_the_alert_rules_hold(tmp_path: Path) -> None:
    promtool = programs(tmp_path / "log", print, dict(os.environ)) / "promtool"
    files = shutil.copytree(CHART / "files", tmp_path / "files")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=files, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
        assert done.returncode == 0, done.stdout + done.stderr
    (rules,) = Manifests("monitored").of("PrometheusRule").values()
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))


def test_every_metric_of_an_alert_is_one_that_a_process_has() -> None:
    rules = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:constitution|policy_engine|orchestrator|siem_forwarder|trust_policy)_[a-z_]+", rules))
    folders = ("services", "constitution_follow")
    files = [file for folder in folders for file in (CHECKOUT / folder).rglob("*.py")]
    sources = "".join(file.read_text(encoding="utf-8") for file in files)
    for metric in named:
        plain = metric.removesuffix("_total")
        tail = re.sub(r"^(policy_engine|orchestrator)_", "", plain)
        assert f'"{plain}' in sources or f"{{prefix}}_{tail}" in sources, metric


def test_the_image_has_every_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    recipe = (CHECKOUT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    context = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8")
    for package in project["tool"]["importlinter"]["root_packages"]:
        assert f"COPY {package} {package}\n" in recipe
        assert f"!{package}\n" in context


def test_the_dockerfile_is_in_order() -> None:
    done = subprocess.run(  # noqa: S603
        [tool("hadolint"), str(CHECKOUT / "deploy" / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_rendered_without_an_image() -> None:
    assert "repository" in run(*TEMPLATE, code=1)
    assert "registry.example.org/constitution:1.2.3" in template("monitored")
