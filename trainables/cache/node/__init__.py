"""The memory-mapped copies of caches on a node, and the reader of them."""
