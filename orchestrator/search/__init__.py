"""Runs Ray Tune over a search space: a proposal becomes a trial, a trial a job for a slot.

What comes back goes to Tune, to the ledger, and to the table that a person watches.
"""
