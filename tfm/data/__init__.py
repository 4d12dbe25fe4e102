"""From raw parallel text to packed batches."""
