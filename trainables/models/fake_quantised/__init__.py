"""Fake quantisation: a network that computes in floats what its int8 file will compute in integers.

It is put on a network whose weights are trained already, and trained with it for some epochs more.
"""
