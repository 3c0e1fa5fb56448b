"""A training step that is recorded once and then replayed: on a GPU it becomes one CUDA graph.

What records stands behind one seam: on a CPU every step is called, and tests put in its place what refuses
what a graph could not hold.
"""
