"""The streaming side of the components: their states, and what a step does with them."""
