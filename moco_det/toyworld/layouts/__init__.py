"""One module per layout on disk. Each takes scenes one by one and knows nothing of how they were made."""
