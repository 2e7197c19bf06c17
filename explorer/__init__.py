"""The dashboard: what `panel serve explorer/app.py` opens."""
