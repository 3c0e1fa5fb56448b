"""Writes the ledger to MLflow, and registers the champion there."""
