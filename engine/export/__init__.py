"""What a recipe or a run can be turned into for others: the plain PyTorch script."""
