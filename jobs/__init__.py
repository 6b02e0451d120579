"""Recipes for `ray job submit`: each file is a flat program over the parts in tagstream/."""
