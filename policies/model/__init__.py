"""The three kinds of document, and how they are read."""
