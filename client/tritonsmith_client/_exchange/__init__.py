"""One request and its reply, as transports carry them."""
