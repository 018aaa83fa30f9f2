"""Builds `pricing/catalogue.json`: python -m bench.catalogue --taken 2026-11-23 [--genai PATH] [--litellm PATH]

A PATH is a wheel or a directory of installed packages; without one, what is installed. `--taken` is the day on which
they were fetched. The same inputs make the same bytes. On standard output: where the two disagree, field by field.

Rule: prices come from genai-prices, whatever it lacks from the model table of litellm, and the latter's are taken
whole where the former matches a name only loosely and says something else. Windows, output limits and capabilities
come from litellm. What neither says stays unknown: litellm's 0 for a chat model is no price.

    sellers          who sells, what the two sources call them, and which of their models are wanted
    families         what follows from a model's name: its tokenizer, the terms of its prompt cache
    sources          litellm: rows of a table. genai: models of a package
    merge            one model out of what the two say of it
    folding          versions that say the same become one model
    builder          all models, and with `disagreements` where the two differ
"""
