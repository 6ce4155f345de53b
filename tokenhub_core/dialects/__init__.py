"""Wire formats: bytes in, values out. One module a dialect, readers and writers both; no module knows another."""
