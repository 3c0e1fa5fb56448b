"""Looks into caches, repairs them, and brings logits in and out.

Nothing here trains: these are the bodies behind `stillhouse cache`.
"""
