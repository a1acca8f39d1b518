#!/usr/bin/env bash
# For a machine without a network, such as one that lends a GPU for minutes: fills the cache of the
# embedded server from an unpacked bundle ($1) that holds triton/ (the server's files of the
# nvidia-pytriton wheel, with the stub of Python 3.10) and runtime/python/. Then, with the packages
# for the models in PYTHONPATH:
#   TRITONSMITH_SERVER_ENV=$1/runtime/python python -m pytest -m gpu tests/embedded
set -euo pipefail
bundle=$(cd "$1" && pwd)
server=${XDG_CACHE_HOME:-$HOME/.cache}/tritonsmith/server/nvidia-pytriton-0.7.0
mkdir -p "$server/pytriton/tritonserver/backends"
cp -r "$bundle/triton/bin" "$bundle/triton/caches" "$server/pytriton/tritonserver/"
cp -r "$bundle/triton/backends/python" "$server/pytriton/tritonserver/backends/3.10"
cp -r "$bundle/triton/libs" "$server/nvidia_pytriton.libs"
echo '{}' >"$server/manifest.json" # nothing to check: taken as it is
ln -sf python3.10 "$bundle/runtime/python/bin/python"
