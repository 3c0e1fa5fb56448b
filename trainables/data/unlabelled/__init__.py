"""Images without labels: read from where they are, and compared with what students are judged by.

Those that are in the selection or test split too are left out, and counted.
"""
