"""The compiled functions of the engine. apply.py is the entry; engine.py alone calls it, through compiled.py."""
