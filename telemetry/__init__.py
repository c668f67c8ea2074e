"""What the programs say of themselves: names in one place, records, and logs that keep secrets to themselves."""
