#!/usr/bin/env python3
"""Holds alerts.yaml, dashboard.json, docs/metrics.md and docs/runbooks.md against each other.

With `--rules FILE` it writes each expression of the dashboard as a recording rule, for promtool to read.
"""
import argparse
import json
import pathlib
import re
import sys

try:
    import yaml
except ImportError:
    sys.exit("python3 has no module yaml\nHINT: apt-get install python3-yaml")

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# Prometheus' own, and the labels that every scrape has.
OWN = {"up"}
SCRAPED = {"job", "instance", "le"}
wrong = []


def documented():
    """The metrics of docs/metrics.md: name, whether it is a histogram, its labels."""
    metrics = {}
    for line in (DOCS / "metrics.md").read_text().splitlines():
        row = re.match(r"\| (`[a-z].*?`) \| (gauge|counter|histogram) \|", line)
        for name, labels in re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", row[1]) if row else []:
            metrics[name] = (row[2] == "histogram", set(filter(None, labels.split(","))))
    for name in re.findall(r"`(process_\w+)`", (DOCS / "metrics.md").read_text()):
        metrics[name] = (False, set())
    return metrics


def look(where, expr, metrics):
    """Each metric of an expression is documented, and so is each label that it is selected by."""
    seen = set()
    bare = re.sub(r'"[^"]*"', lambda text: '"' + "_" * (len(text[0]) - 2) + '"', expr)
    for match in re.finditer(r"\b((?:binvault|process)_\w+|up)\b(\{[^}]*\})?", bare):
        name, selector = match[1], match[2] or ""
        if name in OWN:
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if name in metrics and not metrics[name][0]:
            labels = metrics[name][1]
        elif base in metrics and metrics[base][0] and base != name:
            name, labels = base, metrics[base][1]
        else:
            wrong.append(f"{where}: {name} is not in docs/metrics.md, or not of this kind")
            continue
        seen.add(name)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in labels | SCRAPED:
                wrong.append(f"{where}: {name} has no label {label} in docs/metrics.md")
    return seen


def panels(of):
    for panel in of.get("panels", []):
        yield panel
        yield from panels(panel)


def thresholds(rules):
    """The table at the head of alerts.yaml says what the rules say."""
    table = {}
    for line in (HERE / "alerts.yaml").read_text().splitlines():
        row = re.match(r"#\s+(Binvault\w+)\s+(\w+)\s+(\S+)\s+(\S+)\s+(\S+)\s", line)
        if row:
            table[row[1], row[2], row[4]] = (row[3], row[5])
    for rule in rules:
        key = (rule["alert"], rule["labels"]["severity"], rule["labels"].get("reason", "-"))
        if key not in table:
            wrong.append(f"alerts.yaml: the table at its head lacks {' '.join(key)}")
            continue
        wait, threshold = table.pop(key)
        if wait != rule.get("for", "0m"):
            wrong.append(f"alerts.yaml: the table says for {wait} of {' '.join(key)}, the rule {rule.get('for', '0m')}")
        if not re.search(rf"(?<![\w.]){re.escape(threshold)}(?![\w.])", rule["expr"]):
            wrong.append(f"alerts.yaml: {threshold}, as the table says, is not in the expression of {' '.join(key)}")
    wrong.extend(f"alerts.yaml: the table at its head has {' '.join(key)}, which is no rule" for key in table)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rules", metavar="FILE", type=pathlib.Path)
    write_to = arguments.parse_args().rules

    metrics = documented()
    if len(metrics) < 40:
        sys.exit(f"docs/metrics.md: only {len(metrics)} metrics were found in its tables: has their form changed?")
    groups = yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    used = set()
    for rule in rules:
        used |= look(rule["alert"], rule["expr"], metrics)
        for annotation in ("summary", "description", "runbook"):
            if not rule["annotations"].get(annotation):
                wrong.append(f"{rule['alert']}: no {annotation}")
        if rule["labels"].get("severity") not in ("critical", "warning"):
            wrong.append(f"{rule['alert']}: severity is neither critical nor warning")
        if rule["annotations"].get("runbook") != f"docs/runbooks.md#{rule['alert'].lower()}":
            wrong.append(f"{rule['alert']}: runbook is not docs/runbooks.md#{rule['alert'].lower()}")
        if "$value" not in json.dumps(rule["annotations"]) and not re.search(r"== 0$|\bup\b", rule["expr"].strip()):
            wrong.append(f"{rule['alert']}: its annotations tell no value")
    thresholds(rules)

    alerts = {rule["alert"] for rule in rules}
    sections = set(re.findall(r"^## (Binvault\w+)$", (DOCS / "runbooks.md").read_text(), re.M))
    wrong.extend(f"docs/runbooks.md has no section {name}" for name in sorted(alerts - sections))
    wrong.extend(f"docs/runbooks.md has a section {name}, which is no alert" for name in sorted(sections - alerts))
    tests = yaml.safe_load((HERE / "alerts.test.yaml").read_text())["tests"]
    fires, quiet = set(), set()
    for test in (one for test in tests for one in test.get("alert_rule_test", [])):
        (fires if test["exp_alerts"] else quiet).add(test["alertname"])
        for expected in test["exp_alerts"]:
            fires.add((test["alertname"], *(expected["exp_labels"].get(label, "") for label in ("severity", "reason"))))
    for rule in rules:
        key = (rule["alert"], *(rule["labels"].get(label, "") for label in ("severity", "reason")))
        if key not in fires:
            wrong.append(f"alerts.test.yaml: {' '.join(key)} fires in no test")
    wrong.extend(f"alerts.test.yaml: {name} is quiet in no test" for name in sorted(alerts - quiet))

    dashboard = json.loads((HERE / "dashboard.json").read_text())
    recorded, ids = [], []
    for panel in panels(dashboard):
        ids.append(panel["id"])
        for target in panel.get("targets", []):
            where = f"dashboard, {panel['title']}"
            used |= look(where, target["expr"], metrics)
            plain = target["expr"].replace("$__rate_interval", "5m")
            recorded.append({"record": f"dashboard:panel{panel['id']}:{target['refId'].lower()}", "expr": plain})
            if re.sub(r'"[^"]*"', "", plain).count("$"):
                wrong.append(f"{where}: a variable that the test does not know: {plain}")
    if len(set(ids)) != len(ids):
        wrong.append("dashboard: two panels have one id")
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for name in set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard))) - variables:
        wrong.append(f"dashboard: ${name} is no variable")
    if write_to:
        write_to.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))

    for text in wrong:
        print(f"✗ {text}", file=sys.stderr)
    unused = sorted(set(metrics) - used)
    print(f"{len(alerts)} alerts in {len(rules)} rules, {len(recorded)} expressions of the dashboard, {len(metrics)} metrics")
    if unused:
        print(f"neither alarmed on nor shown: {', '.join(unused)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
