"""Importing the client costs next to nothing and brings nothing but what a call needs."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ["onnx", "onnxruntime", "jinja2", "pydantic", "tritonclient", "google.protobuf", "torch",
         "typer", "rich", "yaml", "pandas", "asyncio", "tritonsmith_generator"]  # fmt: skip


def modules_after(code: str) -> list[str]:
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout)
    return modules


def test_the_import_is_light() -> None:
    loaded = modules_after("import tritonsmith_client")
    assert [name for name in HEAVY if name in loaded] == []
    assert "tritonsmith_client._sync.client" in loaded


def test_http_needs_neither_grpc_nor_protobuf() -> None:
    loaded = modules_after(
        "from tritonsmith_client import Client\n"
        "with Client('http://127.0.0.1:9') as c: assert not c.live()"
    )
    assert [name for name in ("grpc", "google.protobuf", "tritonclient") if name in loaded] == []


def test_no_thread_is_started_by_the_import() -> None:
    code = "import tritonsmith_client, threading; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)
