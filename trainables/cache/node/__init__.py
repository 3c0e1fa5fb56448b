"""The memory-mapped copies of caches on a node, and the reader of them.

A cache is converted once, under a lock, while each file is verified; all processes of the
node then share the copy.
"""
