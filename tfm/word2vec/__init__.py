"""Word vectors: how an embedding matrix is learned from text alone, and what it then knows.

``model`` is CBOW and skip-gram as one loss, ``huffman`` the tree of the hierarchical softmax,
``step`` an update, ``corpus`` text as ids and batches, ``pace`` shorter steps for very frequent
words, ``training`` the loop, ``vectors`` the files, ``analysis`` neighbours, analogies and
similarity, ``align`` two languages' spaces made one, ``start`` a translator's tables begun from
vectors.
"""
