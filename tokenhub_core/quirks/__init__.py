"""Named repairs for models and servers that differ from the dialect they speak; switched on per model."""
