"""Page models: pure functions from what the index and the logs say to what a template shows."""
