"""What is trained, and how: plain PyTorch, with Ray only in the edge modules."""
