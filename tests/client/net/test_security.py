"""TLS, client certificates, credentials and compression, over both protocols and both clients.

tritonserver serves TLS over gRPC itself; its HTTP server has none, so a proxy in front of it does.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.scripted import ScriptedServer, read_request

from tritonsmith_client import TLS, AsyncClient, Client, InputError, UnavailableError
from tritonsmith_generator.serve import Server


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem/.key for "triton.test", client.pem/.key, and other.pem, another CA."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command, which makes the certificates, is not installed")
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    def authority(name: str) -> None:
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.pem", "-subj", f"/CN={name}", "-days", "2",
                "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip

    authority("ca")
    authority("other")
    (folder / "names").write_text("subjectAltName=DNS:triton.test")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile",
                "names")  # fmt: skip
    return folder


class TlsProxy:
    """Takes TLS off, as nginx does in front of Triton's HTTP server."""

    def __init__(self, pki: Path, target: str, mutual: bool) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pki / "server.pem", pki / "server.key")
        if mutual:
            self._context.load_verify_locations(pki / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(connection, server_side=True) as front,
                socket.create_connection(self._target) as back,
            ):
                while True:
                    back.sendall(read_request(front))
                    front.sendall(_response(back))
        except OSError:
            return
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _response(back: socket.socket) -> bytes:
    return read_request(back)  # a response is framed the same way


@dataclass(frozen=True)
class Secure:
    """Addresses that want TLS, and TLS with a client's certificate."""

    one_way: str
    mutual: str


@pytest.fixture(scope="session", params=["grpc", "http"])
def secure(
    request: pytest.FixtureRequest, pki: Path, start_server: Callable[..., Server]
) -> Iterator[Secure]:
    if request.param == "grpc":
        flags = [
            "--grpc-use-ssl=1",
            f"--grpc-server-cert={pki}/server.pem",
            f"--grpc-server-key={pki}/server.key",
            f"--grpc-root-cert={pki}/ca.pem",
        ]
        one_way = start_server(MODELS, models=["text"], extra_args=flags)
        mutual = start_server(
            MODELS, models=["text"], extra_args=[*flags, "--grpc-use-ssl-mutual=1"]
        )
        yield Secure(*(s.grpc_url.replace("grpc://", "grpcs://") for s in (one_way, mutual)))
        return
    plain = start_server(MODELS, models=["text"])
    proxies = [TlsProxy(pki, plain.http_url, mutual) for mutual in (False, True)]
    yield Secure(*(proxy.url for proxy in proxies))
    for proxy in proxies:
        proxy.close()


Infer = Callable[..., str]


@pytest.fixture(params=["sync", "async", "sync, own HTTP/2", "async, own HTTP/2"])
def infer(request: pytest.FixtureRequest) -> Infer:
    """Calls the text model at an address and returns its answer."""
    http2 = "own" if "own" in request.param else "grpcio"

    def sync(url: str, **options: Any) -> str:
        with Client(url, timeout=10.0, http2=http2, **options) as client:
            return str(client.model("text")([["tls"]])["UPPER"].item().decode())

    def main(url: str, **options: Any) -> str:
        async def use() -> str:
            async with AsyncClient(url, timeout=10.0, http2=http2, **options) as client:
                model = await client.model("text")
                return str((await model([["tls"]]))["UPPER"].item().decode())

        return asyncio.run(use())

    return sync if request.param.startswith("sync") else main


def test_a_trusted_server(secure: Secure, infer: Infer, pki: Path) -> None:
    assert infer(secure.one_way, tls=TLS(pki / "ca.pem", server_name="triton.test")) == "TLS"


def test_a_client_with_its_certificate(secure: Secure, infer: Infer, pki: Path) -> None:
    tls = TLS(pki / "ca.pem", pki / "client.pem", pki / "client.key", "triton.test")
    assert infer(secure.mutual, tls=tls) == "TLS"


def test_an_unknown_authority(secure: Secure, infer: Infer, pki: Path) -> None:
    for tls in (TLS(pki / "other.pem", server_name="triton.test"), None):
        with pytest.raises(UnavailableError):
            infer(secure.one_way, tls=tls)


