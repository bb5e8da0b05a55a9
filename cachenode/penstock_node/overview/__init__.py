"""What this node did within the last hour, and what it has gathered of all others."""
