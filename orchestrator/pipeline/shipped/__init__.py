"""Exported students in use: named, asked about images, evaluated, measured, and exported in further formats.

Nothing here needs Ray, nor an experiment that is still there.
"""
