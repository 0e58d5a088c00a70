"""What stands around the loop: `trainer_state`, `epochs` on top of it, `fitting` on top of those; the rest is what they use."""
