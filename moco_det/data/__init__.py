"""Images: finding, reading, packing, augmenting them; and data sets with labels."""
