"""Writes the ledger to MLflow, and registers the champion there.

The ledger is the truth: a store that was away is brought up to date from it, and nothing is written twice.
"""
