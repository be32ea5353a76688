"""Reading, checking and preparing datasets."""
