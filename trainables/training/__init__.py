"""The one training loop, and what a step, an epoch and a trial need.

Students, controls and teachers all pass through it; several ranks look to it like one.
"""
