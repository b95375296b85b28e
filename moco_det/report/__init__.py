"""Reads finished run folders and says what pre-training bought: tables, figures, one page."""
