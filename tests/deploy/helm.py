#!/usr/bin/env python3
"""The Helm chart: rendered for a table of values, and looked at by Helm itself, the Kubernetes schemas, a policy linter
and Sidewire.

    tests/deploy/helm.py HELM KUBE_SCORE SIDEWIRE

Wants the packages kubernetes-validate and PyYAML.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/sidewire"
EXAMPLE = ROOT / "helm/examples/php-app"
# The schemas that are validated against.
KUBERNETES = "1.37"

ANONYMOUS = {"config": {"client": {"allow_anonymous": True}}}
TLS_CHECK = {"serverName": "sidewire.internal", "ca": {"secret": {"name": "tls", "key": "ca.crt"}}}
MONITORED = {"metrics": {"monitor": {"enabled": True}, "rules": {"enabled": True}, "dashboard": {"enabled": True}}}

# What is rendered: a name, the values, and the kinds that must come out besides the ConfigMap.
CASES = [
    ("sidecar", {}, set()),
    ("sidecar, monitored", {"client": {"expose": True}, **ANONYMOUS, **MONITORED}, {"PodMonitor", "PrometheusRule"}),
    (
        "gateway alone",
        {"mode": "gateway", "gateway": {"replicas": 1}, **ANONYMOUS},
        {"StatefulSet", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "Pod"},
    ),
    (
        "gateway, apps publish to it",
        {
            "mode": "gateway",
            "app": {"expose": True},
            "gateway": {"replicas": 1},
            "persistence": {"enabled": False},
            "networkPolicy": {"apps": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}]},
            **ANONYMOUS,
        },
        {"StatefulSet"},
    ),
    (
        "gateway with everything",
        {
            "mode": "gateway",
            "image": {"digest": "sha256:" + "a" * 64},
            "config": {
                "client": {
                    "allow_anonymous": True,
                    "allowed_origins": ["https://app.example.com"],
                    "drain": "8s",
                    "routes": [{"path": "/ws/job/{id}", "channel": "job.{id}", "close_on": ["job_completed"]}],
                },
                "log": {"ttl": "7d", "max_bytes": "8GiB", "sync": "50ms", "id_limit": 2000000},
                "limits": {"connections": 50000},
                "channels": [
                    {"pattern": "cron.execution.>", "ttl": "7d", "max_events": 10000},
                    {"pattern": "editor.>", "store": False},
                ],
            },
            "secrets": [{"key": "bus.url", "secret": "redis", "entry": "url"}],
            "gateway": {
                "ingress": {"enabled": True, "className": "nginx", "host": "events.example.com", "tlsSecret": "events-tls"},
                "autoscaling": {"enabled": True},
            },
            "networkPolicy": {
                "clients": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
                "monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 6379}]}],
            },
            **MONITORED,
        },
        {"StatefulSet", "Ingress", "HorizontalPodAutoscaler", "ServiceMonitor", "PrometheusRule"},
    ),
    *[
        (
            f"gateway on {url.partition(':')[0]}",
            {
                "mode": "gateway",
                "config": {"bus": {"url": url, **more}, "auth": {"issuer": ["https://id.example.com"]}},
                "secrets": [{"key": "auth.secret_file", "secret": "issuer", "entry": "secret"}, *secrets],
            },
            {"StatefulSet"},
        )
        for url, more, secrets in [
            ("redis://redis:6379/0", {"mode": "stream"}, []),
            ("rediss://redis:6379/0", {}, [{"key": "bus.password_file", "secret": "redis", "entry": "password"}]),
            ("redis+sentinel://a,b,c/mymaster", {}, []),
            ("redis+cluster://a,b,c", {}, []),
            ("nats://nats:4222", {"replicas": 3}, []),
            ("tls://nats:4222", {}, [{"key": "bus.credentials_file", "secret": "nats", "entry": "sidewire.creds"}]),
        ]
    ],
    (
        "gateway with TLS and the app's sessions",
        {
            "mode": "gateway",
            "gateway": {"replicas": 1},
            "config": {
                "auth": {
                    "webhook": {"url": "https://app.example.com/sidewire", "timeout": "1s"},
                    "anonymous": {"news.>": ["sub", "history"]},
                }
            },
            "secrets": [
                {"key": f"{listener}.tls_{part}_file", "secret": "tls", "entry": f"tls.{entry}"}
                for listener in ("client", "admin")
                for part, entry in (("cert", "crt"), ("key", "key"))
            ],
        },
        {"StatefulSet"},
    ),
    *[
        (
            f"{mode}, monitored over TLS with a token",
            {
                "mode": mode,
                "gateway": {"replicas": 1},
                "client": {"expose": True},
                "secrets": [
                    {"key": "admin.tls_cert_file", "secret": "tls", "entry": "tls.crt"},
                    {"key": "admin.tls_key_file", "secret": "tls", "entry": "tls.key"},
                    {"key": "admin.token_file", "secret": "scrape", "entry": "token"},
                ],
                "metrics": {"monitor": {"enabled": True, "tlsConfig": TLS_CHECK}},
                **ANONYMOUS,
            },
            {kind},
        )
        for mode, kind in (("gateway", "ServiceMonitor"), ("daemonset", "PodMonitor"), ("sidecar", "PodMonitor"))
    ],
    (
        "gateway with an encrypted log",
        {
            "mode": "gateway",
            "gateway": {"replicas": 1},
            "config": {"channels": [{"pattern": ">", "redact": ["password", "$.card.number"]}], **ANONYMOUS["config"]},
            "secrets": [{"key": "log.encryption_key_file", "secret": "sidewire", "entry": "log-key"}],
        },
        {"StatefulSet"},
    ),
    ("daemonset by port", {"mode": "daemonset", **MONITORED}, {"DaemonSet", "PodMonitor"}),
    ("daemonset by socket", {"mode": "daemonset", "daemonset": {"access": "socket"}}, {"DaemonSet"}),
    (
        "daemonset with a directory of the node",
        {"mode": "daemonset", "persistence": {"hostPath": "/var/lib/sidewire"}},
        {"DaemonSet"},
    ),
]

# What must not be rendered, and a word of the reason.
REFUSED = [
    ("an unknown value", {"replicas": 3}, "replicas"),
    ("an unknown section", {"config": {"buss": {}}}, "buss"),
    ("an unknown key", {"config": {"log": {"tll": "1h"}}}, "tll"),
    ("a value of the wrong kind", {"config": {"log": {"compress": "yes"}}}, "compress"),
    ("a duration without a unit", {"config": {"log": {"ttl": "15"}}}, "ttl"),
    ("a password in the values", {"config": {"bus": {"url": "redis://user:secret@host"}}}, "url"),
    (
        "an issuer without a key",
        {"mode": "gateway", "gateway": {"replicas": 1}, "config": {"auth": {"issuer": ["https://id.example.com"]}}},
        "allow_anonymous",
    ),
    (
        "a scrape of a certificate that nobody checks",
        {
            "secrets": [{"key": "admin.tls_cert_file", "secret": "tls", "entry": "tls.crt"}],
            "metrics": {"monitor": {"enabled": True}},
        },
        "metrics.monitor.tlsConfig",
    ),
    ("a scrape by TLS without any", {"metrics": {"monitor": {"enabled": True, "tlsConfig": TLS_CHECK}}}, "admin.tls_cert_file"),
    (
        "a token that Prometheus does not have",
        {"config": {"admin": {"token_file": "/run/token"}}, "metrics": {"monitor": {"enabled": True}}},
        "admin.token_file",
    ),
    ("an unknown mode", {"mode": "deployment"}, "mode"),
    ("clients that nobody identifies", {"mode": "gateway", "gateway": {"replicas": 1}}, "allow_anonymous"),
    ("several gateways without a bus", {"mode": "gateway", **ANONYMOUS}, "config.bus.url"),
    (
        "no time for the drain",
        {"mode": "gateway", "gateway": {"replicas": 1}, "terminationGracePeriodSeconds": 15, **ANONYMOUS},
        "terminationGracePeriodSeconds",
    ),
]

# Options that switch rules of the policy linter off, each with its reason.
EXCEPTIONS = {
    "--ignore-container-cpu-limit": "throttling would be latency; the request is what the scheduler needs",
    "--ignore-test=container-image-pull-policy": "tags are versions and never move; a digest can be given",
    "--ignore-test=pod-probes": "a native sidecar and a DaemonSet have readiness by other rules: check_containers",
    "--ignore-test=container-security-context-user-group-id": "65532 is the usual user of images without a distribution",
}


def run(*words, input=None, env=None):
    done = subprocess.run([str(word) for word in words], input=input, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def must(*words, input=None, env=None):
    code, out, err = run(*words, input=input, env=env)
    if code != 0:
        sys.exit(f"{' '.join(map(str, words))}:\n{out}{err}")
    return out


def render(helm, chart, values):
    """What Helm makes of the values: exit code, documents, what it said."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        words = ["template", "shop", chart, "--namespace", "events", "--kube-version", KUBERNETES, "--values", file.name]
        code, out, err = run(helm, *words)
        lint = run(helm, "lint", "--strict", chart, "--kube-version", KUBERNETES, "--values", file.name)
    return code, out, err, lint


