#!/bin/bash
# Prints the folder that cargo builds into, for the project in the present folder.
set -euo pipefail
cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
