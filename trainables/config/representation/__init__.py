"""Hyper-parameters of the objectives that compare representations, a module a family."""
