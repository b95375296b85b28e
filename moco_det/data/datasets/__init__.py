"""Data sets with labels: registrations, formats, and where to get them."""
