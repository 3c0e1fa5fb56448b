"""What `stillhouse cache` does to caches: plan, verify, import, export, clean."""
