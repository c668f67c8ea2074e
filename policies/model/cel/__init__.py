"""The rules' language: what of the Common Expression Language a rule may say, checked before anything runs."""
