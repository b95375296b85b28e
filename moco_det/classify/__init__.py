"""Evaluation of features on labeled folders: linear probe and kNN; and supervised training and fine-tuning."""