def check_schemas(name, documents):
    for document in documents:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            # No part of Kubernetes; tests/deploy/prometheus.py has Prometheus itself read the rules.
            continue
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{name}: {document['kind']} {document['metadata']['name']}: {error.message}")


def check_policies(name, kube_score, text):
    code, out, err = run(kube_score, "score", "--kubernetes-version", "v1.34", *EXCEPTIONS, "-", input=text)
    if code != 0:
        sys.exit(f"{name}: {out}{err}")


def check_configuration(name, sidewire, documents, values):
    """The rendered TOML says what the values say, and Sidewire takes it."""
    for document in documents:
        text = document.get("data", {}).get("sidewire.toml") if document["kind"] == "ConfigMap" else None
        if text is None:
            continue
        parsed = tomllib.loads(text)
        for section, keys in values.get("config", {}).items():
            if isinstance(keys, list):
                assert parsed[section] == keys, (name, section, parsed)
            else:
                for key, value in keys.items():
                    assert parsed[section][key] == value, (name, section, key, parsed)
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, tempfile.NamedTemporaryFile("w") as secret:
            file.write(text)
            file.flush()
            secret.write("0123456789abcdef0123456789abcdef")
            secret.flush()
            # As in the pod: what is secret comes by the environment.
            env = {name: value for name, value in os.environ.items() if not name.startswith("SIDEWIRE_")}
            for entry in values.get("secrets", []):
                value = secret.name if entry["key"].endswith("_file") else "redis://user:password@redis:6379/0"
                env["SIDEWIRE_" + entry["key"].replace(".", "__").upper()] = value
            must(sidewire, "check-config", file.name, env=env)
        return
    sys.exit(f"{name}: no configuration among {[document['kind'] for document in documents]}")


