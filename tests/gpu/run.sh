#!/usr/bin/env bash
# Runs the GPU suite on a machine without a network, from a bundle of files called part.00, part.01, ...
#   tests/gpu/run.sh FOLDER_WITH_PARTS [RESULTS_FOLDER]
# The bundle, joined, is a tar file with: runtime.tar.gz (CPython 3.10 and the packages of
# requirements.txt), the wheel of TensorRT 8.6.0, triton.tar.gz (tritonserver), and unpack.sh, which lays
# these out and writes env.sh (PATH, PYTHONPATH, LD_LIBRARY_PATH, TRITON_HOME).
# With a network none of this is needed:  pip install '.[dev,tensorrt]' 'cuda-bindings<13'; pytest -m gpu
set -euo pipefail
parts=$(cd "$1" && pwd)
results=$(mkdir -p "${2:-gpu-results}" && cd "${2:-gpu-results}" && pwd)
cd "$(dirname "$0")/../.."
home=${GPU_HOME:-/tmp/tritonsmith-gpu}
peers_python=$(command -v python3)

if [ ! -f "$home/ready" ]; then
  mkdir -p "$home/bundle"
  cat "$parts"/part.* | tar -C "$home/bundle" -x
  bash "$home/bundle/unpack.sh" "$home/bundle" "$home"
  rm -rf "$home/bundle"
  site=$home/runtime/site
  # One folder with everything: the server's Python gets it as its environment.
  ln -sfn "$home/trt/tensorrt" "$site/tensorrt"
  ln -sfn "$home"/trt/tensorrt-*.dist-info "$site/"
  touch "$home/ready"
fi
# Each time: the source may have changed since the bundle was unpacked.
( source "$home/env.sh"
  python3.10 -m pip install -q --root-user-action ignore --no-index --no-deps --no-build-isolation \
    --target "$home/runtime/site" --upgrade . )

# In a shell of its own: PyTorch's Python must not see the bundle's packages.
(
  source "$home/env.sh"
  export XDG_CACHE_HOME=$home/cache TRITONSMITH_SERVER_ENV=$home/runtime/site
  python3.10 tests/gpu/seed_server.py "$TRITON_HOME"
  TRITONSMITH_GPU_FIGURES=$results/figures.json \
    timeout "${GPU_TEST_SECONDS:-540}" python3.10 -m pytest -q -p no:cacheprovider -m gpu \
    ${GPU_TESTS:-tests/gpu tests/system/test_tensorrt_backend.py} 2>&1 | tee "$results/tests.txt"
) || status=$?

if [ "${GPU_PEERS:-1}" = 1 ]; then
  ( source "$home/env.sh"
    PYTHONPATH=$PYTHONPATH:tests python3.10 -c 'import sys; from pathlib import Path; from support.gpu_models import resnet50; resnet50(Path(sys.argv[1]))' "$home/resnet50.onnx" )
  "$peers_python" tests/gpu/peers.py "$home/resnet50.onnx" > "$results/peers.json"
  [ ! -f "$results/figures.json" ] || "$peers_python" tests/gpu/ratios.py "$results" | tee "$results/ratios.txt"
fi
exit "${status:-0}"
