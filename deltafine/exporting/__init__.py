"""The refined model in other forms: one file per form."""
