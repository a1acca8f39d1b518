"""A build: its models side by side, what is unchanged left alone, the lock written."""
