"""What a query is: expressions and SELECTs, as data; and what is derived from them. Nothing runs here."""
