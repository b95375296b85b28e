"""Weight files: reading, recognizing and naming what is in them."""
