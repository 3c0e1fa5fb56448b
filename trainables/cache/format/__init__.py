"""What lies on disk: identity, manifest, Parquet files, how logits are encoded. Imports no torch."""
