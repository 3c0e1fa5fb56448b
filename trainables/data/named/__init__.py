"""The data sets that everybody knows by their names. Each module reads one kind of files."""
