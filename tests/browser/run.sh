#!/bin/bash
# The status page in a real browser: what it says, what it draws, at 360 and 1280 pixels, light and dark.
#
#   tests/browser/run.sh                           with the samples beside this file
#   tests/browser/run.sh http://127.0.0.1:9188/    with a running agent
#
#   CHROMIUM=/path/to/chromium   another browser of that family
#   SHOTS=folder                 keeps screenshots there
#
# To look at a sample by hand: tests/browser/serve.py failover
set -euo pipefail
cd "$(dirname "$0")"

chromium=${CHROMIUM:-}
if [ -z "$chromium" ]; then
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if chromium=$(command -v "$name"); then break; fi
  done
fi
if [ -z "$chromium" ]; then
  echo "FAIL: no Chromium in the PATH" >&2
  echo "HINT: apt-get install chromium, or set CHROMIUM=/path/to/it" >&2
  exit 1
fi
if ! command -v python3 > /dev/null; then
  echo "FAIL: no python3 in the PATH" >&2
  echo "HINT: apt-get install python3 (nothing beyond its standard library is used)" >&2
  exit 1
fi
if [ -n "${SHOTS:-}" ]; then
  case $SHOTS in /*) ;; *) SHOTS=$OLDPWD/$SHOTS ;; esac
  mkdir -p "$SHOTS"
fi

export PYTHONDONTWRITEBYTECODE=1
exec python3 check.py "$chromium" "${SHOTS:-}" "$@"
