"""The figures by which a champion may be chosen.

Those of the test split are none of them: a student that was chosen by them would look better than it is.
"""
