"""Docker containers: started, watched, and removed whatever happens."""
