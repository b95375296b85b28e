"""What the stages that train share: processes, hooks, checkpoints, run folders, records."""
