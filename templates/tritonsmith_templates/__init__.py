"""The Jinja templates of tritonsmith_generator."""
