"""Runs Ray Tune over a search space and shows how it goes."""
