"""The blocking client: `Client`, its models, and the transports that wait for the network."""
