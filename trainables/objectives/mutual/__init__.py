"""Objectives without a teacher: networks that are trained together teach each other, or one teaches itself.

Their hyper-parameters: trainables/config/mutual.
"""
