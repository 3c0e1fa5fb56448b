"""The ways in which people keep labelled images: folders, manifests, Parquet, WebDataset's tars, `datasets`.

`recognise.py` finds out which one a folder is, each other module lists the images of one or two of them, and
`listing.py` is what the rest of the package asks.
"""
