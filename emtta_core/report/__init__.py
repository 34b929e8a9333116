"""The page on a run: what was found, as one HTML file that needs nothing else, and a server of such pages."""
