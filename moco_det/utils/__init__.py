"""What every room uses and no room owns: files, seeds, the machine."""
