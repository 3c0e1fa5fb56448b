"""The run: `run.py` lists its stages in order, the other modules hold one stage each.

A stage is known by a fingerprint of its inputs, and one that the ledger holds as finished is not done again.
"""
