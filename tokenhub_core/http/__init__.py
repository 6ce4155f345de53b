"""The HTTP front doors: the consumer API, the admin API, events and the admin pages."""
