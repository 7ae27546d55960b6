#!/bin/bash
# `make test-alerts`: the alerts do what they say, every expression of rules and dashboard can be read, and every metric in
# them, every alert and every runbook is there.
set -euo pipefail
cd "$(dirname "$0")"

if ! promtool --version > /dev/null 2>&1; then
  printf 'promtool is not installed\nHINT: apt-get install --no-install-recommends prometheus (the server need not run)\n' >&2
  exit 1
fi
if ! python3 -c 'import yaml' 2> /dev/null; then
  printf 'python3 with its module yaml is not installed\nHINT: apt-get install python3-yaml\n' >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
promtool check rules alerts.yaml
promtool test rules alerts.test.yaml
python3 check.py --rules "$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml" | sed "s|$work/||"
