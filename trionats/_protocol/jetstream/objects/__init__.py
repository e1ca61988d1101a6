"""Objects: their names, infos and places, and what is written of them."""
