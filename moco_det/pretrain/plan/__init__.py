"""What a run of pre-training will do, before it starts."""
