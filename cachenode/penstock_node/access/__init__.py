"""Who may do what: callers, their tokens and roles, and a record of what they did."""
