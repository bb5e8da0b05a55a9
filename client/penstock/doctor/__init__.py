"""`penstock doctor`: facts gathered from every node, and what follows from them.

`facts` is what was found, `checks` are pure functions from facts to findings, `examine` gathers.
Printing is the command line's.
"""
