"""What the Flower app bundle carries: two names, and no logic."""