def test_another_name_in_the_certificate(secure: Secure, infer: Infer, pki: Path) -> None:
    for name in ("wrong.test", None):
        with pytest.raises(UnavailableError):
            infer(secure.one_way, tls=TLS(pki / "ca.pem", server_name=name))


def test_a_client_without_a_certificate(secure: Secure, infer: Infer, pki: Path) -> None:
    with pytest.raises(UnavailableError):
        infer(secure.mutual, tls=TLS(pki / "ca.pem", server_name="triton.test"))


def test_plain_text_to_a_tls_server(secure: Secure, infer: Infer) -> None:
    with pytest.raises(UnavailableError):
        infer(secure.one_way.replace("s://", "://"))


def test_tls_to_a_plain_server(url: str, infer: Infer, pki: Path) -> None:
    with pytest.raises(UnavailableError):
        infer(url.replace("://", "s://"), tls=TLS(pki / "ca.pem"))


def test_certificates_that_cannot_be_used(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="certificate and key together"):
        TLS(certificate="client.pem")
    (tmp_path / "empty.pem").write_text("nothing")
    for url in ("grpcs://localhost", "https://localhost"):
        for ca in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
            with pytest.raises(InputError, match=r"the TLS certificates cannot be read.*pem"):
                Client(url, tls=TLS(ca))
    with pytest.raises(InputError, match="use grpcs:// or https://"):
        Client("localhost:8001", tls=TLS(pki / "ca.pem"))


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(url: str, infer: Infer, compression: str) -> None:
    assert infer(url, compression=compression) == "TLS"
    with Client(url, compression=compression) as client:
        array = np.arange(250_000, dtype=np.float32).reshape(500, 500)
        for _ in range(2):
            got = client.model("identity")(IN_FP32=array)["OUT_FP32"]
            assert np.array_equal(got, array)
            got += 1


def test_an_unknown_compression() -> None:
    with pytest.raises(InputError, match="compression is 'br'; it must be 'gzip'"):
        Client("localhost", compression="br")


def test_compressed_requests_are_smaller_and_say_so() -> None:
    metadata = b'{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[]}'
    config = b'{"name":"m"}'

    def http(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    server = ScriptedServer()

    def script(connection: socket.socket) -> None:
        for body in (metadata, config, b'{"model_name":"m","outputs":[]}'):
            server.requests.append(read_request(connection))
            connection.sendall(http(body))

    server._scripts = [script]
    with server, Client(f"http://{server.address}", compression="gzip") as client:
        client.model("m")(np.zeros(100_000, np.float32))
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head and b"accept-encoding: gzip" in head
    assert len(body) < 5000


def test_headers_are_sent_and_asked_for_before_each_call() -> None:
    calls: list[int] = []

    def token() -> dict[str, str]:
        calls.append(1)
        return {"authorization": f"Bearer {len(calls)}"}

    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while True:
            seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with ScriptedServer(script) as server:
        with Client(f"http://{server.address}", headers=token) as client:
            assert client.live() and client.live()
        with Client(f"http://{server.address}", headers={"X-Key": "ü".encode().hex()}) as client:
            assert client.live()
    assert b"authorization: Bearer 1\r\n" in seen[0] and b"authorization: Bearer 2\r\n" in seen[1]
    assert b"x-key: c3bc\r\n" in seen[2]


@pytest.fixture(scope="session")
def restricted(start_server: Callable[..., Server]) -> Server:
    flags = ["--grpc-restricted-protocol=inference:key=secret",
             "--http-restricted-api=inference:key=secret"]  # fmt: skip
    return start_server(MODELS, models=["text"], extra_args=flags)


def test_a_restricted_server(restricted: Server, infer: Infer) -> None:
    from tritonsmith_client import PermissionDeniedError

    for url, name in (
        (restricted.grpc_url, "triton-grpc-protocol-key"),
        (restricted.http_url, "key"),
    ):
        assert infer(url, headers={name: "secret"}) == "TLS"
        assert infer(url, headers=lambda name=name: {name: "secret"}) == "TLS"
        for headers in ({}, {name: "wrong"}):
            with pytest.raises((PermissionDeniedError, UnavailableError)):
                infer(url, headers=headers)
