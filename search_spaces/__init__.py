"""What may vary: search-space files, and the loader that proves each path and bound.

Shipped spaces lie in `one_objective/`, `representation_level/`, `mutual/` and `several_objectives/`; the
modules here read them and make Tune's plan of them.
"""
