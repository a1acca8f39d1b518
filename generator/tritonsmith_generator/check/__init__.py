"""What is wrong with a repository, from its files and from a server that loads it."""
