"""Labelled data: files, rows, what is learned of them and what is held out. No torch.

table         the one reader of product files
columns       which column of a file means what
description   dataset.toml: which files a data set has, and how they are read
events        lines of a products file as events
rows          labelled products
documents     a JSON or YAML file as a checked model
names         display names of groups and values
induce        a taxonomy from labelled data, and what of a taxonomy rows can teach
split         which rows teach, tune and test
variants      rows as other shops write them, for training
training_set  what a model learns from
targets       labels as a matrix
titles        titles with labelled spans
weak          spans of titles, labelled from a catalogue's columns
"""