def check_monitors(name, documents, values):
    """Prometheus comes as the admin listener wants it: by its scheme, with its token, to a port that is there."""
    given = {entry["key"]: entry for entry in values.get("secrets", [])}
    for document in documents:
        if document["kind"] not in ("ServiceMonitor", "PodMonitor"):
            continue
        spec = document["spec"]
        endpoint = (spec.get("endpoints") or spec["podMetricsEndpoints"])[0]
        secure = "admin.tls_cert_file" in given
        assert endpoint.get("scheme") == ("https" if secure else None), (name, endpoint)
        assert endpoint.get("tlsConfig") == (TLS_CHECK if secure else None), (name, endpoint)
        token = given.get("admin.token_file")
        shown = {"type": "Bearer", "credentials": {"name": token["secret"], "key": token["entry"]}} if token else None
        assert endpoint.get("authorization") == shown, (name, endpoint)
        if document["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            services = [other for other in documents if other["kind"] == "Service" and wanted <= other["metadata"]["labels"].items()]
            assert len(services) == 1, (name, [service["metadata"]["name"] for service in services])
            ports = {port["name"] for port in services[0]["spec"]["ports"]}
        elif containers := [container for pod in pods(documents) for container in pod["containers"] if container["name"] == "sidewire"]:
            ports = {port["name"] for container in containers for port in container["ports"]}
        else:
            # The pods are the app's: the example has them.
            continue
        assert endpoint["port"] in ports, (name, endpoint)


def pods(documents):
    for document in documents:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif template := document.get("spec", {}).get("template"):
            yield template["spec"]


def check_containers(name, documents):
    """What the restricted profile of pod security asks for, and what the promises of the chart rest on."""
    for pod in pods(documents):
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | {"sidewire-data"}
        for container in pod.get("initContainers", []) + pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, name
            if container["name"] == "sidewire":
                assert context["runAsNonRoot"] and context["seccompProfile"]["type"] == "RuntimeDefault", name
                assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", name
                assert container.get("readinessProbe", {}).get("httpGet", {}).get("path") in (None, "/readyz"), name
                ports = {port["name"] for port in container["ports"]}
                assert container["livenessProbe"]["httpGet"]["port"] in ports, name
                secure = any("admin.tls" in variable["name"].lower().replace("__", ".") for variable in container.get("env", []))
                assert container["livenessProbe"]["httpGet"]["scheme"] == ("HTTPS" if secure else "HTTP"), name
        sidecars = [container for container in pod.get("initContainers", []) if container["name"] == "sidewire"]
        assert all(sidecar["restartPolicy"] == "Always" for sidecar in sidecars), name


def main(helm, kube_score, sidewire):
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    must(sys.executable, ROOT / "tests/deploy/chart_schema.py")
    must(helm, "lint", "--strict", CHART)
    for name, values, kinds in CASES:
        code, text, said, lint = render(helm, CHART, values)
        if code != 0 or lint[0] != 0:
            sys.exit(f"{name}: {said}{lint[1]}{lint[2]}")
        documents = [document for document in yaml.safe_load_all(text) if document]
        found = {document["kind"] for document in documents}
        assert kinds <= found, f"{name}: {kinds - found} missing among {found}"
        check_schemas(name, documents)
        check_configuration(name, sidewire, documents, values)
        check_containers(name, documents)
        check_monitors(name, documents, values)
        plain = "---\n".join(
            yaml.safe_dump(document) for document in documents if "monitoring" not in document["apiVersion"]
        )
        check_policies(name, kube_score, plain)
        print(f"chart: {name}: {len(documents)} objects")
    for name, values, word in REFUSED:
        code, text, said, _ = render(helm, CHART, values)
        assert code != 0, f"{name} is rendered:\n{text}"
        assert word in said, f"{name}: the reason does not name {word}: {said}"
        print(f"chart: {name} is refused")
    with tempfile.TemporaryDirectory() as directory:
        # The dependency is copied into the chart: into a copy, as that is no source.
        helms = pathlib.Path(directory) / "helm"
        shutil.copytree(ROOT / "helm", helms, ignore=shutil.ignore_patterns("charts", "Chart.lock", "files"))
        (helms / "sidewire/files").mkdir()
        for file in (CHART / "files").iterdir():
            shutil.copy(file, helms / "sidewire/files" / file.name)
        example = helms / "examples/php-app"
        must(helm, "dependency", "build", "--skip-refresh", example)
        code, text, said, lint = render(helm, example, {})
        if code != 0 or lint[0] != 0:
            sys.exit(f"example: {said}{lint[1]}{lint[2]}")
        documents = [document for document in yaml.safe_load_all(text) if document]
        check_schemas("example", documents)
        check_containers("example", documents)
        values = yaml.safe_load((EXAMPLE / "values.yaml").read_text())["sidewire"]
        check_configuration("example", sidewire, documents, values)
        check_policies("example", kube_score, text)
        pod = next(document for document in documents if document["kind"] == "Deployment")["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["restartPolicy"] == "Always", "a native sidecar"
        print(f"chart: example: {len(documents)} objects")
    print(f"chart passed: {len(CASES) + 1} rendered, {len(REFUSED)} refused")


if __name__ == "__main__":
    main(*sys.argv[1:])
