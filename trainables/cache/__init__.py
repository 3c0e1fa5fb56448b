"""The teacher cache: what the teacher said about every (sample, view), in Parquet, keyed by its identity.

`format/` is what lies on disk, `node/` the copies that a node reads from, `tools/` what looks into caches and
mends them.
"""
