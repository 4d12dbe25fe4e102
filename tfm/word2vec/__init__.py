"""Word vectors (word2vec): how an embedding matrix is learned from text, and what it represents.

Learning: ``words`` splits text into words, ``corpus`` makes ids and batches of them, ``model``
has the losses of CBOW and skip-gram, ``huffman`` the tree of the hierarchical softmax,
``step_scale`` smaller steps for very frequent words, ``step`` an update, ``replicas`` copies that
learn in parallel, ``training`` the loop. Use: ``vectors`` reads and writes files, ``analysis`` has
neighbours, analogies and similarity, ``align`` maps one language's space to another's, ``tables``
initialises a translation model's embeddings.
"""
