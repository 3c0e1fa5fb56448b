"""What lies on disk: identity, manifest, Parquet files, and how logits are encoded.

One writer makes the files, and a commit record says of each what it holds; no torch is imported.
"""
