"""The asyncio client: `AsyncClient`, its models, and the transports that await the network."""
