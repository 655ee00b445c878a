"""Mutations of the core by subject, and what breaks it with them: see __main__.py."""
