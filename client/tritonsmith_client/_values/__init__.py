"""What callers hold: metadata, results, regions, and the bytes of tensors."""
