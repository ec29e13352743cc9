"""The causal Q-Former: its layers, its state in a stream, and what they attend to."""
