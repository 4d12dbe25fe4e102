"""At the edge: pieces of tfm inside other frameworks' models, and other people's formats."""
