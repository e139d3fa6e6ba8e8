#!/usr/bin/env bash
# Create the environment with the locked dependencies. Exits 5 with one line if the machine lacks something.
set -euo pipefail

stop() { echo "SetupError: $1" >&2; exit 5; }

command -v "$PYTHON" >/dev/null || stop "python: Python 3.11 or 3.12 is not on PATH. Install one."
found=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $found in 3.11 | 3.12) ;; *) stop "python: expected 3.11 or 3.12, found $found. Pass PYTHON=/path/to/python3.11." ;; esac

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$java" >/dev/null || stop "java: not found on PATH or in JAVA_HOME. Install a Java runtime (JRE) of version 17."
major=$("$java" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' | head -n 1)
[ "${major:-0}" -ge 17 ] || stop "java: expected Java 17 or later, found ${major:-an unknown version}. Point JAVA_HOME to one."

# torch with CUDA and its dependencies take 7 GB, Delta's jars and a lake less than 1 GB.
need_gb=$([ -n "${UV_TORCH_BACKEND:-}" ] && echo 4 || echo 9)
free_gb=$(($(df -Pk . | awk 'NR==2 {print $4}') / 1000000))
[ "$free_gb" -ge "$need_gb" ] || stop "disk: expected $need_gb GB free here, found $free_gb GB. Free some, or set UV_TORCH_BACKEND=cpu."

echo "Installing the locked dependencies into $VENV (first time: about 3 GB to download) ..." >&2
"$PYTHON" -m venv "$VENV" || stop "$VENV: the virtual environment cannot be created; see the error above."
offline="no package index within reach. Connect to the network for the first install, and run make again."
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv || stop "install of uv: $offline"
export VIRTUAL_ENV=$PWD/$VENV
# Compile once here, for half a minute. Otherwise each process compiles torch and transformers again, for seven seconds,
# if PYTHONDONTWRITEBYTECODE is set, as in many containers, or .venv is read-only.
export UV_COMPILE_BYTECODE=1
uv() { "$VENV/bin/uv" "$@"; }
if [ -n "${UV_TORCH_BACKEND:-}" ]; then
  # Another build of torch has other hashes, so the lock's versions are used as constraints.
  grep -vE '^ +--hash' requirements.lock | sed 's/ \\$//' >"$VENV/constraints.txt"
  uv pip install --quiet --constraint "$VENV/constraints.txt" --editable '.[local,read,dev,bench]' || stop "dependencies: the install above failed."
else
  uv pip install --quiet --require-hashes --requirement requirements.lock || stop "dependencies: the install above failed; without a network, $offline"
  uv pip install --quiet --no-deps --editable . || stop "reviewlake: the install above failed; without a network, $offline"
fi
