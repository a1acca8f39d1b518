"""The protocol in gRPC: protobuf messages, written and read by hand where it counts."""
