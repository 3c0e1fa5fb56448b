"""What `stillhouse cache` does to caches: plan, verify, import, export, clean.

Each tool works on a cache's place; those that ask the teacher also get the experiment that the cache
belongs to.
"""
