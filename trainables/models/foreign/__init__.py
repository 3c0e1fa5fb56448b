"""Networks and weights that were made elsewhere: a user's factory, torchvision, files of state dicts.

What such a network returns is turned into logits here; the network itself and the names of its weights stay.
Of what a file holds, prefixes of names are taken off; a student's head that is of other classes is left out.
"""
