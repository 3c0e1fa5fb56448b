"""Networks that were written elsewhere: a user's factory, or torchvision.

What such a network returns is turned into logits here. The network itself and the names of its weights stay.
"""
