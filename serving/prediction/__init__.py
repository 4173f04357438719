"""Tags of whole folders of photos, from the command line; see `serving.predict`."""
