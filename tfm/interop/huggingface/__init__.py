"""Models of Hugging Face: Marian, Pegasus, BART, mBART, M2M100 and NLLB-200, T5 and mT5."""
