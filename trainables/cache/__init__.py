"""The teacher cache: what the teacher said about every (sample, view), in Parquet, keyed by its identity."""
