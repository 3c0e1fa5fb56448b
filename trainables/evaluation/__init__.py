"""Measures networks: accuracy and calibration, under attack, near the teacher, latency and size.

A figure here never changes a weight, and a network is given back in the mode that it came in.
"""
