"""Tools that run real clusters and check them. They import smrx; smrx never imports them; not in the wheel."""
