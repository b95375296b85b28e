"""Pre-training with momentum contrast: images in, a checkpoint of both encoders out."""
