"""What may vary: search-space files and the loader that proves each path and bound."""
