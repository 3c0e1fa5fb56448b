"""Pages made of records: the HTML report of a run, and the comparison of objectives.

Nothing is measured or decided here.
"""
