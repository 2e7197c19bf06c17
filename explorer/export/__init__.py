"""What the page shows, as files: NetCDF, GeoTIFF, a figure for paper, a table, and the command that makes it."""
