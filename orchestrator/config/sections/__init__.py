"""Sections of the experiment file that have a module of their own.

`orchestrator/config/schema.py` puts all sections together.
"""
