"""The protocol in HTTP: JSON heads and binary tensors."""
