"""The commands of `factory`, a module for each family of them."""
