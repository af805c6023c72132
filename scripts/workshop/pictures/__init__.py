"""The pictures of the templates, the help pages, the README, the registry and the demo."""
