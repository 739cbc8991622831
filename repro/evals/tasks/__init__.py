"""Tasks of our own: the law of samples, the error of caches, decoding speed."""
