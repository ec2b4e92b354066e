"""What one platform's results teach about the next window and about the other platforms."""
