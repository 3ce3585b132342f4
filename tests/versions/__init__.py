"""A next version of smrx that really differs, made from this one: see next_version.py."""
