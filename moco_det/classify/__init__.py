"""Judging features on labelled folders: linear probe and kNN; and supervised training and fine-tuning."""
