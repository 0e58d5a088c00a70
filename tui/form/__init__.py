"""The form: a recipe as rows of fields."""
