"""The input pipeline: from raw parallel text to packed batches of token ids."""
