"""How the schema became what it is; run by opening.py, a file a step in versions/. None of them is changed later."""
