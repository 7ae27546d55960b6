#!/bin/bash
# The manifests of this folder can be read, and say what their comments promise. No cluster is asked.
set -euo pipefail
cd "$(dirname "$0")"
if ! python3 -c 'import yaml' 2> /dev/null; then
  printf 'python3 with its module yaml is not installed\nHINT: apt-get install python3-yaml\n' >&2
  exit 1
fi
exec python3 - <<'PYTHON'
import glob
import sys
import tomllib

import yaml

wrong = []


def of(kind, documents):
    return [document for document in documents if document["kind"] == kind]


def pod(document):
    spec = document["spec"]
    spec = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
    return spec["template"]["spec"]


for file in sorted(glob.glob("*.yaml")):
    documents = list(yaml.safe_load_all(open(file)))
    for document in documents:
        for field in ("apiVersion", "kind", "metadata"):
            if field not in document:
                wrong.append(f"{file}: a document without {field}")
    maps = {one["metadata"]["name"]: one["data"] for one in of("ConfigMap", documents)}
    for data in maps.values():
        try:
            tomllib.loads(data["binvault.toml"])
        except tomllib.TOMLDecodeError as error:
            wrong.append(f"{file}: binvault.toml: {error}")
    for document in (one for kind in ("StatefulSet", "Deployment", "CronJob") for one in of(kind, documents)):
        spec = pod(document)
        if document["kind"] != "CronJob":
            labels = document["spec"]["template"]["metadata"]["labels"]
            if document["spec"]["selector"]["matchLabels"].items() - labels.items():
                wrong.append(f"{file}: the selector does not fit the pod's labels")
        claims = document["spec"].get("volumeClaimTemplates", [])
        volumes = {one["name"] for one in spec.get("volumes", [])} | {one["metadata"]["name"] for one in claims}
        for volume in spec.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                wrong.append(f"{file}: no ConfigMap {volume['configMap']['name']}")
        if "terminationGracePeriodSeconds" not in spec:
            wrong.append(f"{file}: no terminationGracePeriodSeconds")
        for container in spec.get("initContainers", []) + spec["containers"]:
            where = f"{file}, {container['name']}"
            security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
            if not security.get("runAsNonRoot") or not security.get("runAsUser"):
                wrong.append(f"{where}: may run as root")
            if security.get("allowPrivilegeEscalation") is not False or security["capabilities"]["drop"] != ["ALL"]:
                wrong.append(f"{where}: has privileges")
            if "binvault" in container["image"] and not security.get("readOnlyRootFilesystem"):
                wrong.append(f"{where}: may write to its root")
            if document["kind"] != "CronJob" and container["name"] == "binvault":
                configured = [tomllib.loads(data["binvault.toml"]) for data in maps.values()]
                if not all("schedule" in one.get("base", {}) for one in configured):
                    wrong.append(f"{where}: takes no base backups")
                if "/var/tmp" not in [mount["mountPath"] for mount in container["volumeMounts"]]:
                    wrong.append(f"{where}: no room for a clone's spool")
            if "memory" not in container["resources"]["limits"]:
                wrong.append(f"{where}: no limit on memory")
            for mount in container["volumeMounts"]:
                if mount["name"] not in volumes:
                    wrong.append(f"{where}: no volume {mount['name']}")
            probes = {name: container.get(name, {}).get("httpGet", {}).get("path") for name in ("livenessProbe", "readinessProbe")}
            if container["name"] == "binvault":
                if probes["livenessProbe"] != "/healthz":
                    wrong.append(f"{where}: liveness is not /healthz")
                alone = len(spec.get("initContainers", []) + spec["containers"]) == 1
                if (probes["readinessProbe"] == "/readyz") != alone:
                    wrong.append(f"{where}: readiness on /readyz belongs to a pod of its own, and to no other")
    print(f"{file}: {len(documents)} documents")
for text in wrong:
    print(f"✗ {text}", file=sys.stderr)
sys.exit(1 if wrong else 0)
PYTHON
