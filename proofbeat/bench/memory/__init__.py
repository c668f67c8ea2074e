"""`bench memory`: what it takes to look into the code of real services, and how soon a patched page is found."""
