"""Tools that put real processes under fire. They import smrx; smrx never imports them; not in the wheel."""
