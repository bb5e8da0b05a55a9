"""`penstock demo`: a whole cluster on this machine, shown at work and measured."""
