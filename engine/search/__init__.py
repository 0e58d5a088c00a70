"""Search: the values of some of a recipe's fields, looked for by Optuna; each trial is a run of its own."""
