"""Many runs in one command: tasks x initializations x seeds, ablations, the demo. Starts stages as processes."""
