"""Files for clusters; a package only so that topics.yaml is installed with the rest."""
