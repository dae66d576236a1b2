"""What outlives a run: a checkpoint to go on from, and a database for people and other programs."""
