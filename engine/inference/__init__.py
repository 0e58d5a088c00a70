"""What a trained model is used for: loading it, predictions, and how good it is."""
