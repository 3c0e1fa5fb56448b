"""Controls beside finalists: which are trained, and what becomes of those that fail.

Which of them a finalist is compared with follows from the ledger alone: see `orchestrator.records.relations`.
"""
