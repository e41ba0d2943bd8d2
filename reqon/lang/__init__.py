"""The mission language: text to checked parts."""
