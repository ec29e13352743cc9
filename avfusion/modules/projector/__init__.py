"""Windows of frames to embeddings of the language model, for whole clips and in streams."""
