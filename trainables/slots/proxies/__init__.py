"""Proxies: Tune's view of trials, and where they live.

They wait for what the broker says of a trial, and hold nothing of it themselves.
"""
