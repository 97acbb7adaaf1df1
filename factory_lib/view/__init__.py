"""What notebooks show: queries, versions and reports as small pages of HTML, with the pictures that rows point at."""
