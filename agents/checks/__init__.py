"""What `check_agent` tries, a function a check."""
