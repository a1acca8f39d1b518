"""What a repository is deployed with: a Dockerfile, a compose file, pinned images."""
