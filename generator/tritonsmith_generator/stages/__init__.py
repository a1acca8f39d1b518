"""The steps of a model's build, each kept in the cache: cases, conversion, plan, accuracy."""
