#!/usr/bin/env bash
# Runs the GPU suite and benchmarks on a machine without a network, from files part.00, part.01, ...
#   tests/gpu/run.sh FOLDER_WITH_PARTS [RESULTS_FOLDER [STEP...]]
# Steps, "tests peers" by default: tests (the suite), peers (PyTorch and ONNX Runtime on this GPU, and
# plans against them), overhead (our build against TensorRT's API and Polygraphy), unchanged (a build
# that has nothing to do), client (the client's benchmark). README.md names the settings.
# The bundle, joined, is a tar file with: runtime.tar.gz (CPython 3.10 and the packages of
# requirements.txt), the wheel of TensorRT 8.6.0, triton.tar.gz (tritonserver), and unpack.sh, which lays
# these out and writes env.sh (PATH, PYTHONPATH, LD_LIBRARY_PATH, TRITON_HOME). A wheel of onnxruntime_gpu
# in it, for the machine's own python3, makes ONNX Runtime a peer where that has none with CUDA;
# client_peers.tar.gz holds packages for the bundle's Python that the client is compared with.
# With a network none of this is needed:  pip install '.[dev,tensorrt]' 'cuda-bindings<13'; pytest -m gpu
set -euo pipefail
parts=$(cd "$1" && pwd)
results=$(mkdir -p "${2:-gpu-results}" && cd "${2:-gpu-results}" && pwd)
shift $(($# < 2 ? $# : 2))
cd "$(dirname "$0")/../.."
home=${GPU_HOME:-/tmp/tritonsmith-gpu}
peers_python=$(command -v python3)

if [ ! -f "$home/ready" ]; then
  mkdir -p "$home/bundle"
  cat "$parts"/part.* | tar -C "$home/bundle" -x
  bash "$home/bundle/unpack.sh" "$home/bundle" "$home"
  for wheel in "$home"/bundle/onnxruntime_gpu-*.whl; do
    [ ! -f "$wheel" ] || "$peers_python" -m pip install -q --root-user-action ignore --no-index \
      --no-deps --target "$home/peers" "$wheel"
  done
  if [ -f "$home/bundle/client_peers.tar.gz" ]; then
    mkdir "$home/client-peers" && tar -C "$home/client-peers" -xzf "$home/bundle/client_peers.tar.gz"
    printf '#!/bin/sh\nPYTHONPATH=%s exec python3.10 "$@"\n' "$home/client-peers" > "$home/client-python"
    chmod +x "$home/client-python"
  fi
  rm -rf "$home/bundle"
  # One folder with everything: the server's Python gets it as its environment.
  ln -sfn "$home/trt/tensorrt" "$home"/trt/tensorrt-*.dist-info "$home/runtime/site/"
  # As pip does when it installs: where PYTHONDONTWRITEBYTECODE is set, each start would compile all.
  ( source "$home/env.sh" && python3.10 -m compileall -q -j 0 "$home/runtime" "$home/trt" \
    "$home/client-peers" >/dev/null || true )  # some packages hold templates that are no Python
  touch "$home/ready"
fi
# Each time: the source may have changed since the bundle was unpacked.
( source "$home/env.sh"
  python3.10 -m pip install -q --root-user-action ignore --no-index --no-deps --no-build-isolation \
    --target "$home/runtime/site" --upgrade . )

# Each step is a subshell: PyTorch's Python must not see the bundle's packages.
enter_bundle() {
  source "$home/env.sh"
  export XDG_CACHE_HOME=$home/cache TRITONSMITH_SERVER_ENV=$home/runtime/site
}

tests() (
  enter_bundle
  TRITONSMITH_GPU_FIGURES=$results/figures.json \
    timeout "${GPU_TEST_SECONDS:-540}" python3.10 -m pytest -q -p no:cacheprovider -m gpu \
    ${GPU_TESTS:-tests/gpu tests/embedded/test_tensorrt_backend.py} 2>&1 | tee "$results/tests.txt"
)

models() (
  enter_bundle
  PYTHONPATH=$PYTHONPATH:tests python3.10 tests/gpu/peer_models.py "$home"
)

peers() {
  models
  PYTHONPATH=$home/peers "$peers_python" tests/gpu/peers.py "$home" > "$results/peers.json"
  [ ! -f "$results/figures.json" ] || "$peers_python" tests/gpu/ratios.py "$results" | tee "$results/ratios.txt"
}

overhead() {
  models
  ( enter_bundle
    python3.10 benchmarks/build_overhead.py "$home/resnet50.fp32.onnx" --rounds "${GPU_ROUNDS:-3}" \
      --shapes x=1x3x224x224:8x3x224x224:32x3x224x224 2>&1 | tee "$results/overhead.txt" )
}

unchanged() (
  enter_bundle
  cd benchmarks
  for run in 1 2; do python3.10 -c 'import parallel; parallel.nothing_to_do(5)'; done 2>&1 |
    tee "$results/unchanged.txt"
)

client() (
  enter_bundle
  peers=python3.10
  [ ! -f "$home/client-python" ] || peers=$home/client-python
  for run in $(seq "${GPU_CLIENT_RUNS:-1}"); do
    python3.10 benchmarks/client.py --peers "$peers" --json "$results/client.$run.json" \
      ${GPU_CLIENT_OPTIONS:-} 2>&1 | tee "$results/client.$run.txt"
  done
)

( enter_bundle; python3.10 tests/gpu/seed_server.py "$TRITON_HOME" )
for step in ${*:-tests peers}; do
  "$step" || status=$?
done
exit "${status:-0}"
