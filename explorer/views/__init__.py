"""The views of the explorer, each over one :class:`explorer.session.Session`."""
