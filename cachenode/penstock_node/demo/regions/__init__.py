"""`penstock demo --mirror`: two regions on this machine, and where each byte came from."""
