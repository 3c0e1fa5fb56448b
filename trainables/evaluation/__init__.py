"""Measures networks: accuracy and calibration, under attack, near the teacher, latency and size."""
