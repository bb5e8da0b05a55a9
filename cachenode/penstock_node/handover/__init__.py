"""Hand-over: after a change of the placement, new owners take their chunks from those before."""
