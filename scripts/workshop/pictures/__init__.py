"""The pictures of the templates, the help pages, the README and the demo."""
