"""What is trained, and how: plain PyTorch.

Ray is imported only where workers meet it: the slots, and the build of the teacher's cache.
"""
