"""What a channel of grpcio is made with."""

from __future__ import annotations

from typing import Any

import grpc

from tritonsmith_client._net.connection_config import ConnectionConfig

__all__ = ["channel_options", "credentials"]


def channel_options(config: ConnectionConfig) -> list[tuple[str, Any]]:
    """Unlimited message sizes, and a reconnect that is tried soon rather than after minutes."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Otherwise a client inherits another one's broken connection to the same address.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if config.keepalive is not None:
        options += [
            ("grpc.keepalive_time_ms", int(config.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.max_pings_without_data", 0),  # during one long call as well
        ]
    if config.compression is None:
        # Leaves out what calls like these do not need: 5 % of a small call's time.
        options.append(("grpc.minimal_stack", 1))
    else:
        kinds = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
        options.append(("grpc.default_compression_algorithm", int(kinds[config.compression])))
    if config.host:
        options.append(("grpc.default_authority", config.host))
    if config.user_agent:
        options.append(("grpc.primary_user_agent", config.user_agent))  # stands before grpcio's own
    if config.tls is not None and (name := config.tls.server_name or config.address.name):
        options.append(("grpc.ssl_target_name_override", name))
    return options


def credentials(config: ConnectionConfig) -> Any:
    """Return the channel's credentials; None in the clear. Raises InputError."""
    return None if config.tls is None else grpc.ssl_channel_credentials(*config.tls.pem())
